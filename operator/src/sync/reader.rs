//! One look at a remote place, shared by everything that names it.
//!
//! For each place there is at most one request under way. A look or a search that was made for one object serves every
//! other object whose turn falls into the same interval. Values are shared only within a wave: at most [`WAVE_AGE`] and
//! [`WAVE_BYTES`] in all, in buffers that are wiped; there is no other cache of values.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::sync::payload::Payload;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::store::LiveStore;
use crate::stores::{FindQuery, Found, Outcome, Probe, ReadOutcome, Reading, RemoteRef};

/// How long a value may serve the objects of one wave.
pub const WAVE_AGE: Duration = Duration::from_secs(10);

/// How many bytes of values all waves together may hold.
pub const WAVE_BYTES: usize = 16 * 1024 * 1024;

/// How many bytes of values may be in memory at once, for all objects: waves, and what passes work on.
const MOST_HELD: usize = 64 * 1024 * 1024;

/// How long an answer may serve; longer than the intervals that objects are looked at in.
const FORGOTTEN: Duration = Duration::from_hours(25);

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
    /// Its part of what may be held at once.
    _held: Arc<OwnedSemaphorePermit>,
}

/// Shares looks, searches and values between objects.
pub struct Reader {
    places: Questions<RemoteRef, Probe>,
    searches: Questions<FindQuery, Arc<[Found]>>,
    wave: Mutex<Wave>,
    /// One permit for each kibibyte of values that may be held.
    room: Arc<Semaphore>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            places: Questions::default(),
            searches: Questions::default(),
            wave: Mutex::default(),
            room: Arc::new(Semaphore::new(MOST_HELD / 1024)),
        }
    }
}

impl Reader {
    /// What is at a place, as of `since` or later.
    ///
    /// # Errors
    /// The store's fault; callers that waited for the same request get the same one.
    pub async fn look(&self, store: &LiveStore, at: &RemoteRef, since: Instant) -> Outcome<Look> {
        let place = self.places.of(store.id, at);
        let (probe, at) = ask(&place, since, || store.probe(at)).await?;
        Ok(Look { probe, at })
    }

    /// The places that match a search, as of `since` or later.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub async fn find(&self, store: &LiveStore, query: &FindQuery, since: Instant) -> Outcome<Arc<[Found]>> {
        let search = self.searches.of(store.id, query);
        let found = ask(&search, since, async || Ok(store.find(query).await?.into())).await?;
        Ok(found.0)
    }

    /// The value at a place, as of `since` or later.
    ///
    /// # Errors
    /// As [`Self::look`]; `RemoteTooLarge` where too many large values are held at the moment.
    pub async fn read(&self, store: &LiveStore, at: &RemoteRef, since: Instant) -> Outcome<SharedReading> {
        let asked = Instant::now();
        let key = (store.id, at.clone());
        let place = self.places.of(store.id, at);
        let mut state = place.lock().await;
        if let Some(shared) = self.wave().get(&key, since, asked) {
            return Ok(shared);
        }
        state.shared_failure(asked)?;
        let started = Instant::now();
        match store.read(at).await {
            Ok(outcome) => {
                state.answer = Some((as_probe(&outcome), started));
                let shared = SharedReading {
                    _held: Arc::new(self.hold(&outcome)?),
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

    /// Forgets what was seen through stores that are no longer in use, and at places that nobody asks about any more.
    pub fn forget(&self, live: &HashSet<u64>, now: Instant) {
        self.places.forget(live, now);
        self.searches.forget(live, now);
    }

    /// Takes room for a value. It is not waited for: who waits may hold what the other waits for.
    fn hold(&self, outcome: &ReadOutcome) -> Outcome<OwnedSemaphorePermit> {
        let kibibytes = u32::try_from(size_of_value(outcome).div_ceil(1024)).unwrap_or(u32::MAX);
        Arc::clone(&self.room)
            .try_acquire_many_owned(kibibytes)
            .map_err(|_| {
                let message = "too many large values are being worked on at once";
                Fault::new(Class::Transient, Reason::RemoteTooLarge, message)
                    .advise("it is tried again by itself; smaller values help")
            })
    }

    fn wave(&self) -> std::sync::MutexGuard<'_, Wave> {
        self.wave.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place behind one door.
type PlaceKey = (u64, RemoteRef);

/// What was asked of stores, question by question, each with its last answer.
struct Questions<Q, A>(Mutex<HashMap<(u64, Q), Question<A>>>);

/// A question to a store: whoever locks it asks, and everybody else waits for the answer.
type Question<A> = Arc<tokio::sync::Mutex<Asked<A>>>;

struct Asked<A> {
    answer: Option<(A, Instant)>,
    /// Apart, because it is rare and large.
    failure: Option<Box<(Fault, Instant)>>,
}

/// The answer to a question, as of `since` or later, and when it was asked.
async fn ask<A: Clone>(
    question: &Question<A>,
    since: Instant,
    store: impl AsyncFnOnce() -> Outcome<A>,
) -> Outcome<(A, Instant)> {
    let asked = Instant::now();
    let mut state = question.lock().await;
    if let Some(answer) = state.answer.as_ref().filter(|(_, at)| *at >= since) {
        return Ok(answer.clone());
    }
    state.shared_failure(asked)?;
    let started = Instant::now();
    match store().await {
        Ok(answer) => Ok(state.answer.insert((answer, started)).clone()),
        Err(fault) => Err(state.fail(fault)),
    }
}

impl<Q, A> Default for Questions<Q, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Q: Clone + Eq + Hash, A> Questions<Q, A> {
    fn of(&self, store: u64, question: &Q) -> Question<A> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry((store, question.clone())).or_default())
    }

    fn forget(&self, live: &HashSet<u64>, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(store, _), asked| {
            let in_use = Arc::strong_count(asked) > 1;
            let fresh = |asked: &Asked<A>| asked.last().is_some_and(|at| now < at + FORGOTTEN);
            live.contains(store) && (in_use || asked.try_lock().is_ok_and(|asked| fresh(&asked)))
        });
    }
}

impl<A> Default for Asked<A> {
    fn default() -> Self {
        Self {
            answer: None,
            failure: None,
        }
    }
}

impl<A> Asked<A> {
    /// When it was asked last.
    fn last(&self) -> Option<Instant> {
        let answered = self.answer.as_ref().map(|(_, at)| *at);
        let failed = self.failure.as_ref().map(|failure| failure.1);
        answered.max(failed)
    }

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
        let size = size_of_value(&shared.outcome);
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
            self.bytes -= size_of_value(&shared.outcome);
        }
    }
}

fn size_of_value(outcome: &ReadOutcome) -> usize {
    match outcome {
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
    use keyward_core::secret::SecretBytes;

    use super::*;
    use crate::store::Pace;
    use crate::stores::pacing::Pacer;
    use crate::stores::{FindQuery, Found, Place, RemoteVersion, Store};

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
            tags: std::collections::BTreeMap::new(),
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
}
