//! Keeps the long tasks of the process together: when one ends, all end, with its reason.
//!
//! A task that dies alone would leave a process that looks alive and does half its work. Shutdown is asked for by
//! SIGTERM, SIGINT or the first task that ends. After a signal, work is finished within a bounded time; after a failure
//! it is dropped where it stands, because the lease may be another's by now. Then what serves the work ends, such as the
//! lease that must not be given up before the work has stopped; it is watched until then.

use std::fmt;
use std::future::pending;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long what serves the work may take to end.
const DRAIN_LAST: Duration = Duration::from_secs(5);

type TaskResult = Result<(), anyhow::Error>;

/// Long tasks by name.
pub struct Supervisor {
    work: Stage,
    last: Stage,
    drain: Duration,
    terminate: Signal,
    interrupt: Signal,
}

/// Why the process ended.
#[derive(Debug)]
pub enum Ended {
    /// It was asked to.
    Signal(&'static str),
    /// A task ended that should not have.
    Task {
        /// Which.
        name: &'static str,
        /// What it gave as its reason.
        reason: String,
    },
}

impl Supervisor {
    /// No tasks yet. When the process is asked to end, work has `drain` to end by itself.
    ///
    /// # Errors
    ///
    /// The signal handlers cannot be installed.
    pub fn new(drain: Duration) -> std::io::Result<Self> {
        Ok(Self {
            work: Stage::default(),
            last: Stage::default(),
            drain,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Cancelled when the work is to end. Tasks of [`Supervisor::spawn_draining`] watch it and return.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.work.stop.clone()
    }

    /// Cancelled once all work has ended. Tasks of [`Supervisor::spawn_last`] watch it and return.
    #[must_use]
    pub fn work_ended(&self) -> CancellationToken {
        self.last.stop.clone()
    }

    /// Runs work that may be dropped where it stands once the shutdown begins.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown();
        self.spawn_draining(name, async move {
            tokio::select! {
                () = task => Ok(()),
                () = shutdown.cancelled() => Ok(()),
            }
        });
    }

    /// Runs work that finishes what it does before it returns.
    pub fn spawn_draining(
        &mut self,
        name: &'static str,
        task: impl Future<Output = TaskResult> + Send + 'static,
    ) {
        self.work.spawn(name, task);
    }

    /// Runs what must outlast the work.
    pub fn spawn_last(
        &mut self,
        name: &'static str,
        task: impl Future<Output = TaskResult> + Send + 'static,
    ) {
        self.last.spawn(name, task);
    }

    /// Waits for `future`, unless a signal or the end of a task comes first.
    ///
    /// # Errors
    ///
    /// What came first. Hand it to [`Supervisor::end`].
    pub async fn until<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::select! {
            value = future => Ok(value),
            _ = self.terminate.recv() => Err(Ended::Signal("SIGTERM")),
            _ = self.interrupt.recv() => Err(Ended::Signal("SIGINT")),
            ended = self.work.first_end() => Err(ended),
            ended = self.last.first_end() => Err(ended),
        }
    }

    /// Waits for a signal or for the first task to end, ends the others, and says why.
    pub async fn run(mut self) -> Ended {
        match self.until(pending::<Ended>()).await {
            Ok(ended) | Err(ended) => self.end(ended).await,
        }
    }

    /// Ends every task, work first. Returns why, which is another reason where the work could not be finished.
    pub async fn end(mut self, ended: Ended) -> Ended {
        tracing::info!(reason = %ended, "shutting down");
        let ended = match ended {
            Ended::Signal(_) => tokio::select! {
                () = self.work.finish(self.drain) => ended,
                failed = self.last.first_end() => failed,
            },
            Ended::Task { .. } => ended,
        };
        self.work.stop_now().await;
        self.last.finish(DRAIN_LAST).await;
        ended
    }
}

/// Tasks that end together.
#[derive(Default)]
struct Stage {
    tasks: JoinSet<TaskResult>,
    names: Vec<(Id, &'static str)>,
    stop: CancellationToken,
}

impl Stage {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = TaskResult> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.names.push((handle.id(), name));
    }

    async fn first_end(&mut self) -> Ended {
        match self.tasks.join_next_with_id().await {
            Some(outcome) => self.describe(outcome),
            None => pending().await,
        }
    }

