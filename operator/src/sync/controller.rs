//! Runs passes: takes objects from the queue, lets a pass decide and act, and records what came of it.
//!
//! Recording is one status write, and only if it says something new. When to come back is decided here.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::backoff::delay_after;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::sync::fingerprint::FingerprintKey;
use keyward_crds::SyncedSecret;
use keyward_crds::synced_secret::SyncedSecretStatus;
use tokio::time::Instant;

use super::index::{Memory, SyncIndex, stores_of};
use super::pass::{Done, Pass, State};
use super::reader::Reader;
use super::rollout::{self, WorkloadIndex};
use super::write::{Deed, Writer};
use crate::cluster::conditions::{self, Wanted};
use crate::cluster::events::{EventKind, EventRecorder, Regarding};
use crate::cluster::time::from_kubernetes;
use crate::cluster::{
    ClusterReader, ObjectKey, RolloutWriter, SecretIndex, SecretWriter, StatusWrite, StatusWriter,
};
use crate::runtime::clock;
use crate::runtime::http::ObjectState;
use crate::runtime::metrics::{Metrics, Outcome as Counted, SecretWrite};
use crate::runtime::queue::Queue;
use crate::store::{StoreKey, StoreRegistry};
use crate::stores::Outcome;

/// How long before its expiry a value is warned of.
const WARN_AHEAD: TimeDelta = TimeDelta::days(7);

/// How often a rollout is looked at in case the watch of its consumers missed something.
const ROLLOUT_LOOK: Duration = Duration::from_mins(1);

/// The kind, as metrics call it.
const KIND: &str = "SyncedSecret";

/// Runs passes over `SyncedSecret`s.
pub struct SyncController {
    /// The objects.
    pub index: Arc<SyncIndex>,
    /// The workloads.
    pub workloads: Arc<WorkloadIndex>,
    /// What waits to be worked on.
    pub queue: Queue<ObjectKey>,
    registry: Arc<StoreRegistry>,
    reader: Reader,
    writer: Writer,
    status: StatusWriter,
    rollouts: RolloutWriter,
    events: EventRecorder,
    metrics: Arc<Metrics>,
    fingerprints: FingerprintKey,
}

/// What the controller works with.
pub struct SyncParts {
    /// The client.
    pub client: kube::Client,
    /// The objects.
    pub index: Arc<SyncIndex>,
    /// Which Secrets exist.
    pub secrets: Arc<SecretIndex>,
    /// The stores.
    pub registry: Arc<StoreRegistry>,
    /// What waits to be worked on.
    pub queue: Queue<ObjectKey>,
    /// Publishes events.
    pub events: EventRecorder,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The key of all fingerprints.
    pub fingerprints: FingerprintKey,
}

impl SyncController {
    /// A controller of these parts.
    #[must_use]
    pub fn new(parts: SyncParts) -> Self {
        let SyncParts {
            client,
            index,
            secrets,
            registry,
            queue,
            events,
            metrics,
            fingerprints,
        } = parts;
        Self {
            index,
            workloads: Arc::default(),
            queue,
            registry,
            reader: Reader::default(),
            writer: Writer {
                secrets,
                reader: ClusterReader::new(client.clone()),
                applier: SecretWriter::new(client.clone()),
            },
            status: StatusWriter::new(client.clone()),
            rollouts: RolloutWriter::new(client),
            events,
            metrics,
            fingerprints,
        }
    }

    /// Works until the queue is closed.
    pub async fn work(self: Arc<Self>) {
        while let Some(work) = self.queue.next().await {
            self.reconcile(work.key()).await;
        }
    }

    /// Wipes the values of waves that have passed and forgets stores that are no longer in use, for ever.
    pub async fn end_waves(self: Arc<Self>) {
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        for second in 1_u64.. {
            every_second.tick().await;
            self.reader.end_waves(Instant::now());
            if second % 60 == 0 {
                self.reader.keep_stores(&self.registry.live().await);
            }
        }
    }

    /// Asks for a pass over an object, now or later.
    pub fn enqueue(&self, key: &ObjectKey, due: Instant) {
        let lane = self
            .index
            .get(key)
            .and_then(|(object, _)| stores_of(key, &object).into_iter().next());
        let lane = lane.map_or_else(|| Arc::from(""), |store| Arc::from(store.to_string()));
        self.queue.add(key.clone(), lane, due);
    }

    /// Asks for a pass over everything that reads from a store.
    pub fn wake(&self, store: &StoreKey) {
        for key in self.index.of_store(store) {
            self.enqueue(&key, Instant::now());
        }
    }

