//! What is shown of a test that failed, beside its message: the ends of the logs that tell why.

use std::any::Any;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// How much of the end of each log is shown, in bytes. A test of many steps has two or three.
const TAIL: u64 = 6_000;

/// Logs of shared servers that are short enough to say something, by the start of their names.
const SHARED: [&str; 3] = ["openstack-", "vault", "openbao"];

/// What Vault says of each write, of a part that it was built without.
const NOISE: &str = "event broker has not been started";

/// What a panic said.
pub(super) fn of_panic(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("test panicked: {}", text.unwrap_or("without a word"))
}

/// The ends of the logs in `folder` of the test whose names begin with `stem`, and of the shared servers.
pub(super) fn of_logs(folder: &Path, stem: &str) -> String {
    let Ok(entries) = fs::read_dir(folder) else {
        return String::new();
    };
    let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    logs.sort();
    let wanted = logs.iter().filter(|log| {
        let name = log.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(stem) || SHARED.iter().any(|shared| name.starts_with(shared))
    });
    wanted.filter_map(|log| shown(log)).collect()
}

fn shown(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let told: Vec<_> = tail.lines().filter(|line| !line.contains(NOISE)).collect();
    let name = log.file_name()?.to_string_lossy();
    Some(format!("\n--- the end of {name} ---\n{}", told.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_s_own_logs_and_those_of_shared_servers_are_shown_by_their_ends() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write(
            "a-test-2-operator.log",
            &format!("{}the end\n", "x".repeat(10_000)),
        );
        write("another-test-2.log", "of another");
        write("openstack-barbican.log", &format!("{NOISE}\nlocked\n"));
        let shown = of_logs(folder.path(), "a-test");
        assert!(shown.contains("a-test-2-operator.log ---\nxxx") && shown.contains("xxxthe end\n---"));
        assert!(shown.ends_with("openstack-barbican.log ---\nlocked"), "{shown}");
        assert!(!shown.contains("of another") && shown.len() < 7_000);
    }

    #[test]
    fn a_panic_is_shown_with_its_words() {
        let panic = catch(|| panic!("{} words", 2));
        assert_eq!(of_panic(panic.as_ref()), "test panicked: 2 words");
    }

    fn catch(job: impl FnOnce() + std::panic::UnwindSafe) -> Box<dyn Any + Send> {
        std::panic::catch_unwind(job).unwrap_err()
    }
}
