//! Keeps the long tasks of the process together: when one ends, all end, with its reason.
//!
//! A task that dies alone would leave a process that looks alive and does half its work. Shutdown is asked for by
//! SIGTERM, SIGINT or the first task that ends; every task then has a bounded time to finish what it does.

use std::fmt;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Long tasks by name.
pub struct Supervisor {
    tasks: JoinSet<Result<(), anyhow::Error>>,
    names: Vec<(Id, &'static str)>,
    shutdown: CancellationToken,
    drain: Duration,
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
    /// No tasks yet. After a shutdown begins they have `drain` to end by themselves.
    #[must_use]
    pub fn new(drain: Duration) -> Self {
        Self {
            tasks: JoinSet::new(),
            names: Vec::new(),
            shutdown: CancellationToken::new(),
            drain,
        }
    }

    /// Cancelled when the process is to end. Long tasks watch it and return.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Runs a task that ends only with the process. It is dropped where it stands once the shutdown begins.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown();
        self.spawn_draining(name, async move {
            tokio::select! {
                () = task => Ok(()),
                () = shutdown.cancelled() => Ok(()),
            }
        });
    }

    /// Runs a task that watches [`Supervisor::shutdown`] itself and finishes what it does before it returns.
    pub fn spawn_draining(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), anyhow::Error>> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(task);
        self.names.push((handle.id(), name));
    }

    /// Waits for a signal or for the first task to end, lets the others finish, and says why it ended.
    ///
    /// # Errors
    ///
    /// The signal handlers cannot be installed.
    pub async fn run(mut self) -> std::io::Result<Ended> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ended = tokio::select! {
            _ = terminate.recv() => Ended::Signal("SIGTERM"),
            _ = interrupt.recv() => Ended::Signal("SIGINT"),
            ended = self.first_end() => ended,
        };
        tracing::info!(reason = %ended, "shutting down");
        self.shutdown.cancel();
        self.finish().await;
        Ok(ended)
    }

    async fn first_end(&mut self) -> Ended {
        match self.tasks.join_next_with_id().await {
            Some(outcome) => self.describe(outcome),
            None => Ended::Task {
                name: "supervisor",
                reason: "there is nothing to run".into(),
            },
        }
    }

    async fn finish(&mut self) {
        let drain = self.drain;
        let rest = async {
            while let Some(outcome) = self.tasks.join_next_with_id().await {
                let failed = !matches!(outcome, Ok((_, Ok(()))));
                if failed {
                    tracing::warn!(reason = %self.describe(outcome), "a task failed while it was ending");
                }
            }
        };
        if tokio::time::timeout(drain, rest).await.is_err() {
            tracing::warn!(after = ?drain, "tasks that did not end were stopped");
            self.tasks.shutdown().await;
        }
    }

    fn describe(&self, outcome: Result<(Id, Result<(), anyhow::Error>), JoinError>) -> Ended {
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
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_ends_the_others() {
        let mut supervisor = Supervisor::new(Duration::from_secs(5));
        let drained = Arc::new(AtomicBool::new(false));
        supervisor.spawn("idle", pending());
        supervisor.spawn_draining("careful", {
            let (shutdown, drained) = (supervisor.shutdown(), Arc::clone(&drained));
            async move {
                shutdown.cancelled().await;
                drained.store(true, Ordering::SeqCst);
                Ok(())
            }
        });
        supervisor.spawn_draining("broken", async { Err(anyhow::anyhow!("the lease was lost")) });
        let ended = supervisor.run().await.unwrap();
        assert_eq!(ended.to_string(), "task `broken` ended: the lease was lost");
        assert!(drained.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_panic_is_an_end() {
        let mut supervisor = Supervisor::new(Duration::from_secs(5));
        supervisor.spawn("idle", pending());
        supervisor.spawn("fragile", async { panic!("on purpose") });
        let ended = supervisor.run().await.unwrap();
        assert_eq!(ended.to_string(), "task `fragile` ended: it panicked");
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_is_bounded() {
        let mut supervisor = Supervisor::new(Duration::from_secs(5));
        supervisor.spawn_draining("stuck", pending());
        supervisor.spawn("short", async {});
        let started = tokio::time::Instant::now();
        let ended = supervisor.run().await.unwrap();
        assert_eq!(ended.to_string(), "task `short` ended: it returned");
        assert_eq!(started.elapsed(), Duration::from_secs(5));
    }
}
