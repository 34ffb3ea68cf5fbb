//! A small process that outlives its runner by a moment and leaves nothing of the run behind.
//!
//! The runner starts its own program again as keeper and holds a pipe to it. However the runner ends (normally,
//! by Ctrl-C, by a panic, by `kill -9`) the pipe closes; the keeper then kills every process of the run and
//! removes its folder. Processes are found by a variable in their environment, so neither a reused process id
//! nor a child that was started a moment ago, nor a child's child, is mistaken or missed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal};

/// Marks each process of a run with the run's folder.
const MARK: &str = "KEYWARD_RIG_RUN";

/// Tells a program that it was started as keeper, and of which folder.
const ROLE: &str = "KEYWARD_RIG_KEEPER_OF";

/// What the runner writes to let the run live on without it.
const RELEASE: &[u8] = b"release";

const FORGOTTEN: &str = "the first call of this program's main must be keeper::serve_if_asked";

/// A kill is answered in milliseconds; a process in the middle of a disk write may take longer.
const KILL_DEADLINE: Duration = Duration::from_secs(30);

/// What makes a process one of a run: whoever wears it, or was started by one who does, ends with the run.
#[derive(Clone, Debug)]
pub struct Badge {
    folder: PathBuf,
}

impl Badge {
    pub(super) fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// A command whose process will be one of the run.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env(MARK, &self.folder);
        command
    }
}

/// The runner's end of the pipe.
pub(super) struct Keeper {
    child: Child,
    pipe: Option<ChildStdin>,
}

/// Must be the first call of every program that starts a [`Run`](super::run::Run): if this process was started
/// as keeper, it does the keeper's work and exits.
pub fn serve_if_asked() {
    if let Some(folder) = std::env::var_os(ROLE) {
        let kept = keep(&PathBuf::from(folder));
        std::process::exit(i32::from(kept.is_err()));
    }
}

impl Keeper {
    /// Starts a keeper for `folder` and waits until it holds the folder's lock.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        // A program that forgets to serve would start itself without end.
        ensure!(
            std::env::var_os(ROLE).is_none(),
            "started as keeper, but went on: {FORGOTTEN}"
        );
        let program = std::env::current_exe().context("find the path of this program")?;
        let mut child = Command::new(&program)
            .env(ROLE, folder)
            .env_remove(MARK)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C reaches the group of the runner; the keeper has to survive it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {} as keeper", program.display()))?;
        let pipe = child.stdin.take();
        let mut word = [0];
        let ready = child
            .stdout
            .take()
            .is_some_and(|mut stdout| stdout.read_exact(&mut word).is_ok());
        ensure!(ready, "the keeper did not start: {FORGOTTEN}");
        Ok(Self { child, pipe })
    }

    /// Ends the run now and waits until nothing is left of it.
    pub(super) fn end(&mut self) {
        drop(self.pipe.take());
        // Its exit code says no more than the next start will find out.
        let _ = self.child.wait();
    }

    /// Lets the run live on.
    pub(super) fn release(mut self) -> Result<()> {
        if let Some(mut pipe) = self.pipe.take() {
            pipe.write_all(RELEASE)
                .context("release the run from its keeper")?;
        }
        self.child.wait().context("wait for the keeper")?;
        Ok(())
    }
}

fn keep(folder: &Path) -> Result<()> {
    let lock = File::create(lock_file(folder))?;
    lock.lock()?;
    std::io::stdout().write_all(b".")?;
    std::io::stdout().flush()?;

    let mut said = Vec::new();
    std::io::stdin().read_to_end(&mut said)?;
    if said == RELEASE { Ok(()) } else { clean(folder) }
}

/// The file whose lock says that a run has a living keeper.
pub(super) fn lock_file(folder: &Path) -> PathBuf {
    folder.join("keeper.lock")
}

/// Kills all processes of the run that owns `folder` and removes the folder.
pub(super) fn clean(folder: &Path) -> Result<()> {
    let deadline = Instant::now() + KILL_DEADLINE;
    loop {
        let left = processes(folder);
        if left.is_empty() {
            break;
        }
        for pid in &left {
            // It may have ended by itself meanwhile.
            let _ = rustix::process::kill_process(*pid, Signal::KILL);
        }
        ensure!(
            Instant::now() < deadline,
            "{} processes of {} do not die",
            left.len(),
            folder.display()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The living processes of the run that owns `folder`, and of runs whose folders lie in it.
#[must_use]
pub fn processes(folder: &Path) -> Vec<Pid> {
    let mark = format!("{MARK}={}", folder.display());
    let is_ours = |variable: &[u8]| {
        let rest = variable.strip_prefix(mark.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // Unreadable for other people's processes, empty for a zombie.
            let environment = fs::read(entry.path().join("environ")).ok()?;
            let marked = environment.split(|byte| *byte == 0).any(is_ours);
            if marked { Pid::from_raw(pid) } else { None }
        })
        .collect()
}
