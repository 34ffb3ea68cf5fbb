//! A cache folder of a test's own, for what the programs `rig` and `demo` do at a shell.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Result, ensure};
use keyward_tests::harness::Case;
use keyward_tests::rig::cache;
use keyward_tests::rig::keeper::{self, Badge};
use rustix::process::Pid;
use tokio::process::Command;

const RIG: &str = env!("CARGO_BIN_EXE_rig");
const DEMO: &str = env!("CARGO_BIN_EXE_demo");

/// It lies in the run of the suites. So whatever is left running here, by intent or not, ends with them.
pub struct Home {
    cache: PathBuf,
    badge: Badge,
}

impl Home {
    /// A folder in which nothing is built yet.
    pub async fn empty(case: &Case) -> Result<Self> {
        let run = case.run().await?;
        let cache = run.subfolder(&case.unique())?;
        fs::create_dir(cache.join("servers"))?;
        let badge = run.badge();
        Ok(Self { cache, badge })
    }

    /// A folder in which everything is built that the shared servers were built of, but for programs that are called so.
    pub async fn built_without(case: &Case, left_out: &[&str]) -> Result<Self> {
        tokio::try_join!(case.kubernetes(), case.openstack(), case.vault())?;
        let home = Self::empty(case).await?;
        for built in folders(&cache::root()?.join("servers")) {
            let name = built.file_name().unwrap_or_default();
            let is = |program: &&str| name.to_string_lossy().starts_with(&format!("{program}-"));
            if !left_out.iter().any(is) {
                symlink(&built, home.servers().join(name))?;
            }
        }
        Ok(home)
    }

    /// The same without an exception: who starts servers here builds nothing.
    pub async fn built(case: &Case) -> Result<Self> {
        Self::built_without(case, &[]).await
    }

    /// `rig` with an argument.
    pub fn rig(&self, argument: &str) -> Command {
        let mut command = self.command(RIG);
        command.arg(argument);
        command
    }

    /// `demo` with arguments.
    pub fn demo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(DEMO);
        command.args(arguments);
        command
    }

    /// A program that sees this folder as its cache, and is killed with the test.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::from(self.badge.command(program));
        command
            .env("KEYWARD_CACHE", &self.cache)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// The folder of what is built.
    pub fn servers(&self) -> PathBuf {
        self.cache.join("servers")
    }

    /// What was built here: it is no link.
    pub fn built_here(&self) -> Vec<PathBuf> {
        let mut built = folders(&self.servers());
        built.retain(|folder| !folder.is_symlink());
        built
    }

    /// The folder of runs.
    pub fn runs(&self) -> PathBuf {
        self.cache.join("runs")
    }

    /// The processes of all runs that ever were here, also of those whose folder is gone.
    pub fn processes(&self) -> Vec<Pid> {
        keeper::processes(&self.runs())
    }

    /// Neither processes nor folders of runs.
    pub fn expect_nothing_left(&self) -> Result<()> {
        let processes = self.processes();
        ensure!(processes.is_empty(), "processes are left: {processes:?}");
        let left = folders(&self.runs());
        ensure!(left.is_empty(), "{left:?} is left");
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What a test that failed has left running would cost the others their time.
        for (program, argument) in [(RIG, "down"), (DEMO, "--stop")] {
            let mut end = std::process::Command::new(program);
            end.arg(argument).env("KEYWARD_CACHE", &self.cache);
            // The run of the suites has the last word.
            let _ = end.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// What a program said that succeeded.
pub fn success(output: Output) -> Result<String> {
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "{}:\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}
