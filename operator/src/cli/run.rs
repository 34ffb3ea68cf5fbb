//! `keyward run`: the operator.
//!
//! It brings the parts together in the order in which each is needed: endpoint, kinds, lease, state, controllers.
//! Nothing is decided here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{ArgAction, Args, ValueEnum};
use keyward_core::address::{AddressPolicy, DeniedAddress, Network};
use kube::{Client, Config};
use tokio::time::sleep;

use crate::cluster::events::{EventRecorder, events};
use crate::cluster::lease::{Candidate, LeaseTiming};
use crate::cluster::state::OperatorState;
use crate::cluster::{ApiAudiences, ObjectKey, WatchHealth, Watches, missing_kinds, own_addresses};
use crate::runtime::clock;
use crate::runtime::http::{Endpoint, ObjectState, ObjectStates, Phase, Readiness, bind, serve};
use crate::runtime::logs::{self, LogFormat};
use crate::runtime::metrics::{Metrics, Readiness as ReadyLabel};
use crate::runtime::supervisor::{Ended, Supervisor};
use crate::stores::transport::Addresses;

/// How often kinds that are missing, or state that cannot be read, are looked for again.
const RETRY: Duration = Duration::from_secs(2);

/// Where a pod finds the token of its ServiceAccount.
const OWN_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Options of `keyward run`.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// Work in this namespace only; the whole cluster without it.
    #[arg(long, env = "KEYWARD_NAMESPACE_SCOPE")]
    pub namespace_scope: Option<String>,

    /// Namespace of the lease and of the operator's own state; its own namespace without it.
    #[arg(long, env = "KEYWARD_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of the lease.
    #[arg(long, env = "KEYWARD_LEASE_NAME", default_value = "keyward")]
    pub lease_name: String,

    /// Work only while holding the lease.
    #[arg(long, env = "KEYWARD_LEADER_ELECT", default_value_t = true, action = ArgAction::Set)]
    pub leader_elect: bool,

    /// What this process calls itself in the lease and in events; its pod's name.
    #[arg(long, env = "POD_NAME", default_value = "keyward")]
    pub identity: String,

    /// Where /livez, /readyz, /metrics and /state are served.
    #[arg(long, env = "KEYWARD_METRICS_ADDRESS", default_value = "[::]:8080")]
    pub metrics_address: SocketAddr,

    /// How log lines look.
    #[arg(long, env = "KEYWARD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,

    /// Which log lines are written, such as `info,keyward=debug`.
    #[arg(long, env = "KEYWARD_LOG", default_value = "info")]
    pub log: String,

    /// Allow stores on loopback addresses: for tests and demonstrations.
    #[arg(long, env = "KEYWARD_ALLOW_LOOPBACK_STORES")]
    pub allow_loopback_stores: bool,

    /// Allow stores on link-local addresses, where cloud metadata services live.
    #[arg(long, env = "KEYWARD_ALLOW_LINK_LOCAL_STORES")]
    pub allow_link_local_stores: bool,

    /// Refuse stores in this network, such as `10.0.0.0/8`. May be repeated.
    #[arg(long, env = "KEYWARD_DENY_NETWORK", value_delimiter = ',')]
    pub deny_network: Vec<Network>,

    /// Allow this choice under `insecure:` of a store. May be repeated.
    #[arg(long, env = "KEYWARD_ALLOW_INSECURE", value_enum, value_delimiter = ',')]
    pub allow_insecure: Vec<InsecureFlag>,

    /// An audience that the API server accepts for itself, beside the usual ones. May be repeated.
    #[arg(long, env = "KEYWARD_API_AUDIENCE", value_delimiter = ',')]
    pub api_audience: Vec<String>,

    /// Objects that are worked on at once.
    #[arg(long, env = "KEYWARD_MAX_CONCURRENT", default_value_t = 64, value_parser = at_least_one)]
    pub max_concurrent: usize,

    /// Objects of one store that are worked on at once.
    #[arg(long, env = "KEYWARD_LANE_LIMIT", default_value_t = 32, value_parser = at_least_one)]
    pub lane_limit: usize,

    /// Requests per second to one store, spread evenly: also after an outage it never gets more.
    #[arg(long, env = "KEYWARD_STORE_RATE", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub store_rate: u32,

    /// Seconds that work may take to finish after SIGTERM.
    #[arg(long, env = "KEYWARD_DRAIN_SECONDS", default_value_t = 20)]
    pub drain_seconds: u64,
}

/// A choice under `insecure:` that the administrator may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum InsecureFlag {
    /// Stores over plain http.
    PlainHttp,
    /// Stores whose certificate is not verified.
    SkipTlsVerify,
    /// Tokens for the API server's own audience.
    ApiServerAudience,
}

/// What controllers work with.
#[derive(Clone)]
pub struct Context {
    /// The client, without retries of its own.
    pub client: Client,
    /// The options.
    pub options: Arc<RunOptions>,
    /// Watches of the scope.
    pub watches: Watches,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Events.
    pub events: EventRecorder,
    /// Fingerprint key and refused credentials.
    pub state: Arc<OperatorState>,
    /// Which addresses stores may have.
    pub addresses: Arc<Addresses>,
    /// The audiences that tokens for stores may not have.
    pub audiences: Arc<ApiAudiences>,
}

