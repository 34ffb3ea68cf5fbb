//! The values in flight to several objects: at most [`WAVE_AGE`] and [`WAVE_BYTES`] in all.

use std::collections::{HashMap, VecDeque};

use keyward_core::secret::SecretBytes;
use keyward_core::sync::payload::Payload;
use tokio::time::Instant;

use super::{PlaceKey, SharedReading, WAVE_AGE, WAVE_BYTES};
use crate::stores::{ReadOutcome, Reading};

/// The values.
#[derive(Default)]
pub(super) struct Wave {
    pub(super) held: HashMap<PlaceKey, SharedReading>,
    order: VecDeque<(PlaceKey, Instant)>,
    pub(super) bytes: usize,
}

impl Wave {
    /// The value of a place, as of `since` or later.
    pub(super) fn get(&self, key: &PlaceKey, since: Instant, now: Instant) -> Option<SharedReading> {
        self.held
            .get(key)
            .filter(|shared| shared.at >= since && now < shared.at + WAVE_AGE)
            .cloned()
    }

    /// Shares a value.
    pub(super) fn put(&mut self, key: PlaceKey, shared: SharedReading, now: Instant) {
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

    /// Wipes the values whose time has passed.
    pub(super) fn expire(&mut self, now: Instant) {
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

/// How many bytes of secrets there are in it.
pub(super) fn size_of_value(outcome: &ReadOutcome) -> usize {
    match outcome {
        ReadOutcome::Absent(_) => 0,
        ReadOutcome::Value(Reading { payload, .. }) => match payload {
            Payload::Json(bytes) | Payload::Bytes(bytes) => bytes.len(),
            Payload::Parts(parts) => parts.values().map(SecretBytes::len).sum(),
        },
    }
}
