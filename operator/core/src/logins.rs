//! What is known of passwords that were sent, and when another one may be.
//!
//! Identity services count refused passwords per user, whichever they are, until one is accepted, and lock the user
//! out after a handful, for every other client too. So a refused password is never sent again; one that was accepted
//! may always be; and of those that nobody has seen accepted, only a few are sent in a row, and then ever more rarely.
//!
//! Everything here is keyed digests, counts and times. A try counts from before it is made, so that a process that
//! dies on the way has counted it.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};

/// A keyed digest: of a user, or of a user with a password.
pub type Digest = [u8; 32];

/// So many passwords of one user may be refused in a row before the next one waits. The strictest lock-outs in use
/// come with the third failure or later.
pub const FREE_TRIES: u32 = 2;

/// The first wait; each further refusal doubles it.
const FIRST_WAIT: TimeDelta = TimeDelta::minutes(10);

/// The longest wait.
const LONGEST_WAIT: TimeDelta = TimeDelta::hours(1);

/// Passwords that are remembered, of each sort; beyond it the oldest goes. 128 KiB.
const MOST_PASSWORDS: usize = 4096;

/// Users whose tries are remembered; beyond it the one tried longest ago goes. 44 KiB.
const MOST_USERS: usize = 1024;

/// A password and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Login {
    /// The user.
    pub user: Digest,
    /// The user with the password.
    pub password: Digest,
}

/// What is known of a password before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It was refused: it is not sent.
    Refused,
    /// It was accepted before.
    Proven,
    /// Nothing is known: it may be sent, and counts as a try.
    New,
    /// Nothing is known, and too many others were refused: it may be sent from then on.
    NewLater {
        /// When.
        at: DateTime<Utc>,
        /// How many were refused in a row.
        refused: u32,
    },
}

/// What happens to a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A new one is about to be sent.
    Sending,
    /// It was accepted.
    Accepted,
    /// It was refused.
    Refused,
    /// It was not judged: what was counted ahead is taken back.
    Unjudged,
}

/// Tries with passwords that were not seen to be accepted, with none accepted in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tries {
    count: u32,
    last: DateTime<Utc>,
}

/// All that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logins {
    refused: VecDeque<Digest>,
    accepted: VecDeque<Digest>,
    tries: BTreeMap<Digest, Tries>,
    /// What this process did to `tries`; `None` took the user off.
    changed: BTreeMap<Digest, Option<Tries>>,
    /// Tries counted ahead, with what there was before.
    sending: BTreeMap<Digest, Option<Tries>>,
}

impl Logins {
    /// What is known of a password at `now`.
    #[must_use]
    pub fn known(&self, login: &Login, now: DateTime<Utc>) -> Known {
        if self.refused.contains(&login.password) {
            return Known::Refused;
        }
        if self.accepted.contains(&login.password) {
            return Known::Proven;
        }
        let Some(tries) = self.tries.get(&login.user) else {
            return Known::New;
        };
        match tries.next_at(now) {
            Some(at) if at > now => Known::NewLater {
                at,
                refused: tries.count,
            },
            _ => Known::New,
        }
    }

    /// Takes in what happens. Returns whether that is news that must outlive the process.
    pub fn note(&mut self, login: &Login, step: Step, now: DateTime<Utc>) -> bool {
        let user = &login.user;
        match step {
            Step::Sending => {
                let before = self.tries.get(user).copied();
                self.sending.insert(*user, before);
                self.set(user, Some(Tries::after(before, now)));
                true
            }
            Step::Accepted => {
                self.sending.remove(user);
                let new = !self.accepted.contains(&login.password);
                push(&mut self.accepted, login.password);
                let counted = self.tries.contains_key(user);
                if counted {
                    self.set(user, None);
                }
                new || counted
            }
            Step::Refused => {
                if self.sending.remove(user).is_none() {
                    let before = self.tries.get(user).copied();
                    self.set(user, Some(Tries::after(before, now)));
                }
                self.accepted.retain(|known| *known != login.password);
                push(&mut self.refused, login.password);
                true
            }
            Step::Unjudged => {
                let Some(before) = self.sending.remove(user) else {
                    return false;
                };
                self.set(user, before);
                true
            }
        }
    }

