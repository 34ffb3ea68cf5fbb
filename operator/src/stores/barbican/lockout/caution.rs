//! Pauses between the tries of one user or of one credential, for as long as the process lives.

use std::time::Duration;

use keyward_core::fault::Fault;
use tokio::time::Instant;

use crate::stores::Outcome;

/// How carefully one user's or one credential's logins are made. Plain state over a clock that is handed in.
#[derive(Debug, Default)]
pub(super) struct Caution {
    failures: u32,
    pub(super) pause: Option<(Instant, Fault)>,
}

impl Caution {
    pub(super) fn permit(&self, now: Instant) -> Outcome<()> {
        match &self.pause {
            Some((until, fault)) if now < *until => {
                Err(fault.clone().with_retry_after(Some(until.duration_since(now))))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Five seconds, then six times longer each time: few tries in the hours in which Keystone counts them.
    pub(super) fn doubted(&mut self, now: Instant, fault: &Fault) {
        self.wait(now, fault, Duration::from_secs(5), 6, Duration::from_hours(1));
    }

    pub(super) fn rejected(&mut self, now: Instant, fault: &Fault) {
        self.wait(now, fault, Duration::from_secs(15), 2, Duration::from_mins(10));
    }

    fn wait(&mut self, now: Instant, fault: &Fault, first: Duration, factor: u32, longest: Duration) {
        let wait = first
            .saturating_mul(factor.saturating_pow(self.failures))
            .min(longest);
        self.failures += 1;
        self.pause = Some((now + wait, fault.clone()));
    }
}

#[cfg(test)]
mod tests {
    use keyward_core::fault::Class;
    use keyward_core::reason::Reason;

    use super::*;

    fn fault() -> Fault {
        Fault::new(Class::Denied, Reason::CredentialRejected, "refused")
    }

    #[test]
    fn a_refused_application_credential_is_tried_again_ever_more_rarely() {
        let (mut caution, mut now) = (Caution::default(), Instant::now());
        for seconds in [15, 30, 60, 120, 240, 480, 600, 600] {
            assert!(caution.permit(now).is_ok());
            caution.rejected(now, &fault());
            let wait = caution.permit(now).unwrap_err().retry_after;
            assert_eq!(wait, Some(Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
        }
    }
}
