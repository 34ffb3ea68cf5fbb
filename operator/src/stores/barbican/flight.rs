//! One run for many who ask at the same time.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;

use crate::stores::Outcome;

/// A place where at most one run is under way; whoever comes meanwhile shares its outcome, good or bad.
pub(super) struct Flight<T: Clone>(Mutex<Option<Shared<BoxFuture<'static, Outcome<T>>>>>);

impl<T: Clone> Default for Flight<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Joins the run under way or starts one. A run goes on to its end even if everybody who waits for it leaves.
    pub(super) async fn join<F>(&self, start: impl FnOnce() -> F) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let run = {
            let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match slot.as_ref().filter(|run| run.peek().is_none()) {
                Some(run) => run.clone(),
                None => slot.insert(spawned(start())).clone(),
            }
        };
        run.await
    }
}

fn spawned<T, F>(run: F) -> Shared<BoxFuture<'static, Outcome<T>>>
where
    T: Clone + Send + 'static,
    F: Future<Output = Outcome<T>> + Send + 'static,
{
    let task = tokio::spawn(run);
    async move {
        task.await.unwrap_or_else(|_| {
            Err(Fault::new(
                Class::Transient,
                Reason::StoreUnavailable,
                "a call to the store was broken off inside Keyward",
            ))
        })
    }
    .boxed()
    .shared()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn those_who_come_meanwhile_share_the_outcome_and_later_ones_do_not() {
        let flight = Flight::default();
        let (runs, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let run = || {
            let (runs, go) = (Arc::clone(&runs), Arc::clone(&go));
            async move {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                Ok(run)
            }
        };
        let (first, second, ()) = tokio::join!(flight.join(run), flight.join(run), async {
            go.notify_one();
        });
        assert_eq!((first, second), (Ok(0), Ok(0)));
        go.notify_one();
        assert_eq!(flight.join(run).await, Ok(1));
    }

    #[tokio::test]
    async fn a_run_outlives_those_who_wait() {
        let flight: Flight<()> = Flight::default();
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (go_on, tell) = (Arc::clone(&go), Arc::clone(&done));
        let waiting = flight.join(|| async move {
            go_on.notified().await;
            tell.notify_one();
            Ok(())
        });
        assert!(waiting.now_or_never().is_none());
        go.notify_one();
        done.notified().await;
    }
}
