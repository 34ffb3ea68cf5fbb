//! When a refused login may be sent again. Whoever shares the session shares the wait.

use std::time::Duration;

use keyward_core::fault::Fault;
use tokio::time::Instant;

use super::Outcome;

/// The first wait and the longest one.
const WAITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));

/// After so long, whoever newly comes with a credential that is otherwise not repeated may try it once more. By
/// then, servers that lock out after several failures have forgotten the last one.
const FORGOTTEN: Duration = Duration::from_mins(20);

/// What a repetition can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The next login may fare better, and a failure locks nobody out: it is repeated, ever more rarely.
    Harmless,
    /// Failures are counted and lock out: it is not repeated.
    Never,
}

/// The refusals of one session, with nothing but refusals in between.
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
    newcomer: bool,
}

impl Refusals {
    /// Says whether to log in now.
    ///
    /// # Errors
    /// The last refusal, with what is left of the wait where there is an end to it.
    pub(super) fn permit(&self, now: Instant) -> Outcome<()> {
        let Some(last) = &self.last else { return Ok(()) };
        let forgotten = last.newcomer && now >= last.at + FORGOTTEN;
        match last.until {
            Some(until) if until <= now => Ok(()),
            None if forgotten => Ok(()),
            until => Err(last.told(until.map(|until| until - now))),
        }
    }

    /// Notes a refusal and gives it with the wait that follows from it.
    pub(super) fn note(&mut self, fault: Fault, repeat: Repeat, now: Instant) -> Fault {
        let (first, longest) = WAITS;
        let wait = first.saturating_mul(1 << self.count.min(6)).min(longest);
        let wait = (repeat == Repeat::Harmless).then_some(wait);
        self.count = self.count.saturating_add(1);
        let last = self.last.insert(Last {
            fault,
            at: now,
            until: wait.map(|wait| now + wait),
            newcomer: false,
        });
        last.told(wait)
    }

    /// Notes that somebody else has come with the same credential.
    pub(super) fn joined(&mut self) {
        if let Some(last) = &mut self.last {
            last.newcomer = true;
        }
    }

    /// Forgets everything, since a login was accepted.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Last {
    fn told(&self, wait: Option<Duration>) -> Fault {
        self.fault
            .clone()
            .with_retry_after(wait.or(self.fault.retry_after))
    }
}

#[cfg(test)]
mod tests {
    use keyward_core::fault::Class;
    use keyward_core::reason::Reason;

    use super::*;

    fn refused() -> Fault {
        Fault::new(Class::Denied, Reason::CredentialRejected, "refused")
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
    fn what_locks_out_is_repeated_only_for_a_newcomer_after_a_long_time() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.note(refused(), Repeat::Never, now).retry_after, None);
        let later = now + FORGOTTEN;
        assert!(refusals.permit(later).is_err(), "nobody has come");
        refusals.joined();
        assert!(refusals.permit(now).is_err(), "it is too early");
        assert!(refusals.permit(later).is_ok());
        refusals.note(refused(), Repeat::Never, later);
        assert!(
            refusals.permit(later + FORGOTTEN).is_err(),
            "one newcomer, one try"
        );
    }
}