/// The controllers: they show their objects from the start and work once they are started.
pub trait Controllers: ObjectStates + 'static {
    /// Spawns the watches and workers. Called once, when this process leads.
    ///
    /// # Errors
    ///
    /// The process cannot work and ends.
    fn start(self: Arc<Self>, context: Context, supervisor: &mut Supervisor) -> anyhow::Result<()>;
}

/// Runs until a signal or a failure; success only after a signal.
pub(super) fn execute<C: Controllers>(options: RunOptions, controllers: Arc<C>) -> ExitCode {
    match logs::install(options.log_format, &options.log).and_then(|()| block_on(options, controllers)) {
        Ok(Ended::Signal(_)) => ExitCode::SUCCESS,
        Ok(ended @ Ended::Task { .. }) => {
            tracing::error!(reason = %ended, "the operator stopped");
            ExitCode::FAILURE
        }
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "logging may not be set up when this is called"
)]
fn print_error(error: &anyhow::Error) {
    eprintln!("keyward: {error:#}");
}

fn block_on<C: Controllers>(options: RunOptions, controllers: Arc<C>) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(operate(options, controllers))
}

async fn operate<C: Controllers>(options: RunOptions, controllers: Arc<C>) -> anyhow::Result<Ended> {
    let mut supervisor = Supervisor::new(Duration::from_secs(options.drain_seconds))?;
    let config = cluster_config().await?;
    let audiences = Arc::new(own_audiences(&options, &config));
    let client =
        Client::try_from(config.clone()).context("the API server's address or credentials cannot be used")?;

    let health = Arc::new(WatchHealth::default());
    let metrics = Arc::new(Metrics::new());
    let readiness = Arc::new(Readiness::new(Arc::clone(&health)));
    let objects: Arc<dyn ObjectStates> = controllers.clone();
    let endpoint = Endpoint {
        metrics: Arc::clone(&metrics),
        readiness: Arc::clone(&readiness),
        objects: Arc::clone(&objects),
    };
    let listener = bind(options.metrics_address)
        .await
        .with_context(|| format!("cannot listen on {}", options.metrics_address))?;
    tracing::info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "the endpoint is up");
    let stop = supervisor.work_ended();
    supervisor.spawn_last("endpoint", serve(listener, endpoint, stop));

    let addresses = match supervisor.until(addresses(&options, &config)).await {
        Ok(addresses) => Arc::new(addresses),
        Err(ended) => return Ok(supervisor.end(ended).await),
    };
    let scope = options.namespace_scope.clone();
    if let Err(ended) = supervisor
        .until(wait_for_kinds(&client, scope.as_deref(), &readiness))
        .await
    {
        return Ok(supervisor.end(ended).await);
    }
    let namespace = options
        .lease_namespace
        .clone()
        .unwrap_or_else(|| client.default_namespace().to_owned());
    if options.leader_elect {
        readiness.enter(Phase::Standby);
        let candidate = candidate(&client, &options, &namespace);
        let leadership = match supervisor.until(candidate.acquire()).await {
            Ok(leadership) => leadership,
            Err(ended) => return Ok(supervisor.end(ended).await),
        };
        let release = supervisor.work_ended();
        supervisor.spawn_last("lease", leadership.hold(release));
    }
    metrics.set_leader(true);
    readiness.enter(Phase::TakingOver(None));
    let loading = load_state(&client, &namespace, &readiness);
    let state = match supervisor.until(loading).await {
        Ok(state) => Arc::new(state),
        Err(ended) => return Ok(supervisor.end(ended).await),
    };
    let (recorder, sender) = events(client.clone(), &options.identity);
    let stop = supervisor.work_ended();
    supervisor.spawn_last("events", sender.run_until(stop));
    follow(&metrics, &health, &recorder, &objects);
    let context = Context {
        watches: Watches::new(client.clone(), scope.map(Arc::from), health),
        client,
        options: Arc::new(options),
        metrics,
        events: recorder,
        state,
        addresses,
        audiences,
    };
    controllers.start(context, &mut supervisor)?;
    readiness.enter(Phase::Leading);
    Ok(supervisor.run().await)
}

/// The client's settings: retries and deadlines are ours, one call at a time.
async fn cluster_config() -> anyhow::Result<Config> {
    let mut config = Config::infer()
        .await
        .context("neither a kubeconfig nor a pod's ServiceAccount was found")?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(config)
}

/// The administrator's rules, and what is known by now of the API server's own addresses, which no store may have.
async fn addresses(options: &RunOptions, config: &Config) -> Addresses {
    let service = std::env::var("KUBERNETES_SERVICE_HOST").ok();
    let own = loop {
        match own_addresses(config, service.as_deref()).await {
            Ok(own) => break own,
            Err(error) => {
                tracing::error!(%error, "the API server's own address cannot be resolved and is tried again");
            }
        }
        sleep(RETRY).await;
    };
    let networks = options.deny_network.iter().copied();
    Addresses::from(AddressPolicy {
        allow_loopback: options.allow_loopback_stores,
        allow_link_local: options.allow_link_local_stores,
        denied: networks.map(DeniedAddress::from).chain(own).collect(),
    })
}

