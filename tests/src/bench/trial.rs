//! One operator on one population: from its start until all is ready, and what it took.

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};

use super::floor::Floor;
use super::gauge::{self, Memory};
use super::ground::HOME;
use super::population::{Population, is_ours};
use super::report::{Measure, Unit};
use super::shape::Shape;
use super::stock::{Asked, StoreMark};
use super::tally::{self, Tally};
use super::targets;
use crate::operator::Operator;
use crate::rig::Mark;
use crate::rig::kubernetes::ApiRequest;

/// How long an operator is left alone before its memory counts as steady.
const REST: Duration = Duration::from_secs(5);

/// An operator that has brought its population up.
pub struct Trial<'a> {
    /// The objects.
    pub population: &'a Population<'a>,
    /// The operator.
    pub operator: Operator,
    /// From its start to the last `Ready`.
    pub time: Duration,
    /// CPU time until then, in seconds.
    pub cpu_seconds: f64,
    /// TCP connections that were open at that time.
    pub connections: usize,
    /// What the store was asked until then.
    pub store: Tally,
    /// What the API server was asked until then.
    pub api: Tally,
    /// Reads of single objects of the population and of their Secrets until then.
    pub object_reads: usize,
    /// Writes of the same.
    pub object_writes: usize,
}

/// Places in the servers' logs.
#[derive(Clone, Copy)]
pub struct Marks {
    store: StoreMark,
    /// In the log of the API server.
    pub api: Mark,
}

impl<'a> Trial<'a> {
    /// Starts an operator and waits until every object is ready.
    pub async fn start(population: &'a Population<'a>, within: Duration) -> Result<Trial<'a>> {
        let marks = Marks::now(population).await?;
        let operator = population.ground.operator().await?;
        let last = population.ready(&user(), marks.api, within).await;
        let last = last
            .with_context(|| format!("the operator's log ends with:\n{}", operator.process().log_tail()))?;
        let process = process(&operator)?;
        let (cpu_seconds, connections) = (gauge::cpu(process)?, gauge::connections(process)?);
        let api = marks.asked_of_api(population).await?;
        Ok(Self {
            time: between(operator.started(), last)?,
            cpu_seconds,
            connections,
            store: tally::of_store(&marks.asked_of_store(population).await?),
            object_reads: about_objects(&api, &population.namespace, |verb| verb == "get"),
            object_writes: about_objects(&api, &population.namespace, |verb| verb != "get"),
            api: tally::of_api(&api),
            population,
            operator,
        })
    }

    /// The operator's memory once it has come to rest.
    pub async fn memory_at_rest(&self) -> Result<Memory> {
        tokio::time::sleep(REST).await;
        self.memory()
    }

    /// The operator's memory now.
    pub fn memory(&self) -> Result<Memory> {
        gauge::memory(process(&self.operator)?)
    }

    /// The CPU time that the operator has used since its start, in seconds.
    pub fn cpu(&self) -> Result<f64> {
        gauge::cpu(process(&self.operator)?)
    }

    /// Whether the operator has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.operator
            .process()
            .ended()
            .is_ok_and(|status| status.is_some())
    }

    /// Stops the operator and takes the objects away.
    pub async fn end(&self) -> Result<()> {
        self.operator.stop().await?;
        self.population.clear().await
    }

    /// The figures of the first sync, beside those of the floor.
    #[must_use]
    pub fn first_sync(&self, floors: &[Floor]) -> Vec<Measure> {
        let objects = self.population.shape.objects;
        let name = |figure: &str| format!("first-sync/{}/{figure}", self.population.shape);
        let times: Vec<f64> = floors.iter().map(|floor| floor.time.as_secs_f64()).collect();
        let cpu: Vec<f64> = floors.iter().map(|floor| floor.cpu_seconds).collect();
        let connections: Vec<f64> = floors.iter().map(|floor| float(floor.connections)).collect();
        let mut measures = vec![
            Measure::new(name("seconds"), Unit::Seconds, self.time.as_secs_f64())
                .beside(&times)
                .held_against(targets::first_sync(objects)),
            Measure::new(name("cpu"), Unit::CpuSeconds, self.cpu_seconds).beside(&cpu),
            Measure::new(name("connections"), Unit::Number, float(self.connections)).beside(&connections),
        ];
        measures.extend(by_kind(&self.store, |kind| name(&format!("store/{kind}"))));
        measures.extend(by_kind(&self.api, |kind| name(&format!("api/{kind}"))));
        measures.push(self.writes_per_object(name("api/writes-per-object")));
        measures.push(
            Measure::new(
                name("api/reads-per-object"),
                Unit::Number,
                self.per_object(self.object_reads),
            )
            .held_against(Some(targets::none())),
        );
        measures
    }

    /// Writes of the objects and of their Secrets until the last `Ready`, for each object.
    #[must_use]
    pub fn writes_per_object(&self, name: String) -> Measure {
        let writes = self.per_object(self.object_writes);
        Measure::new(name, Unit::Number, writes).held_against(Some(targets::writes_per_object()))
    }

    fn per_object(&self, count: usize) -> f64 {
        float(count) / float(self.population.shape.objects.max(1))
    }
}

