//! What must be reached. One function for each row of the table in `docs/performance.md`.

use super::report::{Of, Target};

/// First sync: this much longer than the floor at most.
const TIME_TO_FLOOR: f64 = 1.3;

/// Seconds that recovery may take beside what the servers need.
const RECOVERY: f64 = 5.0;

/// The time of a first sync, for these numbers of objects.
#[must_use]
pub fn first_sync(objects: usize) -> Option<Target> {
    matches!(objects, 1_000 | 10_000).then_some(Target {
        at_most: TIME_TO_FLOOR,
        of: Of::Ratio,
    })
}

/// Resident memory of objects with one key beside 10,000 Secrets of strangers, at rest and after a relist, in MiB.
#[must_use]
pub fn memory_at_rest(objects: usize) -> Option<Target> {
    match objects {
        4_000 => Some(at_most(40.0)),
        10_000 => Some(at_most(64.0)),
        _ => None,
    }
}

/// The most memory ever, in MiB.
#[must_use]
pub fn memory_at_peak(objects: usize) -> Option<Target> {
    matches!(objects, 4_000 | 10_000).then_some(at_most(128.0))
}

/// Writes to the API server for each object of a first sync: its Secret and its status.
#[must_use]
pub fn writes_per_object() -> Target {
    at_most(2.0)
}

/// How much longer a first sync of ten times as many objects may take.
#[must_use]
pub fn growth() -> Target {
    at_most(12.0)
}

/// Requests for many objects of one path, beside the login and one look at the mount.
#[must_use]
pub fn one_path() -> Target {
    at_most(2.0)
}

/// Requests for each place, or page of a list, in each interval in which nothing has changed.
#[must_use]
pub fn refresh() -> Target {
    at_most(1.0)
}

/// Seconds from the return of a store until all is ready. The store may not be asked faster than its rate, and the
/// API server takes statuses no faster than from the floor; both in one second.
#[must_use]
pub fn recovery(objects: usize, paths: f64, store_rate: f64, status_rate: f64) -> Target {
    if objects <= 1_000 {
        return at_most(RECOVERY);
    }
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let statuses = objects as f64 / status_rate;
    at_most(RECOVERY + TIME_TO_FLOOR * (paths / store_rate).max(statuses))
}

/// Requests to a store in any one second.
#[must_use]
pub fn burst(store_rate: u32) -> Target {
    at_most(f64::from(store_rate))
}

/// Seconds that a store which never answers adds to another.
#[must_use]
pub fn black_hole() -> Target {
    at_most(1.0)
}

/// Hundredths of a core while nothing changes, for these numbers of objects.
#[must_use]
pub fn idle_cpu(objects: usize) -> Option<Target> {
    (objects == 10_000).then_some(at_most(1.0))
}

/// What must not happen at all.
#[must_use]
pub fn none() -> Target {
    at_most(0.0)
}

fn at_most(at_most: f64) -> Target {
    Target {
        at_most,
        of: Of::Value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_judged_where_the_table_names_a_number() {
        assert_eq!(memory_at_rest(4_000), Some(at_most(40.0)));
        assert_eq!(memory_at_rest(10_000), Some(at_most(64.0)));
        assert_eq!(memory_at_rest(1_000), None);
        assert_eq!(memory_at_peak(50_000), None);
    }

    #[test]
    fn recovery_is_given_the_time_that_the_slower_side_needs() {
        assert_eq!(recovery(1_000, 1_000.0, 10.0, 10.0), at_most(5.0));
        assert_eq!(recovery(10_000, 10_000.0, 1_000.0, 2_000.0), at_most(18.0));
        assert_eq!(recovery(10_000, 1.0, 1_000.0, 2_000.0), at_most(11.5));
    }
}
