//! Runs passes: takes objects from the queue, lets a pass act, has it recorded, and comes back when it is due.

mod outside;
mod record;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use keyward_core::backoff::delay_after;
use keyward_core::fault::Fault;
use keyward_core::sync::fingerprint::FingerprintKey;
use keyward_core::sync::ownership::Deed;
use tokio::time::Instant;

use self::record::Record;
use super::index::SyncIndex;
use super::pass::{Failed, Pass};
use super::reader::Reader;
use super::rollout::WorkloadIndex;
use super::turn::TurnClock;
use super::write::Writer;
use crate::cluster::events::EventRecorder;
use crate::cluster::{ClusterReader, ObjectKey, RolloutWriter, SecretIndex, SecretWriter, StatusWriter};
use crate::runtime::clock;
use crate::runtime::metrics::{Metrics, Outcome as Counted, SecretWrite};
use crate::runtime::queue::Queue;
use crate::store::{StoreKey, StoreRegistry};

/// The kind, as metrics call it.
const KIND: &str = "SyncedSecret";

/// For how long places that nobody asks about may be kept beyond their time.
const PLACES_KEPT: Duration = Duration::from_hours(1);

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
    turns: TurnClock,
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
            turns: TurnClock::start(),
        }
    }

    /// Works until the queue is closed.
    pub async fn work(self: Arc<Self>) {
        while let Some(work) = self.queue.next().await {
            self.reconcile(work.key()).await;
        }
    }

    /// Wipes the values of waves that have passed, for ever. Nothing here may wait for anything but the time.
    pub async fn end_waves(self: Arc<Self>) {
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        loop {
            every_second.tick().await;
            self.reader.end_waves(Instant::now());
        }
    }

    /// Forgets what was seen through stores that are no longer in use, and what nobody asks about, for ever. To walk
    /// through all places takes more than all else that an idle operator does, so it waits for a reason or for an hour.
    pub async fn forget_places(self: Arc<Self>) {
        let mut every_minute = tokio::time::interval(Duration::from_mins(1));
        let (mut walked, mut through) = (Instant::now(), HashSet::new());
        loop {
            every_minute.tick().await;
            let (now, live) = (Instant::now(), self.registry.live().await);
            if live != through || now >= walked + PLACES_KEPT {
                self.reader.forget(&live, now);
                (walked, through) = (now, live);
            }
        }
    }

    /// Asks for a pass over an object, now or later.
    pub fn enqueue(&self, key: &ObjectKey, due: Instant) {
        let lane = self.index.lane(key).unwrap_or_else(|| Arc::from(""));
        self.queue.add(key.clone(), lane, due);
    }

    /// Asks for a pass over everything that reads from a store.
    pub fn wake(&self, store: &StoreKey) {
        for key in self.index.of_store(store) {
            self.enqueue(&key, Instant::now());
        }
    }

    /// The same for the objects of one namespace.
    pub fn wake_in(&self, store: &StoreKey, namespace: &str) {
        for key in self.index.of_store(store) {
            if *key.namespace == *namespace {
                self.enqueue(&key, Instant::now());
            }
        }
    }

    /// Asks for a pass over the objects behind Secrets that are ours by their mark and that no object keeps any more.
    pub fn sweep(&self) {
        for (owner, secret) in self.writer.secrets.owned() {
            if self.index.is_abandoned(&secret, &owner) {
                self.index.untidy(&owner);
                self.enqueue(&owner, Instant::now());
            }
        }
    }

    async fn reconcile(&self, key: &ObjectKey) {
        let Some((object, memory)) = self.index.get(key) else {
            self.reconcile_without_object(key).await;
            return;
        };
        if object.metadata.deletion_timestamp.is_some() {
            return;
        }
        let pass = Pass {
            registry: &self.registry,
            reader: &self.reader,
            writer: &self.writer,
            workloads: &self.workloads,
            fingerprints: &self.fingerprints,
            key,
            object: &object,
            memory: &memory,
            now: clock::now(),
            at: Instant::now(),
            turns: &self.turns,
        };
        let outcome = pass.run().await;
        let record = Record::new(self, &pass);
        let outcome = match outcome {
            Ok(done) => record.success(done).await.map_err(Failed::from),
            Err(failed) => Err(failed),
        };
        match outcome {
            Ok(next) => {
                self.metrics.reconciled(KIND, Counted::Success);
                if let Some(next) = next {
                    // Counted from the beginning: else each pass would come later in its turn than the one before.
                    self.enqueue(key, pass.at + next);
                }
            }
            Err(Failed { fault, conclusion }) => {
                self.metrics.reconciled(KIND, Counted::Failure);
                self.metrics.failed(KIND, fault.reason);
                let failures = record.failure(&fault, conclusion).await;
                self.again(key, &fault, failures);
            }
        }
    }

    fn again(&self, key: &ObjectKey, fault: &Fault, failures: u32) {
        let wait = delay_after(fault, failures, rand::random());
        let next = TimeDelta::from_std(wait)
            .ok()
            .and_then(|wait| clock::now().checked_add_signed(wait));
        self.index.plan_next(key, next);
        self.enqueue(key, Instant::now() + wait);
    }

    /// Counts what an object did to a Secret. What it gave up, another object may wait for.
    fn count(&self, deed: Deed, object: &ObjectKey, secret: &ObjectKey) {
        let metrics = &self.metrics;
        match deed {
            Deed::Nothing => return,
            Deed::Created => metrics.secret_written(SecretWrite::Create),
            Deed::Updated => metrics.secret_written(SecretWrite::Update),
            Deed::Released => metrics.secret_written(SecretWrite::Release),
            Deed::Deleted => metrics.secret_written(SecretWrite::Delete),
            Deed::Repaired => {
                metrics.secret_written(SecretWrite::Update);
                metrics.drift_repaired();
            }
        }
        if matches!(deed, Deed::Released | Deed::Deleted) {
            let others = self.index.of_target(secret).into_iter();
            for other in others.filter(|other| other != object) {
                self.enqueue(&other, Instant::now());
            }
        }
    }
}