    /// Asks for a pass over the objects behind Secrets that are ours by their mark and belong to no object any more.
    pub fn sweep(&self) {
        for secret in self.writer.secrets.owned() {
            let Some(owner) = self.writer.secrets.get(&secret).and_then(|entry| entry.owner) else {
                continue;
            };
            let owner = secret.sibling(&*owner);
            let kept = self
                .index
                .get(&owner)
                .is_some_and(|(object, _)| super::index::target_of(&owner, &object) == secret);
            if !kept {
                self.enqueue(&owner, Instant::now());
            }
        }
    }

    async fn reconcile(&self, key: &ObjectKey) {
        let Some((object, memory)) = self.index.get(key) else {
            if let Err(fault) = self.release_all(key, None).await {
                self.again(key, &fault, 1);
            }
            return;
        };
        if object.metadata.deletion_timestamp.is_some() {
            return;
        }
        let now = clock::now();
        let pass = Pass {
            registry: &self.registry,
            reader: &self.reader,
            writer: &self.writer,
            fingerprints: &self.fingerprints,
            key,
            object: &object,
            memory: &memory,
            now,
        };
        let outcome = match pass.run().await {
            Ok(done) => self.succeed(key, &object, &memory, done).await,
            Err(fault) => Err(fault),
        };
        match outcome {
            Ok(next) => {
                self.metrics.reconciled(KIND, Counted::Success);
                if let Some(next) = next {
                    self.enqueue(key, Instant::now() + next);
                }
            }
            Err(fault) => {
                self.metrics.reconciled(KIND, Counted::Failure);
                self.metrics.failed(KIND, fault.reason);
                let failures = self.fail(key, &object, &memory, &fault).await;
                self.again(key, &fault, failures);
            }
        }
    }

    /// Records a pass that did not fail. Returns when to come back.
    async fn succeed(
        &self,
        key: &ObjectKey,
        object: &Arc<SyncedSecret>,
        memory: &Memory,
        done: Done,
    ) -> Outcome<Option<Duration>> {
        let now = clock::now();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let generation = object.metadata.generation.unwrap_or_default();
        let Done {
            mut status,
            state,
            looked,
            newest_door,
            next_look,
            deed,
            new_lineage,
        } = done;
        if let Some(before) = object.status.as_ref().and_then(|status| status.secret.as_ref())
            && status
                .secret
                .as_ref()
                .is_some_and(|secret| secret.name != before.name)
        {
            self.release_all(key, Some(object)).await?;
        }
        status.observed_generation = Some(generation);
        let (ready, reason, message) = describe(&state, &status);
        let wanted = Wanted {
            type_: "Ready",
            status: ready,
            reason,
            message: &message,
            request_id: None,
            generation,
        };
        let news = conditions::set(&mut status.conditions, &wanted, now);
        self.warn_of_expiry(key, &uid, &mut status, generation, now);
        let rolling = self.roll_out(key, object, &mut status, &state).await?;
        self.write_status(key, object, &uid, &status).await?;
        if news && matches!(state, State::Removed(_)) {
            self.publish(key, &uid, EventKind::Warning, Reason::SecretRemoved, &message);
        }
        self.tell(key, object, &uid, deed, &message, new_lineage.as_deref());
        self.index.remember(key, &uid, |memory| {
            if looked {
                memory.looked_at = Some(Instant::now());
                memory.looked_through = newest_door;
                memory.last_check = Some(now);
            }
            memory.failures = 0;
            memory.failing_since = None;
            memory.next_check =
                next_look.and_then(|wait| now.checked_add_signed(TimeDelta::from_std(wait).ok()?));
            if let Some(secret) = &status.secret {
                memory.intact = Some((
                    secret.uid.as_str().into(),
                    secret.resource_version.as_str().into(),
                ));
            }
        });
        if memory.failures > 0 && deed == Deed::Nothing && state == State::Synced {
            self.publish(key, &uid, EventKind::Normal, Reason::Synced, "works again");
        }
        // A rollout that moves is reported by the watch; the look-again is a safety net.
        Ok(match (next_look, rolling) {
            (Some(wait), true) => Some(wait.min(ROLLOUT_LOOK)),
            (None, true) => Some(ROLLOUT_LOOK),
            (wait, false) => wait,
        })
    }

