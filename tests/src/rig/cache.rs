//! The user's cache: things that take long to make, made once and kept by a digest of what they were made of.
//!
//! An entry appears by one rename, so whoever sees it sees all of it. Builds run one at a time on a machine,
//! under a file lock that the system releases when its holder dies; what a killed build left is thrown away.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::progress::Progress;

/// The cache folder: `$KEYWARD_CACHE`, or `keyward` in `$XDG_CACHE_HOME` or `~/.cache`.
pub fn root() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let root = set("KEYWARD_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("keyward")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/keyward")))
        .context("no cache folder: set KEYWARD_CACHE to a folder that may hold a few gigabytes")?;
    // What is started from here has other working folders.
    let root = std::path::absolute(&root).context("find the cache folder")?;
    fs::create_dir_all(&root).with_context(|| format!("create the cache folder {}", root.display()))?;
    Ok(root)
}

/// The folder that `build` made from `inputs`, made now if no earlier call did.
///
/// `inputs` are all that the result depends on, each with a label; operating system and architecture are
/// added. `build` fills the folder that it is given. Blocks, for minutes if it must build.
pub fn provide(
    name: &str,
    inputs: &[(&str, &[u8])],
    build: impl FnOnce(&Path, &Progress) -> Result<()>,
) -> Result<PathBuf> {
    provide_in(&servers()?, name, inputs, build)
}

/// Whether there is nothing left to build.
pub fn has(name: &str, inputs: &[(&str, &[u8])]) -> Result<bool> {
    Ok(entry(&servers()?, name, inputs).is_dir())
}

fn servers() -> Result<PathBuf> {
    let servers = root()?.join("servers");
    fs::create_dir_all(&servers).with_context(|| format!("create {}", servers.display()))?;
    Ok(servers)
}

fn entry(servers: &Path, name: &str, inputs: &[(&str, &[u8])]) -> PathBuf {
    servers.join(format!("{name}-{}", digest(inputs)))
}

fn provide_in(
    servers: &Path,
    name: &str,
    inputs: &[(&str, &[u8])],
    build: impl FnOnce(&Path, &Progress) -> Result<()>,
) -> Result<PathBuf> {
    static ONE_BUILD: Mutex<()> = Mutex::new(());

    let entry = entry(servers, name, inputs);
    if entry.is_dir() {
        return Ok(entry);
    }
    let _in_this_process = ONE_BUILD.lock().unwrap_or_else(PoisonError::into_inner);
    let _on_this_machine = lock(&servers.join("build.lock"), name)?;
    if entry.is_dir() {
        return Ok(entry);
    }
    remove_leftovers(servers)?;
    // A killed build may have a child that still writes to its folder.
    let staging = servers.join(format!(".{name}-{}{STAGING}", uuid::Uuid::new_v4().simple()));
    fs::create_dir(&staging).with_context(|| format!("create {}", staging.display()))?;
    let progress = Progress::start(name);
    build(&staging, &progress)?;
    fs::rename(&staging, &entry).with_context(|| format!("put {} in place", entry.display()))?;
    progress.done();
    Ok(entry)
}

/// How the names of folders end that are being filled.
const STAGING: &str = ".staging";

/// Throws away what killed builds left. To be called under the lock: then nobody fills any.
fn remove_leftovers(servers: &Path) -> Result<()> {
    for entry in fs::read_dir(servers).with_context(|| format!("list {}", servers.display()))? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().ends_with(STAGING.as_bytes()) {
            let folder = entry.path();
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Takes the lock, saying so if another process has to finish first.
fn lock(path: &Path, name: &str) -> Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let waiting = Progress::start(name);
            waiting.say("waiting for the build of another process");
            file.lock().with_context(|| format!("lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", path.display()));
        }
    }
    Ok(file)
}

/// Twelve hexadecimal digits: enough to tell entries apart, short enough to read.
fn digest(inputs: &[(&str, &[u8])]) -> String {
    let mut hash = Sha256::new();
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let mut add = |label: &str, bytes: &[u8]| {
        // Lengths keep two lists of inputs apart that would read the same end to end.
        for part in [label.as_bytes(), bytes] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    };
    add("platform", platform.as_bytes());
    for (label, bytes) in inputs {
        add(label, bytes);
    }
    let hash = hash.finalize();
    let first = hash.first_chunk::<6>().expect("SHA-256 is 32 bytes long");
    first
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn an_entry_is_built_once_however_many_ask() {
        let servers = tempfile::tempdir().unwrap();
        let built = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let entry = provide_in(servers.path(), "thing", &[("a", b"1")], |staging, _| {
                        built.fetch_add(1, Ordering::SeqCst);
                        Ok(fs::write(staging.join("file"), "whole")?)
                    });
                    assert_eq!(fs::read_to_string(entry.unwrap().join("file")).unwrap(), "whole");
                });
            }
        });
        assert_eq!(built.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_build_that_failed_or_was_killed_leaves_no_entry() {
        let servers = tempfile::tempdir().unwrap();
        let inputs: &[(&str, &[u8])] = &[("a", b"1")];
        let failed = provide_in(servers.path(), "thing", inputs, |staging, _| {
            fs::write(staging.join("half"), "")?;
            anyhow::bail!("stopped half way")
        });
        assert!(format!("{:#}", failed.unwrap_err()).contains("stopped half way"));
        assert_eq!(
            folders(servers.path()).len(),
            1,
            "what a killed build leaves behind"
        );

        let entry = provide_in(servers.path(), "thing", inputs, |staging, _| {
            Ok(fs::write(staging.join("file"), "whole")?)
        })
        .unwrap();
        assert!(!entry.join("half").exists() && entry.join("file").exists());
        assert_eq!(folders(servers.path()), [entry]);
    }

    fn folders(parent: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    }

    #[test]
    fn the_digest_sees_every_input_and_where_it_ends() {
        let all = [
            digest(&[("a", b"1"), ("b", b"2")]),
            digest(&[("a", b"1"), ("b", b"3")]),
            digest(&[("a", b"1")]),
            digest(&[("a", b"1b2")]),
            digest(&[("a1", b"")]),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(all[0], digest(&[("a", b"1"), ("b", b"2")]));
    }
}
