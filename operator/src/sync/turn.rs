//! The turns in which an object is looked at.

use std::time::Duration;

use chrono::{DateTime, Utc};
use keyward_core::schedule::RefreshGrid;
use tokio::time::Instant;

use super::plan::{Plan, SourcePlan};

/// The present turn of an object on its refresh grid. Objects whose first place is the same share their turns, so that
/// one look serves them all.
pub(super) struct Turn {
    /// When it began.
    pub began: Instant,
    /// How long it still lasts.
    pub left: Duration,
}

impl Turn {
    /// The turn that `now` lies in. `at` is the same moment by the clock that only goes forward: one read later would
    /// make the turn begin later, and the look of another object in it too old.
    pub(super) fn of(plan: &Plan, interval: Duration, now: DateTime<Utc>, at: Instant) -> Self {
        let first = plan.sources.first().map(SourcePlan::turns_of);
        let left = RefreshGrid::new(first.unwrap_or_default().as_bytes(), interval).wait(now);
        let began = at.checked_sub(interval.saturating_sub(left));
        Self {
            began: began.unwrap_or(at),
            left,
        }
    }
}
