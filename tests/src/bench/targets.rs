//! What must be reached. One function for each row of the table in `docs/performance.md`.

use super::report::{Of, Target};

/// First sync: this much longer than the floor at most.
const TIME_TO_FLOOR: f64 = 1.3;

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
}
