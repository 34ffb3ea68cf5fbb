//! Whether a store is asked: one that fails is tried by one caller at a time, when its time comes, and by nobody else.
//!
//! What shows that a store works is a call of those who use it. A check, which asks for less, shows the end only of
//! what a check has met as well: a server that is healthy and refuses every read goes on being tried by readers alone.
//!
//! Instants are durations since one moment, which the caller chooses and keeps to.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::fault::{Class, Fault};
use crate::reason::Reason;

/// So many passing failures in a row, over all places, make a store count as failing: one path may fail on its own.
const RUN: u32 = 3;

/// No run is longer, however often it turned out that only some places fail.
const LONGEST_RUN: u32 = 64;

/// After so long, what only some places failed with is forgotten.
const FORGIVEN: Duration = Duration::from_mins(10);

/// The waits of a failing store. Trying a dead store is one request, and everything waits for it.
const WAITS: Backoff = Backoff {
    first: Duration::from_millis(250),
    longest: Duration::from_millis(500),
};

/// What is known of a store's health.
#[derive(Debug, Default)]
pub struct Breaker {
    failing: Option<Failing>,
    /// Passing failures with no answer in between, of a store that does not count as failing yet.
    run: u32,
    /// How often in a row it was only some places that failed, and when that last turned out. Each time, all readers
    /// were told of a failure and woken for nothing.
    partial: (u32, Duration),
    /// Whether the last check failed.
    check_failed: bool,
}

#[derive(Debug)]
struct Failing {
    fault: Fault,
    failures: u32,
    retry_at: Duration,
    /// Whether somebody is trying it right now.
    trying: bool,
}

/// Leave to send a call. It is handed back with how the call ended, or that it did not.
#[derive(Debug)]
#[must_use]
pub struct Leave {
    /// Whether this call is the one that tries a failing store.
    trial: bool,
}

/// A change of a store's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It stopped working.
    Failed,
    /// It works again.
    Recovered,
}

/// What the end of a call says about the store.
enum Word<'a> {
    /// It answers, well or by refusing what was asked.
    Works,
    /// It does not work.
    Fails(&'a Fault),
    /// Nothing.
    Nothing,
}

impl Breaker {
    /// Lets everybody ask a store that works, and one caller a failing store whose time has come.
    ///
    /// # Errors
    /// The fault that the store fails with.
    pub fn admit(&mut self, now: Duration) -> Result<Leave, Fault> {
        let Some(failing) = &mut self.failing else {
            return Ok(Leave { trial: false });
        };
        if failing.trying || now < failing.retry_at {
            return Err(failing.fault.clone());
        }
        failing.trying = true;
        Ok(Leave { trial: true })
    }

    /// Takes in how a call ended.
    #[expect(clippy::needless_pass_by_value, reason = "a leave is handed back once")]
    pub fn settle(&mut self, leave: Leave, fault: Option<&Fault>, now: Duration) -> Option<Change> {
        let Leave { trial } = leave;
        match word_of(fault) {
            Word::Nothing => {
                self.abandon(Leave { trial });
                None
            }
            Word::Works => {
                let asked_for_rest = self.failing().is_some_and(|fault| fault.retry_after.is_some());
                // What was sent before that does not speak against it.
                if asked_for_rest && !trial {
                    None
                } else {
                    self.close(now)
                }
            }
            Word::Fails(fault) => match &mut self.failing {
                None => self.count(fault, now),
                Some(failing) if trial => {
                    failing.again(fault, now);
                    None
                }
                // Sent before the store began to fail, and no news.
                Some(_) => None,
            },
        }
    }

    /// Takes in that a call never ended: its caller has gone.
    #[expect(clippy::needless_pass_by_value, reason = "a leave is handed back once")]
    pub fn abandon(&mut self, leave: Leave) {
        if let Some(failing) = self.failing.as_mut().filter(|_| leave.trial) {
            failing.trying = false;
        }
    }

