//! Three intervals in which nothing changes: what do the store and the API server hear?

use std::time::Duration;

use anyhow::Result;

use super::{Bench, WITHIN, change};
use crate::bench::options::Scenario;
use crate::bench::population::Population;
use crate::bench::report::{Measure, Unit};
use crate::bench::shape::{Engine, Places, Shape};
use crate::bench::tally::{self, Tally};
use crate::bench::targets;
use crate::bench::trial::{Marks, Trial, float};
use crate::rig::poll;

/// Often enough to wait for three of them, and longer than a listing of Barbican serves.
const INTERVAL: Duration = Duration::from_secs(15);

/// How many intervals are looked at.
const INTERVALS: u32 = 3;

/// Secrets of one page of Barbican's list.
const PAGE: usize = 100;

/// Counts the requests of three idle refreshes; then, in KV version 2, lets values change.
pub(super) async fn run(bench: &mut Bench<'_>, shape: Shape) -> Result<()> {
    let shape = shape.every(INTERVAL);
    bench.say(&shape, "three idle refreshes");
    let population = Population::new(bench.ground, shape).await?;
    population.declare().await?;
    let trial = Trial::start(&population, WITHIN).await?;
    // What the first sync has left to do is done within one interval. Objects of one place have their turns together:
    // half an interval after one, no turn begins at an end of the time that is looked at.
    tokio::time::sleep(INTERVAL).await;
    let before = Marks::now(&population).await?;
    poll::until("a refresh", INTERVAL * 2, async || {
        let asked = before.asked_of_store(&population).await;
        asked.is_ok_and(|asked| !asked.is_empty())
    })
    .await?;
    tokio::time::sleep(INTERVAL / 2).await;
    let marks = Marks::now(&population).await?;
    tokio::time::sleep(INTERVAL * INTERVALS).await;
    let asked = tally::of_store(&marks.asked_of_store(&population).await?);
    let api: usize = tally::of_api(&marks.asked_of_api(&population).await?)
        .values()
        .sum();
    let secrets_in_store = population.stock.lock().await.filled();
    bench.record(figures(&shape, &asked, api, secrets_in_store));
    if bench.wants(Scenario::Change) && shape.engine == Engine::KvV2 && shape.places == Places::Distinct {
        bench.say(&shape, "values change");
        bench.record(change::measure(&trial).await?);
    }
    trial.end().await
}

/// A place costs one request in each interval; in Barbican, a page of the project's list does.
fn figures(shape: &Shape, asked: &Tally, api: usize, secrets_in_store: usize) -> Vec<Measure> {
    let name = |figure: &str| format!("refresh/{shape}/{figure}");
    let units = match shape.engine {
        Engine::KvV2 | Engine::KvV1 => shape.place_count(),
        Engine::Barbican => secrets_in_store.div_ceil(PAGE),
    };
    let logins = asked.get("login").copied().unwrap_or_default();
    let requests = asked.values().sum::<usize>() - logins;
    let each = float(requests) / (float(units) * f64::from(INTERVALS));
    // The ends of the time that is looked at may fall into a request, which is then counted on one side.
    let each = (each * 100.0).round() / 100.0;
    let what = match shape.engine {
        Engine::KvV2 | Engine::KvV1 => "requests-per-path-and-interval",
        Engine::Barbican => "requests-per-page-and-interval",
    };
    vec![
        Measure::new(name(what), Unit::Number, each).held_against(Some(targets::refresh())),
        Measure::new(name("logins"), Unit::Requests, float(logins)).held_against(Some(targets::none())),
        Measure::new(name("api-requests"), Unit::Requests, float(api)).held_against(Some(targets::none())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_path_or_by_page() {
        let asked = Tally::from([("metadata".to_owned(), 3_001)]);
        let measures = figures(&Shape::plain(1_000), &asked, 0, 1_000);
        assert!(
            measures.iter().all(|measure| measure.met == Some(true)),
            "{measures:?}"
        );
        let asked = Tally::from([("list".to_owned(), 30), ("login".to_owned(), 1)]);
        let shape = Shape {
            engine: Engine::Barbican,
            ..Shape::plain(1_000)
        };
        let measures = figures(&shape, &asked, 1, 1_000);
        let met: Vec<_> = measures.iter().map(|measure| measure.met).collect();
        assert_eq!(met, [Some(true), Some(false), Some(false)]);
    }
}
