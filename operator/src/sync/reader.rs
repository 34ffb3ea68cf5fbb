//! One look at a remote place, shared by everything that names it.
//!
//! For each place there is at most one request under way. A look or a search that was made for one object serves every
//! other object whose turn falls into the same interval. Values are shared only within a wave: at most [`WAVE_AGE`] and
//! [`WAVE_BYTES`] in all, in buffers that are wiped; there is no other cache of values.

mod questions;
#[cfg(test)]
mod tests;
mod wave;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use self::questions::{Questions, ask};
use self::wave::{Wave, size_of_value};
use crate::store::LiveStore;
use crate::stores::{FindQuery, Found, Outcome, Probe, ReadOutcome, RemoteRef};

/// How long a value may serve the objects of one wave.
pub const WAVE_AGE: Duration = Duration::from_secs(10);

/// How many bytes of values all waves together may hold.
pub const WAVE_BYTES: usize = 16 * 1024 * 1024;

/// How many bytes of values may be in memory at once, for all objects: waves, and what passes work on.
const MOST_HELD: usize = 64 * 1024 * 1024;

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

fn as_probe(outcome: &ReadOutcome) -> Probe {
    match outcome {
        ReadOutcome::Value(reading) => Probe::Current(reading.version.clone()),
        ReadOutcome::Absent(absence) => Probe::Absent(*absence),
    }
}
