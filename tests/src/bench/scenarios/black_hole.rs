//! A second store takes connections and never answers, with as many objects, made in turn with those of the first: how
//! much longer does the first take?

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};

use super::{Bench, WITHIN, first_sync};
use crate::bench::population::Population;
use crate::bench::report::{Measure, Unit};
use crate::bench::shape::Shape;
use crate::bench::stock::Stock;
use crate::bench::targets;
use crate::bench::trial::Trial;

/// The store that never answers.
const DEAD: &str = "dead";

/// Measures the healthy objects beside the others, and takes away the time that they took alone.
pub(super) async fn run(bench: &mut Bench<'_>, objects: usize) -> Result<()> {
    let shape = Shape::plain(objects);
    if !bench.first_syncs.contains_key(&shape.to_string()) {
        first_sync::run(bench, shape).await?;
    }
    let alone = bench.first_syncs[&shape.to_string()];
    bench.say(&shape, "beside a store that never answers");
    let hole = BlackHole::open().await?;
    let population = Population::new(bench.ground, shape).await?;
    let spec = match &*population.stock.lock().await {
        Stock::Vault(stock) => stock.spec(bench.ground, &hole.url),
        Stock::Barbican(_) => anyhow::bail!("a plain shape is of Vault"),
    };
    population.add_store(DEAD, &spec).await?;
    population.declare_beside(Some(DEAD)).await?;
    let trial = Trial::start(&population, WITHIN).await?;
    let together = trial.time.as_secs_f64();
    let added = (together - alone.as_secs_f64()).max(0.0);
    let name = |figure: &str| format!("black-hole/{shape}/{figure}");
    bench.record([
        Measure::new(name("seconds"), Unit::Seconds, together),
        Measure::new(name("added"), Unit::Seconds, added).held_against(Some(targets::black_hole())),
    ]);
    trial.end().await
}

/// A listener that keeps every connection and says nothing.
struct BlackHole {
    url: String,
    keeper: tokio::task::JoinHandle<()>,
}

impl BlackHole {
    async fn open() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let keeper = tokio::spawn(async move {
            let mut kept: Vec<TcpStream> = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                kept.push(connection);
            }
        });
        Ok(Self { url, keeper })
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
