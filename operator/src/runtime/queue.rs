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
    /// Until when one of those who wait sleeps. The others sleep until they are told, or every one of them would wake
    /// for each key that is due.
    watched: Option<Instant>,
}

/// Somebody sleeps until `due`, so that nobody else has to.
struct Watch<'q, K: Clone + Eq + Hash> {
    queue: &'q Queue<K>,
    due: Instant,
    /// Whether it came to an end, and looks at the queue again.
    woken: bool,
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
                    watched: None,
                }),
                changed: Notify::new(),
            }),
        }
    }

    /// Queues `key` in `lane` for `due`. A key that already waits moves to `lane` and keeps the earlier instant; a
    /// key that runs will run again.
    pub fn add(&self, key: K, lane: Arc<str>, due: Instant) {
        let mut state = self.state();
        state.plan.add(key, lane, due);
        self.tell(&state);
    }

    /// Takes `key` out. A run that is under way ends as usual and is not followed by another.
    pub fn forget(&self, key: &K) {
        self.state().plan.forget(key);
    }

    /// The next key that is due, or `None` once the queue is closed.
    pub async fn next(&self) -> Option<Work<K>> {
        loop {
            let watch = {
                let mut state = self.state();
                if state.closed {
                    // One notification reaches one waiter: pass it on.
                    self.shared.changed.notify_one();
                    return None;
                }
                if let Some(key) = state.plan.take(Instant::now()) {
                    // There may be more, and every other worker may be asleep.
                    self.tell(&state);
                    return Some(Work {
                        key,
                        queue: self.clone(),
                    });
                }
                state.unwatched().map(|due| {
                    state.watched = Some(due);
                    Watch {
                        queue: self,
                        due,
                        woken: false,
                    }
                })
            };
            match watch {
                Some(mut watch) => {
                    tokio::select! {
                        () = sleep_until(watch.due) => {}
                        () = self.shared.changed.notified() => {}
                    }
                    watch.woken = true;
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

    /// Wakes one of those who wait, where there is something for it to do.
    fn tell(&self, state: &State<K>) {
        if state.plan.has_ready() || state.unwatched().is_some() {
            self.shared.changed.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        // The plan does not call out while it is locked, so a poisoned lock still holds a consistent plan.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// When the next key is due, where nobody sleeps until then or less.
    fn unwatched(&self) -> Option<Instant> {
        let due = self.plan.next_due()?;
        self.watched.is_none_or(|watched| due < watched).then_some(due)
    }
}

impl<K: Clone + Eq + Hash> Drop for Watch<'_, K> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        if state.watched == Some(self.due) {
            state.watched = None;
        }
        if !self.woken {
            // It was given up, so somebody else has to.
            self.queue.tell(&state);
        }
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
        let mut state = self.queue.state();
        state.plan.finish(&self.key);
        self.queue.tell(&state);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
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
    async fn one_of_those_who_wait_wakes_for_a_key() {
        let queue = Queue::new(8);
        let start = Instant::now();
        let polls = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..5)
            .map(|_| {
                let (queue, polls) = (queue.clone(), Arc::clone(&polls));
                tokio::spawn(async move {
                    let mut next = pin!(queue.next());
                    poll_fn(|context| {
                        polls.fetch_add(1, Ordering::Relaxed);
                        next.as_mut().poll(context)
                    })
                    .await
                    .map(|work| *work.key())
                })
            })
            .collect();
        queue.add(1, lane("l"), start + Duration::from_secs(1));
        sleep_until(start + Duration::from_millis(500)).await;
        let before = polls.load(Ordering::Relaxed);
        sleep_until(start + Duration::from_millis(1_500)).await;
        assert_eq!(polls.load(Ordering::Relaxed), before + 1);
        assert_eq!(workers.iter().filter(|worker| worker.is_finished()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_else_waits_for_a_key_when_the_first_gives_up() {
        let queue = Queue::new(8);
        let start = Instant::now();
        queue.add("a", lane("l"), start + Duration::from_secs(5));
        let first = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await.is_some() }
        });
        tokio::task::yield_now().await;
        let second = {
            let queue = queue.clone();
            tokio::spawn(async move { *queue.next().await.expect("the queue is open").key() })
        };
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(second.await.expect("no panic"), "a");
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_key_is_forgotten_between_threads() {
        const KEYS: u64 = 500;
        const RUNS: u64 = 5;
        let queue = Queue::new(3);
        let left = Arc::new(AtomicUsize::new(
            usize::try_from(KEYS * RUNS).expect("a small number"),
        ));
        let soon = |key: u64| Instant::now() + Duration::from_micros(key * 7_919 % 20_000);
        let workers: Vec<_> = (0..16)
            .map(|_| {
                let (queue, left) = (queue.clone(), Arc::clone(&left));
                tokio::spawn(async move {
                    while let Some(work) = queue.next().await {
                        let (key, run) = *work.key();
                        if run < RUNS {
                            queue.add((key, run + 1), lane(&format!("{}", key % 5)), soon(key + run));
                        }
                        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                            queue.close();
                        }
                    }
                })
            })
            .collect();
        for key in 0..KEYS {
            queue.add((key, 1), lane(&format!("{}", key % 5)), soon(key));
        }
        let all = futures::future::join_all(workers);
        tokio::time::timeout(Duration::from_secs(30), all)
            .await
            .expect("nobody sleeps for ever");
        assert_eq!(left.load(Ordering::Relaxed), 0);
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
