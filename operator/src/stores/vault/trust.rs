//! How long a token counts as alive after a denial was shown not to be its fault, and what the server's words about it are
//! worth. Many objects may be denied at once, and each look-up is a request.

use std::time::Duration;

use tokio::time::Instant;

use super::classify::TokenWord;

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
    /// Whether the server has said of a living token what servers say of a dead one.
    words_mislead: bool,
}

impl Trust {
    /// What a denial says about the token, as far as the server's words can be believed.
    pub(super) fn hear(&self, word: TokenWord) -> TokenWord {
        match word {
            TokenWord::Dead | TokenWord::Doubtful if self.words_mislead => TokenWord::Other,
            word => word,
        }
    }

    /// Whether a denial is taken for the policy's.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Takes in that a look-up has shown the token to be alive, of which a denial said this.
    pub(super) fn confirmed(&mut self, word: TokenWord, now: Instant) {
        self.until = Some(now + TRUST);
        self.in_vain = 0;
        self.words_mislead |= word == TokenWord::Doubtful;
    }

    /// Takes in that there is a new token.
    pub(super) fn renewed(&mut self) {
        self.until = None;
    }

    /// Takes in how the first calls ended that were repeated with the new token, and what was said of it if they were
    /// denied.
    pub(super) fn tried_anew(&mut self, denied: Option<TokenWord>, now: Instant) {
        let Some(word) = denied else {
            self.in_vain = 0;
            return;
        };
        self.words_mislead |= word == TokenWord::Dead;
        if !self.holds(now) {
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
                trust.tried_anew(Some(TokenWord::Policy), now);
            }
            now += Duration::from_mins(minutes);
            assert!(
                trust.holds(now - Duration::from_secs(1)) && !trust.holds(now),
                "{minutes}"
            );
        }
        trust.renewed();
        trust.tried_anew(Some(TokenWord::Policy), now);
        trust.tried_anew(None, now);
        trust.renewed();
        trust.tried_anew(Some(TokenWord::Policy), now);
        assert!(!trust.holds(now + TRUST), "one that helped begins anew");
    }

    #[test]
    fn a_look_up_that_tells_is_believed_for_a_while() {
        let (mut trust, now) = (Trust::default(), Instant::now());
        assert!(!trust.holds(now));
        trust.confirmed(TokenWord::Policy, now);
        assert!(trust.holds(now) && !trust.holds(now + TRUST));
        trust.renewed();
        assert!(!trust.holds(now), "that was another token");
    }

    #[test]
    fn words_that_were_said_of_a_living_token_are_believed_no_more() {
        use TokenWord::{Dead, Doubtful, Other, Policy};
        let now = Instant::now();
        let heard = |trust: &Trust| [Dead, Doubtful, Policy, Other].map(|word| trust.hear(word));
        let mut trust = Trust::default();
        trust.confirmed(Policy, now);
        trust.tried_anew(Some(Doubtful), now);
        assert_eq!(heard(&trust), [Dead, Doubtful, Policy, Other]);
        trust.confirmed(Doubtful, now);
        assert_eq!(heard(&trust), [Other, Other, Policy, Other]);

        let mut trust = Trust::default();
        trust.tried_anew(Some(Dead), now);
        trust.renewed();
        assert_eq!(
            heard(&trust),
            [Other, Other, Policy, Other],
            "a new token was called dead"
        );
    }
}
