//! What is known of passwords that were sent, and when another one may be.
//!
//! Identity services count refused passwords per user, whichever they are, until one is accepted, and lock the user
//! out after a handful, for every other client too. So a refused password is never sent again; one that was accepted
//! may always be, until an answer to it is lost; and of those that nobody has seen accepted, only a few are sent in a
//! row, and then ever more rarely.
//!
//! Everything here is keyed digests, counts and times. A try counts from before it is made, so that a process that
//! dies on the way has counted it.

mod ledger;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

pub use self::ledger::Ledger;
use self::ledger::Tries;

/// A keyed digest: of a user, or of a user with a password.
pub type Digest = [u8; 32];

/// So many passwords of one user may be refused in a row before the next one waits. The strictest lock-outs in use
/// come with the third failure or later.
pub const FREE_TRIES: u32 = 2;

/// The first wait; each further refusal doubles it.
const FIRST_WAIT: TimeDelta = TimeDelta::minutes(10);

/// The longest wait.
const LONGEST_WAIT: TimeDelta = TimeDelta::hours(1);

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
    /// It was accepted when it was last sent.
    Proven,
    /// Nothing is known: it may be sent, and counts as a try.
    New,
    /// Nothing is known, and too many tries may have been refused: it may be sent from then on.
    NewLater {
        /// When.
        at: DateTime<Utc>,
        /// How many may have been refused in a row.
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
    /// It was sent and no usable answer came: it may have been refused.
    Doubtful,
    /// It was not judged: what was counted ahead is taken back.
    Unjudged,
}

/// All that is known, and how much of it is stored.
#[derive(Debug, Default)]
pub struct Logins {
    /// What is known here.
    here: Ledger,
    /// What was stored when this process last saw it.
    stored: Ledger,
    /// Passwords that are counted ahead, by their digest.
    sending: BTreeMap<Digest, CountedAhead>,
}

/// The tries of a user before a password was counted, and with it.
#[derive(Debug, Clone, Copy)]
struct CountedAhead {
    before: Option<Tries>,
    with: Tries,
}

impl Logins {
    /// Begins with what was stored.
    #[must_use]
    pub fn of(stored: Ledger) -> Self {
        Self {
            here: stored.clone(),
            stored,
            sending: BTreeMap::new(),
        }
    }

    /// What is known of a password at `now`. A wait that a clock put back since would prolong begins at `now`.
    #[must_use]
    pub fn known(&mut self, login: &Login, now: DateTime<Utc>) -> Known {
        if self.here.is_refused(&login.password) {
            return Known::Refused;
        }
        if self.here.is_accepted(&login.password) {
            return Known::Proven;
        }
        self.here.nothing_after(&login.user, now);
        let Some(tries) = self.here.tries(&login.user) else {
            return Known::New;
        };
        match tries.next_at() {
            Some(at) if at > now => Known::NewLater {
                at,
                refused: tries.count,
            },
            _ => Known::New,
        }
    }

    /// Takes in what happens. Returns whether that is news that must outlive the process.
    pub fn note(&mut self, login: &Login, step: Step, now: DateTime<Utc>) -> bool {
        let ahead = self.sending.remove(&login.password);
        let here = &mut self.here;
        match step {
            Step::Sending => {
                let before = here.tries(&login.user);
                let with = here.count(&login.user, now);
                self.sending.insert(login.password, CountedAhead { before, with });
                true
            }
            Step::Accepted => {
                let new = here.accept(login.password);
                let counted = here.set_tries(&login.user, None).is_some();
                new || counted
            }
            Step::Refused => {
                if ahead.is_none() {
                    here.count(&login.user, now);
                }
                here.refuse(login.password);
                true
            }
            Step::Doubtful => {
                if ahead.is_none() {
                    here.count(&login.user, now);
                }
                // From now on it takes its turn with those of which nothing is known.
                let proven = here.doubt(&login.password);
                proven || ahead.is_none()
            }
            Step::Unjudged => {
                // Tries that somebody else has added stay counted.
                let ahead = ahead.filter(|ahead| here.tries(&login.user) == Some(ahead.with));
                if let Some(CountedAhead { before, .. }) = ahead {
                    here.set_tries(&login.user, before);
                }
                ahead.is_some()
            }
        }
    }

    /// What is to be stored in place of `found`, which another process may have changed; `None` where `found` already
    /// says it all.
    #[must_use]
    pub fn to_store(&self, found: &Ledger) -> Option<Ledger> {
        let all = self.here.joined(&self.stored, found);
        (all != *found).then_some(all)
    }

    /// Learns what is stored by now.
    pub fn learn(&mut self, stored: Ledger) {
        // More may have happened here while it was written.
        self.here = self.here.joined(&self.stored, &stored);
        self.stored = stored;
    }
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

    /// Stores over `found` what `logins` knows, as one process does.
    fn store(logins: &mut Logins, found: &mut Ledger) {
        if let Some(all) = logins.to_store(found) {
            *found = all;
        }
        logins.learn(found.clone());
    }

