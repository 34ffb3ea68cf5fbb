//! One listing of the project for many names.
//!
//! A refresh of a thousand names should cost the pages of the project and not a thousand requests, and a single name
//! in a huge project should cost one request and not all its pages. [`Demand`] decides which, [`Listings`] acts.

mod demand;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use tokio::time::Instant;
use uuid::Uuid;

use self::demand::Demand;
use super::api::{Api, Listed};
use super::flight::Flight;
use super::now;
use super::snapshot::Snapshot;
use super::wire::Entry;
use crate::stores::{Outcome, Place};

/// Beyond this many pages a project is never listed whole.
const MOST_PAGES: usize = 500;
/// How many pages of secrets with names like one name are read.
const MOST_PAGES_OF_A_NAME: usize = 10;
/// How many answers for single names are kept.
const MOST_ALONE: usize = 1_000;

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// As old as the listing, but from each listing only once: whoever asks again wants to see what changed since.
    OncePerListing,
    /// As old as the answer before, which said that there is something to read; without one, as above.
    AsBefore,
    /// From now.
    Now,
}

/// Answers for names and ids, by listings where that is cheaper.
pub(super) struct Listings {
    shared: Arc<Shared>,
    /// A run for names may end early where one for everything may not, so the two are not shared.
    for_names: Flight<Option<Arc<Snapshot>>>,
    for_all: Flight<Arc<Snapshot>>,
}

struct Shared {
    api: Arc<Api>,
    age: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Listings from before this moment are of no use.
    not_before: Option<Instant>,
    snapshot: Option<Arc<Snapshot>>,
    /// Places the listing has answered for, and whose value may be read next.
    to_read: HashSet<Place>,
    /// The same for names that were asked for alone, with their answers.
    alone: HashMap<String, Arc<Snapshot>>,
    demand: Demand,
}

/// What there is to answer with.
enum Current {
    Answers(Arc<Snapshot>),
    /// There is a listing, and the caller wants something newer.
    TooOld,
    None,
}

impl Listings {
    /// Listings answer for `age` from the moment they are asked for.
    pub(super) fn new(api: Arc<Api>, age: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                api,
                age,
                state: Mutex::default(),
            }),
            for_names: Flight::default(),
            for_all: Flight::default(),
        }
    }

    /// From now on, nothing is answered from what was listed before.
    pub(super) fn forget(&self) {
        let mut state = self.shared.state();
        state.not_before = Some(Instant::now());
        state.alone.clear();
    }

    /// What is alive under exactly this name, the newest first.
    pub(super) async fn named(&self, name: &str, age: Age) -> Outcome<Vec<Entry>> {
        if age == Age::AsBefore
            && let Some(snapshot) = self.shared.state().alone.remove(name)
            && snapshot.taken.elapsed() < self.shared.age
        {
            return Ok(snapshot.named(name, now()));
        }
        let asked = Instant::now();
        if let Some(snapshot) = self.snapshot(&Place::Name(name.to_owned()), age).await? {
            let alive = snapshot.named(name, now());
            // A secret may have been made since the listing, and somebody may be waiting for it.
            if !alive.is_empty() || snapshot.taken >= asked {
                return Ok(alive);
            }
        }
        let snapshot = Arc::new(self.shared.list_like(name).await?);
        if age == Age::OncePerListing {
            self.shared.state().keep_alone(name, &snapshot);
        }
        Ok(snapshot.named(name, now()))
    }

    /// The secret of this id, if a listing that is worth its cost shows it.
    pub(super) async fn listed(&self, id: Uuid, age: Age) -> Outcome<Option<Entry>> {
        let snapshot = self.snapshot(&Place::Uuid(id.to_string()), age).await?;
        Ok(snapshot.and_then(|snapshot| snapshot.by_id(id, now())))
    }

    /// The newest of each name that begins with `prefix`, by name.
    pub(super) async fn newest_below(&self, prefix: &str) -> Outcome<Vec<Entry>> {
        // No secret is at a path, so a search cannot be taken for a name.
        let (place, asked) = (Place::Path(prefix.to_owned()), Instant::now());
        let current = self
            .shared
            .state()
            .take(&place, Age::OncePerListing, self.shared.age);
        let snapshot = match current {
            Current::Answers(snapshot) => snapshot,
            Current::TooOld | Current::None => self.everything(asked).await?,
        };
        self.shared.state().demand.serve(&place);
        Ok(snapshot.newest_below(prefix, now()))
    }

    /// A listing of everything that answers what was asked at `asked`.
    async fn everything(&self, asked: Instant) -> Outcome<Arc<Snapshot>> {
        let joined = self.join_everything().await?;
        if self.shared.may_answer(&joined, asked) {
            return Ok(joined);
        }
        // It was under way before; the next one begins now.
        self.join_everything().await
    }

    async fn join_everything(&self) -> Outcome<Arc<Snapshot>> {
        let shared = Arc::clone(&self.shared);
        let run = self
            .for_all
            .join(|| async move { shared.list_everything().await });
        run.await
    }

    /// A listing to answer for `place`; `None` where it is better asked for alone.
    async fn snapshot(&self, place: &Place, age: Age) -> Outcome<Option<Arc<Snapshot>>> {
        let asked = Instant::now();
        {
            let mut state = self.shared.state();
            match state.take(place, age, self.shared.age) {
                Current::Answers(snapshot) => return Ok(Some(snapshot)),
                Current::TooOld => return Ok(None),
                Current::None => {}
            }
            if age == Age::Now || !state.demand.ask(place, Instant::now(), self.shared.age) {
                return Ok(None);
            }
        }
        let shared = Arc::clone(&self.shared);
        let run = self
            .for_names
            .join(|| async move { shared.list_for_names().await });
        let Some(snapshot) = run.await? else {
            return Ok(None);
        };
        if !self.shared.may_answer(&snapshot, asked) {
            return Ok(None);
        }
        self.shared.state().may_serve(place, age);
        Ok(Some(snapshot))
    }
}

