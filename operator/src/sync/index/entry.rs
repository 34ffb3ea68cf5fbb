//! One object as it is kept between two passes.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keyward_crds::SyncedSecret;
use keyward_crds::synced_secret::{RefreshPolicy, SyncedSecretStatus};

use super::Memory;
use super::outside::made_at;
use crate::cluster::resource_version::is_older;
use crate::cluster::time::from_kubernetes;
use crate::cluster::{ObjectKey, conditions};
use crate::runtime::clock;
use crate::runtime::http::ObjectState;

/// An object and what is remembered of it. The object lies as JSON: its types take about four times as much, and
/// only a pass needs them.
pub(super) struct Entry {
    json: Arc<[u8]>,
    pub uid: Box<str>,
    resource_version: Box<str>,
    pub generation: i64,
    /// When the object was made.
    pub made: DateTime<Utc>,
    /// When this process first saw it.
    pub seen: DateTime<Utc>,
    /// Whether it is looked at again and again.
    recurs: bool,
    /// A digest of what makes work when it changes.
    work: u64,
    ready: Option<Ready>,
    /// The queue's lane of its passes.
    pub lane: Arc<str>,
    pub memory: Memory,
}

/// The condition of that name, as far as the operator's own endpoint shows it.
struct Ready {
    is_true: bool,
    failing_since: Option<DateTime<Utc>>,
    reason: Box<str>,
    request_id: Option<Box<str>>,
}

impl Entry {
    pub(super) fn new(object: &SyncedSecret, lane: Arc<str>, hasher: &RandomState) -> Self {
        let meta = &object.metadata;
        let work = (
            meta.generation,
            &meta.annotations,
            meta.deletion_timestamp.is_some(),
        );
        Self {
            json: to_json(object),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
            generation: meta.generation.unwrap_or_default(),
            made: made_at(meta),
            seen: clock::now(),
            recurs: !object.spec.suspend && object.spec.refresh.policy == RefreshPolicy::Periodic,
            work: hasher.hash_one(work),
            ready: Ready::of(object.status.as_ref()),
            lane,
            memory: Memory::default(),
        }
    }

    /// The object; to be parsed where no lock is held.
    pub(super) fn json(&self) -> Arc<[u8]> {
        Arc::clone(&self.json)
    }

    /// Whether `now` is another object, or asks for other work.
    pub(super) fn is_work(&self, now: &Self) -> bool {
        self.uid != now.uid || self.work != now.work
    }

    /// Whether `now` says nothing that is not known: a late echo of a state that we have written over since.
    pub(super) fn has_seen(&self, now: &ObjectMeta) -> bool {
        let version = now.resource_version.as_deref().unwrap_or_default();
        *self.uid == *now.uid.as_deref().unwrap_or_default() && self.is_at_or_past(version)
    }

    /// Takes in a status of our own, which was written on this very version of the object.
    pub(super) fn wrote_status(&mut self, resource_version: &str, status: SyncedSecretStatus) {
        if self.is_at_or_past(resource_version) {
            return;
        }
        let mut object = from_json(&self.json);
        self.ready = Ready::of(Some(&status));
        object.status = Some(status);
        object.metadata.resource_version = Some(resource_version.to_owned());
        self.resource_version = resource_version.into();
        self.json = to_json(&object);
    }

    fn is_at_or_past(&self, version: &str) -> bool {
        *self.resource_version == *version || is_older(version, &self.resource_version)
    }

    /// What the operator's own endpoint shows.
    pub(super) fn state(&self, key: &ObjectKey) -> ObjectState {
        let ready = self.ready.as_ref();
        ObjectState {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            ready: ready.map(|ready| ready.is_true),
            reason: ready.map(|ready| ready.reason.to_string()),
            last_check: self.memory.last_check,
            next_refresh: self.memory.next_check,
            failing_since: self
                .memory
                .failing_since
                .or_else(|| ready.and_then(|ready| ready.failing_since)),
            request_id: ready.and_then(|ready| ready.request_id.as_deref().map(str::to_owned)),
            current_as_of: self.recurs.then(|| self.memory.last_check.unwrap_or(self.seen)),
        }
    }
}

impl Ready {
    fn of(status: Option<&SyncedSecretStatus>) -> Option<Self> {
        let mut conditions = status?.conditions.iter();
        let condition = conditions.find(|condition| condition.type_ == "Ready")?;
        Some(Self {
            is_true: condition.status == "True",
            failing_since: (condition.status == "False")
                .then(|| from_kubernetes(&condition.last_transition_time)),
            reason: condition.reason.as_str().into(),
            request_id: conditions::request_id(&condition.message).map(String::into_boxed_str),
        })
    }
}

/// The object that [`to_json`] wrote.
pub(super) fn from_json(json: &[u8]) -> SyncedSecret {
    serde_json::from_slice(json).expect("what its own types wrote they read again")
}

fn to_json(object: &SyncedSecret) -> Arc<[u8]> {
    let json = serde_json::to_vec(object).expect("an object has only text keys and finite numbers");
    json.into()
}
