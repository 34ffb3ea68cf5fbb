//! A store in use: the door with its breaker, its pace and its share of connections.
//!
//! One live store serves every object that uses the same store object with the same credential. A store that fails
//! is asked by one caller at a time; everybody else is told at once, so a dead store costs nobody a deadline. A store that
//! refuses for being asked too often does not fail: it is asked less often.
//!
//! Breaker and pace belong to the store object, also where store objects share a session: what fails may be one
//! mount or one path of a server, each object has readers of its own to wake, and a slow one must not take the turns
//! of another. What they share, a refused login, is remembered by the session, which then answers without a request.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use keyward_core::breaker::{Breaker, Change, Leave};
use keyward_core::fault::Fault;
use keyward_core::pace::Turns;
use keyward_core::reason::Reason;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::stores::pacing::{Pacer, Sent, in_turn};
use crate::stores::{FindQuery, Found, Outcome, Probe, ReadOutcome, RemoteRef, Store};

/// How fast one store may be asked.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Requests per second, spread evenly.
    pub per_second: u32,
    /// Requests under way at once.
    pub concurrent: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            per_second: 1_000,
            concurrent: 32,
        }
    }
}

/// A store in use.
pub struct LiveStore {
    /// Tells this instance from every other, also from an earlier one of the same object.
    pub id: u64,
    door: Box<dyn Store>,
    breaker: Mutex<Breaker>,
    slots: Semaphore,
    turns: Mutex<Turns>,
    /// What turns and breaker count from.
    opened: Instant,
    observer: Box<dyn StoreObserver>,
}

/// Gives out the turns of a store for calls of one kind.
struct Paced<'a> {
    store: &'a LiveStore,
    operation: &'static str,
}

/// A call that may be sent. Where its caller goes away before it ends, somebody else may try the store.
struct Admitted<'a> {
    store: &'a LiveStore,
    /// Until it is handed back.
    leave: Option<Leave>,
}

