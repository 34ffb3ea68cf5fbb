//! The command line of the benchmark.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures what Keyward costs: time, requests, memory and CPU, on real servers, beside the least that the same work
/// can cost.
///
/// It builds the operator, starts servers of its own, and needs no cluster and no Docker. Nothing else should run
/// meanwhile. The exit code is 1 where a target was missed or something became worse, and 2 where measuring failed.
#[derive(Debug, Parser)]
#[command(name = "bench", bin_name = "cargo bench-operator")]
pub struct Options {
    /// For daily use, in two minutes: 100 and 1,000 objects, and only what is quick.
    #[arg(long, conflicts_with = "full")]
    pub short: bool,

    /// Everything, in three quarters of an hour: 1,000, 4,000 and 10,000 objects, every shape, every scenario.
    #[arg(long)]
    pub full: bool,

    /// Numbers of objects.
    #[arg(long, value_delimiter = ',')]
    objects: Vec<usize>,

    /// Beside the first sync of each number of objects.
    #[arg(long, value_delimiter = ',', value_enum)]
    scenarios: Vec<Scenario>,

    /// Secrets of strangers in the cluster: 1,000 in a short run, otherwise 10,000.
    #[arg(long)]
    foreign: Option<usize>,

    /// How often the floor runs for each population, before and after the operator: once in a short run, otherwise
    /// twice.
    #[arg(long)]
    floors: Option<usize>,

    /// For how long CPU time is measured while nothing changes.
    #[arg(long, default_value_t = 60)]
    pub idle_seconds: u64,

    /// The cargo profile to build the operator with.
    #[arg(long, default_value = "release")]
    pub profile: String,

    /// Measure this binary and build nothing.
    #[arg(long)]
    pub program: Option<PathBuf>,

    /// Write the run to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,

    /// Write the table as Markdown to this file.
    #[arg(long)]
    pub markdown: Option<PathBuf>,

    /// Compare with a run that --json has written.
    #[arg(long)]
    pub compare: Option<PathBuf>,

    /// With --compare: more than so many times as much is worse.
    #[arg(long, default_value_t = 1.25)]
    pub threshold: f64,
}

/// What is measured beside the first sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Fifty objects of one path.
    OnePath,
    /// Every engine, one key and ten, one place and many.
    Shapes,
    /// CPU while nothing changes, from 4,000 objects on.
    Idle,
    /// Memory after everything was listed anew, from 4,000 objects on.
    Relist,
    /// Three refreshes in which nothing changes.
    Refresh,
    /// One changed value, with the refreshes.
    Change,
    /// A second store that never answers.
    BlackHole,
    /// A store that takes its time, which a stand-in adds.
    SlowStore,
    /// A store that refuses requests beyond a rate of its own.
    Throttled,
    /// A store that goes away and comes back.
    Outage,
}

impl Options {
    /// The numbers of objects to measure.
    #[must_use]
    pub fn objects(&self) -> Vec<usize> {
        match (self.objects.is_empty(), self.short, self.full) {
            (false, _, _) => self.objects.clone(),
            (true, true, _) => vec![100, 1_000],
            (true, false, true) => vec![1_000, 4_000, 10_000],
            (true, false, false) => vec![1_000],
        }
    }

    /// The scenarios to run beside the first sync.
    #[must_use]
    pub fn scenarios(&self) -> Vec<Scenario> {
        match (self.scenarios.is_empty(), self.short, self.full) {
            (false, _, _) => self.scenarios.clone(),
            (true, true, _) => vec![Scenario::OnePath],
            (true, false, true) => Scenario::value_variants().to_vec(),
            (true, false, false) => Vec::new(),
        }
    }

    /// Secrets of strangers.
    #[must_use]
    pub fn foreign(&self) -> usize {
        self.foreign.unwrap_or(if self.short { 1_000 } else { 10_000 })
    }

    /// How often the floor runs.
    #[must_use]
    pub fn floors(&self) -> usize {
        self.floors.unwrap_or(if self.short { 1 } else { 2 })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn modes_choose_what_is_not_said() {
        let short = Options::parse_from(["bench", "--short"]);
        assert_eq!(
            (short.objects(), short.floors(), short.foreign()),
            (vec![100, 1_000], 1, 1_000)
        );
        let full = Options::parse_from(["bench", "--full", "--objects", "50000"]);
        assert_eq!(full.objects(), [50_000]);
        assert_eq!(full.scenarios().len(), 10);
        assert!(Options::parse_from(["bench"]).scenarios().is_empty());
    }
}