fn own_audiences(options: &RunOptions, config: &Config) -> ApiAudiences {
    let path = config
        .auth_info
        .token_file
        .as_ref()
        .map_or_else(|| PathBuf::from(OWN_TOKEN), PathBuf::from);
    let token = std::fs::read_to_string(path).ok();
    ApiAudiences::new(&options.api_audience, token.as_deref())
}

async fn wait_for_kinds(client: &Client, namespace: Option<&str>, readiness: &Readiness) {
    loop {
        match missing_kinds(client, namespace).await {
            Ok(missing) if missing.is_empty() => return,
            Ok(missing) => {
                tracing::warn!(?missing, "waiting for kinds to be installed");
                readiness.enter(Phase::MissingKinds(missing));
            }
            Err(fault) => {
                tracing::warn!(%fault, "waiting for the API server");
                readiness.enter(Phase::Starting);
            }
        }
        sleep(RETRY).await;
    }
}

fn candidate(client: &Client, options: &RunOptions, namespace: &str) -> Candidate {
    // Two processes may share a name, so the name alone would let both believe that they hold the lease.
    let identity = format!("{}_{}", options.identity, uuid::Uuid::new_v4());
    let key = ObjectKey::new(namespace, options.lease_name.as_str());
    Candidate::new(client.clone(), key, identity, LeaseTiming::default())
}

async fn load_state(client: &Client, namespace: &str, readiness: &Readiness) -> OperatorState {
    loop {
        match OperatorState::load(client.clone(), namespace).await {
            Ok(state) => return state,
            Err(fault) => {
                tracing::error!(%fault, "the operator's own state cannot be loaded and is tried again");
                readiness.enter(Phase::TakingOver(Some(fault.to_string())));
            }
        }
        sleep(RETRY).await;
    }
}

/// Sets what is read anew for each scrape.
fn follow(
    metrics: &Metrics,
    health: &Arc<WatchHealth>,
    recorder: &EventRecorder,
    objects: &Arc<dyn ObjectStates>,
) {
    let (health, recorder, objects) = (Arc::clone(health), recorder.clone(), Arc::clone(objects));
    metrics.before_scrape(move |metrics| {
        metrics.set_events_dropped(recorder.dropped());
        for watch in health.snapshot() {
            metrics.set_watch(
                &watch.kind,
                watch.silent_for.as_secs(),
                watch.failures,
                watch.broken,
            );
        }
        count_objects(metrics, &objects.all(), clock::now());
    });
}

fn count_objects(metrics: &Metrics, objects: &[ObjectState], now: DateTime<Utc>) {
    let kinds = [
        (Some(true), ReadyLabel::Ready),
        (Some(false), ReadyLabel::NotReady),
        (None, ReadyLabel::Unknown),
    ];
    for (ready, label) in kinds {
        let count = objects.iter().filter(|object| object.ready == ready).count();
        metrics.set_objects("SyncedSecret", label, count);
    }
    let oldest = objects.iter().filter_map(|object| object.current_as_of).min();
    metrics.set_oldest_refresh(oldest.map_or(0, |oldest| (now - oldest).num_seconds().max(0)));
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number of at least 1".into()),
        Ok(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use keyward_stand_ins::kubernetes::ApiServer;

    use super::*;

    #[tokio::test]
    async fn who_cannot_load_its_state_is_not_ready_and_says_why() {
        let server = ApiServer::default();
        let stand_in = server.serve().await;
        let config = Config::new(stand_in.url().as_str().parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let readiness = Readiness::new(Arc::default());
        server.state().failing = true;
        let told = async {
            while !readiness
                .check()
                .is_err_and(|why| why.starts_with("taking over: "))
            {
                tokio::task::yield_now().await;
            }
            server.state().failing = false;
        };
        let (_, ()) = tokio::join!(load_state(&client, "keyward", &readiness), told);
    }

    #[test]
    fn objects_are_counted_by_readiness() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let object = |ready, age: Option<i64>| ObjectState {
            namespace: "apps".into(),
            name: "db".into(),
            ready,
            reason: None,
            last_check: Some(now - chrono::Duration::seconds(900)),
            next_refresh: None,
            failing_since: None,
            request_id: None,
            current_as_of: age.map(|age| now - chrono::Duration::seconds(age)),
        };
        let metrics = Metrics::new();
        let objects = [
            object(Some(true), Some(5)),
            object(Some(true), Some(70)),
            object(None, None),
        ];
        count_objects(&metrics, &objects, now);
        let page = metrics.render();
        for line in [
            "keyward_objects{kind=\"SyncedSecret\",readiness=\"Ready\"} 2",
            "keyward_objects{kind=\"SyncedSecret\",readiness=\"NotReady\"} 0",
            "keyward_objects{kind=\"SyncedSecret\",readiness=\"Unknown\"} 1",
            "keyward_oldest_refresh_age_seconds 70",
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is not in\n{page}");
        }
    }
}