/// Hears of what a store does.
pub trait StoreObserver: Send + Sync {
    /// It was asked, and answered well or not.
    fn asked(&self, operation: &'static str, well: bool);

    /// Its health changed.
    fn changed(&self, change: HealthChange);
}

/// Nobody listens.
impl StoreObserver for () {
    fn asked(&self, _: &'static str, _: bool) {}

    fn changed(&self, _: HealthChange) {}
}

/// A change of a store's health that others should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthChange {
    /// It stopped working.
    Failed,
    /// It works again: wake what waits.
    Recovered,
    /// It may not be used any more: wake what reads through it.
    Ended,
}

impl HealthChange {
    /// Whether everything that reads from the store should look at once.
    #[must_use]
    pub fn wakes_readers(self) -> bool {
        matches!(self, Self::Recovered | Self::Ended)
    }
}

/// How long a call that the store refuses for being one too many is sent again before its caller hears of it.
const PATIENCE: Duration = Duration::from_secs(10);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl LiveStore {
    /// Puts a door into use.
    #[must_use]
    pub fn new(door: Box<dyn Store>, pace: Pace, observer: Box<dyn StoreObserver>) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            door,
            breaker: Mutex::default(),
            slots: Semaphore::new(pace.concurrent),
            turns: Mutex::new(Turns::new(pace.per_second)),
            opened: Instant::now(),
            observer,
        }
    }

    /// Says what is at a place, as [`Store::probe`].
    ///
    /// # Errors
    /// The store's own fault; or, while it is failing, the fault that says so, without asking it.
    pub async fn probe(&self, at: &RemoteRef) -> Outcome<Probe> {
        self.guarded("probe", || self.door.probe(at)).await
    }

    /// Reads the value at a place, as [`Store::read`].
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub async fn read(&self, at: &RemoteRef) -> Outcome<ReadOutcome> {
        self.guarded("read", || self.door.read(at)).await
    }

    /// Lists places, as [`Store::find`].
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub async fn find(&self, query: &FindQuery) -> Outcome<Vec<Found>> {
        let admitted = self.admitted()?;
        let _slot = self.slot().await;
        let outcome = self.door.find(query, &self.pacer("find")).await;
        admitted.settle(outcome.as_ref().err());
        outcome
    }

    /// Tries the store although its breaker may be open.
    ///
    /// # Errors
    /// The store's own fault; or the one that its readers meet although it answers.
    pub async fn check(&self) -> Outcome<()> {
        let outcome = self.paced("check", || self.door.check()).await;
        let now = self.opened.elapsed();
        let change = self.breaker().checked(outcome.as_ref().err(), now);
        self.tell(change);
        outcome?;
        self.failing().map_or(Ok(()), Err)
    }

    /// What is asked from now on is not answered from earlier listings.
    pub fn forget_listings(&self) {
        self.door.forget_listings();
    }

    /// Takes the store out of use, as [`Store::close`].
    pub fn close(&self) -> BoxFuture<'static, ()> {
        self.door.close()
    }

    /// Why the store is not asked at present.
    #[must_use]
    pub fn failing(&self) -> Option<Fault> {
        self.breaker().failing().cloned()
    }

    async fn guarded<'a, T>(
        &'a self,
        operation: &'static str,
        call: impl Fn() -> BoxFuture<'a, Outcome<T>>,
    ) -> Outcome<T> {
        let admitted = self.admitted()?;
        let outcome = self.paced(operation, call).await;
        admitted.settle(outcome.as_ref().err());
        outcome
    }

    /// Sends a call when its turn comes. Where the store refuses it for being one too many, it waits in line for another
    /// turn: nothing is wrong with the store or with what was asked.
    async fn paced<'a, T>(
        &'a self,
        operation: &'static str,
        call: impl Fn() -> BoxFuture<'a, Outcome<T>>,
    ) -> Outcome<T> {
        let _slot = self.slot().await;
        in_turn(&self.pacer(operation), call).await
    }

    async fn slot(&self) -> SemaphorePermit<'_> {
        self.slots.acquire().await.expect("the semaphore is never closed")
    }

    fn pacer(&self, operation: &'static str) -> Paced<'_> {
        Paced {
            store: self,
            operation,
        }
    }

    fn admitted(&self) -> Outcome<Admitted<'_>> {
        let leave = self.breaker().admit(self.opened.elapsed())?;
        Ok(Admitted {
            store: self,
            leave: Some(leave),
        })
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: Option<Change>) {
        match change {
            None => {}
            Some(Change::Failed) => self.observer.changed(HealthChange::Failed),
            Some(Change::Recovered) => self.observer.changed(HealthChange::Recovered),
        }
    }
}

impl Pacer for Paced<'_> {
    fn turn(&self) -> BoxFuture<'_, ()> {
        let LiveStore { opened, .. } = self.store;
        let turn = *opened + self.store.turns().take(opened.elapsed());
        Box::pin(tokio::time::sleep_until(turn))
    }

    fn ended(&self, call: Sent, fault: Option<&Fault>) -> bool {
        let LiveStore { opened, observer, .. } = self.store;
        observer.asked(self.operation, fault.is_none());
        let now = opened.elapsed();
        match fault {
            None => {
                self.store.turns().answered(now);
                false
            }
            Some(fault) if is_one_too_many(fault) => {
                let resumes = self
                    .store
                    .turns()
                    .refused(call.at - *opened, now, fault.retry_after);
                *opened + resumes <= call.wanted + PATIENCE
            }
            Some(_) => false,
        }
    }
}

impl Admitted<'_> {
    fn settle(mut self, fault: Option<&Fault>) {
        let Some(leave) = self.leave.take() else { return };
        let now = self.store.opened.elapsed();
        let change = self.store.breaker().settle(leave, fault, now);
        self.store.tell(change);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            self.store.breaker().abandon(leave);
        }
    }
}

/// Whether a call was refused for the rate of calls alone, and may soon be sent again.
fn is_one_too_many(fault: &Fault) -> bool {
    fault.reason == Reason::StoreThrottled && fault.retry_after.is_none_or(|asked| asked <= PATIENCE)
}