    /// These with what another process has stored: it may know of passwords and users that this one does not.
    #[must_use]
    pub fn merged_with(&self, stored: Self) -> Self {
        let mut all = Self {
            changed: self.changed.clone(),
            sending: self.sending.clone(),
            ..stored
        };
        for password in &self.refused {
            push(&mut all.refused, *password);
        }
        for password in &self.accepted {
            push(&mut all.accepted, *password);
        }
        let refused = &all.refused;
        all.accepted.retain(|password| !refused.contains(password));
        for (user, tries) in &self.changed {
            match tries {
                Some(tries) => all.tries.insert(*user, *tries),
                None => all.tries.remove(user),
            };
        }
        while all.tries.len() > MOST_USERS {
            let oldest = all.tries.iter().min_by_key(|(_, tries)| tries.last);
            let Some(user) = oldest.map(|(user, _)| *user) else {
                break;
            };
            all.tries.remove(&user);
        }
        all
    }

    /// Named parts to be stored.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, Vec<u8>); 3] {
        let joined = |digests: &VecDeque<Digest>| digests.iter().flatten().copied().collect();
        let tries = self.tries.iter().flat_map(|(user, tries)| {
            let (count, last) = (tries.count.to_be_bytes(), tries.last.timestamp().to_be_bytes());
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
            ..Self::default()
        }
    }

    fn set(&mut self, user: &Digest, tries: Option<Tries>) {
        match tries {
            Some(tries) => self.tries.insert(*user, tries),
            None => self.tries.remove(user),
        };
        self.changed.insert(*user, tries);
    }
}

impl Tries {
    fn after(before: Option<Self>, now: DateTime<Utc>) -> Self {
        Self {
            count: before.map_or(0, |before| before.count).saturating_add(1),
            last: now,
        }
    }

    /// When the next may be made; a clock that was put back does not prolong the wait.
    fn next_at(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let doublings = self.count.checked_sub(FREE_TRIES)?;
        let wait = FIRST_WAIT
            .checked_mul(1 << doublings.min(8))
            .unwrap_or(LONGEST_WAIT)
            .min(LONGEST_WAIT);
        self.last.min(now).checked_add_signed(wait)
    }
}

fn read_tries(record: &[u8; 44]) -> Option<(Digest, Tries)> {
    let (user, rest) = record.split_first_chunk()?;
    let (count, last) = rest.split_first_chunk()?;
    let last = i64::from_be_bytes(last.try_into().ok()?);
    Some((
        *user,
        Tries {
            count: u32::from_be_bytes(*count),
            last: DateTime::from_timestamp(last, 0)?,
        },
    ))
}

