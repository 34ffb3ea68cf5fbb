//! One run for many who ask at the same time.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::Shared;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use tokio::sync::oneshot;

use crate::stores::Outcome;

/// A place where at most one run is under way; whoever comes meanwhile shares its outcome, good or bad. Nothing of a
/// run that has ended is kept.
pub(super) struct Flight<T: Clone>(Slot<T>);

type Slot<T> = Arc<Mutex<Option<Run<T>>>>;
type Run<T> = Shared<oneshot::Receiver<Outcome<T>>>;

/// Held by a run: frees the place when the run ends, in whatever way, and whether anybody still waits for it or not.
struct Underway<T: Clone>(Slot<T>);

impl<T: Clone> Default for Flight<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Joins the run under way or starts one. A run goes on to its end even if everybody who waits for it leaves.
    pub(super) async fn join<F>(&self, start: impl FnOnce() -> F) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let (run, own) = {
            let mut slot = lock(&self.0);
            if let Some(run) = slot.as_ref() {
                (run.clone(), None)
            } else {
                let (tell, told) = oneshot::channel();
                (slot.insert(told.shared()).clone(), Some(tell))
            }
        };
        if let Some(tell) = own {
            let underway = Underway(Arc::clone(&self.0));
            let running = start();
            tokio::spawn(async move {
                let outcome = running.await;
                // Whoever comes from now on wants a run of his own.
                drop(underway);
                // Everybody may have left.
                let _ = tell.send(outcome);
            });
        }
        run.await.unwrap_or_else(|_| {
            Err(Fault::new(
                Class::Transient,
                Reason::StoreUnavailable,
                "a call to the store was broken off inside Keyward",
            ))
        })
    }
}

impl<T: Clone> Drop for Underway<T> {
    fn drop(&mut self) {
        *lock(&self.0) = None;
    }
}

fn lock<T: Clone>(slot: &Slot<T>) -> MutexGuard<'_, Option<Run<T>>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
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
    async fn a_run_outlives_those_who_wait_and_is_not_served_to_those_who_come_later() {
        let flight = Flight::default();
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (go_on, tell) = (Arc::clone(&go), Arc::clone(&done));
        let waiting = flight.join(|| async move {
            go_on.notified().await;
            tell.notify_one();
            Ok(0)
        });
        assert!(waiting.now_or_never().is_none());
        go.notify_one();
        done.notified().await;
        assert_eq!(flight.join(|| async { Ok(1) }).await, Ok(1));
        assert!(lock(&flight.0).is_none(), "an outcome may be large");
    }

    #[tokio::test]
    async fn a_run_that_broke_off_is_told_and_makes_room() {
        let flight = Flight::default();
        let told = flight.join(|| async { panic!("the run breaks off") }).await;
        assert_eq!(told.unwrap_err().class, Class::Transient);
        assert_eq!(flight.join(|| async { Ok(1) }).await, Ok(1));
    }
}
