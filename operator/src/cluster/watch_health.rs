//! What is known of the watches themselves: readiness and metrics read it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Every watch of the process.
#[derive(Default)]
pub struct WatchHealth {
    watches: Mutex<Vec<Arc<WatchState>>>,
}

/// One watch.
pub struct WatchState {
    kind: String,
    started: Instant,
    synced: AtomicBool,
    /// Milliseconds after `started`.
    heard_at: AtomicU64,
    failures: AtomicU64,
    broken: AtomicU64,
}

/// One watch at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchSnapshot {
    /// The kind it follows.
    pub kind: String,
    /// Whether it has seen a complete listing.
    pub synced: bool,
    /// Time since the API server was last heard on it.
    pub silent_for: Duration,
    /// Failures since the start.
    pub failures: u64,
    /// Objects that could not be parsed, since the start.
    pub broken: u64,
}

impl WatchHealth {
    /// Adds a watch that has not listed yet.
    pub fn register(&self, kind: &str) -> Arc<WatchState> {
        let state = Arc::new(WatchState {
            kind: kind.into(),
            started: Instant::now(),
            synced: AtomicBool::new(false),
            heard_at: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            broken: AtomicU64::new(0),
        });
        self.lock().push(Arc::clone(&state));
        state
    }

    /// Whether every watch has seen a complete listing; false while there is none.
    #[must_use]
    pub fn all_synced(&self) -> bool {
        let watches = self.lock();
        !watches.is_empty() && watches.iter().all(|watch| watch.synced.load(Ordering::Acquire))
    }

    /// Whether there are `watches` of them, and all have seen a complete listing.
    #[must_use]
    pub fn all_listed(&self, watches: usize) -> bool {
        self.lock().len() >= watches && self.all_synced()
    }

    /// Waits until [`Self::all_listed`].
    pub async fn until_listed(&self, watches: usize) {
        // Listings take from milliseconds to minutes and happen once: looking now and then is all it needs.
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while !self.all_listed(watches) {
            look.tick().await;
        }
    }

    /// Every watch as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Vec<WatchSnapshot> {
        self.lock().iter().map(|watch| watch.snapshot()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<WatchState>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchState {
    /// The kind it follows.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub(super) fn heard(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_at.store(elapsed, Ordering::Relaxed);
    }

    pub(crate) fn synced(&self) {
        self.synced.store(true, Ordering::Release);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn broken(&self) {
        self.broken.fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> WatchSnapshot {
        let heard = Duration::from_millis(self.heard_at.load(Ordering::Relaxed));
        WatchSnapshot {
            kind: self.kind.clone(),
            synced: self.synced.load(Ordering::Acquire),
            silent_for: self.started.elapsed().saturating_sub(heard),
            failures: self.failures.load(Ordering::Relaxed),
            broken: self.broken.load(Ordering::Relaxed),
        }
    }
}
