//! How long to wait after a failure: longer with each one in a row, never in step with others.

use std::time::Duration;

use crate::fault::{Class, Fault};

/// A growing delay between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first failure.
    pub first: Duration,
    /// No delay is longer, unless the other side asks for it.
    pub longest: Duration,
}

/// The longest wait that is granted to another side that asks for one.
pub const LONGEST_REQUESTED: Duration = Duration::from_mins(10);

/// For the API server, whose return wakes no object. Refusals are the same: a change of the operator's own rights wakes
/// nothing either, and an API server that has just started refuses everybody for a moment.
const CLUSTER: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(15),
};

/// For a store that may be back at any moment.
const STORE: Backoff = Backoff {
    first: Duration::from_millis(2_500),
    longest: Duration::from_millis(2_500),
};

impl Backoff {
    /// The delays for a class of failure. What only a change of spec or policy can cure is looked at rarely,
    /// because that change wakes the object by itself.
    #[must_use]
    pub fn of(class: Class) -> Self {
        let (first, longest) = match class {
            Class::Conflict => (1, 10),
            Class::Transient | Class::Ambiguous | Class::Sealed => (1, 60),
            Class::Throttled => (2, 120),
            Class::Absent => (5, 300),
            Class::Denied | Class::Permanent => (10, 600),
        };
        Self {
            first: Duration::from_secs(first),
            longest: Duration::from_secs(longest),
        }
    }

    /// The longest delay after `failures` in a row (1 is the first): where there is nobody to be in step with.
    #[must_use]
    pub fn full(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// The delay after `failures` in a row. `fraction` is random, from 0 up to 1: it spreads the delay over the upper
    /// half of its length.
    #[must_use]
    pub fn delay(&self, failures: u32, fraction: f64) -> Duration {
        let full = self.full(failures);
        let fraction = if fraction.is_finite() {
            fraction.clamp(0.0, 1.0)
        } else {
            1.0
        };
        full.mul_f64(0.5 + fraction / 2.0)
    }
}

/// The delay after `fault`, the last of `failures` in a row. What the other side asked for is a lower bound.
#[must_use]
pub fn delay_after(fault: &Fault, failures: u32, fraction: f64) -> Duration {
    let backoff = if fault.reason.is_of_the_cluster() {
        CLUSTER
    } else {
        Backoff::of(fault.class)
    };
    backoff.delay(failures, fraction).max(asked_for(fault))
}

/// When a store is tried again after `fault`, the last of `failures` in a row.
///
/// What may pass is tried soon, however often it was: a trial is one request, and everything waits for the store. What only
/// somebody can cure is tried ever more rarely.
#[must_use]
pub fn store_tried_after(fault: &Fault, failures: u32, fraction: f64) -> Duration {
    if fault.may_pass() && !fault.reason.is_of_the_cluster() {
        STORE.delay(failures, fraction).max(asked_for(fault))
    } else {
        delay_after(fault, failures, fraction)
    }
}

/// The wait that the other side asked for, as far as it is granted.
fn asked_for(fault: &Fault) -> Duration {
    fault.retry_after.unwrap_or_default().min(LONGEST_REQUESTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;
    use proptest::prelude::*;

    const ALL: [Class; 8] = [
        Class::Transient,
        Class::Throttled,
        Class::Denied,
        Class::Sealed,
        Class::Absent,
        Class::Conflict,
        Class::Permanent,
        Class::Ambiguous,
    ];

    #[test]
    fn the_other_side_may_ask_for_more_but_not_for_ever() {
        let fault = |wait| {
            Fault::new(Class::Throttled, Reason::StoreThrottled, "x")
                .with_retry_after(Some(Duration::from_secs(wait)))
        };
        assert_eq!(delay_after(&fault(30), 1, 0.0), Duration::from_secs(30));
        assert_eq!(delay_after(&fault(0), 1, 0.0), Duration::from_secs(1));
        assert_eq!(delay_after(&fault(86_400), 1, 0.0), LONGEST_REQUESTED);
    }

    #[test]
    fn the_api_server_is_tried_again_soon() {
        for (class, reason, longest) in [
            (Class::Transient, Reason::ClusterUnavailable, 15),
            (Class::Denied, Reason::ClusterDenied, 15),
            (Class::Transient, Reason::StoreUnavailable, 60),
            (Class::Denied, Reason::RemoteDenied, 600),
        ] {
            let fault = Fault::new(class, reason, "x");
            assert_eq!(delay_after(&fault, 20, 1.0), Duration::from_secs(longest));
        }
    }

    #[test]
    fn a_store_that_may_be_back_is_tried_soon_and_any_other_ever_more_rarely() {
        let fault = |class, reason| Fault::new(class, reason, "x");
        let down = fault(Class::Transient, Reason::StoreUnavailable);
        let hidden = fault(Class::Denied, Reason::RemoteDenied);
        let cluster = fault(Class::Transient, Reason::ClusterUnavailable);
        for failures in [1, 5, 50] {
            for fraction in [0.0, 0.5, 0.999] {
                let wait = store_tried_after(&down, failures, fraction);
                assert!(Duration::from_secs(1) < wait && wait < Duration::from_millis(2_501));
            }
            for fault in [&hidden, &cluster] {
                let wait = store_tried_after(fault, failures, 0.3);
                assert_eq!(wait, delay_after(fault, failures, 0.3));
            }
        }
        let asked = down.with_retry_after(Some(Duration::from_secs(30)));
        assert_eq!(store_tried_after(&asked, 1, 0.5), Duration::from_secs(30));
    }

    #[test]
    fn odd_fractions_do_no_harm() {
        let backoff = Backoff::of(Class::Transient);
        for fraction in [f64::NAN, f64::INFINITY, -1.0, 2.0] {
            assert!(backoff.delay(u32::MAX, fraction) <= backoff.longest);
        }
    }

    proptest! {
        #[test]
        fn delays_grow_within_their_bounds(class in proptest::sample::select(&ALL[..]), failures in 0_u32..64, fraction in 0.0..1.0) {
            let backoff = Backoff::of(class);
            let (now, next) = (backoff.delay(failures, fraction), backoff.delay(failures + 1, fraction));
            prop_assert!(now <= next);
            prop_assert!(now >= backoff.first / 2 && now <= backoff.longest);
        }
    }
}
