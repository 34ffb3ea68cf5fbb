//! The turns in which an object is looked at.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::schedule::RefreshGrid;
use tokio::time::Instant;

use super::plan::{Plan, SourcePlan};
use crate::runtime::clock;

/// The present turns of an object's sources. Each lies on the refresh grid of its own place, so that one look serves all
/// objects that name the place, whatever else they name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turns {
    /// When the turn of each source began.
    pub began: Vec<Instant>,
    /// How long it is until the next one begins.
    pub left: Duration,
}

impl Turns {
    /// When the last of them began: what was looked at since is as new as this moment asks for.
    pub(super) fn latest(&self, at: Instant) -> Instant {
        self.began.iter().copied().max().unwrap_or(at)
    }
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

    /// The turns of a plan's sources that `at` lies in: the same beginnings for every moment of them.
    pub(super) fn turns_of(&self, plan: &Plan, interval: Duration, at: Instant) -> Turns {
        let time = self.time_at(at);
        let left = |source: &SourcePlan| RefreshGrid::new(source.turns_of().as_bytes(), interval).wait(time);
        let left: Vec<Duration> = plan.sources.iter().map(left).collect();
        let began = |left: &Duration| at.checked_sub(interval.saturating_sub(*left)).unwrap_or(at);
        Turns {
            began: left.iter().map(began).collect(),
            left: left.into_iter().min().unwrap_or(interval),
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
        let plan = reading("a", &[json!({"path": "apps/db"})]);
        let turn_at = |at| {
            let turns = clock.turns_of(&plan, INTERVAL, at);
            (turns.began[0], turns.left)
        };
        let (first, left) = turn_at(clock.at + INTERVAL);
        assert_eq!(first + INTERVAL, clock.at + INTERVAL + left);
        let next = first + INTERVAL;
        for nanoseconds in [0, 1, 999_999, 1_000_000, 5_000_000_123, 11_999_999_999] {
            let at = next + Duration::from_nanos(nanoseconds);
            let (began, left) = turn_at(at);
            assert_eq!(began, next, "{nanoseconds} ns after it began");
            assert_eq!(at + left, next + INTERVAL);
        }
        assert_eq!(turn_at(next - Duration::from_nanos(1)).0, first);
    }

    #[test]
    fn each_source_has_the_turns_of_its_place_and_the_next_of_them_is_waited_for() {
        let clock = TurnClock::start();
        let (db, mail) = (json!({"path": "apps/db"}), json!({"path": "apps/mail"}));
        let at = clock.at + INTERVAL;
        let turns = |sources: &[Value]| clock.turns_of(&reading("a", sources), INTERVAL, at);
        let (alone, other) = (
            turns(std::slice::from_ref(&db)),
            turns(std::slice::from_ref(&mail)),
        );
        let both = turns(&[mail, db]);
        assert_eq!(both.began, [other.began[0], alone.began[0]]);
        assert_eq!(both.left, alone.left.min(other.left));
        assert_eq!(both.latest(at), alone.began[0].max(other.began[0]));
    }

    #[test]
    fn the_secrets_of_a_project_share_their_turns_and_paths_have_their_own() {
        let clock = TurnClock::start();
        let began = |namespace, place: Value| {
            let turns = clock.turns_of(&reading(namespace, &[place]), INTERVAL, clock.at + INTERVAL);
            turns.began[0]
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

    /// The plan of an object with these sources.
    fn reading(namespace: &str, places: &[Value]) -> Plan {
        let source = |place: &Value| {
            let mut source = place.clone();
            source["storeRef"] = json!({"name": "store"});
            source
        };
        let sources: Vec<Value> = places.iter().map(source).collect();
        let object = json!({
            "apiVersion": "keyward.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": {"namespace": namespace, "name": "object"},
            "spec": {"sources": sources},
        });
        let object: SyncedSecret = serde_json::from_value(object).unwrap();
        plan::parse(&ObjectKey::new(namespace, "object"), &object).unwrap()
    }
}
