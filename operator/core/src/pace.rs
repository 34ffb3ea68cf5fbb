//! When a store may be asked: evenly, at no more than a set rate. A store that refuses for being asked too often is from
//! then on asked at the rate at which it was seen to answer.
//!
//! Instants are durations since one moment, which the caller chooses and keeps to.

use std::time::Duration;

/// What is left of the pace after a refusal. Larger steps would leave more of the store's rate unused.
const CUT: f64 = 0.7;

/// By how much the pace grows in each second without a refusal.
const GROWTH: f64 = 1.1;

/// The pace never falls below one request in a second.
const SLOWEST: f64 = 1.0;

/// The pause after the first refusal, where the store names none. It doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// No pause is longer, unless the store asks for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// The turns of those who want to ask one store.
#[derive(Debug)]
pub struct Turns {
    /// Requests per second, as set.
    most: f64,
    /// Requests per second now.
    pace: f64,
    /// No turn comes before.
    next: Duration,
    /// When the pace was last changed.
    changed: Duration,
    /// The end of the last pause.
    resumes: Duration,
    /// Pauses with no answer in between.
    pauses: u32,
    /// Answers of the present second, and of the one before it.
    answers: Answers,
}

/// How many requests were answered in a second.
#[derive(Debug, Default)]
struct Answers {
    second: u64,
    now: u32,
    before: u32,
}

impl Answers {
    fn count(&mut self, now: Duration) {
        let second = now.as_secs();
        if second != self.second {
            self.before = if second == self.second + 1 { self.now } else { 0 };
            self.now = 0;
            self.second = second;
        }
        self.now = self.now.saturating_add(1);
    }

    /// The rate that the store has lately been seen to allow; `None` where it was not asked.
    fn rate(&self, now: Duration) -> Option<f64> {
        let most = self.now.max(self.before);
        (most > 0 && now.as_secs() <= self.second + 1).then(|| f64::from(most))
    }
}

impl Turns {
    /// Turns at this rate; zero counts as one.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let most = f64::from(per_second).max(SLOWEST);
        Self {
            most,
            pace: most,
            next: Duration::ZERO,
            changed: Duration::ZERO,
            resumes: Duration::ZERO,
            pauses: 0,
            answers: Answers::default(),
        }
    }

    /// The instant at which the turn of the next caller comes.
    pub fn take(&mut self, now: Duration) -> Duration {
        let turn = self.next.max(now);
        self.next = turn + Duration::from_secs_f64(1.0 / self.pace);
        turn
    }

    /// Takes in that a request was answered. What was sent before a pause does not end it.
    pub fn answered(&mut self, now: Duration) {
        self.answers.count(now);
        if now < self.resumes {
            return;
        }
        self.pauses = 0;
        if self.pace < self.most && now >= self.changed + Duration::from_secs(1) {
            self.pace = (self.pace * GROWTH).min(self.most);
            self.changed = now;
        }
    }

    /// Takes in that a request sent at `sent` was refused for being one too many, and how long the store asked to be
    /// left alone. Returns the end of the pause.
    pub fn refused(&mut self, sent: Duration, now: Duration, asked: Option<Duration>) -> Duration {
        // Requests that were under way together are refused together, and are one reason to slow down.
        if sent >= self.resumes {
            // Refusals with no answer in between are of one limit, which says nothing new of the rate.
            if self.pauses == 0 {
                let seen = self.answers.rate(now).filter(|seen| *seen < self.pace);
                self.pace = seen.unwrap_or(self.pace * CUT).max(SLOWEST);
                self.changed = now;
            }
            let own = FIRST_PAUSE
                .saturating_mul(1 << self.pauses.min(31))
                .min(LONGEST_PAUSE);
            self.pauses = self.pauses.saturating_add(1);
            self.resumes = now + asked.unwrap_or(own);
        } else if let Some(asked) = asked {
            self.resumes = self.resumes.max(now + asked);
        }
        self.next = self.next.max(self.resumes);
        self.resumes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn turns_come_evenly() {
        let mut turns = Turns::new(10);
        let taken: Vec<_> = (0..3).map(|_| turns.take(ms(0))).collect();
        assert_eq!(taken, [ms(0), ms(100), ms(200)]);
        assert_eq!(
            turns.take(ms(5_000)),
            ms(5_000),
            "what was not used is not saved up"
        );
        assert_eq!(Turns::new(0).take(ms(7)), ms(7));
    }

    #[test]
    fn refusals_of_one_moment_count_once() {
        let mut turns = Turns::new(100);
        for at in [10, 11, 12] {
            assert_eq!(turns.refused(ms(5), ms(at), None), ms(260));
            turns.answered(ms(at));
        }
        assert!((turns.pace - 70.0).abs() < 1e-9, "{turns:?}");
        assert_eq!(
            turns.refused(ms(270), ms(280), None),
            ms(780),
            "the next pause is longer"
        );
        assert!(
            (turns.pace - 70.0).abs() < 1e-9,
            "no answer came in between: {turns:?}"
        );
        for round in 0..60 {
            let at = ms(1_000 + 10_000 * round);
            turns.answered(at);
            assert!(turns.refused(at, at, None) <= at + LONGEST_PAUSE);
        }
        assert!((turns.pace - SLOWEST).abs() < 1e-9, "{turns:?}");
    }

    #[test]
    fn the_store_says_how_long() {
        let mut turns = Turns::new(100);
        assert_eq!(turns.refused(ms(0), ms(10), Some(ms(60_000))), ms(60_010));
        assert_eq!(turns.take(ms(20)), ms(60_010));
        assert_eq!(
            turns.refused(ms(0), ms(20), Some(ms(1_000))),
            ms(60_010),
            "the longest holds"
        );
    }

    #[test]
    fn the_pace_comes_back() {
        let mut turns = Turns::new(100);
        turns.refused(ms(0), ms(0), None);
        turns.answered(ms(500));
        assert!((turns.pace - 70.0).abs() < 1e-9, "not within a second: {turns:?}");
        for second in 1..=10 {
            turns.answered(ms(1_000 * second));
        }
        assert!((turns.pace - 100.0).abs() < 1e-9, "{turns:?}");
    }

    /// A store with a bucket that is filled at the end of each second.
    #[test]
    fn most_of_a_stores_rate_is_used() {
        let (mut turns, rate) = (Turns::new(1_000), 200);
        let (mut now, mut second, mut left) = (Duration::ZERO, 0, rate);
        let (mut answered, mut refused) = (0, 0);
        while now < Duration::from_mins(1) {
            now = turns.take(now);
            if now.as_secs() != second {
                (second, left) = (now.as_secs(), rate);
            }
            if left > 0 {
                left -= 1;
                answered += 1;
                turns.answered(now);
            } else {
                refused += 1;
                turns.refused(now, now, None);
            }
        }
        let possible = 60 * rate;
        assert!(answered * 100 >= possible * 75, "{answered} of {possible}");
        assert!(refused * 100 <= answered, "{refused} refused");
    }
}
