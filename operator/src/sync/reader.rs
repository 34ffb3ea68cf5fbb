//! One look at a remote place, shared by everything that names it.
//!
//! For each place there is at most one request under way. A look that was made for one object serves every other
//! object whose turn falls into the same interval. Values are shared only within a wave: at most [`WAVE_AGE`] and
//! [`WAVE_BYTES`] in all, in buffers that are wiped; there is no other cache of values.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyward_core::fault::Fault;
use keyward_core::sync::payload::Payload;
use tokio::time::Instant;

use crate::store::LiveStore;
use crate::stores::{Outcome, Probe, ReadOutcome, Reading, RemoteRef};

/// How long a value may serve the objects of one wave.
pub const WAVE_AGE: Duration = Duration::from_secs(10);

/// How many bytes of values all waves together may hold.
pub const WAVE_BYTES: usize = 16 * 1024 * 1024;

/// A look at a place: what it showed and when.
#[derive(Debug, Clone)]
pub struct Look {
    /// What was there.
    pub probe: Probe,
    /// When the store was asked.
    pub at: Instant,
}

/// A value shared by a wave, and the look it came with.
#[derive(Clone)]
pub struct SharedReading {
    /// The value, or how the store says that there is none.
    pub outcome: Arc<ReadOutcome>,
    /// When the store was asked.
    pub at: Instant,
}

/// Shares looks and values between objects.
#[derive(Default)]
pub struct Reader {
    places: Mutex<HashMap<PlaceKey, Arc<tokio::sync::Mutex<PlaceState>>>>,
    wave: Mutex<Wave>,
}

type PlaceKey = (u64, RemoteRef);

#[derive(Default)]
struct PlaceState {
    look: Option<Look>,
    /// Apart, because it is rare and large.
    failure: Option<Box<(Fault, Instant)>>,
}

impl Reader {
    /// What is at a place, as of `since` or later.
    ///
    /// # Errors
    /// The store's fault; callers that waited for the same request get the same one.
    pub async fn look(&self, store: &LiveStore, at: &RemoteRef, since: Instant) -> Outcome<Look> {
        let asked = Instant::now();
        let place = self.place(store, at);
        let mut state = place.lock().await;
        if let Some(look) = state.look.as_ref().filter(|look| look.at >= since) {
            return Ok(look.clone());
        }
        state.shared_failure(asked)?;
        let started = Instant::now();
        match store.probe(at).await {
            Ok(probe) => {
                let look = Look { probe, at: started };
                state.look = Some(look.clone());
                Ok(look)
            }
            Err(fault) => Err(state.fail(fault)),
        }
    }

    /// The value at a place, as of `since` or later.
    ///
    /// # Errors
    /// The store's fault; callers that waited for the same request get the same one.
    pub async fn read(&self, store: &LiveStore, at: &RemoteRef, since: Instant) -> Outcome<SharedReading> {
        let asked = Instant::now();
        let key = (store.id, at.clone());
        let place = self.place(store, at);
        let mut state = place.lock().await;
        if let Some(shared) = self.wave().get(&key, since, asked) {
            return Ok(shared);
        }
        state.shared_failure(asked)?;
        let started = Instant::now();
        match store.read(at).await {
            Ok(outcome) => {
                state.look = Some(Look {
                    probe: as_probe(&outcome),
                    at: started,
                });
                let shared = SharedReading {
                    outcome: Arc::new(outcome),
                    at: started,
                };
                self.wave().put(key, shared.clone(), Instant::now());
                Ok(shared)
            }
            Err(fault) => Err(state.fail(fault)),
        }
    }

    /// Wipes values whose wave has passed. To be called about once a second.
    pub fn end_waves(&self, now: Instant) {
        self.wave().expire(now);
    }

    /// Forgets places of stores that are no longer in use.
    pub fn keep_stores(&self, live: &HashSet<u64>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|(store, _), _| live.contains(store));
    }

    fn place(&self, store: &LiveStore, at: &RemoteRef) -> Arc<tokio::sync::Mutex<PlaceState>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry((store.id, at.clone())).or_default())
    }

    fn wave(&self) -> std::sync::MutexGuard<'_, Wave> {
        self.wave.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PlaceState {
    /// A failure of a request that was under way while the caller waited is the caller's answer too.
    fn shared_failure(&self, asked: Instant) -> Outcome<()> {
        match self.failure.as_deref() {
            Some((fault, at)) if *at >= asked => Err(fault.clone()),
            _ => Ok(()),
        }
    }

    fn fail(&mut self, fault: Fault) -> Fault {
        self.failure = Some(Box::new((fault.clone(), Instant::now())));
        fault
    }
}

fn as_probe(outcome: &ReadOutcome) -> Probe {
    match outcome {
        ReadOutcome::Value(reading) => Probe::Current(reading.version.clone()),
        ReadOutcome::Absent(absence) => Probe::Absent(*absence),
    }
}

/// The values in flight to several objects.
#[derive(Default)]
struct Wave {
    held: HashMap<PlaceKey, SharedReading>,
    order: VecDeque<(PlaceKey, Instant)>,
    bytes: usize,
}

impl Wave {
    fn get(&self, key: &PlaceKey, since: Instant, now: Instant) -> Option<SharedReading> {
        self.held
            .get(key)
            .filter(|shared| shared.at >= since && now < shared.at + WAVE_AGE)
            .cloned()
    }

    fn put(&mut self, key: PlaceKey, shared: SharedReading, now: Instant) {
        self.expire(now);
        let size = size_of_value(&shared);
        if size > WAVE_BYTES {
            return;
        }
        self.remove(&key);
        while self.bytes + size > WAVE_BYTES {
            let Some((oldest, _)) = self.order.pop_front() else {
                break;
            };
            self.remove(&oldest);
        }
        self.bytes += size;
        self.order.push_back((key.clone(), shared.at));
        self.held.insert(key, shared);
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(_, at)| *at + WAVE_AGE <= now) {
            if let Some((key, at)) = self.order.pop_front()
                && self.held.get(&key).is_some_and(|shared| shared.at == at)
            {
                self.remove(&key);
            }
        }
        if self.held.is_empty() {
            // A wave of thousands must not leave its tables behind.
            *self = Self::default();
        }
    }

    fn remove(&mut self, key: &PlaceKey) {
        if let Some(shared) = self.held.remove(key) {
            self.bytes -= size_of_value(&shared);
        }
    }
}

fn size_of_value(shared: &SharedReading) -> usize {
    match shared.outcome.as_ref() {
        ReadOutcome::Absent(_) => 0,
        ReadOutcome::Value(Reading { payload, .. }) => match payload {
            Payload::Json(bytes) | Payload::Bytes(bytes) => bytes.len(),
            Payload::Parts(parts) => parts.values().map(keyward_core::secret::SecretBytes::len).sum(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;
    use futures::future::{BoxFuture, join_all};
    use keyward_core::fault::Class;
    use keyward_core::reason::Reason;
    use keyward_core::secret::SecretBytes;

    use super::*;
    use crate::store::Pace;
    use crate::stores::pacing::Pacer;
    use crate::stores::{FindQuery, Found, Place, RemoteVersion, Store};

    #[derive(Default)]
    struct Counts {
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
            async { Ok(vec![]) }.boxed()
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
}
