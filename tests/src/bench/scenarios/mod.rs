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

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::ground::Ground;
use super::options::{Options, Scenario};
use super::report::{Measure, Unit};
use super::shape::{Engine, Places, Shape};
use super::targets;
use crate::rig::progress::Progress;

/// How long one population may take, however large.
const WITHIN: Duration = Duration::from_mins(15);

/// The number of objects of every scenario that is not about numbers.
const USUAL: usize = 1_000;

/// A run under way.
pub struct Bench<'a> {
    ground: &'a Ground,
    options: &'a Options,
    progress: &'a Progress,
    measures: Vec<Measure>,
    /// How long the first sync of each shape took.
    first_syncs: BTreeMap<String, Duration>,
    /// How fast the floor writes statuses, by the number of objects.
    status_rates: BTreeMap<usize, f64>,
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
            status_rates: BTreeMap::new(),
        }
    }

    /// Runs every scenario that is asked for. What was measured before an error is returned beside it.
    pub async fn run(mut self) -> (Vec<Measure>, Result<()>) {
        let done = self.scenarios().await;
        (self.measures, done)
    }

    async fn scenarios(&mut self) -> Result<()> {
        for objects in &self.options.objects() {
            first_sync::run(self, Shape::plain(*objects)).await?;
        }
        self.compare_growth();
        if self.wants(Scenario::OnePath) {
            one_path::run(self).await?;
        }
        if self.wants(Scenario::Shapes) {
            for shape in Shape::all(USUAL) {
                if !self.first_syncs.contains_key(&shape.to_string()) {
                    first_sync::run(self, shape).await?;
                }
            }
        }
        if self.wants(Scenario::Refresh) {
            let shapes = Shape::all(self.usual())
                .into_iter()
                .filter(|shape| shape.keys == 1);
            let engines = |shape: &Shape| {
                self.options.full || (shape.engine == Engine::KvV2 && shape.places == Places::Distinct)
            };
            for shape in shapes.filter(engines).collect::<Vec<_>>() {
                refresh::run(self, shape).await?;
            }
        }
        if self.wants(Scenario::BlackHole) {
            black_hole::run(self, self.usual()).await?;
        }
        if self.wants(Scenario::SlowStore) {
            slow_store::run(self, self.usual()).await?;
        }
        if self.wants(Scenario::Outage) {
            for objects in self.options.objects() {
                // What four thousand objects would show lies between.
                if objects <= 1_000 || objects == 10_000 {
                    outage::run(self, objects).await?;
                }
            }
        }
        Ok(())
    }

    fn wants(&self, scenario: Scenario) -> bool {
        self.options.scenarios().contains(&scenario)
    }

    /// The number of objects of scenarios that are not about numbers.
    fn usual(&self) -> usize {
        self.options.objects().into_iter().min().unwrap_or(USUAL)
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
