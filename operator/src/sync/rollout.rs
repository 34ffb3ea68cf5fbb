//! Restarts consumers: patches those that do not carry the hash of the present values, and reports how far they are.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use keyward_core::fault::{Class, Fault};
use keyward_core::sync::rollout::{self, Consumer, RolloutState, Standing};
use keyward_core::sync::told::Said;
use keyward_crds::synced_secret::{Consumer as Named, ConsumerKind, RolloutStatus};
use keyward_crds::{DESIRED_HASH_ANNOTATION, SyncedSecret};

use crate::cluster::{ObjectKey, Progress, RolloutWriter};

/// The workloads that exist, as far as rollouts are concerned.
#[derive(Default)]
pub struct WorkloadIndex(RwLock<HashMap<(ConsumerKind, ObjectKey), Progress>>);

impl WorkloadIndex {
    /// Takes in a workload as the watch reports it.
    pub fn put(&self, kind: ConsumerKind, key: ObjectKey, progress: Progress) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((kind, key), progress);
    }

    /// Takes in that a workload is gone.
    pub fn remove(&self, kind: ConsumerKind, key: &ObjectKey) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(kind, key.clone()));
    }

    fn get(&self, kind: ConsumerKind, key: &ObjectKey) -> Option<Progress> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&(kind, key.clone())).cloned()
    }
}

/// As the core sees it.
fn consumer(progress: &Progress, annotation: &str) -> Consumer {
    Consumer {
        hash: progress.hashes.get(annotation).cloned(),
        generation: progress.generation,
        observed_generation: progress.observed_generation,
        desired: progress.desired,
        current: progress.existing,
        updated: progress.updated,
        available: progress.available,
        paused: progress.paused || progress.replaced_by_hand,
        failed: progress.deadline_exceeded,
    }
}

/// What a step of a rollout came to.
pub(super) struct Step {
    /// Why a consumer could not be restarted; the others were, all the same.
    pub refused: Option<Fault>,
    /// For the status.
    pub status: RolloutStatus,
    /// What the condition says.
    pub said: Said,
    /// The consumers that were restarted in this step.
    pub restarted: Vec<ConsumerKind>,
}

/// How many consumers would be restarted for these values.
pub(super) fn to_restart(
    workloads: &WorkloadIndex,
    key: &ObjectKey,
    object: &SyncedSecret,
    values: &str,
) -> usize {
    let annotation = rollout::annotation_of(DESIRED_HASH_ANNOTATION, &key.name);
    let state = state_of(
        &known(workloads, key, object),
        &annotation,
        rollout::hash_of(values),
    );
    state.to_patch().count()
}

/// Restarts the consumers that need it.
///
/// The annotation is the whole memory of a rollout: a consumer that carries the hash has been restarted for it, by
/// whichever process.
pub(super) async fn advance(
    workloads: &WorkloadIndex,
    writer: &RolloutWriter,
    key: &ObjectKey,
    object: &SyncedSecret,
    values: &str,
) -> Step {
    let consumers = &object.spec.consumers;
    let hash = rollout::hash_of(values);
    let annotation = rollout::annotation_of(DESIRED_HASH_ANNOTATION, &key.name);
    let known = known(workloads, key, object);
    let mut state = state_of(&known, &annotation, hash);
    let to_patch: Vec<usize> = state.to_patch().collect();
    let (mut restarted, mut refused) = (Vec::new(), None);
    for index in to_patch {
        let Named { kind, name } = &consumers[index];
        let version = known[index]
            .as_ref()
            .map_or("", |progress| &progress.resource_version);
        match writer
            .set_hash(*kind, &key.sibling(name.as_str()), version, &annotation, hash)
            .await
        {
            Ok(()) => {
                restarted.push(*kind);
                state.standings[index] = Standing::Rolling;
            }
            Err(fault) if fault.class == Class::Absent => state.standings[index] = Standing::Missing,
            // It has changed meanwhile: the watch reports how, and that wakes the object.
            Err(fault) if fault.class == Class::Conflict => {}
            Err(fault) => refused = refused.or(Some(fault)),
        }
    }
    let said = state.said(|index| format!("{:?} {}", consumers[index].kind, consumers[index].name));
    Step {
        refused,
        status: RolloutStatus {
            hash: hash.to_owned(),
            ready: i32::try_from(state.ready()).unwrap_or(i32::MAX),
            total: i32::try_from(state.total()).unwrap_or(i32::MAX),
            progress: format!("{}/{}", state.ready(), state.total()),
        },
        said,
        restarted,
    }
}

/// The consumers of an object, as far as they exist.
fn known(workloads: &WorkloadIndex, key: &ObjectKey, object: &SyncedSecret) -> Vec<Option<Progress>> {
    let consumers = object.spec.consumers.iter();
    consumers
        .map(|consumer| workloads.get(consumer.kind, &key.sibling(consumer.name.as_str())))
        .collect()
}

fn state_of(known: &[Option<Progress>], annotation: &str, hash: &str) -> RolloutState {
    let looked: Vec<Option<Consumer>> = known
        .iter()
        .map(|progress| Some(consumer(progress.as_ref()?, annotation)))
        .collect();
    RolloutState::of(looked.iter().map(Option::as_ref), hash)
}