/// Adds a digest as the newest, within the bound.
fn push(all: &mut VecDeque<Digest>, digest: Digest) {
    if all.contains(&digest) {
        return;
    }
    if all.len() >= MOST_PASSWORDS {
        all.pop_front();
    }
    all.push_back(digest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: u8, password: u8) -> Login {
        Login {
            user: [user; 32],
            password: [password; 32],
        }
    }

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn stored(logins: &Logins) -> Logins {
        let parts = logins.parts();
        Logins::from_parts(|name| {
            let part = parts.iter().find(|(known, _)| *known == name);
            part.map(|(_, bytes)| bytes.as_slice())
        })
    }

    #[test]
    fn after_two_refusals_each_new_password_waits_longer() {
        let (mut logins, mut now) = (Logins::default(), start());
        for (password, minutes) in (0..).zip([0, 0, 10, 20, 40, 60, 60]) {
            let one = login(1, password);
            if minutes > 0 {
                let at = now + TimeDelta::minutes(minutes);
                let refused = u32::from(password);
                assert_eq!(logins.known(&one, now), Known::NewLater { at, refused });
                now = at;
            }
            assert_eq!(logins.known(&one, now), Known::New);
            assert!(logins.note(&one, Step::Sending, now));
            assert!(logins.note(&one, Step::Refused, now));
            assert_eq!(logins.known(&one, now), Known::Refused);
        }
        assert_eq!(
            now - start(),
            TimeDelta::minutes(190),
            "seven passwords take more than three hours"
        );
        assert_eq!(logins.known(&login(2, 99), now), Known::New, "of another user");
    }

    #[test]
    fn an_accepted_password_ends_the_count_and_is_never_held_up() {
        let (mut logins, now) = (Logins::default(), start());
        let right = login(1, 100);
        logins.note(&right, Step::Sending, now);
        assert!(logins.note(&right, Step::Accepted, now));
        assert!(
            !logins.note(&right, Step::Accepted, now),
            "a login as usual is no news"
        );
        for password in 0..2 {
            logins.note(&login(1, password), Step::Sending, now);
            logins.note(&login(1, password), Step::Refused, now);
        }
        assert_eq!(logins.known(&right, now), Known::Proven);
        assert!(matches!(logins.known(&login(1, 7), now), Known::NewLater { .. }));
        assert!(
            logins.note(&right, Step::Accepted, now),
            "the other side has forgotten too"
        );
        assert_eq!(logins.known(&login(1, 7), now), Known::New);
    }

    #[test]
    fn a_proven_password_that_is_refused_counts_and_is_not_sent_again() {
        let (mut logins, now) = (Logins::default(), start());
        let one = login(1, 1);
        logins.note(&one, Step::Accepted, now);
        for password in [1, 2] {
            logins.note(&login(1, password), Step::Refused, now);
        }
        assert_eq!(logins.known(&one, now), Known::Refused);
        assert!(matches!(logins.known(&login(1, 3), now), Known::NewLater { .. }));
    }

    #[test]
    fn a_try_whose_end_nobody_saw_counts_and_one_that_was_not_judged_does_not() {
        let (mut logins, now) = (Logins::default(), start());
        let one = login(1, 1);
        for _ in 0..5 {
            logins.note(&one, Step::Sending, now);
            assert!(logins.note(&one, Step::Unjudged, now));
        }
        assert_eq!(logins.known(&one, now), Known::New);
        for _ in 0..2 {
            logins.note(&one, Step::Sending, now);
            // The process ends here; the next one has what was stored.
            logins = stored(&logins);
        }
        let at = now + FIRST_WAIT;
        assert_eq!(logins.known(&one, now), Known::NewLater { at, refused: 2 });
        assert_eq!(logins.known(&one, at), Known::New, "it may be the right one");
    }

    #[test]
    fn a_clock_that_was_put_back_does_not_prolong_the_wait() {
        let (mut logins, now) = (Logins::default(), start());
        for password in 0..2 {
            logins.note(&login(1, password), Step::Refused, now + TimeDelta::days(300));
        }
        let at = now + FIRST_WAIT;
        assert_eq!(
            logins.known(&login(1, 9), now),
            Known::NewLater { at, refused: 2 }
        );
    }

    #[test]
    fn processes_learn_from_each_other_and_keep_what_they_did_themselves() {
        let (mut first, mut second, now) = (Logins::default(), Logins::default(), start());
        first.note(&login(1, 1), Step::Refused, now);
        first.note(&login(2, 2), Step::Refused, now);
        second.note(&login(2, 3), Step::Accepted, now);
        second.note(&login(3, 2), Step::Accepted, now);
        // The second has seen what the first stored before.
        second.set(&[2; 32], None);
        let all = second.merged_with(stored(&first));
        assert_eq!(stored(&all).known(&login(1, 1), now), Known::Refused);
        assert_eq!(all.known(&login(2, 3), now), Known::Proven);
        assert_eq!(
            all.known(&login(3, 2), now),
            Known::Refused,
            "a refusal goes before"
        );
        assert!(all.tries.contains_key(&[1; 32]) && !all.tries.contains_key(&[2; 32]));
    }

    #[test]
    fn memory_is_bounded_and_torn_parts_do_no_harm() {
        let (mut logins, now) = (Logins::default(), start());
        for number in 0..=u32::try_from(MOST_PASSWORDS).unwrap() {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_be_bytes());
            push(&mut logins.refused, digest);
            push(&mut logins.refused, digest);
        }
        assert_eq!(logins.refused.len(), MOST_PASSWORDS);
        assert_eq!(logins.refused[0][..4], 1_u32.to_be_bytes());
        for number in 0..=u16::try_from(MOST_USERS).unwrap() {
            let mut user = [0; 32];
            user[..2].copy_from_slice(&number.to_be_bytes());
            let at = now + TimeDelta::seconds(number.into());
            logins.set(&user, Some(Tries::after(None, at)));
        }
        let merged = logins.merged_with(Logins::default());
        assert_eq!(merged.tries.len(), MOST_USERS);
        assert!(!merged.tries.contains_key(&[0; 32]), "the oldest went");

        let torn = Logins::from_parts(|name| (name == "tries").then_some(&[7; 50][..]));
        assert!(torn.refused.is_empty() && torn.tries.len() <= 1);
    }
}
