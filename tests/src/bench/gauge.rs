//! What a process has used, as the kernel counts it.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};

/// Parts of a second in which Linux tells user space about CPU time, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Bytes of a MiB.
const MIB: f64 = 1024.0 * 1024.0;

/// The memory of a process, in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// What is in memory now.
    pub resident: f64,
    /// The most that ever was.
    pub peak: f64,
    /// The part that is in no file: heap and stacks.
    pub anonymous: f64,
    /// The part that no other process shares.
    pub private: f64,
}

/// The memory of the process with this id.
pub fn memory(process: u32) -> Result<Memory> {
    let status = read(process, "status")?;
    let rollup = read(process, "smaps_rollup")?;
    let of =
        |text: &str, names: &[&str]| -> Result<f64> { names.iter().map(|name| kibibytes(text, name)).sum() };
    Ok(Memory {
        resident: of(&status, &["VmRSS"])?,
        peak: of(&status, &["VmHWM"])?,
        anonymous: of(&rollup, &["Anonymous"])?,
        private: of(&rollup, &["Private_Clean", "Private_Dirty"])?,
    })
}

/// The CPU time that the process with this id has used so far, in seconds.
pub fn cpu(process: u32) -> Result<f64> {
    cpu_in(&read(process, "stat")?).context("a stat file has no times")
}

/// How many TCP connections the process with this id has open.
pub fn connections(process: u32) -> Result<usize> {
    let folder = format!("/proc/{process}/fd");
    let mut own = BTreeSet::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        // A descriptor that was closed meanwhile is no connection.
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        own.extend(socket_in(&target.to_string_lossy()));
    }
    let mut count = 0;
    for table in ["net/tcp", "net/tcp6"] {
        let table = read(process, table)?;
        count += established(&table).filter(|socket| own.contains(socket)).count();
    }
    Ok(count)
}

/// The number of the socket that a descriptor leads to: `socket:[123]`.
fn socket_in(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The sockets of a table of TCP connections that are established.
fn established(table: &str) -> impl Iterator<Item = u64> {
    const STATE: usize = 3;
    const SOCKET: usize = 9;
    table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (*fields.get(STATE)? == "01").then_some(())?;
        fields.get(SOCKET)?.parse().ok()
    })
}

fn read(process: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{process}/{file}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// The value of a line `Name:  123 kB`, in MiB.
fn kibibytes(text: &str, name: &str) -> Result<f64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    let kibibytes = value.with_context(|| format!("no line {name}"))?;
    Ok(kibibytes * 1024.0 / MIB)
}

/// User and system time of a line of `/proc/<pid>/stat`. The name of the program may hold spaces and brackets.
fn cpu_in(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "4242 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 1234";
        assert!((cpu_in(stat).unwrap() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn only_established_connections_count() {
        assert_eq!(socket_in("socket:[77]"), Some(77));
        assert_eq!(socket_in("/dev/null"), None);
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
            \x20  1: 0100007F:4E20 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 12 1\n";
        assert_eq!(established(table).collect::<Vec<_>>(), [12]);
    }

    #[test]
    fn memory_is_read_in_mebibytes() {
        let text = "VmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        assert!((kibibytes(text, "VmRSS").unwrap() - 10.0).abs() < 1e-9);
        assert!(kibibytes(text, "Anonymous").is_err());
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.resident > 1.0 && memory.peak >= memory.anonymous);
        assert!(cpu(std::process::id()).unwrap() >= 0.0);
    }
}
