//! The machine that a run was made on, and how busy it was.

use std::fs;

use serde::{Deserialize, Serialize};

/// Where a run was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The model of the processor.
    pub processor: String,
    /// How many cores this process may use.
    pub cores: usize,
    /// Main memory in GiB.
    pub memory_gib: f64,
    /// The kernel's version.
    pub kernel: String,
    /// The load of the last 1, 5 and 15 minutes before the run began: above zero, others were at work.
    pub load_before: [f64; 3],
}

impl Machine {
    /// This machine now. What cannot be read is empty or zero.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            processor: processor_in(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_in(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load_in(&read("/proc/loadavg")),
        }
    }
}

fn processor_in(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim())
    });
    model.unwrap_or_default().to_owned()
}

fn memory_in(meminfo: &str) -> f64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    (kibibytes.unwrap_or_default() / 1024.0 / 1024.0 * 10.0).round() / 10.0
}

fn load_in(loadavg: &str) -> [f64; 3] {
    let mut load = loadavg.split(' ').map(|field| field.parse().unwrap_or_default());
    std::array::from_fn(|_| load.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_understood() {
        assert_eq!(
            processor_in("processor\t: 0\nmodel name\t: Fast 9000\n"),
            "Fast 9000"
        );
        assert!((memory_in("MemTotal:       24656336 kB\nMemFree: 1 kB") - 23.5).abs() < 1e-9);
        let load = load_in("0.12 0.34 1.50 2/300 4242\n").map(|load| format!("{load:.2}"));
        assert_eq!(load, ["0.12", "0.34", "1.50"]);
        assert_eq!(processor_in(""), "");
    }
}
