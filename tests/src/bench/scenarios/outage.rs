//! The store is away for five refresh intervals and comes back: how long until all is ready again, and how hard is the
//! store hit meanwhile?

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyward::runtime::clock;

use super::{Bench, WITHIN, first_sync};
use crate::bench::defaults::Defaults;
use crate::bench::population::Population;
use crate::bench::report::{Measure, Unit};
use crate::bench::shape::Shape;
use crate::bench::tally;
use crate::bench::targets;
use crate::bench::trial::{Marks, Trial, by_kind, float, user};

/// For how many intervals the store is away.
const INTERVALS: u32 = 5;

/// Stops Vault, waits, starts it again.
pub(super) async fn run(bench: &mut Bench<'_>, objects: usize) -> Result<()> {
    // Each interval asks for every path: short ones would measure refreshes beside the recovery.
    let interval = Duration::from_secs(if objects <= 1_000 { 20 } else { 60 });
    let shape = Shape::plain(objects).every(interval);
    let floor = match bench.last_floors.get(&shape.to_string()) {
        Some(floor) => *floor,
        None => first_sync::floor_of(bench, shape).await?,
    };
    bench.say(&shape, "coming up before an outage");
    let population = Population::new(bench.ground, shape).await?;
    population.declare().await?;
    let trial = Trial::start(&population, WITHIN).await?;

    bench.say(&shape, "the store is away");
    let vault = &bench.ground.vault;
    vault.stop().await?;
    tokio::time::sleep(interval * INTERVALS).await;
    let ready = population.count_ready().await;
    vault.start_sealed().await?;
    let marks = Marks::now(&population).await?;
    vault.unseal().await?;
    let back = clock::now();
    let ready = ready?;
    ensure!(ready == 0, "{ready} objects were ready without a store");
    bench.say(&shape, "the store is back");
    let last = population.ready(&user(), marks.api, WITHIN).await?;
    let seconds = (last - back)
        .to_std()
        .context("all was ready before the store was back")?;

    let asked = marks.asked_of_store(&population).await?;
    let api = tally::of_api(&marks.asked_of_api(&population).await?);
    let rate = Defaults::of_the_operator()?.store_rate();
    let name = |figure: &str| format!("outage/{shape}/{figure}");
    let target = targets::recovery(
        objects,
        float(shape.place_count()),
        f64::from(rate),
        floor.status_writes_per_second,
    );
    let possible = float(objects) / floor.recoveries_per_second;
    bench.record([
        Measure::new(name("recovery"), Unit::Seconds, seconds.as_secs_f64())
            .beside(&[possible])
            .held_against(Some(target)),
        Measure::new(
            name("busiest-second"),
            Unit::RequestsPerSecond,
            float(tally::busiest_second(asked.iter().map(|request| request.at))),
        )
        .held_against(Some(targets::burst(rate))),
        Measure::new(name("requests"), Unit::Requests, float(asked.len())),
    ]);
    bench.record(by_kind(&api, |kind| name(&format!("api/{kind}"))));
    trial.end().await
}
