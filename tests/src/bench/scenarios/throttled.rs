//! The store answers 429 beyond a rate: is it asked as often as it allows, and no more than it must be to find that out?

use anyhow::{Context as _, Result};

use super::{Bench, WITHIN};
use crate::bench::population::Population;
use crate::bench::report::{Measure, Unit};
use crate::bench::shape::Shape;
use crate::bench::stock::VaultStock;
use crate::bench::trial::{Trial, float};

/// Requests that Vault answers in a second.
const QUOTA: u32 = 200;

/// Measures a first sync against a quota of Vault's own. Its floor is the time that the quota leaves to as many reads.
pub(super) async fn run(bench: &mut Bench<'_>, objects: usize) -> Result<()> {
    let shape = Shape::plain(objects);
    bench.say(&shape, "a store that answers 429");
    let population = Population::new(bench.ground, shape).await?;
    population.declare().await?;
    let api = bench.ground.vault.api();
    let mount = VaultStock::mount_of(&shape);
    api.limit_rate(&mount, QUOTA).await?;
    let trial = Trial::start(&population, WITHIN).await;
    api.unlimit_rate(&mount).await?;
    let trial = trial?;
    trial.end().await?;
    let name = |figure: &str| format!("throttled/{shape}/{figure}");
    let floor = float(shape.place_count()) / f64::from(QUOTA);
    let values = trial.store.get("value").copied().context("no value was read")?;
    bench.record([
        Measure::new(name("seconds"), Unit::Seconds, trial.time.as_secs_f64()).beside(&[floor]),
        Measure::new(name("values-read"), Unit::Requests, float(values)),
        Measure::new(
            name("refused"),
            Unit::Requests,
            float(trial.store.get("refused").copied().unwrap_or_default()),
        ),
        trial.writes_per_object(name("writes-per-object")),
    ]);
    Ok(())
}
