//! Fifty objects of ten keys each, all of one path: what does the store hear of them?

use anyhow::Result;

use super::{Bench, WITHIN};
use crate::bench::population::Population;
use crate::bench::report::{Measure, Unit};
use crate::bench::shape::{Places, Shape};
use crate::bench::targets;
use crate::bench::trial::{Trial, float};

/// Brings the fifty up and counts.
pub(super) async fn run(bench: &mut Bench<'_>) -> Result<()> {
    let shape = Shape {
        keys: 10,
        places: Places::Same,
        ..Shape::plain(50)
    };
    bench.say(&shape, "one path for all");
    let population = Population::new(bench.ground, shape).await?;
    population.declare().await?;
    let trial = Trial::start(&population, WITHIN).await?;
    trial.end().await?;
    let beside = trial
        .store
        .iter()
        .filter(|(kind, _)| !matches!(kind.as_str(), "login" | "mount"));
    let requests = beside.map(|(_, count)| count).sum();
    let name = format!("one-path/{shape}/requests-beside-login-and-mount");
    let measure = Measure::new(name, Unit::Requests, float(requests));
    bench.record([measure.held_against(Some(targets::one_path()))]);
    Ok(())
}
