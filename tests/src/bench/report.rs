//! What a run says: the schema of its JSON, which `docs/reference/benchmark.md` documents. Plain data.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// The version of this schema.
pub const FORMAT: u32 = 1;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this schema: 1.
    pub format: u32,
    /// The version of Keyward that was measured.
    pub version: String,
    /// The commit of the working tree, with a `+` where it was changed since. Empty where git does not tell.
    pub commit: String,
    /// The cargo profile that it was built with; the path of the binary where one was named.
    pub profile: String,
    /// Where it was measured.
    pub machine: Machine,
    /// Secrets of strangers in the cluster.
    pub foreign: usize,
    /// When the run began.
    pub started: DateTime<Utc>,
    /// How long the run took.
    pub seconds: f64,
    /// What was measured, in the order of measuring.
    pub measures: Vec<Measure>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Scenario, shape and figure, with slashes between: unique in a run, and the same in each run.
    pub name: String,
    /// What it is counted in.
    pub unit: Unit,
    /// The figure.
    pub value: f64,
    /// What a client that decides nothing took for the same, where that was measured: the mean of its runs.
    pub floor: Option<f64>,
    /// The largest run of that client less the smallest, where it ran more than once.
    pub spread: Option<f64>,
    /// `value` divided by `floor`.
    pub ratio: Option<f64>,
    /// What must be reached, where something must.
    pub target: Option<Target>,
    /// Whether it was reached.
    pub met: Option<bool>,
    /// Whether a stand-in took the place of a real server.
    pub stand_in: bool,
}

/// What figures are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Seconds of CPU time.
    CpuSeconds,
    /// Hundredths of one core.
    PercentOfACore,
    /// MiB.
    Mebibytes,
    /// Requests.
    Requests,
    /// Requests in one second.
    RequestsPerSecond,
    /// A number without a unit, such as requests for each object.
    Number,
}

/// What must be reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The largest value that is good enough.
    pub at_most: f64,
    /// What is held against it.
    pub of: Of,
}

/// What is held against a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    /// The value.
    Value,
    /// The ratio to the floor.
    Ratio,
}

impl Measure {
    /// A figure that is held against nothing.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self {
            name: name.into(),
            unit,
            value,
            floor: None,
            spread: None,
            ratio: None,
            target: None,
            met: None,
            stand_in: false,
        }
    }

    /// The same beside what the floor took, once for each of its runs. No run, no floor.
    #[must_use]
    pub fn beside(mut self, floors: &[f64]) -> Self {
        if floors.is_empty() {
            return self;
        }
        #[expect(clippy::cast_precision_loss, reason = "the floor runs a handful of times")]
        let floor = floors.iter().sum::<f64>() / floors.len() as f64;
        let largest = floors.iter().copied().fold(f64::MIN, f64::max);
        let smallest = floors.iter().copied().fold(f64::MAX, f64::min);
        self.floor = Some(floor);
        self.spread = (floors.len() > 1).then_some(largest - smallest);
        self.ratio = (floor > 0.0).then_some(self.value / floor);
        self
    }

    /// The same, held against a target. Without a floor, a target of the ratio is neither met nor missed.
    #[must_use]
    pub fn held_against(mut self, target: Option<Target>) -> Self {
        self.target = target;
        self.met = target.and_then(|target| {
            let held = match target.of {
                Of::Value => Some(self.value),
                Of::Ratio => self.ratio,
            };
            held.map(|held| held <= target.at_most)
        });
        self
    }
}

impl Report {
    /// The measures that have missed their target.
    pub fn missed(&self) -> impl Iterator<Item = &Measure> {
        self.measures.iter().filter(|measure| measure.met == Some(false))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::operator::workspace;

    /// A report of nothing but these measures.
    pub(in crate::bench) fn of(measures: Vec<Measure>) -> Report {
        Report {
            format: FORMAT,
            version: String::new(),
            commit: String::new(),
            profile: String::new(),
            machine: Machine::here(),
            foreign: 0,
            started: DateTime::UNIX_EPOCH,
            seconds: 0.0,
            measures,
        }
    }

    #[test]
    fn a_ratio_is_to_the_mean_of_the_floors() {
        let measure = Measure::new("a", Unit::Seconds, 2.6).beside(&[1.9, 2.1]);
        assert!((measure.floor.unwrap() - 2.0).abs() < 1e-9);
        assert!((measure.spread.unwrap() - 0.2).abs() < 1e-9);
        let target = |at_most, of| Some(Target { at_most, of });
        assert_eq!(
            measure.clone().held_against(target(1.31, Of::Ratio)).met,
            Some(true)
        );
        assert_eq!(
            measure.clone().held_against(target(1.29, Of::Ratio)).met,
            Some(false)
        );
        assert_eq!(measure.held_against(target(2.6, Of::Value)).met, Some(true));
    }

    #[test]
    fn every_field_is_documented() {
        let target = Target {
            at_most: 1.0,
            of: Of::Value,
        };
        let report = of(vec![
            Measure::new("a", Unit::Number, 1.0).held_against(Some(target)),
        ]);
        let mut known = Vec::new();
        fields("", &serde_json::to_value(&report).unwrap(), &mut known);
        let page = std::fs::read_to_string(workspace().join("docs/reference/benchmark.md")).unwrap();
        let (_, table) = page.split_once("## JSON").unwrap();
        let mut documented: Vec<_> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(name, _)| name.to_owned())
            .collect();
        known.sort();
        documented.sort();
        assert_eq!(documented, known);
    }

    /// The paths of all fields of a document; an element of a list has the path of the list.
    fn fields(path: &str, value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(object) => {
                for (name, value) in object {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    fields(&path, value, found);
                    found.push(path);
                }
            }
            serde_json::Value::Array(list) => list.iter().for_each(|value| fields(path, value, found)),
            _ => {}
        }
    }

    #[test]
    fn without_a_floor_nothing_is_said_of_a_ratio() {
        let target = Target {
            at_most: 1.3,
            of: Of::Ratio,
        };
        let measure = Measure::new("a", Unit::Seconds, 9.0)
            .beside(&[])
            .held_against(Some(target));
        assert_eq!((measure.ratio, measure.met), (None, None));
    }
}
