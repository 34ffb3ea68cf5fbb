//! One run beside an earlier one. Decides what has become worse.

use std::fmt::Write as _;

use super::report::{Measure, Report};

/// A measure of both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<'a> {
    /// The measure as it is now.
    pub now: &'a Measure,
    /// Its value in the earlier run.
    pub before: f64,
    /// Now divided by before; `None` where it was zero.
    pub ratio: Option<f64>,
    /// Whether it has grown by more than the threshold.
    pub worse: bool,
}

/// Every measure that both runs have, in the order of the present one. Less is better in each. `threshold` is the
/// ratio that is still taken for noise.
#[must_use]
pub fn compare<'a>(now: &'a Report, before: &Report, threshold: f64) -> Vec<Change<'a>> {
    let measures = now.measures.iter().filter_map(|measure| {
        let before = before.measures.iter().find(|old| old.name == measure.name)?;
        let ratio = (before.value > 0.0).then(|| measure.value / before.value);
        // From nothing to something is worse, whatever the threshold.
        let worse = ratio.map_or(measure.value > 0.0, |ratio| ratio > threshold);
        Some(Change {
            now: measure,
            before: before.value,
            ratio,
            worse,
        })
    });
    measures.collect()
}

/// The changes as text, one a line.
#[must_use]
pub fn describe(changes: &[Change<'_>], threshold: f64) -> String {
    let width = changes
        .iter()
        .map(|change| change.now.name.len())
        .max()
        .unwrap_or_default();
    let mut text = format!("now against before; worse is more than {threshold:.2} times as much\n");
    for change in changes {
        let ratio = change
            .ratio
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let mark = if change.worse { "  WORSE" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<width$}  {:>10.3}  {:>10.3}  {ratio:>6}{mark}",
            change.now.name, change.now.value, change.before
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::Unit;
    use super::super::report::tests::of;
    use super::*;

    #[test]
    fn only_what_grew_beyond_the_threshold_is_worse() {
        let before = report(&[("time", 2.0), ("memory", 50.0), ("reads", 0.0), ("gone", 1.0)]);
        let now = report(&[("time", 2.2), ("memory", 60.0), ("reads", 1.0), ("new", 1.0)]);
        let changes = compare(&now, &before, 1.15);
        let worse: Vec<_> = changes
            .iter()
            .map(|change| (change.now.name.as_str(), change.worse))
            .collect();
        assert_eq!(worse, [("time", false), ("memory", true), ("reads", true)]);
        assert!(describe(&changes, 1.15).contains("WORSE"));
    }

    fn report(measures: &[(&str, f64)]) -> Report {
        let measures = measures.iter();
        let measures = measures.map(|(name, value)| Measure::new(*name, Unit::Number, *value));
        of(measures.collect())
    }
}