    /// What a process knows that comes later.
    fn successor(logins: &Logins) -> Logins {
        let stored = logins.to_store(&logins.stored);
        Logins::of(stored.unwrap_or_else(|| logins.stored.clone()))
    }

    fn sent(logins: &mut Logins, login: &Login, end: Step, now: DateTime<Utc>) {
        assert!(logins.note(login, Step::Sending, now));
        logins.note(login, end, now);
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
            sent(&mut logins, &login(1, password), Step::Refused, now);
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
            logins = successor(&logins);
        }
        let at = now + FIRST_WAIT;
        assert_eq!(logins.known(&one, now), Known::NewLater { at, refused: 2 });
        assert_eq!(logins.known(&one, at), Known::New, "it may be the right one");
    }

    #[test]
    fn a_lost_answer_counts_whatever_becomes_of_other_passwords() {
        for end in [Step::Refused, Step::Doubtful, Step::Unjudged] {
            let (mut logins, now) = (Logins::default(), start());
            let (new, proven) = (login(1, 1), login(1, 2));
            logins.note(&proven, Step::Accepted, now);
            sent(&mut logins, &new, Step::Doubtful, now);
            // The count was made for the new one, and is not used up by the proven one.
            logins.note(&proven, end, now);
            let counted = logins.here.tries(&[1; 32]).unwrap().count;
            assert_eq!(counted, if end == Step::Unjudged { 1 } else { 2 }, "{end:?}");
        }
    }

    #[test]
    fn a_proven_password_whose_answers_are_lost_is_sent_ever_more_rarely_until_it_is_accepted() {
        let (mut logins, now) = (Logins::default(), start());
        let one = login(1, 1);
        logins.note(&one, Step::Accepted, now);
        assert!(
            logins.note(&one, Step::Doubtful, now),
            "a process that comes later must know"
        );
        logins = successor(&logins);
        assert_eq!(logins.known(&one, now), Known::New);
        sent(&mut logins, &one, Step::Doubtful, now);
        let at = now + FIRST_WAIT;
        assert_eq!(logins.known(&one, now), Known::NewLater { at, refused: 2 });
        sent(&mut logins, &one, Step::Accepted, at);
        assert_eq!(logins.known(&one, at), Known::Proven);
    }

    #[test]
    fn a_clock_that_was_put_back_prolongs_the_wait_once() {
        let (mut logins, now) = (Logins::default(), start());
        for password in 0..2 {
            logins.note(&login(1, password), Step::Refused, now + TimeDelta::days(300));
        }
        let (next, at) = (login(1, 9), now + FIRST_WAIT);
        let waits = Known::NewLater { at, refused: 2 };
        for later in [0, 1, 9] {
            assert_eq!(logins.known(&next, now + TimeDelta::minutes(later)), waits);
        }
        assert_eq!(logins.known(&next, at), Known::New);
    }

    #[test]
    fn processes_learn_from_each_other_and_keep_what_they_did_themselves() {
        let (mut first, mut second, now) = (Logins::default(), Logins::default(), start());
        let mut there = Ledger::default();
        first.note(&login(1, 1), Step::Refused, now);
        first.note(&login(2, 2), Step::Refused, now);
        store(&mut first, &mut there);
        second.learn(there.clone());
        second.note(&login(2, 3), Step::Accepted, now);
        second.note(&login(3, 2), Step::Accepted, now);
        store(&mut second, &mut there);
        assert_eq!(Logins::of(there).known(&login(1, 1), now), Known::Refused);
        assert_eq!(second.known(&login(2, 3), now), Known::Proven);
        assert_eq!(
            second.known(&login(3, 2), now),
            Known::Refused,
            "a refusal goes before"
        );
        assert!(second.here.tries(&[1; 32]).is_some() && second.here.tries(&[2; 32]).is_none());
    }

    #[test]
    fn what_was_stored_is_not_said_again_over_what_others_have_counted_since() {
        let (mut old, mut new, now) = (Logins::default(), Logins::default(), start());
        let mut there = Ledger::default();
        old.note(&login(1, 1), Step::Refused, now);
        old.note(&login(2, 1), Step::Refused, now);
        old.note(&login(3, 30), Step::Accepted, now);
        store(&mut old, &mut there);
        // While the old one is paused, its successor counts.
        new.learn(there.clone());
        for password in 2..4 {
            new.note(&login(1, password), Step::Refused, now);
            new.note(&login(2, password), Step::Refused, now);
        }
        new.note(&login(3, 30), Step::Doubtful, now);
        store(&mut new, &mut there);
        old.note(&login(2, 9), Step::Sending, now);
        store(&mut old, &mut there);
        for user in [1, 2] {
            let count = |logins: &Logins| logins.here.tries(&[user; 32]).unwrap().count;
            assert_eq!((count(&old), count(&Logins::of(there.clone()))), (3, 3));
        }
        assert_eq!(
            old.known(&login(3, 30), now),
            Known::New,
            "the successor has lost an answer to it"
        );
        // What the old one takes back is its own try, and not what it has learnt.
        assert!(!old.note(&login(2, 9), Step::Unjudged, now));
        assert!(old.to_store(&there).is_none());
    }
}
