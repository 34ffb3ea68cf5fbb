//! The store in use over doors that do as they are told, with time standing still.

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
