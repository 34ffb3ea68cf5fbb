//! Objects exist, the operator starts, all become ready: between runs of the floor, each on objects of its own. Only
//! one population exists at a time, so all find the servers alike.

use anyhow::Result;

use super::{Bench, WITHIN, idle, relist};
use crate::bench::floor::{self, Floor};
use crate::bench::options::Scenario;
use crate::bench::population::Population;
use crate::bench::shape::Shape;
use crate::bench::trial::{Trial, memory_measures};

/// From here on memory is of interest, and what becomes of it.
const LARGE: usize = 4_000;

/// Measures one shape. A large population is also left idle and made to list everything anew.
pub(super) async fn run(bench: &mut Bench<'_>, shape: Shape) -> Result<()> {
    let floors = bench.options.floors();
    let before = floors.div_ceil(2);
    let mut baseline = Vec::new();
    for _ in 0..before {
        baseline.push(floor_of(bench, shape).await?);
    }
    bench.say(&shape, "declaring objects");
    let population = Population::new(bench.ground, shape).await?;
    population.declare().await?;
    bench.say(&shape, "the operator at work");
    let trial = Trial::start(&population, WITHIN).await?;
    let mut after = memory_measures("at-rest", &shape, trial.memory_at_rest().await?);
    if shape.objects >= LARGE && bench.wants(Scenario::Idle) {
        bench.say(&shape, "idle");
        after.extend(idle::measure(&trial, bench.options.idle_seconds).await?);
    }
    if shape.objects >= LARGE && bench.wants(Scenario::Relist) {
        bench.say(&shape, "listing everything anew");
        after.extend(relist::measure(&trial).await?);
    }
    bench.say(&shape, "clearing up");
    trial.end().await?;
    for _ in before..floors {
        baseline.push(floor_of(bench, shape).await?);
    }
    if let Some(last) = baseline.last() {
        bench.last_floors.insert(shape.to_string(), *last);
    }
    bench.first_syncs.insert(shape.to_string(), trial.time);
    bench.record(trial.first_sync(&baseline));
    bench.record(after);
    Ok(())
}

/// Lets the floor run once on objects of this shape.
pub(super) async fn floor_of(bench: &Bench<'_>, shape: Shape) -> Result<Floor> {
    bench.say(&shape, "declaring objects for the floor");
    let population = Population::new(bench.ground, shape).await?;
    population.declare().await?;
    bench.say(&shape, "the floor at work");
    let floor = floor::measure(&population, WITHIN).await?;
    bench.say(&shape, "clearing up after the floor");
    population.clear().await?;
    Ok(floor)
}
