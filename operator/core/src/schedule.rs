//! When to look again. The instants of one path and interval form a grid that depends on nothing else, so objects
//! that name the same path look at the same time, whenever they were created, and different paths are spread over the
//! interval in a hundred steps or more: who looks at several in one go wakes less often.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};

/// The shortest interval that is kept; anything shorter counts as this.
pub const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Turns of one interval begin together in so many steps of it...
const STEPS: i64 = 100;

/// ...or in more, where a step would be longer than this.
const LONGEST_STEP_MS: i64 = 5_000;

/// How often a rollout is looked at; a watch of its consumers reports it, and this is a safety net.
pub const ROLLOUT_LOOK: Duration = Duration::from_mins(1);

/// The grid of instants at which one path is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefreshGrid {
    interval_ms: i64,
    phase_ms: i64,
}

impl RefreshGrid {
    /// The grid of `key` (what is looked at) and `interval`.
    #[must_use]
    pub fn new(key: &[u8], interval: Duration) -> Self {
        let interval_ms = i64::try_from(interval.max(SHORTEST_INTERVAL).as_millis()).unwrap_or(i64::MAX / 4);
        let digest: [u8; 32] = Sha256::digest(key).into();
        let spread = digest
            .iter()
            .take(7)
            .fold(0_i64, |number, byte| (number << 8) | i64::from(*byte));
        let step_ms = (interval_ms / STEPS).min(LONGEST_STEP_MS);
        Self {
            interval_ms,
            phase_ms: spread % interval_ms / step_ms * step_ms,
        }
    }

    /// The first instant of the grid after `now`.
    #[must_use]
    pub fn next(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let into_turn = now
            .timestamp_millis()
            .saturating_sub(self.phase_ms)
            .rem_euclid(self.interval_ms);
        let left = TimeDelta::milliseconds(self.interval_ms - into_turn);
        // Fractions of a millisecond are dropped, so that all who share the grid get the same instant.
        let whole = DateTime::from_timestamp_millis(now.timestamp_millis()).unwrap_or(now);
        whole.checked_add_signed(left).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// How long it is from `now` to the next instant of the grid.
    #[must_use]
    pub fn wait(&self, now: DateTime<Utc>) -> Duration {
        (self.next(now) - now).to_std().unwrap_or_default()
    }
}

/// When an object is due again after a pass that did not fail: at the first of what it waits for; `None` where it waits
/// for nothing.
#[must_use]
pub fn due_again(waits: impl IntoIterator<Item = Option<Duration>>) -> Option<Duration> {
    waits.into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(millis).unwrap()
    }

    /// The number of the turn that `now` lies in.
    fn turn(grid: RefreshGrid, now: DateTime<Utc>) -> i64 {
        (now.timestamp_millis() - grid.phase_ms).div_euclid(grid.interval_ms)
    }

    #[test]
    fn whoever_names_the_path_gets_the_same_instants() {
        let interval = Duration::from_mins(1);
        let (one, two) = (
            RefreshGrid::new(b"apps/db", interval),
            RefreshGrid::new(b"apps/db", interval),
        );
        assert_eq!(one.next(at(1_000_000)), two.next(at(1_000_500)));
        assert_ne!(one, RefreshGrid::new(b"apps/web", interval));
    }

    #[test]
    fn paths_are_spread_over_the_interval() {
        let grids =
            (0..1000).map(|n| RefreshGrid::new(format!("apps/{n}").as_bytes(), Duration::from_secs(100)));
        let mut tenths = [0_u32; 10];
        for grid in grids {
            tenths[usize::try_from(grid.phase_ms / 10_000).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
    }

    #[test]
    fn turns_begin_in_steps() {
        for (interval, step) in [
            (Duration::from_secs(1), 10),
            (Duration::from_mins(1), 600),
            (Duration::from_hours(1), 5_000),
        ] {
            let phases: BTreeSet<i64> = (0..1000)
                .map(|n| RefreshGrid::new(format!("apps/{n}").as_bytes(), interval).phase_ms)
                .collect();
            assert!(phases.iter().all(|phase| phase % step == 0), "{interval:?}");
            assert!(phases.len() > 95, "{interval:?}: {}", phases.len());
        }
    }

    #[test]
    fn the_first_of_what_is_waited_for_counts() {
        let (soon, late) = (Duration::from_secs(5), Duration::from_hours(1));
        assert_eq!(due_again([None, None]), None);
        assert_eq!(due_again([Some(late), None, Some(soon)]), Some(soon));
    }

    #[test]
    fn extremes_are_survived() {
        for interval in [Duration::ZERO, Duration::MAX] {
            let grid = RefreshGrid::new(b"x", interval);
            for now in [DateTime::<Utc>::MIN_UTC, at(0), DateTime::<Utc>::MAX_UTC] {
                assert!(grid.next(now) >= now);
            }
        }
    }

    proptest! {
        #[test]
        fn the_next_instant_is_one_turn_ahead(key: Vec<u8>, seconds in 1_u64..100_000, millis in 0_i64..4_000_000_000_000) {
            let grid = RefreshGrid::new(&key, Duration::from_secs(seconds));
            let (now, next) = (at(millis), grid.next(at(millis)));
            prop_assert!(next > now && grid.wait(now) <= Duration::from_secs(seconds));
            prop_assert_eq!(turn(grid, next), turn(grid, now) + 1);
            prop_assert_eq!(turn(grid, next - TimeDelta::milliseconds(1)), turn(grid, now));
            prop_assert_eq!(grid.next(next), next + TimeDelta::seconds(i64::try_from(seconds).unwrap()));
        }
    }
}
