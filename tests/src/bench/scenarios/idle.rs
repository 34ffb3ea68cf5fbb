//! What the operator uses while nothing changes.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench::report::{Measure, Unit};
use crate::bench::targets;
use crate::bench::trial::Trial;

/// Leaves the operator alone for a while and says which part of a core it used.
pub(super) async fn measure(trial: &Trial<'_>, seconds: u64) -> Result<Vec<Measure>> {
    let shape = trial.population.shape;
    let (before, began) = (trial.cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let used = trial.cpu()? - before;
    let percent = used / began.elapsed().as_secs_f64() * 100.0;
    let measure = Measure::new(format!("idle/{shape}/cpu"), Unit::PercentOfACore, percent);
    Ok(vec![measure.held_against(targets::idle_cpu(shape.objects))])
}
