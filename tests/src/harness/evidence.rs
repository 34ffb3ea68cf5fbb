//! What is shown of a test that failed, beside its message: the ends of the logs that tell why.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// How much of the end of each log is shown, in bytes. A test of many steps has two or three.
const TAIL: u64 = 5_000;

/// How the names of the logs of shared servers begin.
const SHARED: [&str; 4] = ["kubernetes-", "openbao.", "openstack-", "vault."];

/// What is said in the best of health.
const NOISE: [&str; 8] = [
    "event broker has not been started",
    "[INFO]",
    "password to",
    // Controllers that meet what they have just written.
    "is not as new as written version",
    "failed to apply stage",
    "Post-timeout activity",
    "{\"level\":\"warn\"",
    "\"level\":\"INFO\",\"source\"",
];

/// How long the logs were when a test began.
pub(super) struct Logs {
    lengths: BTreeMap<PathBuf, u64>,
}

/// What a panic said.
pub(super) fn of_panic(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("test panicked: {}", text.unwrap_or("without a word"))
}

impl Logs {
    /// The logs in `folder` as they are now; none where there is no folder yet.
    pub(super) fn of(folder: Option<&Path>) -> Self {
        let entries = folder.and_then(|folder| fs::read_dir(folder).ok());
        let lengths = entries.into_iter().flatten().flatten();
        let lengths = lengths.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())));
        Self {
            lengths: lengths.collect(),
        }
    }

    /// The ends of what was added until `now`: to the logs whose names begin with `stem`, which are the test's own, and
    /// to those of shared servers.
    pub(super) fn told(&self, now: &Self, stem: &str) -> String {
        let added = now.lengths.iter().filter_map(|(log, length)| {
            let name = log.file_name()?.to_string_lossy();
            if !name.starts_with(stem) && !SHARED.iter().any(|shared| name.starts_with(shared)) {
                return None;
            }
            let before = self.lengths.get(log).copied().unwrap_or_default();
            let text = tail(log, before, length.saturating_sub(TAIL))?;
            (!text.is_empty()).then(|| format!("\n--- the end of {name} ---\n{text}"))
        });
        added.collect()
    }
}

/// What comes after `before`, but not much: of a line in which the end of that length begins, nothing is shown.
fn tail(log: &Path, before: u64, end: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(before.max(end))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let whole = tail.iter().position(|byte| *byte == b'\n');
    if let Some(whole) = whole.filter(|_| end > before) {
        tail.drain(..=whole);
    }
    let tail = String::from_utf8_lossy(&tail);
    let is_news = |line: &&str| !is_chatter(line) && !NOISE.iter().any(|noise| line.contains(noise));
    Some(tail.lines().filter(is_news).collect::<Vec<_>>().join("\n"))
}

/// What a program of Kubernetes says below the level of an error: such a line begins with the level's letter and the date.
fn is_chatter(line: &str) -> bool {
    let mut letters = line.chars();
    letters.next().is_some_and(|level| level == 'I' || level == 'W')
        && letters.take(4).filter(char::is_ascii_digit).count() == 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_to_the_test_s_own_logs_and_to_shared_ones_is_shown_by_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let now = || Logs::of(Some(folder.path()));
        write("openstack-barbican.log", "before\n");
        write("openstack-keystone.log", "before\n");
        write("kubernetes-etcd.log", "");
        let before = now();
        write(
            "a-test-2-operator.log",
            &format!("{}\n{}\nthe end\n", "x".repeat(6_000), "y".repeat(4_000)),
        );
        write("another-test-2.log", "of another");
        write(
            "openstack-barbican.log",
            &format!("before\n{}\nlocked\n", NOISE[0]),
        );
        write(
            "kubernetes-etcd.log",
            "I1129 1 served\nW1129 2 was slow\nE1129 3 lost its disk\n",
        );
        let told = before.told(&now(), "a-test");
        let (own, shared) = told.split_once("y\nthe end\n").unwrap();
        assert!(own.starts_with("\n--- the end of a-test-2-operator.log ---\nyyy"));
        assert_eq!(
            shared,
            "--- the end of kubernetes-etcd.log ---\nE1129 3 lost its disk\
             \n--- the end of openstack-barbican.log ---\nlocked"
        );
        assert!(told.len() < 6_000);
        assert_eq!(Logs::of(None).told(&Logs::of(None), "a-test"), "");
    }

    #[test]
    fn a_panic_is_shown_with_its_words() {
        let panic = std::panic::catch_unwind(|| panic!("{} words", 2)).unwrap_err();
        assert_eq!(of_panic(panic.as_ref()), "test panicked: 2 words");
    }
}
