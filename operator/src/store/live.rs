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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;
    use futures::future::try_join_all;
    use keyward_core::fault::Class;

    use super::*;
    use crate::stores::Place;

    /// A place that is never answered for.
    const HANGS: &str = "hangs";

    /// Checks end as the script says, last first.
    struct Scripted(Mutex<Vec<Outcome<()>>>);

    impl Store for Scripted {
        fn probe<'a>(&'a self, at: &'a RemoteRef) -> BoxFuture<'a, Outcome<Probe>> {
            async {
                if at.place.name() == HANGS {
                    std::future::pending::<()>().await;
                }
                Ok(Probe::NeedsRead)
            }
            .boxed()
        }
        fn read<'a>(&'a self, _: &'a RemoteRef) -> BoxFuture<'a, Outcome<ReadOutcome>> {
            unreachable!("the tests only check and probe")
        }
        fn find<'a>(&'a self, _: &'a FindQuery, _: &'a dyn Pacer) -> BoxFuture<'a, Outcome<Vec<Found>>> {
            unreachable!("the tests only check and probe")
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

    fn at(path: &str) -> RemoteRef {
        RemoteRef {
            place: Place::Path(path.into()),
            version: None,
        }
    }

    fn sealed() -> Fault {
        Fault::new(Class::Sealed, Reason::StoreSealed, "the store is sealed")
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_leaves_the_trial_to_the_next() {
        let store = store(vec![Err(sealed())]);
        assert!(store.check().await.is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        // Both places of one object: the first may try the store, and goes with the second, which may not.
        let places = [at(HANGS), at("app")];
        let asked = try_join_all(places.iter().map(|place| store.probe(place))).await;
        assert_eq!(asked.unwrap_err(), sealed());
        let late = tokio::time::timeout(Duration::from_secs(5), store.probe(&at(HANGS))).await;
        assert!(late.is_err(), "it was asked, and its caller gave up");
        assert_eq!(store.probe(&at("app")).await, Ok(Probe::NeedsRead));
        assert!(store.failing().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_ends_what_a_check_has_met() {
        let store = store(vec![Ok(()), Err(sealed())]);
        assert!(store.check().await.is_err());
        assert!(store.failing().is_some());
        assert!(store.check().await.is_ok());
        assert!(store.failing().is_none());
    }

    /// Fails every probe, and answers every check.
    struct Unreadable(Fault);

    impl Store for Unreadable {
        fn probe<'a>(&'a self, _: &'a RemoteRef) -> BoxFuture<'a, Outcome<Probe>> {
            async { Err(self.0.clone()) }.boxed()
        }
        fn read<'a>(&'a self, _: &'a RemoteRef) -> BoxFuture<'a, Outcome<ReadOutcome>> {
            unreachable!("the test probes")
        }
        fn find<'a>(&'a self, _: &'a FindQuery, _: &'a dyn Pacer) -> BoxFuture<'a, Outcome<Vec<Found>>> {
            unreachable!("the test probes")
        }
        fn check(&self) -> BoxFuture<'_, Outcome<()>> {
            async { Ok(()) }.boxed()
        }
        fn close(&self) -> BoxFuture<'static, ()> {
            async {}.boxed()
        }
    }

    #[derive(Default)]
    struct Changes(Arc<Mutex<Vec<HealthChange>>>);

    impl StoreObserver for Changes {
        fn asked(&self, _: &'static str, _: bool) {}

        fn changed(&self, change: HealthChange) {
            self.0.lock().unwrap().push(change);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_healthy_server_that_answers_no_read_is_not_ready_and_wakes_nobody() {
        let broken = Fault::new(
            Class::Transient,
            Reason::StoreUnavailable,
            "failed with status 500",
        );
        let full = throttled().with_retry_after(Some(Duration::from_mins(1)));
        for fault in [broken, full] {
            let changes = Changes::default();
            let told = Arc::clone(&changes.0);
            let door = Box::new(Unreadable(fault.clone()));
            let store = LiveStore::new(door, Pace::default(), Box::new(changes));
            assert_eq!(store.check().await, Ok(()));
            for _ in 0..3 {
                assert_eq!(store.probe(&at("app")).await, Err(fault.clone()));
            }
            for _ in 0..10 {
                assert_eq!(store.check().await, Err(fault.clone()), "readers meet it");
                tokio::time::advance(Duration::from_millis(100)).await;
            }
            assert_eq!(*told.lock().unwrap(), [HealthChange::Failed]);
        }
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
}
