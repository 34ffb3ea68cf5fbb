//! A delayed, de-duplicating work queue with fair lanes.
//!
//! A key is queued at most once and runs at most once at a time. Keys wait in lanes, one per store: a lane runs at
//! most `lane_limit` keys, and lanes take turns, so a store that hangs holds up only its own lane. What runs next
//! is decided by [`Plan`], which is given every instant; the queue around it only locks and waits.

mod plan;

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use plan::Plan;

/// The queue. Clones share it.
pub struct Queue<K: Clone + Eq + Hash> {
    shared: Arc<Shared<K>>,
}

/// One key that is being worked on. Dropping it ends the run, also when the worker panics.
pub struct Work<K: Clone + Eq + Hash> {
    key: K,
    queue: Queue<K>,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    plan: Plan<K>,
    closed: bool,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue that runs at most `lane_limit` keys of one lane at a time.
    #[must_use]
    pub fn new(lane_limit: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    plan: Plan::new(lane_limit),
                    closed: false,
                }),
                changed: Notify::new(),
            }),
        }
    }

    /// Queues `key` in `lane` for `due`. A key that already waits moves to `lane` and keeps the earlier instant; a
    /// key that runs will run again.
    pub fn add(&self, key: K, lane: Arc<str>, due: Instant) {
        self.state().plan.add(key, lane, due);
        self.shared.changed.notify_one();
    }

    /// Takes `key` out. A run that is under way ends as usual and is not followed by another.
    pub fn forget(&self, key: &K) {
        self.state().plan.forget(key);
    }

    /// The next key that is due, or `None` once the queue is closed.
    pub async fn next(&self) -> Option<Work<K>> {
        loop {
            let wake_at = {
                let mut state = self.state();
                if state.closed {
                    // One notification reaches one waiter: pass it on.
                    self.shared.changed.notify_one();
                    return None;
                }
                let now = Instant::now();
                if let Some(key) = state.plan.take(now) {
                    // There may be more than one key due, and every other worker may be asleep.
                    if state.plan.has_ready() {
                        self.shared.changed.notify_one();
                    }
                    return Some(Work {
                        key,
                        queue: self.clone(),
                    });
                }
                state.plan.next_due()
            };
            match wake_at {
                Some(due) => {
                    tokio::select! {
                        () = sleep_until(due) => {}
                        () = self.shared.changed.notified() => {}
                    }
                }
                None => self.shared.changed.notified().await,
            }
        }
    }

    /// Lets every [`Queue::next`] answer `None`. Runs that are under way go on.
    pub fn close(&self) {
        self.state().closed = true;
        self.shared.changed.notify_one();
    }

    /// Keys that wait or run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().plan.len()
    }

    /// Whether no key waits or runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        // The plan does not call out while it is locked, so a poisoned lock still holds a consistent plan.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K: Clone + Eq + Hash> Work<K> {
    /// The key to work on.
    #[must_use]
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Clone + Eq + Hash> Drop for Work<K> {
    fn drop(&mut self) {
        self.queue.state().plan.finish(&self.key);
        self.queue.shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lane(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_for_its_time() {
        let queue = Queue::new(1);
        let start = Instant::now();
        queue.add("a", lane("l"), start + Duration::from_secs(5));
        let work = queue.next().await.expect("the queue is open");
        assert_eq!(*work.key(), "a");
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_key_wakes_a_sleeping_worker() {
        let queue = Queue::new(4);
        let start = Instant::now();
        queue.add("late", lane("l"), start + Duration::from_mins(1));
        let worker = {
            let queue = queue.clone();
            tokio::spawn(async move { *queue.next().await.expect("the queue is open").key() })
        };
        tokio::task::yield_now().await;
        queue.add("early", lane("l"), start + Duration::from_secs(1));
        assert_eq!(worker.await.expect("no panic"), "early");
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_wakes_every_worker() {
        let queue = Queue::<u32>::new(1);
        let workers: Vec<_> = (0..5)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await.is_none() })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.close();
        for worker in workers {
            assert!(worker.await.expect("no panic"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_it_runs_runs_again_afterwards() {
        let queue = Queue::new(2);
        let now = Instant::now();
        queue.add("a", lane("l"), now);
        let work = queue.next().await.expect("the queue is open");
        queue.add("a", lane("l"), now);
        let again = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(again.is_err(), "one run at a time");
        drop(work);
        assert_eq!(*queue.next().await.expect("the queue is open").key(), "a");
        assert!(queue.is_empty());
    }
}
