//! What is stored of passwords: those that were refused, those that were accepted, and the tries of each user.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use chrono::{DateTime, Utc};

use super::{Digest, FIRST_WAIT, FREE_TRIES, LONGEST_WAIT};

/// Passwords that are remembered, of each sort; beyond it the oldest goes. 128 KiB.
const MOST_PASSWORDS: usize = 4096;

/// Users whose tries are remembered; beyond it the one tried longest ago goes. 44 KiB.
const MOST_USERS: usize = 1024;

/// What outlives a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    refused: VecDeque<Digest>,
    accepted: VecDeque<Digest>,
    tries: BTreeMap<Digest, Tries>,
}

/// Tries with passwords that were not seen to be accepted, with none accepted in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tries {
    pub(super) count: u32,
    /// In whole seconds, as it is stored.
    last: i64,
}

impl Tries {
    /// When the next may be made; `None` where it need not wait.
    pub(super) fn next_at(self) -> Option<DateTime<Utc>> {
        let doublings = self.count.checked_sub(FREE_TRIES)?;
        let wait = FIRST_WAIT
            .checked_mul(1 << doublings.min(8))
            .unwrap_or(LONGEST_WAIT)
            .min(LONGEST_WAIT);
        DateTime::from_timestamp(self.last, 0)?.checked_add_signed(wait)
    }
}

impl Ledger {
    pub(super) fn is_refused(&self, password: &Digest) -> bool {
        self.refused.contains(password)
    }

    pub(super) fn is_accepted(&self, password: &Digest) -> bool {
        self.accepted.contains(password)
    }

    pub(super) fn tries(&self, user: &Digest) -> Option<Tries> {
        self.tries.get(user).copied()
    }

    /// Returns whether that is new.
    pub(super) fn accept(&mut self, password: Digest) -> bool {
        push(&mut self.accepted, password)
    }

    pub(super) fn refuse(&mut self, password: Digest) {
        self.doubt(&password);
        push(&mut self.refused, password);
    }

    /// Forgets that a password was accepted. Returns whether it was.
    pub(super) fn doubt(&mut self, password: &Digest) -> bool {
        let before = self.accepted.len();
        self.accepted.retain(|known| known != password);
        self.accepted.len() < before
    }

    /// Adds a try and returns the tries with it.
    pub(super) fn count(&mut self, user: &Digest, now: DateTime<Utc>) -> Tries {
        let before = self.tries(user).map_or(0, |tries| tries.count);
        let with = Tries {
            count: before.saturating_add(1),
            last: now.timestamp(),
        };
        self.set_tries(user, Some(with));
        with
    }

    /// Returns what was there before.
    pub(super) fn set_tries(&mut self, user: &Digest, tries: Option<Tries>) -> Option<Tries> {
        let Some(tries) = tries else {
            return self.tries.remove(user);
        };
        let before = self.tries.insert(*user, tries);
        if self.tries.len() > MOST_USERS {
            let oldest = self.tries.iter().min_by_key(|(_, tries)| tries.last);
            let oldest = oldest.map(|(user, _)| *user);
            oldest.and_then(|user| self.tries.remove(&user));
        }
        before
    }

    /// Moves a try that lies ahead of `now` back to it.
    pub(super) fn nothing_after(&mut self, user: &Digest, now: DateTime<Utc>) {
        if let Entry::Occupied(mut tries) = self.tries.entry(*user) {
            let tries = tries.get_mut();
            tries.last = tries.last.min(now.timestamp());
        }
    }

    /// What came of `base` here, together with what came of it elsewhere. Where both have changed the same, it is the
    /// more careful of the two.
    pub(super) fn joined(&self, base: &Self, elsewhere: &Self) -> Self {
        let mut all = elsewhere.clone();
        for password in only_in(&self.accepted, &base.accepted) {
            push(&mut all.accepted, *password);
        }
        for password in only_in(&self.refused, &base.refused) {
            push(&mut all.refused, *password);
        }
        let doubted: HashSet<&Digest> = only_in(&base.accepted, &self.accepted).collect();
        let refused: HashSet<&Digest> = all.refused.iter().collect();
        all.accepted
            .retain(|password| !doubted.contains(password) && !refused.contains(password));

        let users: BTreeSet<&Digest> = self.tries.keys().chain(base.tries.keys()).collect();
        for user in users {
            let (here, before, there) = (self.tries(user), base.tries(user), elsewhere.tries(user));
            if here == before {
                continue;
            }
            let tries = if there == before {
                here
            } else {
                [here, there].into_iter().flatten().reduce(|a, b| Tries {
                    count: a.count.max(b.count),
                    last: a.last.max(b.last),
                })
            };
            all.set_tries(user, tries);
        }
        all
    }