    /// Takes in how a check ended. It needs no leave and is nobody's trial.
    pub fn checked(&mut self, fault: Option<&Fault>, now: Duration) -> Option<Change> {
        match word_of(fault) {
            Word::Nothing => None,
            Word::Works => {
                let change = if self.check_failed { self.close(now) } else { None };
                self.check_failed = false;
                change
            }
            Word::Fails(fault) => {
                self.check_failed = true;
                match &mut self.failing {
                    None => self.count(fault, now),
                    Some(failing) => {
                        failing.tell(fault);
                        None
                    }
                }
            }
        }
    }

    /// What the store fails with at present.
    #[must_use]
    pub fn failing(&self) -> Option<&Fault> {
        self.failing.as_ref().map(|failing| &failing.fault)
    }

    fn count(&mut self, fault: &Fault, now: Duration) -> Option<Change> {
        if fault.class == Class::Transient {
            self.run += 1;
            if self.run < self.run_needed(now) {
                return None;
            }
        }
        self.run = 0;
        self.failing = Some(Failing::new(fault, now));
        Some(Change::Failed)
    }

    fn run_needed(&self, now: Duration) -> u32 {
        let doubled = 1 << self.times_partial(now).min(31);
        RUN.saturating_mul(doubled).min(LONGEST_RUN)
    }

    fn times_partial(&self, now: Duration) -> u32 {
        let (times, at) = self.partial;
        if now < at + FORGIVEN { times } else { 0 }
    }

    fn close(&mut self, now: Duration) -> Option<Change> {
        self.run = 0;
        let failing = self.failing.take()?;
        // A store that fails as a whole fails its checks as well.
        let partial = failing.fault.class == Class::Transient && !self.check_failed;
        let times = if partial {
            self.times_partial(now).saturating_add(1)
        } else {
            0
        };
        self.partial = (times, now);
        Some(Change::Recovered)
    }
}

impl Failing {
    fn new(fault: &Fault, now: Duration) -> Self {
        let mut failing = Self {
            fault: fault.clone(),
            failures: 0,
            retry_at: now,
            trying: false,
        };
        failing.again(fault, now);
        failing
    }

    fn again(&mut self, fault: &Fault, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + fault.retry_after.unwrap_or(WAITS.full(self.failures));
        self.tell(fault);
        self.trying = false;
    }

    /// The first words of an episode stay: those of each trial name another place, and would be written each time.
    fn tell(&mut self, fault: &Fault) {
        if self.fault.reason == fault.reason {
            self.fault.retry_after = fault.retry_after;
        } else {
            self.fault = fault.clone();
        }
    }
}

fn word_of(fault: Option<&Fault>) -> Word<'_> {
    match fault {
        None => Word::Works,
        Some(fault) => match fault.class {
            Class::Sealed | Class::Throttled | Class::Transient => Word::Fails(fault),
            Class::Denied | Class::Permanent | Class::Absent if is_of_the_whole_store(fault.reason) => {
                Word::Fails(fault)
            }
            Class::Denied | Class::Permanent | Class::Absent => Word::Works,
            Class::Conflict | Class::Ambiguous => Word::Nothing,
        },
    }
}

