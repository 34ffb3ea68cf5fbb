//! The turns in which an object is looked at.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::schedule::RefreshGrid;
use tokio::time::Instant;

use super::plan::{Plan, SourcePlan};
use crate::runtime::clock;

/// The present turn of an object on its refresh grid. Objects whose first place is the same share their turns, so that
/// one look serves them all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// When it began.
    pub began: Instant,
    /// How long it still lasts.
    pub left: Duration,
}

/// Tells in which turn a moment lies.
///
/// The time of day is looked at once. Were it read for each pass, a thread that is kept waiting between the two clocks
/// would see its turn begin later than the others do, and take the look of another object in it for too old.
pub(super) struct TurnClock {
    time: DateTime<Utc>,
    at: Instant,
}

impl TurnClock {
    /// A clock that goes on from now.
    pub(super) fn start() -> Self {
        Self {
            time: clock::now(),
            at: Instant::now(),
        }
    }

    /// The turn of an object that `at` lies in: the same beginning for every moment of it.
    pub(super) fn turn_of(&self, plan: &Plan, interval: Duration, at: Instant) -> Turn {
        let first = plan.sources.first().map(SourcePlan::turns_of);
        let left = RefreshGrid::new(first.unwrap_or_default().as_bytes(), interval).wait(self.time_at(at));
        let began = at.checked_sub(interval.saturating_sub(left));
        Turn {
            began: began.unwrap_or(at),
            left,
        }
    }

    /// The time of day at a moment, unless somebody has set it since the start.
    fn time_at(&self, at: Instant) -> DateTime<Utc> {
        let passed = TimeDelta::from_std(at.saturating_duration_since(self.at)).ok();
        passed
            .and_then(|passed| self.time.checked_add_signed(passed))
            .unwrap_or(self.time)
    }
}

#[cfg(test)]
mod tests {
    use keyward_crds::SyncedSecret;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::ObjectKey;
    use crate::sync::plan;

    const INTERVAL: Duration = Duration::from_secs(12);

    #[test]
    fn every_moment_of_a_turn_tells_the_same_beginning() {
        let clock = TurnClock::start();
        let plan = reading("a", &json!({"path": "apps/db"}));
        let first = clock.turn_of(&plan, INTERVAL, clock.at + INTERVAL);
        assert_eq!(first.began + INTERVAL, clock.at + INTERVAL + first.left);
        let next = first.began + INTERVAL;
        for nanoseconds in [0, 1, 999_999, 1_000_000, 5_000_000_123, 11_999_999_999] {
            let at = next + Duration::from_nanos(nanoseconds);
            let turn = clock.turn_of(&plan, INTERVAL, at);
            assert_eq!(turn.began, next, "{nanoseconds} ns after it began");
            assert_eq!(at + turn.left, next + INTERVAL);
        }
        let last = clock.turn_of(&plan, INTERVAL, next - Duration::from_nanos(1));
        assert_eq!(last.began, first.began);
    }

    #[test]
    fn the_secrets_of_a_project_share_their_turns_and_paths_have_their_own() {
        let clock = TurnClock::start();
        let began = |namespace, place| {
            let turn = clock.turn_of(&reading(namespace, &place), INTERVAL, clock.at + INTERVAL);
            turn.began
        };
        let of_a_name = began("a", json!({"name": "db"}));
        assert_eq!(of_a_name, began("a", json!({"name": "mail"})));
        let uuid = json!({"uuid": "6cfbf2a4-4b0f-4b0e-9d3b-1f6a3a5e0c11"});
        assert_eq!(of_a_name, began("a", uuid));
        assert_ne!(
            of_a_name,
            began("b", json!({"name": "db"})),
            "another store of that name"
        );

        let of_a_path = began("a", json!({"path": "apps/db"}));
        assert_eq!(of_a_path, began("a", json!({"path": "apps/db", "version": 2})));
        assert_ne!(of_a_path, began("a", json!({"path": "apps/mail"})));
    }

    /// The plan of an object with one source.
    fn reading(namespace: &str, place: &Value) -> Plan {
        let mut source = place.clone();
        source["storeRef"] = json!({"name": "store"});
        let object = json!({
            "apiVersion": "keyward.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": {"namespace": namespace, "name": "object"},
            "spec": {"sources": [source]},
        });
        let object: SyncedSecret = serde_json::from_value(object).unwrap();
        plan::parse(&ObjectKey::new(namespace, "object"), &object).unwrap()
    }
}
