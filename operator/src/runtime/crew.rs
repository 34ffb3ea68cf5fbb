//! Workers that share a queue and end together: what is under way when they are asked to end is finished first.

use std::hash::Hash;

use anyhow::bail;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::queue::Queue;

/// How many workers, and until when.
pub struct Crew {
    /// How many.
    pub count: usize,
    /// Asks them to end.
    pub shutdown: CancellationToken,
}

impl Crew {
    /// Works once `ready` has come, until the shutdown begins; then closes the queue and waits for what is under way: a
    /// Secret that was written must be recorded. `work` makes one worker, which works until the queue is closed.
    ///
    /// # Errors
    ///
    /// A worker ended before it should.
    pub async fn work<K, F>(
        self,
        queue: &Queue<K>,
        ready: impl Future<Output = ()>,
        work: impl Fn() -> F,
    ) -> anyhow::Result<()>
    where
        K: Clone + Eq + Hash,
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::select! {
            () = ready => {}
            () = self.shutdown.cancelled() => return Ok(()),
        }
        let mut workers: JoinSet<()> = (0..self.count).map(|_| work()).collect();
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            Some(ended) = workers.join_next() => bail!("{}", told(&ended)),
        }
        queue.close();
        while let Some(ended) = workers.join_next().await {
            if ended.is_err() {
                bail!("{}", told(&ended));
            }
        }
        Ok(())
    }
}

/// The text of a panic may hold anything, so it is left to the panic's own line.
fn told(ended: &Result<(), JoinError>) -> &'static str {
    match ended {
        Ok(()) => "a worker returned",
        Err(error) if error.is_panic() => "a worker panicked",
        Err(_) => "a worker was stopped",
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;
    use tokio::time::Instant;

    use super::*;

    fn crew() -> Crew {
        Crew {
            count: 2,
            shutdown: CancellationToken::new(),
        }
    }

    #[tokio::test]
    async fn what_is_under_way_is_finished_and_nothing_else_begins() {
        let crew = crew();
        let (shutdown, queue) = (crew.shutdown.clone(), Queue::new(2));
        let (begun, go_on, done) = (
            Arc::new(Notify::new()),
            Arc::new(Notify::new()),
            Arc::new(AtomicUsize::new(0)),
        );
        queue.add("first", Arc::from("lane"), Instant::now());
        let work = {
            let (queue, begun, go_on, done) = (queue.clone(), begun.clone(), go_on.clone(), done.clone());
            move || {
                let (queue, begun, go_on, done) = (queue.clone(), begun.clone(), go_on.clone(), done.clone());
                async move {
                    while let Some(_work) = queue.next().await {
                        begun.notify_one();
                        go_on.notified().await;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        };
        let working = tokio::spawn({
            let queue = queue.clone();
            async move { crew.work(&queue, ready(()), work).await }
        });
        begun.notified().await;
        shutdown.cancel();
        assert!(queue.next().await.is_none(), "the queue is closed");
        queue.add("second", Arc::from("lane"), Instant::now());
        assert!(!working.is_finished());
        go_on.notify_one();
        working.await.unwrap().unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_worker_that_dies_ends_the_others() {
        let queue = Queue::<u32>::new(1);
        let error = crew()
            .work(&queue, ready(()), async || panic!("hunter2"))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "a worker panicked");
    }

    #[tokio::test]
    async fn who_never_began_has_nothing_to_finish() {
        let crew = crew();
        crew.shutdown.cancel();
        let queue = Queue::<u32>::new(1);
        crew.work(&queue, pending(), async || {}).await.unwrap();
    }
}
