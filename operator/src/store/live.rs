//! A store in use: the door with its breaker, its pace and its share of connections.
//!
//! One live store serves every object that uses the same store object with the same credential. A store that fails
//! is asked by one caller at a time; everybody else is told at once, so a dead store costs nobody a deadline. A store that
//! refuses for being asked too often does not fail: it is asked less often.
//!
//! Breaker and pace belong to the store object, also where store objects share a session: what fails may be one
//! mount or one path of a server, each object has readers of its own to wake, and a slow one must not take the turns
//! of another. What they share, a refused login, is remembered by the session, which then answers without a request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use keyward_core::fault::{Class, Fault};
use keyward_core::pace::Turns;
use keyward_core::reason::Reason;
use tokio::sync::Semaphore;
use tokio::time::Instant;

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
    health: Mutex<Health>,
    slots: Semaphore,
    turns: Mutex<Turns>,
    /// What the turns count from.
    opened: Instant,
    observer: Box<dyn StoreObserver>,
}

/// Whether the store is asked at all.
#[derive(Default)]
struct Health {
    /// The fault that opened the breaker.
    failing: Option<Fault>,
    failures: u32,
    retry_at: Option<Instant>,
    /// Whether somebody is trying it right now.
    probing: bool,
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
    /// Nothing new.
    None,
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

/// So many passing failures in a row, over all places, make a store count as failing.
const TRANSIENT_RUN: u32 = 3;

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
            health: Mutex::default(),
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
        self.guarded("find", || self.door.find(query)).await
    }

    /// Tries the store although its breaker may be open.
    ///
    /// # Errors
    /// The store's own fault.
    pub async fn check(&self) -> Outcome<()> {
        let outcome = self.paced("check", || self.door.check()).await;
        self.settle(outcome.as_ref().err());
        outcome
    }

    /// What is asked from now on is not answered from earlier listings.
    pub fn forget_listings(&self) {
        self.door.forget_listings();
    }

    /// Takes the store out of use, as [`Store::close`].
    pub fn close(&self) -> BoxFuture<'static, ()> {
        self.door.close()
    }

    /// Why the store is not asked at present, and when it is tried again.
    #[must_use]
    pub fn failing(&self) -> Option<(Fault, Instant)> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        Some((health.failing.clone()?, health.retry_at?))
    }

    async fn guarded<'a, T>(
        &'a self,
        operation: &'static str,
        call: impl Fn() -> BoxFuture<'a, Outcome<T>>,
    ) -> Outcome<T> {
        self.admit(Instant::now())?;
        let outcome = self.paced(operation, call).await;
        self.settle(outcome.as_ref().err());
        outcome
    }

    /// Sends a call when its turn comes. Where the store refuses it for being one too many, it waits in line for another
    /// turn: nothing is wrong with the store or with what was asked.
    async fn paced<'a, T>(
        &'a self,
        operation: &'static str,
        call: impl Fn() -> BoxFuture<'a, Outcome<T>>,
    ) -> Outcome<T> {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let began = self.opened.elapsed();
        loop {
            let turn = self.turns().take(self.opened.elapsed());
            tokio::time::sleep_until(self.opened + turn).await;
            let sent = self.opened.elapsed();
            let outcome = call().await;
            self.observer.asked(operation, outcome.is_ok());
            let now = self.opened.elapsed();
            match outcome {
                Err(fault) if is_one_too_many(&fault) => {
                    let resumes = self.turns().refused(sent, now, fault.retry_after);
                    if resumes > began + PATIENCE {
                        return Err(fault);
                    }
                }
                Err(fault) => return Err(fault),
                Ok(answer) => {
                    self.turns().answered(now);
                    return Ok(answer);
                }
            }
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, fault: Option<&Fault>) {
        let change = self.note(fault, Instant::now());
        if change != HealthChange::None {
            self.observer.changed(change);
        }
    }

    /// Lets one caller through to a failing store whose time has come, and nobody else.
    fn admit(&self, now: Instant) -> Outcome<()> {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(fault) = &health.failing else {
            return Ok(());
        };
        if !health.probing && health.retry_at.is_some_and(|at| at <= now) {
            health.probing = true;
            return Ok(());
        }
        Err(fault.clone())
    }

    fn note(&self, fault: Option<&Fault>, now: Instant) -> HealthChange {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.probing = false;
        if fault.is_some_and(|fault| fault.class == Class::Transient) && health.failing.is_none() {
            // One path may fail on its own: only a run of failures with no success in between is the store's.
            health.failures = health.failures.saturating_add(1);
            if health.failures < TRANSIENT_RUN {
                return HealthChange::None;
            }
            health.failures = 0;
        }
        let Some(fault) = fault.filter(|fault| concerns_the_whole_store(fault)) else {
            let was_failing = health.failing.take().is_some();
            health.failures = 0;
            health.retry_at = None;
            return if was_failing {
                HealthChange::Recovered
            } else {
                HealthChange::None
            };
        };
        let change = if health.failing.is_none() {
            HealthChange::Failed
        } else {
            HealthChange::None
        };
        health.failures = health.failures.saturating_add(1);
        let wait = fault.retry_after.unwrap_or_else(|| retry_wait(health.failures));
        health.retry_at = Some(now + wait);
        health.failing = Some(fault.clone());
        change
    }
}

