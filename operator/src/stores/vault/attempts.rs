//! Failures shared: when many wait for one attempt and it fails, they fail with it, instead of each trying again in
//! turn against a server in trouble.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use keyward_core::fault::Fault;
use tokio::sync;

use crate::stores::Outcome;

/// Counts the attempts at one thing and keeps the last failure. Attempts are made one at a time, under a lock of
/// the owner's.
#[derive(Default)]
pub(super) struct Attempts {
    ended: AtomicU64,
    failure: Mutex<Option<Fault>>,
}

/// Something that is found out once, for everybody.
pub(super) struct Finding<T> {
    value: sync::Mutex<Option<T>>,
    attempts: Attempts,
}

impl Attempts {
    /// How many attempts have ended so far: taken before waiting for the lock.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// The failure of an attempt that ended while its caller waited since `before`.
    pub(super) fn failed_since(&self, before: u64) -> Option<Fault> {
        if self.ended() == before {
            return None;
        }
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes how an attempt ended and gives its number: so many have ended.
    pub(super) fn note<T>(&self, outcome: &Outcome<T>) -> u64 {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = outcome.as_ref().err().cloned();
        self.ended.fetch_add(1, Ordering::AcqRel) + 1
    }
}

impl<T: Copy + PartialEq> Finding<T> {
    pub(super) fn new() -> Self {
        Self {
            value: sync::Mutex::new(None),
            attempts: Attempts::default(),
        }
    }

    /// What was found, or what `search` finds now. A failure is not kept for later callers.
    pub(super) async fn get(&self, search: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let before = self.attempts.ended();
        let mut value = self.value.lock().await;
        if let Some(value) = *value {
            return Ok(value);
        }
        if let Some(fault) = self.attempts.failed_since(before) {
            return Err(fault);
        }
        let outcome = search.await;
        self.attempts.note(&outcome);
        *value = outcome.as_ref().ok().copied();
        outcome
    }

    /// Forgets that this was found, unless something else was found since.
    pub(super) async fn forget(&self, found: T) {
        self.value.lock().await.take_if(|value| *value == found);
    }
}
