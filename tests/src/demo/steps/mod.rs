//! What the demo shows, one step after the other. Each is data: a name, what it is about, how long it may take, and
//! how to make it happen and see it.

mod change;
mod nowhere;
mod quiet;
mod ready;
mod refusal;
mod repair;
mod rollout;

use std::time::Duration;

use anyhow::Result;
use futures::future::BoxFuture;

use super::stage::Stage;

/// One step.
pub struct Step {
    /// What comes true.
    pub name: &'static str,
    /// What it is about, in a sentence.
    pub says: &'static str,
    /// How long it may take.
    pub within: Duration,
    /// Makes it happen, and returns once the cluster shows it.
    pub show: for<'a> fn(&'a Stage) -> BoxFuture<'a, Result<Shown>>,
}

/// What came of a step.
pub struct Shown {
    /// The result in one line, with its numbers.
    pub headline: String,
    /// What the commands printed.
    pub transcript: String,
}

/// All steps, in their order.
pub const ALL: [Step; 8] = [
    ready::SECRETS_BECOME_READY,
    refusal::A_PATH_OUTSIDE_THE_GRANT_IS_REFUSED,
    change::A_CHANGE_ARRIVES,
    repair::A_DELETED_SECRET_COMES_BACK,
    repair::A_HAND_EDIT_IS_REVERTED,
    rollout::A_CONSUMER_IS_ROLLED_OUT,
    quiet::AN_UNCHANGED_REFRESH_COSTS_NOTHING,
    nowhere::NO_VALUE_IS_ANYWHERE_ELSE,
];

/// Enough for everything that a step waits for.
const WITHIN: Duration = Duration::from_mins(1);