impl Shared {
    /// Whether a listing that somebody else may have begun answers what was asked at `asked`.
    fn may_answer(&self, snapshot: &Snapshot, asked: Instant) -> bool {
        let young = snapshot.taken.elapsed() < self.age && self.state().is_of_use(snapshot);
        snapshot.taken >= asked || young
    }

    async fn list_for_names(self: &Arc<Self>) -> Outcome<Option<Arc<Snapshot>>> {
        let taken = Instant::now();
        match self.api.list(None, || self.state().demand.worth()).await? {
            Listed::Whole { entries, pages } => Ok(Some(self.keep(Snapshot::new(entries, pages, taken)))),
            Listed::TooLong(pages) => {
                self.state().demand.pages = pages;
                Ok(None)
            }
            // A single name is seldom torn by changes elsewhere.
            Listed::Restless => Ok(None),
        }
    }

    async fn list_everything(self: &Arc<Self>) -> Outcome<Arc<Snapshot>> {
        let taken = Instant::now();
        match self.api.list(None, || MOST_PAGES).await? {
            Listed::Whole { entries, pages } => Ok(self.keep(Snapshot::new(entries, pages, taken))),
            Listed::TooLong(_) => Err(Fault::new(
                Class::Permanent,
                Reason::FindLimit,
                format!("searching the project: it has more than {MOST_PAGES} pages of secrets"),
            )
            .advise("name the secrets one by one")),
            Listed::Restless => Err(restless()),
        }
    }

    fn keep(self: &Arc<Self>, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        self.state().keep(&snapshot);
        self.forget_later(&snapshot);
        snapshot
    }

    async fn list_like(&self, name: &str) -> Outcome<Snapshot> {
        let taken = Instant::now();
        match self.api.list(Some(name), || MOST_PAGES_OF_A_NAME).await? {
            Listed::Whole { mut entries, pages } => {
                entries.retain(|entry| *entry.name == *name);
                Ok(Snapshot::new(entries, pages, taken))
            }
            Listed::TooLong(_) => Err(Fault::new(
                Class::Permanent,
                Reason::FindLimit,
                "looking for a secret by name: too many secrets have names like it",
            )
            .advise("name the secret by its UUID")),
            Listed::Restless => Err(restless()),
        }
    }

    /// Frees the memory of a listing that is too old to be used.
    fn forget_later(self: &Arc<Self>, snapshot: &Arc<Snapshot>) {
        let (shared, taken) = (Arc::downgrade(self), snapshot.taken);
        let end = taken + self.age;
        tokio::spawn(async move {
            tokio::time::sleep_until(end).await;
            if let Some(shared) = shared.upgrade() {
                shared.state().forget(taken);
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn restless() -> Fault {
    Fault::new(
        Class::Transient,
        Reason::StoreUnavailable,
        "listing secrets: the project kept changing while its pages were read",
    )
}

impl State {
    /// The listing there is, if it may answer for `place`.
    fn take(&mut self, place: &Place, age: Age, oldest: Duration) -> Current {
        let Some(snapshot) = self.snapshot.clone() else {
            return Current::None;
        };
        if snapshot.taken.elapsed() >= oldest || !self.is_of_use(&snapshot) {
            return Current::None;
        }
        if self.may_serve(place, age) {
            Current::Answers(snapshot)
        } else {
            Current::TooOld
        }
    }

    fn is_of_use(&self, snapshot: &Snapshot) -> bool {
        self.not_before
            .is_none_or(|not_before| snapshot.taken >= not_before)
    }

    /// Whether the listing may answer for `place`, which is noted.
    fn may_serve(&mut self, place: &Place, age: Age) -> bool {
        match age {
            Age::OncePerListing => {
                let first = self.demand.serve(place);
                if first {
                    self.to_read.insert(place.clone());
                }
                first
            }
            Age::AsBefore => self.to_read.remove(place) || self.demand.serve(place),
            Age::Now => false,
        }
    }

    fn keep(&mut self, snapshot: &Arc<Snapshot>) {
        self.demand.listed(snapshot.pages);
        self.alone.clear();
        self.to_read.clear();
        self.snapshot = Some(Arc::clone(snapshot));
    }

    fn keep_alone(&mut self, name: &str, snapshot: &Arc<Snapshot>) {
        // Somebody may have wished for news since it was asked for.
        if !self.is_of_use(snapshot) {
            return;
        }
        if self.alone.len() >= MOST_ALONE {
            self.alone.clear();
        }
        self.alone.insert(name.to_owned(), Arc::clone(snapshot));
    }

    fn forget(&mut self, taken: Instant) {
        if self.snapshot.as_ref().is_some_and(|kept| kept.taken == taken) {
            self.snapshot = None;
            self.to_read = HashSet::new();
            self.demand.rest();
        }
    }
}
