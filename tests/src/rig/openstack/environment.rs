//! The Python environment that Keystone and Barbican run in: every package pinned and checked by its hash.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::rig::cache;
use crate::rig::keeper::Badge;
use crate::rig::progress::Progress;

const LOCK: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/servers/openstack/requirements.lock"
));

/// Names a Python to use instead of one on `PATH`.
const VARIABLE: &str = "TEST_ASSET_PYTHON";

/// The newest first of what the lock was made for: all of them have a built package of everything.
const ON_PATH: [&str; 4] = ["python3", "python3.13", "python3.12", "python3.11"];
const FITTING: std::ops::RangeInclusive<(u32, u32)> = (3, 11)..=(3, 13);

/// Asks a Python who it is, and whether it can make an environment.
const WHO_ARE_YOU: &str = "import ensurepip, os, sys, venv\n\
                           print('%d.%d.%d' % sys.version_info[:3], os.path.realpath(sys.executable))";

const COMPLAINT_LINES: usize = 20;

/// An environment with all packages installed.
pub(super) struct Environment {
    folder: PathBuf,
}

impl Environment {
    /// The environment from the cache, made now by processes that wear `badge` if there is none. Blocks, for a minute
    /// if it must be made.
    pub(super) fn provide(badge: &Badge) -> Result<Self> {
        let python = Python::find()?;
        let inputs = [
            ("requirements.lock", LOCK.as_bytes()),
            ("python", python.described.as_bytes()),
        ];
        let entry = cache::provide("openstack", &inputs, |staging, progress| {
            make(&python, staging, progress, badge)
        })?;
        Ok(Self { folder: entry })
    }

    /// The interpreter, for which all packages are importable.
    pub(super) fn python(&self) -> PathBuf {
        self.folder.join("venv/bin/python")
    }

    /// What tells this environment from any other.
    pub(super) fn identity(&self) -> &str {
        let name = self.folder.file_name().and_then(|name| name.to_str());
        name.expect("a cache entry is named by us, in ASCII")
    }

    /// A folder that may keep what makes later starts faster.
    pub(super) fn warm_files(&self) -> PathBuf {
        self.folder.join("warm")
    }
}

/// The true path of the Python that an environment is made of; how to get one where there is none.
pub(super) fn look_for_python() -> Result<PathBuf> {
    Python::find().map(|python| python.true_path())
}

/// An interpreter of the machine.
struct Python {
    program: PathBuf,
    /// Its version and true path. An environment refers to that path.
    described: String,
}

impl Python {
    fn find() -> Result<Self> {
        if let Some(program) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            let program = PathBuf::from(program);
            return Self::ask(&program).with_context(|| format!("{VARIABLE} is set"));
        }
        let mut refusals = Vec::new();
        for name in ON_PATH {
            match Self::ask(Path::new(name)) {
                Ok(python) => return Ok(python),
                Err(refusal) => refusals.push(format!("  {refusal:#}")),
            }
        }
        bail!(
            "no fitting Python: Keystone and Barbican need CPython 3.11, 3.12 or 3.13 with its venv module. Install \
             it (on Debian and Ubuntu: apt install python3 python3-venv) or set {VARIABLE} to its path. Tried:\n{}",
            refusals.join("\n")
        )
    }

    fn true_path(&self) -> PathBuf {
        let path = self.described.split_once(' ').map_or("", |(_, path)| path);
        PathBuf::from(path.trim_end())
    }

    fn ask(program: &Path) -> Result<Self> {
        let shown = program.display();
        let answer = Command::new(program).args(["-c", WHO_ARE_YOU]).output();
        let answer = answer.with_context(|| format!("start {shown}"))?;
        let complaint = String::from_utf8_lossy(&answer.stderr);
        ensure!(
            answer.status.success(),
            "{shown} cannot make environments: {}",
            complaint.lines().last().unwrap_or("no reason given")
        );
        let described = String::from_utf8(answer.stdout).context("read what Python says of itself")?;
        ensure!(is_fitting(&described), "{shown} is Python {}", described.trim());
        Ok(Self {
            program: program.to_owned(),
            described,
        })
    }
}

fn is_fitting(described: &str) -> bool {
    let mut numbers = described.split('.').map_while(|number| number.parse().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return false;
    };
    FITTING.contains(&(major, minor))
}

fn make(python: &Python, staging: &Path, progress: &Progress, badge: &Badge) -> Result<()> {
    progress.say("making a Python environment");
    let venv = staging.join("venv");
    let made = badge
        .command(&python.program)
        .args(["-m", "venv"])
        .arg(&venv)
        .output();
    let made = made.with_context(|| format!("start {}", python.program.display()))?;
    ensure!(
        made.status.success(),
        "python -m venv failed ({}): {}",
        made.status,
        String::from_utf8_lossy(&made.stdout)
    );
    std::fs::create_dir(staging.join("warm")).context("create a folder beside the environment")?;
    let lock = staging.join("requirements.lock");
    std::fs::write(&lock, LOCK).context("write the list of packages")?;
    install(&venv.join("bin/python"), &lock, progress, badge)
}

fn install(python: &Path, lock: &Path, progress: &Progress, badge: &Badge) -> Result<()> {
    let mut pip = badge
        .command(python)
        .args(["-m", "pip", "install", "--no-input", "--progress-bar=off"])
        // Everything is in the list, so nothing else may come in, and nothing is compiled here.
        .args([
            "--require-hashes",
            "--no-deps",
            "--only-binary=:all:",
            "--requirement",
        ])
        .arg(lock)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // One stream, so that a full pipe of complaints cannot block the other.
        .stderr(Stdio::inherit())
        .spawn()
        .context("start pip")?;
    let total = LOCK.lines().filter(|line| line.contains("==")).count();
    let mut collected = 0;
    let mut last = VecDeque::with_capacity(COMPLAINT_LINES);
    let output = pip.stdout.take().expect("stdout was piped");
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if line.starts_with("Collecting ") {
            collected += 1;
            progress.step(collected, total, "packages");
        } else if line.starts_with("Installing ") {
            progress.say("installing the packages");
        }
        if last.len() == COMPLAINT_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = pip.wait().context("wait for pip")?;
    if !status.success() {
        bail!("pip install failed ({status}):\n{}", Vec::from(last).join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pythons_that_the_lock_was_made_for_fit() {
        for (described, fitting) in [
            ("3.10.13 /usr/bin/python3.10\n", false),
            ("3.11.2 /usr/bin/python3.11\n", true),
            ("3.13.0 /usr/bin/python3.13\n", true),
            ("3.14.0 /usr/bin/python3.14\n", false),
            ("", false),
        ] {
            assert_eq!(is_fitting(described), fitting, "{described}");
        }
    }

    #[test]
    fn every_package_is_pinned_and_has_a_hash_and_no_address() {
        let pins = LOCK
            .lines()
            .filter(|line| !line.starts_with([' ', '#']) && !line.is_empty());
        for pin in pins {
            assert!(pin.contains("==") && pin.ends_with('\\'), "{pin}");
        }
        assert!(LOCK.matches("--hash=sha256:").count() > 500);
        assert!(!LOCK.contains("://") && !LOCK.contains("index-url"));
    }
}