    /// Named parts to be stored.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, Vec<u8>); 3] {
        let joined = |digests: &VecDeque<Digest>| digests.iter().flatten().copied().collect();
        let tries = self.tries.iter().flat_map(|(user, tries)| {
            let (count, last) = (tries.count.to_be_bytes(), tries.last.to_be_bytes());
            [&user[..], &count, &last].concat()
        });
        [
            ("rejected", joined(&self.refused)),
            ("accepted", joined(&self.accepted)),
            ("tries", tries.collect()),
        ]
    }

    /// Reads what was stored; a missing or torn part counts for what is left of it.
    #[must_use]
    pub fn from_parts<'a>(part: impl Fn(&str) -> Option<&'a [u8]>) -> Self {
        let digests = |name| {
            let bytes = part(name).unwrap_or_default();
            bytes.as_chunks().0.iter().copied().collect()
        };
        let records = part("tries").unwrap_or_default().as_chunks::<44>().0;
        Self {
            refused: digests("rejected"),
            accepted: digests("accepted"),
            tries: records.iter().filter_map(read_tries).collect(),
        }
    }
}

fn read_tries(record: &[u8; 44]) -> Option<(Digest, Tries)> {
    let (user, rest) = record.split_first_chunk()?;
    let (count, last) = rest.split_first_chunk()?;
    let tries = Tries {
        count: u32::from_be_bytes(*count),
        last: i64::from_be_bytes(last.try_into().ok()?),
    };
    Some((*user, tries))
}

fn only_in<'a>(
    these: &'a VecDeque<Digest>,
    others: &'a VecDeque<Digest>,
) -> impl Iterator<Item = &'a Digest> {
    let others: HashSet<&Digest> = others.iter().collect();
    these.iter().filter(move |one| !others.contains(one))
}

/// Adds a digest as the newest, within the bound. Returns whether it was not there.
fn push(all: &mut VecDeque<Digest>, digest: Digest) -> bool {
    if all.contains(&digest) {
        return false;
    }
    if all.len() >= MOST_PASSWORDS {
        all.pop_front();
    }
    all.push_back(digest);
    true
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 7).unwrap()
    }

    #[test]
    fn what_is_stored_is_read_as_it_was() {
        let mut ledger = Ledger::default();
        ledger.refuse([1; 32]);
        ledger.accept([2; 32]);
        ledger.count(&[3; 32], now());
        let parts = ledger.parts();
        let read = Ledger::from_parts(|name| {
            let part = parts.iter().find(|(known, _)| *known == name);
            part.map(|(_, bytes)| bytes.as_slice())
        });
        assert_eq!(read, ledger);
    }

    #[test]
    fn memory_is_bounded_and_torn_parts_do_no_harm() {
        let mut ledger = Ledger::default();
        for number in 0..=u32::try_from(MOST_PASSWORDS).unwrap() {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_be_bytes());
            ledger.refuse(digest);
            ledger.refuse(digest);
        }
        assert_eq!(ledger.refused.len(), MOST_PASSWORDS);
        assert_eq!(ledger.refused[0][..4], 1_u32.to_be_bytes());
        for number in 0..=u16::try_from(MOST_USERS).unwrap() {
            let mut user = [0; 32];
            user[..2].copy_from_slice(&number.to_be_bytes());
            ledger.count(&user, now() + TimeDelta::seconds(number.into()));
        }
        assert_eq!(ledger.tries.len(), MOST_USERS);
        assert!(ledger.tries(&[0; 32]).is_none(), "the oldest went");

        let torn = Ledger::from_parts(|name| (name == "tries").then_some(&[7; 50][..]));
        assert!(torn.refused.is_empty() && torn.tries.len() == 1);
        let tries = torn.tries(&[7; 32]).expect("one record is whole");
        assert_eq!(tries.next_at(), None, "no clock shows such a time");
    }

    #[test]
    fn what_both_have_changed_is_taken_the_careful_way() {
        let user = [1; 32];
        let with = |count, last| {
            let mut ledger = Ledger::default();
            ledger.set_tries(&user, Some(Tries { count, last }));
            ledger
        };
        let (none, base) = (Ledger::default(), with(2, 20));
        for (here, elsewhere, joined) in [
            (&base, with(3, 30), Some((3, 30))),
            (&with(3, 30), base.clone(), Some((3, 30))),
            (&with(1, 10), base.clone(), Some((1, 10))),
            (&none, base.clone(), None),
            (&base, none.clone(), None),
            (&with(3, 40), with(4, 30), Some((4, 40))),
            (&none, with(3, 30), Some((3, 30))),
            (&with(3, 30), none.clone(), Some((3, 30))),
        ] {
            let tries = here.joined(&base, &elsewhere).tries(&user);
            assert_eq!(tries.map(|tries| (tries.count, tries.last)), joined);
        }
    }
}
