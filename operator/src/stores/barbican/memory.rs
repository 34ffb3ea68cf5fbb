//! What was learnt about secrets and never changes: when each was made, when it ends, which generation it is.
//!
//! It saves requests, and it is how an expired secret is told from one that was never there: Barbican says 404 to
//! both.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::wire::Entry;
use crate::stores::Absence;

/// More than the secrets a store is likely to serve; the oldest knowledge makes room.
const CAPACITY: usize = 50_000;

/// Facts about secrets, bounded in number.
#[derive(Default)]
pub(super) struct Memory(Mutex<Facts>);

/// What is known for good about one secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) created: DateTime<Utc>,
    pub(super) expires: Option<DateTime<Utc>>,
    pub(super) generation: Generation,
}

/// A secret's generation, as far as it has been looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generation {
    Unread,
    /// `None` where no writer noted one.
    Read(Option<u64>),
}

impl Known {
    /// The secret as it was when it was seen, nameless and with a value.
    pub(super) fn entry(self, id: Uuid) -> Entry {
        Entry {
            id,
            name: Box::default(),
            created: self.created,
            expires: self.expires,
            has_payload: true,
            active: true,
        }
    }
}

#[derive(Default)]
struct Facts {
    secrets: HashMap<Uuid, Known>,
    order: VecDeque<Uuid>,
    /// The end of the secret that was the newest of a name.
    names: HashMap<String, DateTime<Utc>>,
}

impl Memory {
    /// Notes what a listing or a look at the secret has shown.
    pub(super) fn note(&self, entry: &Entry) {
        let mut facts = self.facts();
        if facts.secrets.contains_key(&entry.id) {
            return;
        }
        if facts.order.len() >= CAPACITY
            && let Some(oldest) = facts.order.pop_front()
        {
            facts.secrets.remove(&oldest);
        }
        facts.order.push_back(entry.id);
        facts.secrets.insert(
            entry.id,
            Known {
                created: entry.created,
                expires: entry.expires,
                generation: Generation::Unread,
            },
        );
    }

    /// Notes which secret a name stands for.
    pub(super) fn note_name(&self, name: &str, entry: &Entry) {
        let mut facts = self.facts();
        match entry.expires {
            None => {
                facts.names.remove(name);
            }
            Some(expires) if facts.names.len() < CAPACITY || facts.names.contains_key(name) => {
                facts.names.insert(name.to_owned(), expires);
            }
            Some(_) => {}
        }
    }

    /// Notes the generation, read once.
    pub(super) fn note_generation(&self, id: Uuid, generation: Option<u64>) {
        if let Some(known) = self.facts().secrets.get_mut(&id) {
            known.generation = Generation::Read(generation);
        }
    }

    pub(super) fn known(&self, id: Uuid) -> Option<Known> {
        self.facts().secrets.get(&id).copied()
    }

    /// How the absence of this secret is to be told.
    pub(super) fn absence(&self, id: Uuid, now: DateTime<Utc>) -> Absence {
        absence(self.known(id).and_then(|known| known.expires), now)
    }

    /// How it is to be told that nothing has this name.
    pub(super) fn absence_of_name(&self, name: &str, now: DateTime<Utc>) -> Absence {
        absence(self.facts().names.get(name).copied(), now)
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only an end that was read before, and that has passed, explains a 404.
fn absence(expires: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Absence {
    match expires {
        Some(expires) if expires <= now => Absence::Expired,
        _ => Absence::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn entry(id: usize, expires: Option<i64>) -> Entry {
        Entry {
            id: Uuid::from_u128(id as u128),
            name: "n".into(),
            created: at(0),
            expires: expires.map(at),
            has_payload: true,
            active: true,
        }
    }

    #[test]
    fn only_an_end_that_was_read_and_has_passed_is_an_expiry() {
        let memory = Memory::default();
        let (ending, lasting) = (entry(1, Some(10)), entry(2, None));
        memory.note(&ending);
        memory.note(&lasting);
        assert_eq!(memory.absence(ending.id, at(9)), Absence::NotFound);
        assert_eq!(memory.absence(ending.id, at(10)), Absence::Expired);
        assert_eq!(memory.absence(lasting.id, at(99)), Absence::NotFound);
        assert_eq!(memory.absence(Uuid::from_u128(3), at(99)), Absence::NotFound);

        memory.note_name("n", &ending);
        assert_eq!(memory.absence_of_name("n", at(10)), Absence::Expired);
        memory.note_name("n", &lasting);
        assert_eq!(memory.absence_of_name("n", at(99)), Absence::NotFound);
    }

    #[test]
    fn a_generation_is_kept_when_the_secret_is_seen_again() {
        let memory = Memory::default();
        let entry = entry(1, None);
        memory.note(&entry);
        memory.note_generation(entry.id, Some(4));
        memory.note(&entry);
        assert_eq!(
            memory.known(entry.id).unwrap().generation,
            Generation::Read(Some(4))
        );
    }

    #[test]
    fn the_oldest_makes_room() {
        let memory = Memory::default();
        for id in 0..=CAPACITY {
            memory.note(&entry(id, None));
        }
        assert!(memory.known(Uuid::from_u128(0)).is_none());
        assert!(memory.known(Uuid::from_u128(CAPACITY as u128)).is_some());
    }
}
