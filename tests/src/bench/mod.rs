//! Measures what the operator costs, on real servers, beside a floor: what a client that decides nothing needs for the
//! same requests.
//!
//! The operator is the real binary ([`product`]) under the rights of the chart. Servers and values are the [`ground`];
//! objects of one [`shape`] are a [`population`]; an operator that brings one up is a [`trial`]. Requests are counted
//! in the servers' own logs ([`tally`]), memory and CPU by the kernel ([`gauge`]). What must be reached is in
//! [`targets`]; what came out is a [`report`]. Times are measured here and never asserted in tests.

pub mod compare;
pub mod floor;
pub mod gauge;
pub mod ground;
pub mod machine;
pub mod options;
pub mod population;
pub mod product;
pub mod report;
pub mod shape;
pub mod table;
pub mod tally;
pub mod targets;
pub mod trial;

use std::time::{Duration, Instant};

use anyhow::Result;
use keyward::runtime::clock;

use self::floor::Floor;
use self::ground::Ground;
use self::machine::Machine;
use self::options::Options;
use self::population::Population;
use self::report::{FORMAT, Measure, Report};
use self::shape::Shape;
use self::trial::{Trial, memory_measures};
use crate::rig::progress::Progress;

/// How long one population may take, however large.
const WITHIN: Duration = Duration::from_mins(15);

/// Measures everything that the options ask for.
pub async fn run(options: &Options) -> Result<Report> {
    let machine = Machine::here();
    let (started, began) = (clock::now(), Instant::now());
    let program = match &options.program {
        Some(path) => path.clone(),
        None => product::build(&options.profile)?,
    };
    let progress = Progress::start("bench");
    progress.say("starting servers");
    let ground = Box::pin(Ground::start(program)).await?;
    progress.say("making Secrets of strangers");
    ground.add_strangers(options.foreign).await?;
    let mut measures = Vec::new();
    for objects in &options.objects {
        measures.extend(first_sync(&ground, Shape::plain(*objects), options.floors, &progress).await?);
    }
    progress.done();
    Ok(Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        profile: options.profile.clone(),
        machine,
        foreign: options.foreign,
        started,
        seconds: began.elapsed().as_secs_f64(),
        measures,
    })
}

/// A first sync between runs of the floor, each on objects of its own: only one population exists at a time.
async fn first_sync(
    ground: &Ground,
    shape: Shape,
    floors: usize,
    progress: &Progress,
) -> Result<Vec<Measure>> {
    let mut baseline = Vec::new();
    for _ in 0..floors.div_ceil(2) {
        baseline.push(floor_of(ground, shape, progress).await?);
    }
    progress.say(&format!("{shape}: declaring objects"));
    let population = Population::new(ground, shape).await?;
    population.declare().await?;
    progress.say(&format!("{shape}: the operator at work"));
    let trial = Trial::start(&population, WITHIN).await?;
    let memory = trial.memory_at_rest().await?;
    let memory = memory_measures("at-rest", &shape.to_string(), shape.objects, memory);
    progress.say(&format!("{shape}: clearing up"));
    trial.end().await?;
    for _ in floors.div_ceil(2)..floors {
        baseline.push(floor_of(ground, shape, progress).await?);
    }
    let mut measures = trial.first_sync(&baseline);
    measures.extend(memory);
    Ok(measures)
}

async fn floor_of(ground: &Ground, shape: Shape, progress: &Progress) -> Result<Floor> {
    progress.say(&format!("{shape}: declaring objects for the floor"));
    let population = Population::new(ground, shape).await?;
    population.declare().await?;
    progress.say(&format!("{shape}: the floor at work"));
    let floor = floor::measure(&population, WITHIN).await?;
    progress.say(&format!("{shape}: clearing up after the floor"));
    population.clear().await?;
    Ok(floor)
}