impl Marks {
    /// The present end of both logs.
    pub async fn now(population: &Population<'_>) -> Result<Self> {
        Ok(Self {
            store: population.stock.lock().await.mark(population.ground)?,
            api: population.ground.kubernetes.audit().mark().await?,
        })
    }

    /// What the operator asked of the store since.
    pub async fn asked_of_store(self, population: &Population<'_>) -> Result<Vec<Asked>> {
        population.stock.lock().await.asked(population.ground, self.store)
    }

    /// What the operator asked of the API server since.
    pub async fn asked_of_api(self, population: &Population<'_>) -> Result<Vec<ApiRequest>> {
        let mut requests = population.ground.kubernetes.audit().since(self.api).await?;
        let user = user();
        requests.retain(|request| request.user == user);
        Ok(requests)
    }
}

/// The figures of memory, held against what the number of objects allows. `what` says when it was looked at.
#[must_use]
pub fn memory_measures(what: &str, shape: &Shape, memory: Memory) -> Vec<Measure> {
    let name = |figure: &str| format!("{what}/{shape}/{figure}");
    let objects = shape.objects;
    vec![
        Measure::new(name("resident"), Unit::Mebibytes, memory.resident)
            .held_against(targets::memory_at_rest(objects)),
        Measure::new(name("anonymous"), Unit::Mebibytes, memory.anonymous),
        Measure::new(name("private"), Unit::Mebibytes, memory.private),
        Measure::new(name("peak"), Unit::Mebibytes, memory.peak)
            .held_against(targets::memory_at_peak(objects)),
    ]
}

/// A figure for each kind of request, under the name that `name` makes of the kind.
pub fn by_kind(tally: &Tally, name: impl Fn(&str) -> String) -> impl Iterator<Item = Measure> {
    tally.iter().map(move |(kind, count)| {
        let figure = name(&kind.replace(' ', "-"));
        Measure::new(figure, Unit::Requests, float(*count))
    })
}

/// A count as a figure.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub fn float(count: usize) -> f64 {
    count as f64
}

/// The operator as the API server knows it.
#[must_use]
pub fn user() -> String {
    format!("system:serviceaccount:{HOME}:keyward")
}

fn process(operator: &Operator) -> Result<u32> {
    operator.process().id().context("the operator was stopped")
}

fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Duration> {
    (to - from).to_std().context("it ended before it began")
}

/// How many requests with such a verb were about objects of the namespace or their Secrets.
fn about_objects(requests: &[ApiRequest], namespace: &str, verb: impl Fn(&str) -> bool) -> usize {
    let about = requests.iter().filter(|request| {
        let kind = request.resource.split('/').next().unwrap_or_default();
        request.namespace == namespace
            && matches!(kind, "secrets" | "syncedsecrets")
            && is_ours(&request.name)
            && verb(&request.verb)
    });
    about.count()
}
