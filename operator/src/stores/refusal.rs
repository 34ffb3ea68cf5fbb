//! When a refused login may be sent again. Whoever shares the session shares the wait, and so does whoever comes with the
//! same credential later: a store object that is edited leaves its session and joins a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyward_core::backoff::Backoff;
use keyward_core::fault::Fault;
use tokio::time::Instant;

use super::Outcome;
use super::pool::Digest;

/// The waits where a refusal locks nobody out.
const WAITS: Backoff = Backoff {
    first: Duration::from_secs(5),
    longest: Duration::from_mins(5),
};

/// After so long, servers that lock out after several failures have forgotten the last one, and a lock-out has ended.
const FORGOTTEN: Duration = Duration::from_mins(20);

/// Credentials whose refusals are remembered while nobody uses them.
const MOST: usize = 4096;

/// What a repetition can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The next login may fare better, and a failure locks nobody out: it is repeated, ever more rarely.
    Harmless,
    /// Failures are counted and lock out: it is repeated once they are forgotten.
    Counted,
    /// Failures are counted, lock out, and may never be forgotten: it is not repeated.
    Never,
}

/// The refusals of one credential, with nothing but refusals in between.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    count: u32,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    fault: Fault,
    at: Instant,
    until: Option<Instant>,
}

/// The refusals of every credential that is in use or was refused lately.
#[derive(Default)]
pub(super) struct RefusalMemory(Mutex<HashMap<Digest, SharedRefusals>>);

/// The refusals of one credential, shared by the sessions it had and has.
#[derive(Clone, Default)]
pub(super) struct SharedRefusals(Arc<Mutex<Refusals>>);

impl Refusals {
    /// Says whether to log in now.
    ///
    /// # Errors
    /// The last refusal, with what is left of the wait where there is an end to it.
    pub(super) fn permit(&self, now: Instant) -> Outcome<()> {
        let Some(last) = &self.last else { return Ok(()) };
        match last.until {
            Some(until) if until <= now => Ok(()),
            until => Err(last.told(until.map(|until| until - now))),
        }
    }

    /// Notes a refusal and gives it with the wait that follows from it.
    pub(super) fn note(&mut self, fault: Fault, repeat: Repeat, now: Instant) -> Fault {
        self.count = self.count.saturating_add(1);
        let wait = match repeat {
            Repeat::Harmless => Some(WAITS.full(self.count)),
            Repeat::Counted => Some(FORGOTTEN),
            Repeat::Never => None,
        };
        let last = self.last.insert(Last {
            fault,
            at: now,
            until: wait.map(|wait| now + wait),
        });
        last.told(wait)
    }

    /// Forgets everything, since a login was accepted.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn matters(&self, now: Instant) -> bool {
        self.last.as_ref().is_some_and(|last| now < last.at + FORGOTTEN)
    }
}

impl Last {
    fn told(&self, wait: Option<Duration>) -> Fault {
        self.fault.clone().with_retry_after(wait)
    }
}

impl RefusalMemory {
    /// The refusals of a credential, also those that earlier users met.
    pub(super) fn of(&self, credential: Digest, now: Instant) -> SharedRefusals {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, refusals| refusals.is_in_use() || refusals.lock().matters(now));
        if known.len() >= MOST
            && let Some(oldest) = oldest_unused(&known)
        {
            known.remove(&oldest);
        }
        known.entry(credential).or_default().clone()
    }
}

impl SharedRefusals {
    pub(super) fn lock(&self) -> MutexGuard<'_, Refusals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

fn oldest_unused(known: &HashMap<Digest, SharedRefusals>) -> Option<Digest> {
    let unused = known.iter().filter(|(_, refusals)| !refusals.is_in_use());
    let oldest = unused.min_by_key(|(_, refusals)| refusals.lock().last.as_ref().map(|last| last.at));
    oldest.map(|(credential, _)| *credential)
}

#[cfg(test)]
mod tests {
    use keyward_core::fault::Class;
    use keyward_core::reason::Reason;

    use super::*;
    use crate::stores::pool::{Pool, SessionKey};

    fn refused() -> Fault {
        Fault::new(Class::Denied, Reason::CredentialRejected, "refused")
    }

    /// What stands for a credential.
    fn credentials() -> impl Fn(u32) -> Digest {
        let pool: Pool<()> = Pool::default();
        move |number| {
            let mut key = SessionKey::default();
            let number = number.to_be_bytes();
            key.is(&number);
            pool.digest(&key)
        }
    }

    #[test]
    fn what_locks_nobody_out_is_repeated_ever_more_rarely() {
        let (mut refusals, mut now) = (Refusals::default(), Instant::now());
        for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
            refusals.permit(now).unwrap();
            let wait = Some(Duration::from_secs(seconds));
            assert_eq!(refusals.note(refused(), Repeat::Harmless, now).retry_after, wait);
            assert_eq!(refusals.permit(now).unwrap_err().retry_after, wait);
            now += Duration::from_secs(seconds);
        }
        refusals.forget();
        assert!(refusals.permit(now).is_ok());
    }

    #[test]
    fn what_locks_out_is_repeated_once_its_failures_are_forgotten() {
        let (mut refusals, mut now) = (Refusals::default(), Instant::now());
        for _ in 0..3 {
            let told = refusals.note(refused(), Repeat::Counted, now);
            assert_eq!(told.retry_after, Some(FORGOTTEN));
            let early = now + FORGOTTEN - Duration::from_secs(1);
            let wait = refusals.permit(early).unwrap_err().retry_after;
            assert_eq!(wait, Some(Duration::from_secs(1)));
            now += FORGOTTEN;
            assert!(refusals.permit(now).is_ok(), "a lock-out has ended by now");
        }
    }

    #[test]
    fn what_may_lock_out_for_good_is_not_repeated() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.note(refused(), Repeat::Never, now).retry_after, None);
        let told = refusals.permit(now + Duration::from_hours(24)).unwrap_err();
        assert_eq!(told.retry_after, None);
    }

    #[test]
    fn a_refusal_outlives_those_who_met_it_until_it_is_forgotten() {
        let (memory, credential, now) = (RefusalMemory::default(), credentials(), Instant::now());
        let one = memory.of(credential(1), now);
        one.lock().note(refused(), Repeat::Counted, now);
        drop(one);
        let later = now + FORGOTTEN - Duration::from_secs(1);
        assert!(memory.of(credential(1), later).lock().permit(later).is_err());
        assert!(memory.of(credential(2), later).lock().permit(later).is_ok());
        let much_later = now + FORGOTTEN;
        let kept = memory.of(credential(3), much_later);
        assert_eq!(
            memory.0.lock().unwrap().len(),
            1,
            "nothing is known of the others"
        );
        drop(kept);
    }

    #[test]
    fn memory_is_bounded_and_nobody_loses_what_is_in_use() {
        let (memory, credential, now) = (RefusalMemory::default(), credentials(), Instant::now());
        let used = memory.of(credential(0), now);
        used.lock().note(refused(), Repeat::Counted, now);
        for number in 1..=u32::try_from(MOST).unwrap() {
            let at = now + Duration::from_millis(number.into());
            let one = memory.of(credential(number), at);
            one.lock().note(refused(), Repeat::Counted, at);
        }
        assert_eq!(memory.0.lock().unwrap().len(), MOST);
        let later = now + Duration::from_mins(1);
        assert!(memory.of(credential(0), later).lock().permit(later).is_err());
        assert!(
            memory.of(credential(1), later).lock().permit(later).is_ok(),
            "the oldest went"
        );
    }
}
