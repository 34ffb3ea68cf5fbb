//! The secrets of a project at one moment: names, ids and dates, never a value.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use uuid::Uuid;

use super::wire::Entry;

/// The active secrets of a project, or those of some names.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// When it was asked for; the answer may be younger, never older.
    pub(super) taken: Instant,
    /// How many requests it took.
    pub(super) pages: usize,
    /// By name, and the newest first within a name.
    entries: Vec<Entry>,
    /// Places in `entries`, by id.
    by_id: Vec<usize>,
}

impl Snapshot {
    pub(super) fn new(mut entries: Vec<Entry>, pages: usize, taken: Instant) -> Self {
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name).then_with(|| newest_first(a, b)));
        let mut by_id: Vec<usize> = (0..entries.len()).collect();
        by_id.sort_unstable_by_key(|at| entries[*at].id);
        Self {
            taken,
            pages,
            entries,
            by_id,
        }
    }

    /// What is alive under exactly this name, the newest first.
    pub(super) fn named(&self, name: &str, now: DateTime<Utc>) -> Vec<Entry> {
        self.from(name)
            .take_while(|entry| *entry.name == *name)
            .filter(|entry| !entry.is_expired(now))
            .cloned()
            .collect()
    }

    /// The newest of each name that begins with `prefix`, by name.
    pub(super) fn newest_below(&self, prefix: &str, now: DateTime<Utc>) -> Vec<Entry> {
        let mut newest: Vec<Entry> = Vec::new();
        let below = self
            .from(prefix)
            .take_while(|entry| entry.name.starts_with(prefix));
        for entry in below.filter(|entry| !entry.is_expired(now)) {
            if newest.last().is_none_or(|last| last.name != entry.name) {
                newest.push(entry.clone());
            }
        }
        newest
    }

    /// The living secret of this id.
    pub(super) fn by_id(&self, id: Uuid, now: DateTime<Utc>) -> Option<Entry> {
        let at = self
            .by_id
            .binary_search_by_key(&id, |at| self.entries[*at].id)
            .ok()?;
        let entry = &self.entries[self.by_id[at]];
        (!entry.is_expired(now)).then(|| entry.clone())
    }

    fn from(&self, name: &str) -> impl Iterator<Item = &Entry> {
        let from = self.entries.partition_point(|entry| *entry.name < *name);
        self.entries[from..].iter()
    }
}

/// The later creation first; the greater UUID where two are of the same moment, so that the choice is always the
/// same one.
fn newest_first(a: &Entry, b: &Entry) -> Ordering {
    (b.created, b.id).cmp(&(a.created, a.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn entry(id: u128, name: &str, created: i64, expires: Option<i64>) -> Entry {
        Entry {
            id: Uuid::from_u128(id),
            name: name.into(),
            created: at(created),
            expires: expires.map(at),
            has_payload: true,
            active: true,
        }
    }

    fn ids(entries: &[Entry]) -> Vec<u128> {
        entries.iter().map(|entry| entry.id.as_u128()).collect()
    }

    fn snapshot() -> Snapshot {
        let entries = vec![
            entry(1, "db-password", 1, None),
            entry(2, "db_password", 9, None),
            entry(3, "db-password", 5, None),
            entry(4, "DB-PASSWORD", 9, None),
            entry(5, "db-password-old", 9, None),
            entry(9, "db-password", 5, None),
            entry(7, "db-password", 8, Some(20)),
            entry(8, "db", 2, None),
        ];
        Snapshot::new(entries, 1, Instant::now())
    }

    #[test]
    fn a_name_is_exact_and_the_newest_comes_first_and_then_the_greater_id() {
        assert_eq!(ids(&snapshot().named("db-password", at(10))), [7, 9, 3, 1]);
        assert_eq!(
            ids(&snapshot().named("db-password", at(20))),
            [9, 3, 1],
            "7 has expired"
        );
        assert!(snapshot().named("db-passwor", at(10)).is_empty());
    }

    #[test]
    fn a_search_gives_the_newest_of_each_name() {
        assert_eq!(ids(&snapshot().newest_below("db-", at(10))), [7, 5]);
        assert_eq!(ids(&snapshot().newest_below("db", at(20))), [8, 9, 5, 2]);
        assert_eq!(snapshot().newest_below("", at(10)).len(), 5);
    }

    #[test]
    fn an_id_is_found_while_it_lives() {
        assert_eq!(
            &*snapshot().by_id(Uuid::from_u128(7), at(10)).unwrap().name,
            "db-password"
        );
        assert!(snapshot().by_id(Uuid::from_u128(7), at(20)).is_none());
        assert!(snapshot().by_id(Uuid::from_u128(6), at(10)).is_none());
    }
}
