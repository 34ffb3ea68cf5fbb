//! What Prometheus reads. Label sets are fixed and small: no name of an object, path or namespace is a label.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Mutex, PoisonError};

use keyward_core::reason::Reason;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;
type Hook = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    hooks: Mutex<Vec<Hook>>,
    reconciles: Family<KindOutcome, Count>,
    failures: Family<KindReason, Count>,
    store_requests: Family<StoreRequest, Count>,
    secret_writes: Family<Operation, Count>,
    status_writes: Family<Kind, Count>,
    drift_repaired: Count,
    rollouts: Family<Kind, Count>,
    events_dropped: Count,
    insecure: Family<Choice, Level>,
    objects: Family<KindReady, Level>,
    oldest_refresh: Level,
    leader: Level,
    queued: Family<Kind, Level>,
    watch_silence: Family<Kind, Level>,
    watch_failures: Family<Kind, Count>,
    unreadable_objects: Family<Kind, Count>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// As it should.
    Success,
    /// With a fault.
    Failure,
}

/// What was done to a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum SecretWrite {
    /// Made.
    Create,
    /// Changed.
    Update,
    /// Our keys given up.
    Release,
    /// Deleted.
    Delete,
}

/// What an object is, as far as its `Ready` condition tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Readiness {
    /// `Ready` is true.
    Ready,
    /// `Ready` is false.
    NotReady,
    /// Nothing is known yet.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindOutcome {
    kind: &'static str,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindReason {
    kind: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindReady {
    kind: &'static str,
    readiness: Readiness,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreRequest {
    store: &'static str,
    operation: &'static str,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: SecretWrite,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Choice {
    choice: &'static str,
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("keyward");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", build);
        let r = &mut registry;
        Self {
            reconciles: family(r, "reconciles", "Objects looked at"),
            failures: family(r, "failures", "Objects that failed, by reason"),
            store_requests: family(r, "store_requests", "Requests to stores"),
            secret_writes: family(r, "secret_writes", "Secrets written"),
            status_writes: family(r, "status_writes", "Statuses written"),
            drift_repaired: count(
                r,
                "drift_repaired",
                "Secrets that others changed and that were put right",
            ),
            rollouts: family(r, "rollouts", "Consumers restarted"),
            events_dropped: count(r, "events_dropped", "Events that were not recorded"),
            insecure: levels(r, "insecure_stores", "Stores with an insecure choice in use"),
            objects: levels(r, "objects", "Objects by readiness"),
            oldest_refresh: level(
                r,
                "oldest_refresh_age_seconds",
                "Age of the oldest look that an object rests on, among those that are looked at again",
            ),
            leader: level(r, "leader", "Whether this process does the work"),
            queued: levels(r, "queued_objects", "Objects that wait or run"),
            watch_silence: levels(
                r,
                "watch_silence_seconds",
                "Time since the API server was last heard on a watch",
            ),
            watch_failures: family(r, "watch_failures", "Times a watch failed"),
            unreadable_objects: family(r, "unreadable_objects", "Objects that could not be parsed"),
            registry,
            hooks: Mutex::default(),
        }
    }

    /// Runs `hook` before each scrape, to set what is cheaper to read than to follow.
    pub fn before_scrape(&self, hook: impl Fn(&Self) + Send + Sync + 'static) {
        self.hooks().push(Box::new(hook));
    }

    /// The text of a scrape, in the `OpenMetrics` format.
    #[must_use]
    pub fn render(&self) -> String {
        for hook in self.hooks().iter() {
            hook(self);
        }
        let mut page = String::new();
        // Writing to a String does not fail, and what is rendered has no fallible parts.
        if text::encode(&mut page, &self.registry).is_err() {
            page.clear();
        }
        page
    }

    /// An object was looked at.
    pub fn reconciled(&self, kind: &'static str, outcome: Outcome) {
        self.reconciles
            .get_or_create(&KindOutcome { kind, outcome })
            .inc();
    }

    /// An object failed.
    pub fn failed(&self, kind: &'static str, reason: Reason) {
        let reason = reason.as_str();
        self.failures.get_or_create(&KindReason { kind, reason }).inc();
    }

    /// A store was asked. `store` and `operation` come from fixed lists, such as `vault` and `read`.
    pub fn store_request(&self, store: &'static str, operation: &'static str, outcome: Outcome) {
        let labels = StoreRequest {
            store,
            operation,
            outcome,
        };
        self.store_requests.get_or_create(&labels).inc();
    }

    /// A Secret was written.
    pub fn secret_written(&self, operation: SecretWrite) {
        self.secret_writes.get_or_create(&Operation { operation }).inc();
    }

    /// A status was written.
    pub fn status_written(&self, kind: &str) {
        self.status_writes
            .get_or_create(&Kind { kind: kind.into() })
            .inc();
    }

    /// A Secret was put right.
    pub fn drift_repaired(&self) {
        self.drift_repaired.inc();
    }

    /// A consumer was restarted.
    pub fn rolled_out(&self, kind: &str) {
        self.rollouts.get_or_create(&Kind { kind: kind.into() }).inc();
    }

    /// How many stores make an insecure choice, such as `plainHttp`.
    pub fn set_insecure(&self, choice: &'static str, stores: usize) {
        self.insecure
            .get_or_create(&Choice { choice })
            .set(signed(stores));
    }

    /// How many objects of a kind there are with this readiness.
    pub fn set_objects(&self, kind: &'static str, readiness: Readiness, objects: usize) {
        self.objects
            .get_or_create(&KindReady { kind, readiness })
            .set(signed(objects));
    }

    /// Age of the oldest look that an object rests on, in seconds.
    pub fn set_oldest_refresh(&self, seconds: i64) {
        self.oldest_refresh.set(seconds);
    }

    /// Whether this process does the work.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// How many objects of a kind wait or run.
    pub fn set_queued(&self, kind: &str, objects: usize) {
        self.queued
            .get_or_create(&Kind { kind: kind.into() })
            .set(signed(objects));
    }

    /// Events that were lost since the start.
    pub fn set_events_dropped(&self, events: u64) {
        raise(&self.events_dropped, events);
    }

    /// What is known of one watch: seconds since it last reported, failures and unreadable objects since the start.
    pub fn set_watch(&self, kind: &str, silence_seconds: u64, failures: u64, unreadable: u64) {
        let labels = Kind { kind: kind.into() };
        let silence = i64::try_from(silence_seconds).unwrap_or(i64::MAX);
        self.watch_silence.get_or_create(&labels).set(silence);
        raise(&self.watch_failures.get_or_create(&labels), failures);
        raise(&self.unreadable_objects.get_or_create(&labels), unreadable);
    }

    fn hooks(&self) -> std::sync::MutexGuard<'_, Vec<Hook>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn family<S>(registry: &mut Registry, name: &str, help: &str) -> Family<S, Count>
where
    S: EncodeLabelSet + fmt::Debug + Clone + std::hash::Hash + Eq + Send + Sync + 'static,
{
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn levels<S>(registry: &mut Registry, name: &str, help: &str) -> Family<S, Level>
where
    S: EncodeLabelSet + fmt::Debug + Clone + std::hash::Hash + Eq + Send + Sync + 'static,
{
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn count(registry: &mut Registry, name: &str, help: &str) -> Count {
    let counter = Count::default();
    registry.register(name, help, counter.clone());
    counter
}

fn level(registry: &mut Registry, name: &str, help: &str) -> Level {
    let gauge = Level::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &Count, total: u64) {
    counter
        .inner()
        .fetch_max(total, std::sync::atomic::Ordering::Relaxed);
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_what_was_counted() {
        let metrics = Metrics::new();
        metrics.failed("SyncedSecret", Reason::StoreSealed);
        metrics.store_request("vault", "read", Outcome::Success);
        metrics.secret_written(SecretWrite::Create);
        metrics.set_leader(true);
        metrics.before_scrape(|metrics| metrics.set_watch("Secret", 3, 2, 1));
        let page = metrics.render();
        for line in [
            "keyward_build_info{version=\"0.1.0\"} 1",
            "keyward_failures_total{kind=\"SyncedSecret\",reason=\"StoreSealed\"} 1",
            "keyward_store_requests_total{store=\"vault\",operation=\"read\",outcome=\"Success\"} 1",
            "keyward_secret_writes_total{operation=\"Create\"} 1",
            "keyward_leader 1",
            "keyward_watch_silence_seconds{kind=\"Secret\"} 3",
            "keyward_watch_failures_total{kind=\"Secret\"} 2",
            "keyward_unreadable_objects_total{kind=\"Secret\"} 1",
            "# EOF",
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is not in\n{page}");
        }
    }
}
