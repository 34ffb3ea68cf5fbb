//! Counts what is asked of a store, and bounds what is held of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use keyward_core::secret::SecretBytes;

use super::questions::FORGOTTEN;
use super::*;
use crate::store::Pace;
use crate::stores::pacing::Pacer;
use crate::stores::{FindQuery, Found, Payload, Place, Reading, RemoteVersion, Store};

#[derive(Default)]
struct Counts {
    finds: AtomicUsize,
    probes: AtomicUsize,
    reads: AtomicUsize,
}

struct Counting {
    counts: Arc<Counts>,
    size: usize,
    fails: bool,
}

impl Store for Counting {
    fn probe<'a>(&'a self, _: &'a RemoteRef) -> BoxFuture<'a, Outcome<Probe>> {
        async move {
            self.counts.probes.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            if self.fails {
                return Err(Fault::new(
                    Class::Denied,
                    Reason::RemoteDenied,
                    "reading was denied",
                ));
            }
            Ok(Probe::Current(RemoteVersion::default()))
        }
        .boxed()
    }
    fn read<'a>(&'a self, _: &'a RemoteRef) -> BoxFuture<'a, Outcome<ReadOutcome>> {
        async move {
            self.counts.reads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let payload = Payload::Bytes(SecretBytes::new(vec![0; self.size]));
            Ok(ReadOutcome::Value(Reading {
                version: RemoteVersion::default(),
                payload,
            }))
        }
        .boxed()
    }
    fn find<'a>(&'a self, _: &'a FindQuery, _: &'a dyn Pacer) -> BoxFuture<'a, Outcome<Vec<Found>>> {
        async move {
            self.counts.finds.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(vec![])
        }
        .boxed()
    }
    fn check(&self) -> BoxFuture<'_, Outcome<()>> {
        async { Ok(()) }.boxed()
    }
    fn close(&self) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

fn counting(size: usize, fails: bool) -> (LiveStore, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let door = Counting {
        counts: Arc::clone(&counts),
        size,
        fails,
    };
    (
        LiveStore::new(Box::new(door), Pace::default(), Box::new(())),
        counts,
    )
}

fn place(name: &str) -> RemoteRef {
    RemoteRef {
        place: Place::Path(name.into()),
        version: None,
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_objects_that_name_one_path_cost_one_request() {
    let (store, counts) = counting(10, false);
    let reader = Reader::default();
    let (at, since) = (place("apps/db"), Instant::now());
    let looks = join_all((0..50).map(|_| reader.look(&store, &at, since))).await;
    assert!(looks.iter().all(Result::is_ok));
    let values = join_all((0..50).map(|_| reader.read(&store, &at, since))).await;
    assert!(values.iter().all(Result::is_ok));
    assert_eq!(counts.probes.load(Ordering::SeqCst), 1);
    assert_eq!(counts.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_later_turn_looks_again() {
    let (store, counts) = counting(10, false);
    let reader = Reader::default();
    let at = place("apps/db");
    let first = reader.look(&store, &at, Instant::now()).await.expect("answers");
    tokio::time::advance(Duration::from_mins(1)).await;
    reader.look(&store, &at, first.at).await.expect("answers");
    assert_eq!(counts.probes.load(Ordering::SeqCst), 1, "as old as asked for");
    reader.look(&store, &at, Instant::now()).await.expect("answers");
    assert_eq!(counts.probes.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_search_is_made_once_for_all_whose_turn_it_is() {
    let (store, counts) = counting(10, false);
    let reader = Reader::default();
    let query = |prefix: &str| FindQuery {
        prefix: prefix.into(),
        tags: BTreeMap::new(),
        limit: 10,
    };
    let since = Instant::now();
    let apps = query("apps");
    let found = join_all((0..50).map(|_| reader.find(&store, &apps, since))).await;
    assert!(found.iter().all(Result::is_ok));
    assert_eq!(counts.finds.load(Ordering::SeqCst), 1);
    reader.find(&store, &query("web"), since).await.expect("answers");
    tokio::time::advance(Duration::from_secs(1)).await;
    reader.find(&store, &apps, Instant::now()).await.expect("answers");
    assert_eq!(counts.finds.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asks_about_is_forgotten() {
    let (store, counts) = counting(10, false);
    let reader = Reader::default();
    let at = place("apps/db");
    let since = Instant::now();
    let asked = || reader.places.0.lock().expect("nothing panics").len();
    reader.look(&store, &at, since).await.expect("answers");
    let live = HashSet::from([store.id]);
    reader.forget(&live, Instant::now());
    assert_eq!(asked(), 1);
    reader.look(&store, &at, since).await.expect("answers");
    assert_eq!(counts.probes.load(Ordering::SeqCst), 1, "it was not forgotten");
    tokio::time::advance(FORGOTTEN).await;
    reader.forget(&live, Instant::now());
    assert_eq!(asked(), 0);
    reader.look(&store, &at, since).await.expect("answers");
    reader.forget(&HashSet::new(), Instant::now());
    assert_eq!(asked(), 0, "its store is out of use");
}

#[tokio::test(start_paused = true)]
async fn values_in_work_are_bounded_and_make_room_when_they_end() {
    let (store, _) = counting(4 * 1024 * 1024, false);
    let reader = Reader::default();
    let since = Instant::now();
    let mut held = Vec::new();
    for number in 0..16 {
        let at = place(&format!("apps/{number}"));
        held.push(reader.read(&store, &at, since).await.expect("there is room"));
    }
    let one_more = reader.read(&store, &place("apps/more"), since).await;
    let fault = one_more.err().expect("64 MiB are held");
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Transient, Reason::RemoteTooLarge)
    );
    held.clear();
    reader
        .read(&store, &place("apps/more"), since)
        .await
        .expect("there is room");
}

#[tokio::test(start_paused = true)]
async fn those_who_waited_share_the_failure() {
    let (store, counts) = counting(10, true);
    let reader = Reader::default();
    let (at, since) = (place("apps/db"), Instant::now());
    let looks = join_all((0..20).map(|_| reader.look(&store, &at, since))).await;
    assert!(looks.iter().all(Result::is_err));
    assert_eq!(counts.probes.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wave_ends_by_age_and_by_size() {
    let (store, counts) = counting(6 * 1024 * 1024, false);
    let reader = Reader::default();
    let since = Instant::now();
    for name in ["a", "b", "c"] {
        reader.read(&store, &place(name), since).await.expect("answers");
    }
    assert_eq!(reader.wave().held.len(), 2, "three of six megabytes do not fit");
    assert!(reader.wave().bytes <= WAVE_BYTES);
    reader.read(&store, &place("c"), since).await.expect("answers");
    assert_eq!(counts.reads.load(Ordering::SeqCst), 3);
    tokio::time::advance(WAVE_AGE).await;
    reader.end_waves(Instant::now());
    assert!(reader.wave().held.is_empty());
    assert_eq!(reader.wave().bytes, 0);
    reader.read(&store, &place("c"), since).await.expect("answers");
    assert_eq!(counts.reads.load(Ordering::SeqCst), 4);
}
