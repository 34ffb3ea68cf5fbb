//! How long a token counts as alive after a denial was shown not to be its fault. Many objects may be denied at once, and
//! each look-up is a request.

use std::time::Duration;

use tokio::time::Instant;

/// After a look-up has shown it, and after a new token was first denied the same.
const TRUST: Duration = Duration::from_mins(1);

/// However often new tokens were denied the same. A token that may not look itself up is made anew this often at most
/// because of what its policy denies.
const LONGEST: Duration = Duration::from_hours(1);

/// The trust in the tokens of one session.
#[derive(Debug, Default)]
pub(super) struct Trust {
    until: Option<Instant>,
    /// New tokens in a row that were denied what the old one was denied: look-ups tell nothing here.
    in_vain: u32,
}

impl Trust {
    /// Whether a denial is taken for the policy's.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Takes in that a look-up has shown the token to be alive.
    pub(super) fn confirmed(&mut self, now: Instant) {
        self.until = Some(now + TRUST);
        self.in_vain = 0;
    }

    /// Takes in that there is a new token.
    pub(super) fn renewed(&mut self) {
        self.until = None;
    }

    /// Takes in how the first calls ended that were repeated with the new token.
    pub(super) fn tried_anew(&mut self, denied: bool, now: Instant) {
        if !denied {
            self.in_vain = 0;
        } else if !self.holds(now) {
            self.until = Some(now + TRUST.saturating_mul(1 << self.in_vain.min(6)).min(LONGEST));
            self.in_vain = self.in_vain.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_that_do_not_help_become_rare() {
        let (mut trust, mut now) = (Trust::default(), Instant::now());
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            trust.renewed();
            // Everybody who waited for the new token is denied as well, and counts once.
            for _ in 0..20 {
                trust.tried_anew(true, now);
            }
            now += Duration::from_mins(minutes);
            assert!(
                trust.holds(now - Duration::from_secs(1)) && !trust.holds(now),
                "{minutes}"
            );
        }
        trust.renewed();
        trust.tried_anew(true, now);
        trust.tried_anew(false, now);
        trust.renewed();
        trust.tried_anew(true, now);
        assert!(!trust.holds(now + TRUST), "one that helped begins anew");
    }

    #[test]
    fn a_look_up_that_tells_is_believed_for_a_while() {
        let (mut trust, now) = (Trust::default(), Instant::now());
        assert!(!trust.holds(now));
        trust.confirmed(now);
        assert!(trust.holds(now) && !trust.holds(now + TRUST));
        trust.renewed();
        assert!(!trust.holds(now), "that was another token");
    }
}