    /// Records a pass that failed: the last good Secret stays. Returns how often in a row.
    async fn fail(&self, key: &ObjectKey, object: &Arc<SyncedSecret>, memory: &Memory, fault: &Fault) -> u32 {
        let now = clock::now();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let failures = memory.failures.saturating_add(1);
        self.index.remember(key, &uid, |memory| {
            memory.failures = failures;
            memory.failing_since.get_or_insert(now);
        });
        tracing::warn!(object = %key, reason = %fault.reason.as_str(), request_id = fault.request_id.as_deref(), "{fault}");
        if fault.class == Class::Conflict {
            // Something moved underneath: the next pass plans anew, and there is nothing to tell yet.
            return failures;
        }
        let mut status = object.status.clone().unwrap_or_default();
        let generation = object.metadata.generation.unwrap_or_default();
        status.observed_generation = Some(generation);
        let message = fault.to_string();
        let wanted = Wanted {
            type_: "Ready",
            status: Some(false),
            reason: fault.reason,
            message: &message,
            request_id: fault.request_id.as_deref(),
            generation,
        };
        if conditions::set(&mut status.conditions, &wanted, now) {
            self.publish(key, &uid, EventKind::Warning, fault.reason, &message);
        }
        if let Err(fault) = self.write_status(key, object, &uid, &status).await {
            tracing::warn!(object = %key, reason = %fault.reason.as_str(), "{fault}");
        }
        failures
    }

    fn again(&self, key: &ObjectKey, fault: &Fault, failures: u32) {
        let wait = delay_after(fault, failures, rand::random());
        let next = TimeDelta::from_std(wait)
            .ok()
            .and_then(|wait| clock::now().checked_add_signed(wait));
        if let Some((object, _)) = self.index.get(key) {
            let uid = object.metadata.uid.clone().unwrap_or_default();
            self.index.remember(key, &uid, |memory| memory.next_check = next);
        }
        self.enqueue(key, Instant::now() + wait);
    }

    /// Says ahead that a store is going to stop serving a value.
    fn warn_of_expiry(
        &self,
        key: &ObjectKey,
        uid: &str,
        status: &mut SyncedSecretStatus,
        generation: i64,
        now: DateTime<Utc>,
    ) {
        let soonest = status.versions.iter().filter_map(|version| version.expires).min();
        let Some(expires) = soonest.filter(|expires| *expires <= now + WARN_AHEAD) else {
            conditions::remove(&mut status.conditions, "Expiring");
            return;
        };
        let message = format!(
            "a value expires in its store at {}; store a new one before",
            expires.to_rfc3339()
        );
        let wanted = Wanted {
            type_: "Expiring",
            status: Some(true),
            reason: Reason::RemoteExpiring,
            message: &message,
            request_id: None,
            generation,
        };
        if conditions::set(&mut status.conditions, &wanted, now) {
            self.publish(key, uid, EventKind::Warning, Reason::RemoteExpiring, &message);
        }
    }

    /// Restarts consumers where the Secret is as it should be. Returns whether a rollout is under way.
    async fn roll_out(
        &self,
        key: &ObjectKey,
        object: &SyncedSecret,
        status: &mut SyncedSecretStatus,
        state: &State,
    ) -> Outcome<bool> {
        let generation = object.metadata.generation.unwrap_or_default();
        let Some(secret) = status
            .secret
            .clone()
            .filter(|_| !object.spec.consumers.is_empty() && *state == State::Synced)
        else {
            if object.spec.consumers.is_empty() {
                status.rollout = None;
                conditions::remove(&mut status.conditions, "RolledOut");
            }
            return Ok(false);
        };
        let step = rollout::advance(&self.workloads, &self.rollouts, key, object, &secret.values).await?;
        for _ in 0..step.restarted {
            self.metrics.rolled_out(KIND);
        }
        let wanted = Wanted {
            type_: "RolledOut",
            status: Some(step.done),
            reason: step.reason,
            message: &step.message,
            request_id: None,
            generation,
        };
        if conditions::set(&mut status.conditions, &wanted, clock::now())
            && step.reason != Reason::RolloutProgressing
        {
            let kind = if step.done {
                EventKind::Normal
            } else {
                EventKind::Warning
            };
            let uid = object.metadata.uid.clone().unwrap_or_default();
            self.publish(key, &uid, kind, step.reason, &step.message);
        }
        status.rollout = Some(step.status);
        Ok(!step.done)
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        object: &Arc<SyncedSecret>,
        uid: &str,
        status: &SyncedSecretStatus,
    ) -> Outcome<()> {
        if object.status.as_ref() == Some(status) {
            return Ok(());
        }
        let version = object.metadata.resource_version.as_deref();
        let written = self
            .status
            .write::<SyncedSecret, _>(key, uid, version, object.status.as_ref(), status)
            .await?;
        if let StatusWrite::Written(version) = written {
            self.metrics.status_written(KIND);
            self.index.wrote_status(key, uid, version, status.clone());
        }
        Ok(())
    }

