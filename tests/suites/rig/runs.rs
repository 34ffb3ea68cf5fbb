//! Nothing is left of a run, however its runner ends.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::process::Launch;
use keyward_tests::rig::run::Run;
use keyward_tests::rig::{keeper, poll};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::signal::unix::{SignalKind, signal};

/// Makes this program a runner that waits to be ended, in the way that the value says.
const ROLE: &str = "KEYWARD_TEST_RUNNER";

const CLEAN_WITHIN: Duration = Duration::from_mins(1);

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        nothing_is_left_after_kill_9,
        nothing_is_left_after_ctrl_c,
        nothing_is_left_after_a_panic,
        the_next_start_cleans_up_after_a_killed_keeper,
        the_end_of_the_log_tells_why_a_server_ended,
        a_paused_server_answers_later,
    );
}

/// Plays the runner, if this program was started as one: starts servers, says where, and waits.
pub(crate) fn serve_if_asked() -> Result<()> {
    let Some(role) = std::env::var_os(ROLE) else {
        return Ok(());
    };
    // A program that was started in the background ignores SIGINT from birth, and so do its children: a handler makes
    // it end as a runner at a terminal does.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut interrupt = runtime.block_on(async { signal(SignalKind::interrupt()) })?;
    let run = Run::start()?;
    // A server that has children, which only the mark in their environment gives away: one of this run, and one of a run
    // whose folder lies in this one's, as of a demo that a suite has left running.
    let _server = Launch::new("sleeper", "/bin/sh")
        .args([
            "-c",
            "sleep 600 & KEYWARD_RIG_RUN=$KEYWARD_RIG_RUN/home/runs/demo sleep 600 & wait",
        ])
        .start(&run)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", run.folder().display())?;
    stdout.flush()?;
    assert!(role != "panic", "this runner was told to panic");
    runtime.block_on(interrupt.recv());
    // Without unwinding: what is left behind is the keeper's to clean up.
    std::process::exit(130)
}

async fn nothing_is_left_after_kill_9(case: Case) -> Result<()> {
    let mut runner = Runner::start(&case, "wait").await?;
    runner.signal(Signal::KILL)?;
    runner.expect_nothing_left().await
}

async fn nothing_is_left_after_ctrl_c(case: Case) -> Result<()> {
    let mut runner = Runner::start(&case, "wait").await?;
    runner.signal(Signal::INT)?;
    runner.expect_nothing_left().await
}

async fn nothing_is_left_after_a_panic(case: Case) -> Result<()> {
    Runner::start(&case, "panic").await?.expect_nothing_left().await
}

async fn the_next_start_cleans_up_after_a_killed_keeper(case: Case) -> Result<()> {
    let mut runner = Runner::start(&case, "wait").await?;
    let keeper = format!("KEYWARD_RIG_KEEPER_OF={}", runner.folder.display());
    for keeper in processes_with(&keeper) {
        rustix::process::kill_process(keeper, Signal::KILL)?;
    }
    let dead = async || processes_with(&keeper).is_empty();
    poll::until("the keeper to die", CLEAN_WITHIN, dead).await?;
    runner.signal(Signal::KILL)?;
    runner.child.wait().await?;
    assert!(runner.folder.exists(), "without its keeper the run is left over");

    let mut next = Runner::start_in(&case, runner.cache.clone(), "wait").await?;
    runner.expect_nothing_left().await?;
    next.signal(Signal::KILL)?;
    next.expect_nothing_left().await
}

async fn the_end_of_the_log_tells_why_a_server_ended(case: Case) -> Result<()> {
    let server = Launch::new(case.unique(), "/bin/sh")
        .args(["-c", "echo the port is taken; exit 3"])
        .start(case.run().await?)?;
    let error = server
        .ready(CLEAN_WITHIN, async || false)
        .await
        .expect_err("a server that ended cannot become ready")
        .to_string();
    assert!(
        error.contains("exit status: 3") && error.contains("the port is taken"),
        "{error}"
    );
    Ok(())
}

async fn a_paused_server_answers_later(case: Case) -> Result<()> {
    let vault = case.private_vault().await?;
    vault.pause()?;
    let answer = tokio::time::timeout(Duration::from_millis(300), vault.api().seal_status()).await;
    assert!(answer.is_err(), "a paused server must not answer");
    vault.resume()?;
    vault.api().seal_status().await?;
    Ok(())
}

/// This program, started again as the runner of some servers.
struct Runner {
    /// A cache folder of its own: whoever starts a run in the common one cleans up what was left there.
    cache: PathBuf,
    child: tokio::process::Child,
    folder: PathBuf,
}

impl Runner {
    async fn start(case: &Case, role: &str) -> Result<Self> {
        Self::start_in(case, case.run().await?.subfolder(&case.unique())?, role).await
    }

    async fn start_in(case: &Case, cache: PathBuf, role: &str) -> Result<Self> {
        let badge = case.run().await?.badge();
        let mut child = tokio::process::Command::from(badge.command(std::env::current_exe()?))
            .env(ROLE, role)
            .env("KEYWARD_CACHE", &cache)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut folder = String::new();
        BufReader::new(child.stdout.take().context("stdout was piped")?)
            .read_line(&mut folder)
            .await?;
        let folder = PathBuf::from(folder.trim_end());
        if role == "wait" {
            let all = async || keeper::processes(&folder).len() == 3;
            poll::until("the server and its children to run", CLEAN_WITHIN, all).await?;
        }
        Ok(Self { cache, child, folder })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .context("the runner runs")?;
        Ok(rustix::process::kill_process(id, signal)?)
    }

    async fn expect_nothing_left(&mut self) -> Result<()> {
        tokio::time::timeout(CLEAN_WITHIN, self.child.wait())
            .await
            .context("the runner did not end")??;
        poll::until("the run to be gone", CLEAN_WITHIN, async || {
            !self.folder.exists() && keeper::processes(&self.folder).is_empty()
        })
        .await
    }
}

/// The processes that have a variable in their environment.
pub(crate) fn processes_with(variable: &str) -> Vec<Pid> {
    let Ok(all) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.flatten()
        .filter(|entry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|one| one == variable.as_bytes())
        })
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}
