//! Restarts consumers: patches those that do not carry the hash of the present values, and reports how far they are.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use keyward_core::fault::Class;
use keyward_core::reason::Reason;
use keyward_core::sync::rollout::{Consumer, RolloutState, Standing};
use keyward_crds::synced_secret::{Consumer as Named, ConsumerKind, RolloutStatus};
use keyward_crds::{DESIRED_HASH_ANNOTATION, SyncedSecret};

use crate::cluster::{ObjectKey, Progress, RolloutWriter};
use crate::stores::Outcome;

/// The longest name part of an annotation key that Kubernetes accepts.
const LONGEST_NAME: usize = 63;

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

    fn consumer(&self, kind: ConsumerKind, key: &ObjectKey, annotation: &str) -> Option<Consumer> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let progress = known.get(&(kind, key.clone()))?;
        Some(Consumer {
            hash: progress.hashes.get(annotation).cloned(),
            generation: progress.generation,
            observed_generation: progress.observed_generation,
            desired: progress.desired,
            current: progress.existing,
            updated: progress.updated,
            available: progress.available,
            paused: progress.paused || progress.replaced_by_hand,
            failed: progress.deadline_exceeded,
        })
    }
}

/// What a step of a rollout came to.
pub(super) struct Step {
    /// For the status.
    pub status: RolloutStatus,
    /// Whether every consumer runs with the present values.
    pub done: bool,
    /// Why, for the condition.
    pub reason: Reason,
    /// The same in words.
    pub message: String,
    /// How many consumers were restarted in this step.
    pub restarted: usize,
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
) -> Outcome<Step> {
    let consumers = &object.spec.consumers;
    let hash = short(values);
    let annotation = annotation_of(&key.name);
    let looked: Vec<Option<Consumer>> = consumers
        .iter()
        .map(|consumer| workloads.consumer(consumer.kind, &key.sibling(consumer.name.as_str()), &annotation))
        .collect();
    let mut state = RolloutState::of(looked.iter().map(Option::as_ref), hash);
    let to_patch: Vec<usize> = state.to_patch().collect();
    let mut restarted = 0;
    for index in to_patch {
        let Named { kind, name } = &consumers[index];
        match writer
            .set_hash(*kind, &key.sibling(name.as_str()), &annotation, hash)
            .await
        {
            Ok(()) => {
                restarted += 1;
                state.standings[index] = Standing::Rolling;
            }
            Err(fault) if fault.class == Class::Absent => state.standings[index] = Standing::Missing,
            Err(fault) => return Err(fault),
        }
    }
    let (reason, message) = describe(&state, consumers);
    Ok(Step {
        status: RolloutStatus {
            hash: hash.to_owned(),
            ready: i32::try_from(state.ready()).unwrap_or(i32::MAX),
            total: i32::try_from(state.total()).unwrap_or(i32::MAX),
            progress: format!("{}/{}", state.ready(), state.total()),
        },
        done: state.done(),
        reason,
        message,
        restarted,
    })
}

/// The annotation on pod templates: one for each object, so that several can restart the same consumer.
fn annotation_of(object: &str) -> String {
    let suffixed = format!("{DESIRED_HASH_ANNOTATION}.{object}");
    let name_part = suffixed.rsplit('/').next().map_or(0, str::len);
    if name_part <= LONGEST_NAME {
        return suffixed;
    }
    let room = LONGEST_NAME.saturating_sub("secret-hash.".len() + 9);
    let head: String = object.chars().take(room).collect();
    format!("{DESIRED_HASH_ANNOTATION}.{head}-{:08x}", fnv(object))
}

/// Tells long names apart in annotation keys; nothing rests on it being hard to invert.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// The first digits of the keyed fingerprint are enough to tell one value from the next.
fn short(values: &str) -> &str {
    let digest = values.rsplit('.').next().unwrap_or(values);
    digest.get(..16).unwrap_or(digest)
}

fn describe(state: &RolloutState, consumers: &[Named]) -> (Reason, String) {
    let names = |standing| {
        let named = state
            .having(standing)
            .map(|index| format!("{:?} {}", consumers[index].kind, consumers[index].name));
        named.collect::<Vec<_>>().join(", ")
    };
    let missing = names(Standing::Missing);
    if !missing.is_empty() {
        return (Reason::RolloutTargetMissing, format!("not found: {missing}"));
    }
    let stalled = [names(Standing::Stalled), names(Standing::Paused)];
    let stalled = stalled
        .iter()
        .filter(|names| !names.is_empty())
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if !stalled.is_empty() {
        return (Reason::RolloutStalled, format!("does not move: {stalled}"));
    }
    if state.done() {
        return (
            Reason::RolloutComplete,
            "every consumer runs with the present values".into(),
        );
    }
    (
        Reason::RolloutProgressing,
        "consumers are being restarted with the present values".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotation_keys_fit_whatever_the_name() {
        for length in [1, 40, 51, 52, 100, 253] {
            let annotation = annotation_of(&"n".repeat(length));
            let name = annotation.rsplit('/').next().expect("there is a prefix");
            assert!(name.len() <= LONGEST_NAME, "{length}: {name}");
        }
        let long = "n".repeat(200);
        assert_ne!(
            annotation_of(&format!("{long}a")),
            annotation_of(&format!("{long}b"))
        );
    }

    #[test]
    fn the_hash_is_the_beginning_of_the_digest() {
        assert_eq!(
            short("1.abcd.0123456789abcdef0123456789abcdef"),
            "0123456789abcdef"
        );
        assert_eq!(short("odd"), "odd");
    }
}
