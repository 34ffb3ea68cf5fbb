//! Counts what was asked of the API server, from its audit log.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::rig::journal::{Journal, Mark};
use crate::rig::poll;

/// The API server writes an event after it has answered, so a moment may pass.
const WRITTEN_WITHIN: Duration = Duration::from_mins(1);

/// The audit log of an API server. Requests of the control plane's own programs are not in it.
pub struct AuditLog {
    journal: Journal,
    client: kube::Client,
}

/// A request that the API server has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// Who asked.
    pub user: String,
    /// With what program.
    pub user_agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// The plural of the kind, `/` and the subresource if one was asked for. Empty for other paths.
    pub resource: String,
    /// Empty for cluster-wide requests.
    pub namespace: String,
    /// Empty for lists and for creations without a name.
    pub name: String,
    /// Path and query.
    pub uri: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// When it was received.
    pub received: DateTime<Utc>,
    /// When it was answered.
    pub at: DateTime<Utc>,
}

impl AuditLog {
    pub(super) fn new(path: PathBuf, client: kube::Client) -> Self {
        Self {
            journal: Journal::new(path),
            client,
        }
    }

    /// This moment. What a request did can be seen before the request is answered and logged, so the end of the log
    /// alone would not do.
    pub async fn mark(&self) -> Result<Mark> {
        let instant = Some(self.settle().await?);
        let mut mark = self.journal.end()?;
        mark.instant = instant;
        Ok(mark)
    }

    /// The requests received since `mark` that have been answered, in the order of their answers. A watch appears
    /// when it ends.
    pub async fn since(&self, mark: Mark) -> Result<Vec<ApiRequest>> {
        self.settle().await?;
        self.written_since(mark).map(|(requests, _)| requests)
    }

    /// The same without asking anything of the API server, so the newest may be missing. Also the place to go on from.
    pub fn written_since(&self, mark: Mark) -> Result<(Vec<ApiRequest>, Mark)> {
        let (events, end) = self.journal.read_on::<Event>(mark)?;
        let requests = events.into_iter().map(ApiRequest::from);
        let is_meant = |request: &ApiRequest| {
            !request.uri.starts_with(BARRIER)
                && mark.instant.is_none_or(|instant| request.received >= instant)
        };
        Ok((requests.filter(is_meant).collect(), end))
    }

    /// Sends a request of our own and waits until it is in the log: what was answered before is there too. Returns
    /// when it was received.
    async fn settle(&self) -> Result<DateTime<Utc>> {
        let from = self.journal.end()?;
        let barrier = format!("{BARRIER}{}", uuid::Uuid::new_v4());
        self.client
            .request_text(http::Request::get(&barrier).body(Vec::new())?)
            .await?;
        poll::some("the audit log", WRITTEN_WITHIN, async || {
            let events: Vec<Event> = self.journal.since(from).unwrap_or_default();
            let ours = events.into_iter().find(|event| event.request_uri == barrier)?;
            Some(ours.request_received_timestamp)
        })
        .await
    }
}

const BARRIER: &str = "/version?audit-barrier=";

/// The parts of `audit.k8s.io/v1` `Event` that the suites count by.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    request_received_timestamp: DateTime<Utc>,
    stage_timestamp: DateTime<Utc>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

impl From<Event> for ApiRequest {
    fn from(event: Event) -> Self {
        let object = event.object_ref.unwrap_or_default();
        let resource = if object.subresource.is_empty() {
            object.resource
        } else {
            format!("{}/{}", object.resource, object.subresource)
        };
        Self {
            user: event.user.username,
            user_agent: event.user_agent,
            verb: event.verb,
            resource,
            namespace: object.namespace,
            name: object.name,
            uri: event.request_uri,
            status: event.response_status.map_or(0, |status| status.code),
            received: event.request_received_timestamp,
            at: event.stage_timestamp,
        }
    }
}
