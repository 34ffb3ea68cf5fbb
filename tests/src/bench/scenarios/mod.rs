//! What is measured, one file for each question. A scenario brings a population up, looks, and leaves nothing behind.

mod black_hole;
mod change;
mod first_sync;
mod idle;
mod one_path;
mod outage;
mod refresh;
mod relist;
mod slow_store;
mod throttled;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::floor::Floor;
use super::ground::Ground;
use super::options::{Options, Scenario};
use super::population;
use super::report::{Measure, Unit};
use super::shape::Shape;
use super::targets;
use crate::rig::progress::Progress;

/// How long one population may take, however large.
const WITHIN: Duration = Duration::from_mins(15);

/// The number of objects where none is asked for.
const USUAL: usize = 1_000;

/// A run under way.
pub struct Bench<'a> {
    ground: &'a Ground,
    options: &'a Options,
    progress: &'a Progress,
    measures: Vec<Measure>,
    /// How long the first sync of each shape took.
    first_syncs: BTreeMap<String, Duration>,
    /// The last run of the floor for each shape.
    last_floors: BTreeMap<String, Floor>,
}

impl<'a> Bench<'a> {
    /// A run in which nothing was measured yet.
    #[must_use]
    pub fn new(ground: &'a Ground, options: &'a Options, progress: &'a Progress) -> Self {
        Self {
            ground,
            options,
            progress,
            measures: Vec::new(),
            first_syncs: BTreeMap::new(),
            last_floors: BTreeMap::new(),
        }
    }

    /// Runs every scenario that is asked for. One that fails keeps none of the others from being measured.
    pub async fn run(mut self) -> (Vec<Measure>, Result<()>) {
        let mut failures = Vec::new();
        for step in plan(self.options) {
            if let Err(error) = self.take(step).await {
                failures.push(format!("{step:?}: {error:#}"));
                if let Err(error) = population::clear_leftovers(self.ground).await {
                    failures.push(format!("what it left cannot be cleared: {error:#}"));
                    break;
                }
            }
        }
        self.compare_growth();
        let done = if failures.is_empty() {
            Ok(())
        } else {
            Err(anyhow!("not everything was measured:\n{}", failures.join("\n")))
        };
        (self.measures, done)
    }

    async fn take(&mut self, step: Step) -> Result<()> {
        match step {
            Step::FirstSync(shape) => first_sync::run(self, shape).await,
            Step::OnePath => one_path::run(self).await,
            Step::Refresh(shape) => refresh::run(self, shape).await,
            Step::BlackHole(objects) => black_hole::run(self, objects).await,
            Step::SlowStore(objects) => slow_store::run(self, objects).await,
            Step::Throttled(objects) => throttled::run(self, objects).await,
            Step::Outage(objects) => outage::run(self, objects).await,
        }
    }

    fn wants(&self, scenario: Scenario) -> bool {
        self.options.scenarios().contains(&scenario)
    }

    fn say(&self, shape: &Shape, what: &str) {
        self.progress.say(&format!("{shape}: {what}"));
    }

    fn record(&mut self, measures: impl IntoIterator<Item = Measure>) {
        self.measures.extend(measures);
    }

    fn compare_growth(&mut self) {
        let time = |objects: usize| self.first_syncs.get(&Shape::plain(objects).to_string());
        if let (Some(one), Some(ten)) = (time(1_000), time(10_000)) {
            let growth = ten.as_secs_f64() / one.as_secs_f64();
            let measure = Measure::new("first-sync/growth-of-10000-over-1000", Unit::Number, growth);
            self.record([measure.held_against(Some(targets::growth()))]);
        }
    }
}

/// One population, or one operator on one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    FirstSync(Shape),
    OnePath,
    Refresh(Shape),
    BlackHole(usize),
    SlowStore(usize),
    Throttled(usize),
    Outage(usize),
}

/// What the options ask for, in order. What is not about numbers is measured with the smallest number of objects.
fn plan(options: &Options) -> Vec<Step> {
    let (numbers, scenarios) = (options.objects(), options.scenarios());
    let wants = |scenario| scenarios.contains(&scenario);
    let usual = numbers.iter().copied().min().unwrap_or(USUAL);
    let mut plan: Vec<Step> = numbers
        .iter()
        .map(|objects| Step::FirstSync(Shape::plain(*objects)))
        .collect();
    if wants(Scenario::OnePath) {
        plan.push(Step::OnePath);
    }
    if wants(Scenario::Shapes) {
        let others = Shape::all(usual).into_iter().map(Step::FirstSync);
        let new: Vec<_> = others.filter(|step| !plan.contains(step)).collect();
        plan.extend(new);
    }
    if wants(Scenario::Refresh) {
        let mut shapes = Shape::all(usual);
        // The number of keys is nothing to a refresh.
        shapes.retain(|shape| shape.keys == 1 && (options.full || *shape == Shape::plain(usual)));
        plan.extend(shapes.into_iter().map(Step::Refresh));
    }
    if wants(Scenario::BlackHole) {
        plan.push(Step::BlackHole(usual));
    }
    if wants(Scenario::SlowStore) {
        plan.push(Step::SlowStore(usual));
    }
    if wants(Scenario::Throttled) {
        plan.push(Step::Throttled(usual));
    }
    if wants(Scenario::Outage) {
        // What four thousand objects would show lies between.
        let shown = numbers
            .into_iter()
            .filter(|objects| *objects <= 1_000 || *objects == 10_000);
        plan.extend(shown.map(Step::Outage));
    }
    plan
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn plan_of(arguments: &[&str]) -> Vec<Step> {
        plan(&Options::parse_from([&["bench"], arguments].concat()))
    }

    #[test]
    fn a_short_run_is_short() {
        let sync = |objects| Step::FirstSync(Shape::plain(objects));
        assert_eq!(plan_of(&["--short"]), [sync(100), sync(1_000), Step::OnePath]);
        assert_eq!(plan_of(&["--objects", "7"]), [sync(7)]);
    }

    #[test]
    fn a_full_run_takes_every_step_once() {
        let plan = plan_of(&["--full"]);
        for (number, step) in plan.iter().enumerate() {
            assert!(!plan[..number].contains(step), "{step:?}");
        }
        let syncs = plan
            .iter()
            .filter(|step| matches!(step, Step::FirstSync(_)))
            .count();
        assert_eq!(syncs, 3 + 11, "every shape at 1,000, the plain one twice more");
        assert_eq!(plan.last(), Some(&Step::Outage(10_000)));
    }
}
