//! Every answer of the store takes 50 ms more: does the time go where it must, into waiting for many at once?

use std::time::Duration;

use anyhow::Result;

use super::{Bench, WITHIN};
use crate::bench::delay::DelayLine;
use crate::bench::floor;
use crate::bench::population::Population;
use crate::bench::report::{Measure, Unit};
use crate::bench::shape::Shape;
use crate::bench::trial::Trial;

/// What is added to each answer.
const DELAY: Duration = Duration::from_millis(50);

/// Measures the operator and the floor with the same stand-in before the same Vault.
pub(super) async fn run(bench: &mut Bench<'_>, objects: usize) -> Result<()> {
    let shape = Shape::plain(objects);
    bench.say(&shape, "a slow store");
    let line = DelayLine::before(bench.ground.vault.url(), DELAY).await?;
    let mut floors = Vec::new();
    for _ in 0..bench.options.floors() {
        let population = Population::behind(bench.ground, shape, line.url()).await?;
        population.declare().await?;
        floors.push(floor::measure(&population, WITHIN).await?.time.as_secs_f64());
        population.clear().await?;
    }
    let population = Population::behind(bench.ground, shape, line.url()).await?;
    population.declare().await?;
    let trial = Trial::start(&population, WITHIN).await?;
    trial.end().await?;
    let name = format!("slow-store/{shape}/seconds");
    let mut measure = Measure::new(name, Unit::Seconds, trial.time.as_secs_f64()).beside(&floors);
    measure.stand_in = true;
    bench.record([measure]);
    Ok(())
}