    /// Asks the tasks to end, and stops those that have not within `drain`.
    async fn finish(&mut self, drain: Duration) {
        self.stop.cancel();
        let deadline = Instant::now() + drain;
        loop {
            match timeout_at(deadline, self.tasks.join_next_with_id()).await {
                Ok(None) => return,
                Ok(Some(Ok((_, Ok(()))))) => {}
                Ok(Some(outcome)) => {
                    tracing::warn!(reason = %self.describe(outcome), "a task failed while it was ending");
                }
                Err(_) => {
                    tracing::warn!(after = ?drain, "tasks that did not end were stopped");
                    return self.stop_now().await;
                }
            }
        }
    }

    /// Drops every task that is left where it stands.
    async fn stop_now(&mut self) {
        self.tasks.shutdown().await;
    }

    fn describe(&self, outcome: Result<(Id, TaskResult), JoinError>) -> Ended {
        let (id, reason) = match outcome {
            Ok((id, Ok(()))) => (id, "it returned".into()),
            Ok((id, Err(error))) => (id, format!("{error:#}")),
            // The text of a panic may hold anything, so it is left to the panic's own line.
            Err(error) if error.is_panic() => (error.id(), "it panicked".into()),
            Err(error) => (error.id(), "it was stopped".into()),
        };
        let name = self.names.iter().find(|(known, _)| *known == id);
        Ended::Task {
            name: name.map_or("unnamed", |(_, name)| name),
            reason,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(name) => f.write_str(name),
            Self::Task { name, reason } => write!(f, "task `{name}` ended: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn supervisor() -> Supervisor {
        Supervisor::new(Duration::from_secs(20)).unwrap()
    }

    #[tokio::test]
    async fn a_task_that_ends_ends_the_others_work_first() {
        let mut supervisor = supervisor();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (working, leading) = (Noted("work", order.clone()), Noted("lease", order.clone()));
        supervisor.spawn("idle", pending());
        let stop = supervisor.work_ended();
        supervisor.spawn_last("lease", async move {
            let _leading = leading;
            stop.cancelled().await;
            Ok(())
        });
        supervisor.spawn_draining("work", async move {
            let _working = working;
            pending().await
        });
        supervisor.spawn_draining("broken", async { Err(anyhow::anyhow!("out of luck")) });
        let ended = supervisor.run().await;
        assert_eq!(ended.to_string(), "task `broken` ended: out of luck");
        assert_eq!(*order.lock().unwrap(), ["work", "lease"]);
    }

    /// Notes its name when it is dropped.
    struct Noted(&'static str, Arc<Mutex<Vec<&'static str>>>);

    impl Drop for Noted {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_end() {
        let mut supervisor = supervisor();
        supervisor.spawn("idle", pending());
        supervisor.spawn("fragile", async { panic!("on purpose") });
        assert_eq!(
            supervisor.run().await.to_string(),
            "task `fragile` ended: it panicked"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_nothing_is_finished() {
        let mut supervisor = supervisor();
        supervisor.spawn_draining("stuck", pending());
        supervisor.spawn_last("lease", async { Err(anyhow::anyhow!("the lease was lost")) });
        let started = Instant::now();
        let ended = supervisor.run().await;
        assert_eq!(ended.to_string(), "task `lease` ended: the lease was lost");
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_leaves_time_to_finish() {
        let mut supervisor = supervisor();
        supervisor.spawn_draining("stuck", pending());
        let started = Instant::now();
        supervisor.end(Ended::Signal("SIGTERM")).await;
        assert_eq!(started.elapsed(), Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_lost_meanwhile_leaves_no_time_to_finish() {
        let mut supervisor = supervisor();
        supervisor.spawn_draining("stuck", pending());
        let begun = supervisor.shutdown();
        supervisor.spawn_last("lease", async move {
            begun.cancelled().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            Err(anyhow::anyhow!("the lease was lost"))
        });
        let started = Instant::now();
        let ended = supervisor.end(Ended::Signal("SIGTERM")).await;
        assert_eq!(ended.to_string(), "task `lease` ended: the lease was lost");
        assert_eq!(started.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test]
    async fn waiting_for_something_minds_the_tasks() {
        let mut supervisor = supervisor();
        assert_eq!(supervisor.until(async { 7 }).await.unwrap(), 7);
        supervisor.spawn("short", async {});
        let ended = supervisor.until(pending::<()>()).await.unwrap_err();
        assert_eq!(ended.to_string(), "task `short` ended: it returned");
    }
}