    /// Gives up every Secret that carries the object's mark, but for the one it keeps now.
    ///
    /// When the kind itself is being removed, every object goes, and nobody meant their Secrets: they stay.
    async fn release_all(&self, key: &ObjectKey, kept: Option<&SyncedSecret>) -> Outcome<()> {
        if kept.is_none() && self.writer.marked_for(key) && self.writer.reader.kind_is_leaving().await? {
            tracing::warn!(object = %key, "SyncedSecret is being uninstalled: its Secrets are left in place");
            return Ok(());
        }
        let kept = kept.map(|object| super::index::target_of(key, object));
        for secret in self.writer.secrets.owned() {
            let owner = self.writer.secrets.get(&secret).and_then(|entry| entry.owner);
            let ours = secret.namespace == key.namespace && owner.is_some_and(|owner| *owner == *key.name);
            if ours
                && kept.as_ref() != Some(&secret)
                && self.writer.release(key, &secret).await? == Deed::Released
            {
                self.metrics.secret_written(SecretWrite::Release);
            }
        }
        Ok(())
    }

    fn tell(
        &self,
        key: &ObjectKey,
        object: &SyncedSecret,
        uid: &str,
        deed: Deed,
        message: &str,
        new_lineage: Option<&str>,
    ) {
        let had_one = object
            .status
            .as_ref()
            .is_some_and(|status| status.secret.is_some());
        match deed {
            Deed::Nothing => {}
            // The first sync is told by the status alone: an event would be one more write for each object.
            Deed::Created => self.metrics.secret_written(SecretWrite::Create),
            Deed::Released => self.metrics.secret_written(SecretWrite::Release),
            Deed::Updated => {
                self.metrics.secret_written(SecretWrite::Update);
                if had_one {
                    self.publish(key, uid, EventKind::Normal, Reason::SecretUpdated, message);
                }
            }
            Deed::Repaired => {
                self.metrics.secret_written(SecretWrite::Update);
                self.metrics.drift_repaired();
                let note = "the Secret was changed or deleted by somebody else and was put right";
                self.publish(key, uid, EventKind::Warning, Reason::DriftRepaired, note);
            }
        }
        if let Some(note) = new_lineage {
            self.publish(key, uid, EventKind::Warning, Reason::NewLineage, note);
        }
    }

    fn publish(&self, key: &ObjectKey, uid: &str, kind: EventKind, reason: Reason, note: &str) {
        self.events.publish(
            Regarding::of::<SyncedSecret>(key.clone(), uid),
            kind,
            reason,
            note,
        );
    }
}

/// An object for the operator's own endpoint.
pub(super) fn state_of(key: &ObjectKey, object: &SyncedSecret, memory: &Memory) -> ObjectState {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.clone().find(|condition| condition.type_ == "Ready");
    ObjectState {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        ready: ready.map(|condition| condition.status == "True"),
        reason: ready.map(|condition| condition.reason.clone()),
        last_check: memory.last_check,
        next_refresh: memory.next_check,
        failing_since: memory.failing_since.or_else(|| {
            ready
                .filter(|condition| condition.status == "False")
                .map(|condition| from_kubernetes(&condition.last_transition_time))
        }),
        request_id: ready.and_then(|condition| conditions::request_id(&condition.message)),
    }
}

fn describe(state: &State, status: &SyncedSecretStatus) -> (Option<bool>, Reason, String) {
    match state {
        State::Suspended => (
            None,
            Reason::Suspended,
            "suspended; the Secret is left as it is".into(),
        ),
        State::Observed { pending: None } => (
            Some(true),
            Reason::Observed,
            "the Secret is as it would be written".into(),
        ),
        State::Observed {
            pending: Some(change),
        } => (None, Reason::Observed, change.clone()),
        State::Removed(cause) => (
            Some(false),
            Reason::SecretRemoved,
            format!("{cause}; its keys were removed as asked"),
        ),
        State::Synced => {
            let keys = status.secret.as_ref().map_or(0, |secret| secret.keys);
            (
                Some(true),
                Reason::Synced,
                if keys == 1 {
                    "1 key is as the store holds it".into()
                } else {
                    format!("{keys} keys are as the stores hold them")
                },
            )
        }
    }
}