/// Whether a refusal is about the store and not only about the place that was asked for.
fn is_of_the_whole_store(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::CredentialRejected | Reason::CredentialMissing | Reason::TlsFailed | Reason::AddressRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn sealed() -> Fault {
        Fault::new(Class::Sealed, Reason::StoreSealed, "the store is sealed")
    }

    fn down() -> Fault {
        Fault::new(Class::Transient, Reason::StoreUnavailable, "it timed out")
    }

    fn throttled() -> Fault {
        Fault::new(Class::Throttled, Reason::StoreThrottled, "too many calls")
    }

    /// A call that is let through and ends so.
    fn call(breaker: &mut Breaker, fault: Option<&Fault>, at: Duration) -> Option<Change> {
        let leave = breaker.admit(at).expect("it may be asked");
        breaker.settle(leave, fault, at)
    }

    fn failing_with(fault: &Fault) -> Breaker {
        let mut breaker = Breaker::default();
        while breaker.failing().is_none() {
            call(&mut breaker, Some(fault), ms(0));
        }
        breaker
    }

    #[test]
    fn a_failing_store_is_asked_by_one_caller_when_its_time_comes() {
        let mut breaker = Breaker::default();
        for _ in 1..RUN {
            assert_eq!(call(&mut breaker, Some(&down()), ms(0)), None);
        }
        assert_eq!(call(&mut breaker, Some(&down()), ms(0)), Some(Change::Failed));
        assert_eq!(breaker.admit(ms(249)).unwrap_err(), down(), "too early");
        let trial = breaker.admit(ms(250)).unwrap();
        assert!(breaker.admit(ms(5_000)).is_err(), "only one");
        assert_eq!(breaker.settle(trial, None, ms(5_000)), Some(Change::Recovered));
        assert!(breaker.admit(ms(5_000)).is_ok() && breaker.admit(ms(5_000)).is_ok());
    }

    #[test]
    fn one_answer_in_between_ends_a_run() {
        let mut breaker = Breaker::default();
        for fault in [Some(down()), Some(down()), None, Some(down()), Some(down())] {
            assert_eq!(call(&mut breaker, fault.as_ref(), ms(0)), None);
        }
    }

    #[test]
    fn a_trial_whose_caller_goes_leaves_it_to_the_next() {
        let mut breaker = failing_with(&sealed());
        for _ in 0..3 {
            let leave = breaker.admit(ms(250)).expect("nobody is trying it");
            breaker.abandon(leave);
        }
        let moved = Fault::new(Class::Conflict, Reason::Conflict, "it changed");
        assert_eq!(call(&mut breaker, Some(&moved), ms(250)), None);
        assert!(breaker.failing().is_some(), "that says nothing about the store");
        assert_eq!(call(&mut breaker, None, ms(250)), Some(Change::Recovered));
    }

    #[test]
    fn each_trial_in_vain_makes_the_next_wait_longer() {
        let (mut breaker, mut at) = (failing_with(&sealed()), ms(0));
        for wait in [250, 500, 500] {
            assert!(breaker.admit(at + ms(wait - 1)).is_err(), "{wait}");
            at += ms(wait);
            assert_eq!(call(&mut breaker, Some(&sealed()), at), None);
        }
    }

    #[test]
    fn an_episode_keeps_its_first_words_until_the_reason_is_another() {
        let reading = |path: &str| {
            let message = format!("reading `{path}` failed with status 500");
            Fault::new(Class::Transient, Reason::StoreUnavailable, message)
        };
        let mut breaker = failing_with(&reading("first"));
        assert_eq!(call(&mut breaker, Some(&reading("second")), ms(250)), None);
        assert_eq!(breaker.failing(), Some(&reading("first")));
        let asked = throttled().with_retry_after(Some(ms(5_000)));
        assert_eq!(call(&mut breaker, Some(&asked), ms(900)), None);
        assert_eq!(breaker.failing(), Some(&asked));
        assert!(breaker.admit(ms(5_800)).is_err() && breaker.admit(ms(5_900)).is_ok());
    }

    #[test]
    fn what_was_sent_before_neither_holds_back_nor_hides_a_trial() {
        let mut breaker = Breaker::default();
        let early: Vec<_> = (0..9).map(|_| breaker.admit(ms(0)).unwrap()).collect();
        assert_eq!(call(&mut breaker, Some(&sealed()), ms(1)), Some(Change::Failed));
        let trial = breaker.admit(ms(251)).unwrap();
        for leave in early {
            assert_eq!(breaker.settle(leave, Some(&sealed()), ms(252)), None);
            assert!(breaker.admit(ms(252)).is_err(), "the trial is still under way");
        }
        assert_eq!(breaker.settle(trial, Some(&sealed()), ms(260)), None);
        assert!(breaker.admit(ms(760)).is_ok(), "the second wait, not the tenth");
    }

    #[test]
    fn a_late_answer_counts_unless_the_store_asked_to_be_left_alone() {
        let asked = throttled().with_retry_after(Some(ms(60_000)));
        for (fault, change) in [(down(), Some(Change::Recovered)), (asked, None)] {
            let mut breaker = Breaker::default();
            let early = breaker.admit(ms(0)).unwrap();
            while breaker.failing().is_none() {
                call(&mut breaker, Some(&fault), ms(0));
            }
            assert_eq!(breaker.settle(early, None, ms(1)), change, "{fault}");
        }
    }

    #[test]
    fn a_good_check_ends_what_a_check_has_met_and_nothing_else() {
        for fault in [
            throttled(),
            down(),
            throttled().with_retry_after(Some(ms(60_000))),
        ] {
            let mut breaker = failing_with(&fault);
            for _ in 0..3 {
                assert_eq!(breaker.checked(None, ms(10)), None, "{fault}");
            }
            assert!(
                breaker.admit(ms(200)).is_err(),
                "nor does it hasten a trial: {fault}"
            );
        }
        let mut breaker = failing_with(&sealed());
        assert_eq!(breaker.checked(Some(&sealed()), ms(10)), None);
        assert_eq!(breaker.checked(None, ms(20)), Some(Change::Recovered));
        assert_eq!(breaker.checked(None, ms(30)), None);
    }

    #[test]
    fn a_check_opens_it_like_a_call_and_does_not_take_the_trial_away() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.checked(Some(&sealed()), ms(0)), Some(Change::Failed));
        let trial = breaker.admit(ms(250)).unwrap();
        assert_eq!(breaker.checked(Some(&down()), ms(260)), None);
        assert_eq!(breaker.failing(), Some(&down()), "the newest word");
        assert!(breaker.admit(ms(9_000)).is_err(), "the trial is still under way");
        assert_eq!(breaker.settle(trial, None, ms(9_000)), Some(Change::Recovered));
    }

    /// Some places fail whenever they are asked for, and all are asked for again each time the store is well again.
    #[test]
    fn places_that_fail_on_their_own_do_not_make_it_fail_for_ever() {
        let (mut breaker, mut failed) = (Breaker::default(), 0);
        for second in 0..300 {
            let at = Duration::from_secs(second);
            for _ in 0..20 {
                if breaker.failing().is_none() {
                    call(&mut breaker, Some(&down()), at);
                }
            }
            failed += u32::from(breaker.failing().is_some());
            breaker.checked(None, at);
            call(&mut breaker, None, at + ms(500));
        }
        assert_eq!(
            failed, 3,
            "after 3, 6 and 12 failures in a row, and there are only 20"
        );
        // A store that fails as a whole is still given up, and found as quickly the next time.
        let later = Duration::from_secs(301);
        for _ in 0..LONGEST_RUN {
            if breaker.failing().is_none() {
                call(&mut breaker, Some(&down()), later);
            }
        }
        assert_eq!(breaker.checked(Some(&down()), later), None);
        assert_eq!(breaker.checked(None, later), Some(Change::Recovered));
        assert_eq!(breaker.run_needed(later), RUN);
    }

    #[test]
    fn what_only_some_places_failed_with_is_forgotten() {
        let mut breaker = failing_with(&down());
        assert_eq!(call(&mut breaker, None, ms(250)), Some(Change::Recovered));
        assert_eq!(breaker.run_needed(ms(250)), 2 * RUN);
        assert_eq!(breaker.run_needed(ms(250) + FORGIVEN), RUN);
    }

    #[test]
    fn a_denied_path_says_nothing_about_the_store() {
        let denied = Fault::new(Class::Denied, Reason::RemoteDenied, "reading was denied");
        let rejected = Fault::new(
            Class::Denied,
            Reason::CredentialRejected,
            "the login was rejected",
        );
        let mut breaker = Breaker::default();
        assert_eq!(call(&mut breaker, Some(&denied), ms(0)), None);
        assert_eq!(call(&mut breaker, Some(&rejected), ms(0)), Some(Change::Failed));
        assert_eq!(
            call(&mut breaker, Some(&denied), ms(250)),
            Some(Change::Recovered),
            "it answers"
        );
    }
}
