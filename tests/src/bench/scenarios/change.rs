//! One value changes at the store: how long until its Secret has it?

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::Secret;
use keyward::runtime::clock;
use keyward_crds::{REFRESH_ANNOTATION, SyncedSecret};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::bench::population::Population;
use crate::bench::report::{Measure, Unit};
use crate::bench::stock::{Stock, key_name};
use crate::bench::trial::Trial;
use crate::rig::poll;

/// How many values are changed in each of the two ways.
const SAMPLES: usize = 20;

/// How long one may take.
const WITHIN: Duration = Duration::from_secs(30);

/// Changes values and asks for a refresh by annotation; then changes others and leaves them to the interval. What the
/// latter waits for its turn is not counted: that is the interval's choice.
pub(super) async fn measure(trial: &Trial<'_>) -> Result<Vec<Measure>> {
    let population = trial.population;
    let mut asked_for = Vec::new();
    for number in 0..SAMPLES {
        let start = write(population, number).await?;
        let began = Instant::now();
        let id = uuid::Uuid::new_v4().to_string();
        let ask = json!({"metadata": {"annotations": {REFRESH_ANNOTATION: id}}});
        population
            .api::<SyncedSecret>()
            .patch(
                &Population::name(number),
                &PatchParams::default(),
                &Patch::Merge(&ask),
            )
            .await?;
        arrival(population, number, &start).await?;
        asked_for.push(began.elapsed().as_secs_f64());
    }
    let waits = (SAMPLES..2 * SAMPLES).map(async |number| {
        let turn = next_turn(trial, number).await?;
        let start = write(population, number).await?;
        // Before its turn there is nothing to see, and looking would cost the API server something.
        tokio::time::sleep((turn - clock::now()).to_std().unwrap_or_default()).await;
        arrival(population, number, &start).await?;
        let late = (clock::now() - turn).to_std().unwrap_or_default();
        anyhow::Ok(late.as_secs_f64())
    });
    let by_interval = futures::future::try_join_all(waits).await?;
    let shape = population.shape;
    let figures = [("asked-for", asked_for), ("after-its-turn", by_interval)];
    Ok(figures
        .into_iter()
        .flat_map(|(how, mut seconds)| {
            seconds.sort_by(f64::total_cmp);
            let name = |figure: &str| format!("change/{shape}/{how}/{figure}");
            [
                Measure::new(name("median"), Unit::Seconds, seconds[seconds.len() / 2]),
                Measure::new(name("slowest"), Unit::Seconds, seconds[seconds.len() - 1]),
            ]
        })
        .collect())
}

/// Gives the place of an object another value, and says what the value begins with.
async fn write(population: &Population<'_>, number: usize) -> Result<String> {
    let start = format!("c{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    let stock = population.stock.lock().await;
    let Stock::Vault(stock) = &*stock else {
        anyhow::bail!("values are changed in Vault alone");
    };
    stock.write(population.ground, number, &start).await?;
    Ok(start)
}

async fn arrival(population: &Population<'_>, number: usize, start: &str) -> Result<()> {
    let api = population.api::<Secret>();
    let (name, key) = (Population::name(number), key_name(0));
    poll::until("the new value", WITHIN, async || {
        let secret = api.get(&name).await.ok();
        let value = secret.and_then(|secret| secret.data?.remove(&key));
        value.is_some_and(|value| value.0.starts_with(start.as_bytes()))
    })
    .await
}

/// The next instant at which the operator looks at an object's source by itself, a second away at least.
async fn next_turn(trial: &Trial<'_>, number: usize) -> Result<DateTime<Utc>> {
    let (namespace, name) = (&trial.population.namespace, Population::name(number));
    poll::some("a turn that is still to come", WITHIN, async || {
        let state = trial.operator.state(namespace, &name).await.ok()?;
        let turn: DateTime<Utc> = state["nextRefresh"].as_str()?.parse().ok()?;
        ((turn - clock::now()).num_milliseconds() >= 1_000).then_some(turn)
    })
    .await
    .context("the operator tells when it looks again")
}
