//! The operator's own endpoint: `/livez`, `/readyz`, `/metrics` and `/state`.
//!
//! It shows no value and no remote path. What an object's status leaves out because it changes with every look, such
//! as the time of the last one, is under `/state`.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::cluster::{ObjectKey, WatchHealth};

/// What the endpoint shows.
pub struct Endpoint {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`.
    pub readiness: Arc<Readiness>,
    /// For `/state`.
    pub objects: Arc<dyn ObjectStates>,
}

/// How far the process has come.
pub struct Readiness {
    phase: Mutex<Phase>,
    watches: Arc<WatchHealth>,
}

/// The phases of a process, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The API server has not answered yet.
    Starting,
    /// These kinds are not installed.
    MissingKinds(Vec<&'static str>),
    /// Another process does the work; this one could take over at once.
    Standby,
    /// This process is to do the work, and has not read yet what it must remember; with why that fails, if it does.
    TakingOver(Option<String>),
    /// This process does the work.
    Leading,
}

/// What the controllers know of their objects beyond what is in status.
pub trait ObjectStates: Send + Sync {
    /// Every `SyncedSecret`.
    fn all(&self) -> Vec<ObjectState>;

    /// One `SyncedSecret`.
    fn one(&self, key: &ObjectKey) -> Option<ObjectState>;
}

/// A `SyncedSecret` at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectState {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether its last attempt succeeded; nothing before the first one has ended.
    pub ready: Option<bool>,
    /// The reason of its `Ready` condition.
    pub reason: Option<String>,
    /// When its stores were last looked at.
    pub last_check: Option<DateTime<Utc>>,
    /// When they will be looked at again.
    pub next_refresh: Option<DateTime<Utc>>,
    /// Since when it has been failing.
    pub failing_since: Option<DateTime<Utc>>,
    /// The store's id of the request that failed last.
    pub request_id: Option<String>,
    /// Until when it is known to have been current: its last look, or the moment it was first seen. Nothing for an object
    /// that is not looked at again.
    #[serde(skip)]
    pub current_as_of: Option<DateTime<Utc>>,
}

impl Readiness {
    /// A process that has just started.
    #[must_use]
    pub fn new(watches: Arc<WatchHealth>) -> Self {
        Self {
            phase: Mutex::new(Phase::Starting),
            watches,
        }
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// `Ok` when ready, with what it is ready for; otherwise what is missing.
    pub fn check(&self) -> Result<&'static str, String> {
        match &*self.phase.lock().unwrap_or_else(PoisonError::into_inner) {
            Phase::Starting => Err("waiting for the API server".into()),
            Phase::MissingKinds(kinds) => Err(format!("not installed: {}", kinds.join(", "))),
            Phase::Standby => Ok("standby"),
            Phase::TakingOver(None) => Err("taking over".into()),
            Phase::TakingOver(Some(fault)) => Err(format!("taking over: {fault}")),
            Phase::Leading if self.watches.all_synced() => Ok("leading"),
            Phase::Leading => Err(self.unsynced()),
        }
    }

    fn unsynced(&self) -> String {
        let mut text = "waiting for the watches of".to_owned();
        for watch in self.watches.snapshot().iter().filter(|watch| !watch.synced) {
            // Writing to a String does not fail.
            let _ = write!(text, " {}", watch.kind);
        }
        text
    }
}

/// Listens at an address. Where every address of a host without IPv6 is meant, it is every one of IPv4.
///
/// # Errors
///
/// Nobody can listen there.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) => match instead_of(address, error.kind()) {
            Some(instead) => TcpListener::bind(instead).await.map_err(|_| error),
            None => Err(error),
        },
    }
}

/// A port that is taken, or that nobody may have, is the same in either family.
fn instead_of(address: SocketAddr, error: ErrorKind) -> Option<SocketAddr> {
    let same = matches!(error, ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
    (address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !same)
        .then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
}

/// Serves until `stop` is cancelled.
///
/// # Errors
///
/// The listener failed.
pub async fn serve(listener: TcpListener, endpoint: Endpoint, stop: CancellationToken) -> anyhow::Result<()> {
    axum::serve(listener, router(endpoint))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await?;
    Ok(())
}

fn router(endpoint: Endpoint) -> Router {
    Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/state/syncedsecrets", get(all_states))
        .route("/state/syncedsecrets/{namespace}/{name}", get(one_state))
        .with_state(Arc::new(endpoint))
}

type Shared = State<Arc<Endpoint>>;

async fn readyz(State(endpoint): Shared) -> Response {
    match endpoint.readiness.check() {
        Ok(phase) => phase.into_response(),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing).into_response(),
    }
}

async fn metrics(State(endpoint): Shared) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], endpoint.metrics.render())
}

async fn all_states(State(endpoint): Shared) -> Json<Vec<ObjectState>> {
    Json(endpoint.objects.all())
}

async fn one_state(State(endpoint): Shared, Path((namespace, name)): Path<(String, String)>) -> Response {
    match endpoint.objects.one(&ObjectKey::new(namespace, name)) {
        Some(state) => Json(state).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    struct One;

    impl ObjectStates for One {
        fn all(&self) -> Vec<ObjectState> {
            vec![ObjectState {
                namespace: "apps".into(),
                name: "db".into(),
                ready: Some(false),
                reason: Some("StoreSealed".into()),
                last_check: DateTime::from_timestamp(1_800_000_000, 0),
                next_refresh: None,
                failing_since: None,
                request_id: Some("r1".into()),
                current_as_of: None,
            }]
        }

        fn one(&self, key: &ObjectKey) -> Option<ObjectState> {
            let all = self.all();
            all.into_iter().find(|state| *state.name == *key.name)
        }
    }

    async fn fetch(readiness: &Arc<Readiness>, path: &str) -> (u16, String) {
        let endpoint = Endpoint {
            metrics: Arc::default(),
            readiness: Arc::clone(readiness),
            objects: Arc::new(One),
        };
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(endpoint).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_the_phase() {
        let watches = Arc::new(WatchHealth::default());
        let readiness = Arc::new(Readiness::new(Arc::clone(&watches)));
        assert_eq!(fetch(&readiness, "/livez").await.0, 200);
        assert_eq!(fetch(&readiness, "/readyz").await.0, 503);
        readiness.enter(Phase::MissingKinds(vec!["SyncedSecret"]));
        let missing = (503, "not installed: SyncedSecret".to_owned());
        assert_eq!(fetch(&readiness, "/readyz").await, missing);
        readiness.enter(Phase::Standby);
        assert_eq!(fetch(&readiness, "/readyz").await, (200, "standby".to_owned()));
        readiness.enter(Phase::TakingOver(Some("reading failed".into())));
        let stuck = (503, "taking over: reading failed".to_owned());
        assert_eq!(fetch(&readiness, "/readyz").await, stuck);
        readiness.enter(Phase::Leading);
        let watch = watches.register("Secret");
        let waiting = (503, "waiting for the watches of Secret".to_owned());
        assert_eq!(fetch(&readiness, "/readyz").await, waiting);
        watch.synced();
        assert_eq!(fetch(&readiness, "/readyz").await, (200, "leading".to_owned()));
    }

    #[tokio::test]
    async fn a_host_without_ipv6_is_listened_on_by_ipv4() {
        let any: SocketAddr = "[::]:8080".parse().unwrap();
        // What a kernel without IPv6 says.
        let no_family = std::io::Error::from_raw_os_error(97).kind();
        let instead = instead_of(any, no_family).map(|address| address.to_string());
        assert_eq!(instead.as_deref(), Some("0.0.0.0:8080"));
        assert!(instead_of(any, ErrorKind::AddrNotAvailable).is_some());
        assert_eq!(
            instead_of("[::1]:8080".parse().unwrap(), no_family),
            None,
            "it was meant"
        );
        assert_eq!(instead_of(any, ErrorKind::AddrInUse), None);
        let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let again = bind(taken.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn what_status_leaves_out_is_served() {
        let readiness = Arc::new(Readiness::new(Arc::default()));
        let (status, body) = fetch(&readiness, "/state/syncedsecrets/apps/db").await;
        assert_eq!(status, 200);
        let state: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(state["lastCheck"], "2027-01-15T08:00:00Z");
        assert_eq!(state["requestId"], "r1");
        assert_eq!(fetch(&readiness, "/state/syncedsecrets/apps/no").await.0, 404);
        let (_, all) = fetch(&readiness, "/state/syncedsecrets").await;
        assert!(all.starts_with('['));
        assert!(fetch(&readiness, "/metrics").await.1.ends_with("# EOF\n"));
    }
}
