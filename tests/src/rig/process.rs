//! One server process: start, readiness, log, pause, stop, start again.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};
use tokio::time::{Instant, timeout_at};

use super::keeper::Badge;
use super::run::Run;

const POLL: Duration = Duration::from_millis(20);

/// More than any server takes to put its work away, also on a slow machine.
const STOP_GRACE: Duration = Duration::from_mins(1);

/// Everything runs on loopback, and no proxy leads there.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

const LOG_TAIL_LINES: usize = 30;

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Launch {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
}

/// A server that was started, and can be started again. Dropping it kills it, unless its run was detached.
pub struct Server {
    launch: Launch,
    log: PathBuf,
    run: Run,
    child: Mutex<Option<Child>>,
}

impl Launch {
    /// A launch of `program`; `name` names its log and appears in errors.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the working folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Starts the server as part of `run`.
    pub fn start(self, run: &Run) -> Result<Server> {
        let logs = run.logs();
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let log = logs.join(format!("{}.log", self.name));
        let server = Server {
            launch: self,
            log,
            run: run.clone(),
            child: Mutex::new(None),
        };
        server.start()?;
        Ok(server)
    }

    /// The command of one of the run's processes, out of reach of a Ctrl-C in the terminal.
    fn command(&self, badge: &Badge) -> Command {
        let mut command = badge.command(&self.program);
        for proxy in PROXIES {
            command.env_remove(proxy).env_remove(proxy.to_lowercase());
        }
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .process_group(0);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }
}

impl Server {
    /// The server's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// The file that takes what the server prints.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The process id, if the server was not stopped.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Starts the server again after it ended or was stopped, with the same arguments.
    pub fn start(&self) -> Result<()> {
        let mut child = self.child();
        if let Some(running) = child.as_mut()
            && running.try_wait()?.is_none()
        {
            bail!("{} is already running", self.name());
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let mut command = self.launch.command(&self.run.badge());
        command.stdout(log.try_clone()?).stderr(log);
        *child = Some(command.spawn().with_context(|| {
            format!(
                "start {} from {}",
                self.launch.name,
                self.launch.program.display()
            )
        })?);
        Ok(())
    }

    /// Waits until `probe` says yes. Ends at once, with the end of the log, if the server ends first.
    pub async fn ready<F: Future<Output = bool>>(
        &self,
        within: Duration,
        mut probe: impl FnMut() -> F,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            if timeout_at(deadline, probe()).await.unwrap_or_default() {
                return Ok(());
            }
            self.expect_running()?;
            if Instant::now() >= deadline {
                let seconds = within.as_secs();
                bail!(
                    "{} was not ready after {seconds} s; its log ends with:\n{}",
                    self.name(),
                    self.log_tail()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// How the server ended, if it did.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        self.child()
            .as_mut()
            .map_or(Ok(None), |child| Ok(child.try_wait()?))
    }

    /// Fails with the end of its log if the server has ended.
    pub fn expect_running(&self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended ({status}); its log ends with:\n{}",
                self.name(),
                self.log_tail()
            ),
        }
    }

    /// Asks the server to stop, and says how it ended. One that does not is killed in the end, and that is an error.
    pub async fn stop(&self) -> Result<ExitStatus> {
        if self.id().is_none() {
            bail!("{} is not running", self.name());
        }
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + STOP_GRACE;
        loop {
            if let Some(status) = self.ended()? {
                *self.child() = None;
                return Ok(status);
            }
            if Instant::now() >= deadline {
                self.kill()?;
                let seconds = STOP_GRACE.as_secs();
                bail!(
                    "{} did not stop within {seconds} s and was killed; its log ends with:\n{}",
                    self.name(),
                    self.log_tail()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills the server at once.
    pub fn kill(&self) -> Result<()> {
        if let Some(mut child) = self.child().take() {
            child.kill().with_context(|| format!("kill {}", self.name()))?;
            child
                .wait()
                .with_context(|| format!("wait for {}", self.name()))?;
        }
        Ok(())
    }

    /// Freezes the server: it keeps its connections and answers nothing.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen server go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // Holding the lock keeps the child unreaped, so its id cannot be another process's.
        let mut child = self.child();
        if let Some(child) = child.as_mut()
            && child.try_wait()?.is_none()
        {
            rustix::process::kill_process(Pid::from_child(child), signal)
                .with_context(|| format!("send {signal:?} to {}", self.name()))?;
        }
        Ok(())
    }

    /// The last lines of the log, for an error that a person reads.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let Ok(file) = File::open(&self.log) else {
            return String::from("(no log)");
        };
        let mut tail = VecDeque::with_capacity(LOG_TAIL_LINES);
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            if tail.len() == LOG_TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(format!("  {}", String::from_utf8_lossy(&line)));
        }
        Vec::from(tail).join("\n")
    }

    /// The whole log.
    pub fn read_log(&self) -> Result<String> {
        let log = fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.run.is_detached() {
            // The keeper tries again when the run ends.
            let _ = self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn no_proxy_of_the_user_is_handed_on() {
        let launch = Launch::new("a", "/bin/true").env("NO_PROXY", "127.0.0.1");
        let command = launch.command(&Badge::of(Path::new("/run")));
        let set = |name: &str| command.get_envs().find(|(variable, _)| *variable == name);
        for name in [
            "https_proxy",
            "HTTPS_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "no_proxy",
        ] {
            assert_eq!(set(name), Some((OsStr::new(name), None)), "{name}");
        }
        // What a server is given is its own.
        assert_eq!(
            set("NO_PROXY").and_then(|(_, value)| value),
            Some(OsStr::new("127.0.0.1"))
        );
    }
}