/// Whether a call was refused for the rate of calls alone, and may soon be sent again.
fn is_one_too_many(fault: &Fault) -> bool {
    fault.reason == Reason::StoreThrottled && fault.retry_after.is_none_or(|asked| asked <= PATIENCE)
}

/// Whether a fault says something about the store and not only about the place that was read.
fn concerns_the_whole_store(fault: &Fault) -> bool {
    match fault.class {
        Class::Sealed | Class::Throttled | Class::Transient => true,
        Class::Denied | Class::Permanent | Class::Absent => matches!(
            fault.reason,
            Reason::CredentialRejected
                | Reason::CredentialMissing
                | Reason::TlsFailed
                | Reason::AddressRefused
        ),
        Class::Conflict | Class::Ambiguous => false,
    }
}

/// From a quarter of a second up to one second: trying a dead store is one request, and everything waits for it.
fn retry_wait(failures: u32) -> Duration {
    Duration::from_millis(250).saturating_mul(1 << failures.saturating_sub(1).min(2))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    struct Scripted(Mutex<Vec<Outcome<()>>>);

    impl Store for Scripted {
        fn probe<'a>(&'a self, _: &'a RemoteRef) -> BoxFuture<'a, Outcome<Probe>> {
            async { Ok(Probe::NeedsRead) }.boxed()
        }
        fn read<'a>(&'a self, _: &'a RemoteRef) -> BoxFuture<'a, Outcome<ReadOutcome>> {
            unreachable!("the tests only check")
        }
        fn find<'a>(&'a self, _: &'a FindQuery) -> BoxFuture<'a, Outcome<Vec<Found>>> {
            unreachable!("the tests only check")
        }
        fn check(&self) -> BoxFuture<'_, Outcome<()>> {
            async { self.0.lock().unwrap().pop().unwrap_or(Ok(())) }.boxed()
        }
        fn close(&self) -> BoxFuture<'static, ()> {
            async {}.boxed()
        }
    }

    fn store(script: Vec<Outcome<()>>) -> LiveStore {
        LiveStore::new(
            Box::new(Scripted(Mutex::new(script))),
            Pace::default(),
            Box::new(()),
        )
    }

    fn down() -> Fault {
        Fault::new(
            Class::Transient,
            Reason::StoreUnavailable,
            "connecting to the store timed out",
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_store_is_asked_by_one_caller_when_its_time_comes() {
        let store = store(vec![]);
        for _ in 1..TRANSIENT_RUN {
            assert_eq!(store.note(Some(&down()), Instant::now()), HealthChange::None);
            assert!(store.admit(Instant::now()).is_ok(), "it may have been the path");
        }
        assert_eq!(store.note(Some(&down()), Instant::now()), HealthChange::Failed);
        assert!(store.admit(Instant::now()).is_err(), "too early");
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(store.admit(Instant::now()).is_ok(), "one may try");
        assert!(store.admit(Instant::now()).is_err(), "only one");
        assert_eq!(store.note(None, Instant::now()), HealthChange::Recovered);
        assert!(store.admit(Instant::now()).is_ok());
        assert!(store.admit(Instant::now()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_closes_the_breaker() {
        let sealed = Fault::new(Class::Sealed, Reason::StoreSealed, "the store is sealed");
        let store = store(vec![Ok(()), Err(sealed)]);
        assert!(store.check().await.is_err());
        assert!(store.failing().is_some());
        assert!(store.check().await.is_ok());
        assert!(store.failing().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn turns_never_come_faster_than_the_pace() {
        let pace = Pace {
            per_second: 100,
            concurrent: 4,
        };
        let store = LiveStore::new(Box::new(Scripted(Mutex::new(vec![]))), pace, Box::new(()));
        let began = Instant::now();
        for _ in 0..50 {
            store.check().await.unwrap();
        }
        assert_eq!(began.elapsed().as_millis(), 490);
    }

    fn throttled() -> Fault {
        Fault::new(
            Class::Throttled,
            Reason::StoreThrottled,
            "was put off: too many calls",
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_for_the_rate_is_waited_out() {
        let store = store(vec![Ok(()), Err(throttled()), Err(throttled())]);
        let began = Instant::now();
        assert!(store.check().await.is_ok());
        assert!(
            began.elapsed() >= Duration::from_millis(750),
            "{:?}",
            began.elapsed()
        );
        assert!(store.failing().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_that_go_on_are_told() {
        let long = throttled().with_retry_after(Some(PATIENCE + Duration::from_secs(1)));
        let delayed = Fault::new(Class::Throttled, Reason::LoginDelayed, "is not sent yet");
        for (script, longest) in [
            (vec![Err(throttled()); 20], PATIENCE),
            (vec![Err(long)], Duration::ZERO),
            (vec![Err(delayed)], Duration::ZERO),
        ] {
            let store = store(script);
            let began = Instant::now();
            assert!(store.check().await.is_err());
            assert!(began.elapsed() <= longest, "{:?}", began.elapsed());
            assert!(store.failing().is_some(), "nobody else asks it now");
        }
    }

    #[test]
    fn a_denied_path_says_nothing_about_the_store() {
        let denied = Fault::new(Class::Denied, Reason::RemoteDenied, "reading was denied");
        assert!(!concerns_the_whole_store(&denied));
        let rejected = Fault::new(
            Class::Denied,
            Reason::CredentialRejected,
            "the login was rejected",
        );
        assert!(concerns_the_whole_store(&rejected));
    }
}
