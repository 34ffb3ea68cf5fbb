//! Records what came of a pass: at most one status write, and only if it says something new; events, metrics, and what
//! is remembered until the next one.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::backoff::delay_after;
use keyward_core::fault::Fault;
use keyward_core::reason::Reason;
use keyward_core::schedule::{ROLLOUT_LOOK, due_again};
use keyward_core::sync::told::{self, Note, Said, State};
use keyward_crds::SyncedSecret;
use keyward_crds::synced_secret::SyncedSecretStatus;
use tokio::time::Instant;

use super::super::index::{Conclusion, Memory, target_of};
use super::super::pass::{Done, Pass};
use super::super::rollout;
use super::super::write::Identity;
use super::{KIND, SyncController};
use crate::cluster::conditions::{self, Wanted};
use crate::cluster::events::{EventKind, Regarding};
use crate::cluster::{ObjectKey, StatusWrite};
use crate::stores::Outcome;

/// The object whose pass is recorded.
pub(super) struct Record<'a> {
    controller: &'a SyncController,
    key: &'a ObjectKey,
    object: &'a Arc<SyncedSecret>,
    memory: &'a Memory,
    uid: &'a str,
    generation: i64,
    /// When the pass began.
    now: DateTime<Utc>,
    /// The same moment by the clock that only goes forward.
    at: Instant,
}

impl<'a> Record<'a> {
    /// A record of a pass that has just ended.
    pub(super) fn new(controller: &'a SyncController, pass: &Pass<'a>) -> Self {
        let Pass {
            key,
            object,
            memory,
            now,
            at,
            ..
        } = *pass;
        Self {
            controller,
            key,
            object,
            memory,
            uid: object.metadata.uid.as_deref().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            now,
            at,
        }
    }

    /// Records a pass that did not fail. Returns when to come back.
    pub(super) async fn success(&self, done: Done) -> Outcome<Option<Duration>> {
        let Done {
            mut status,
            state,
            conclusion,
            intact,
            looked_through,
            next_look,
            deed,
            new_lineage,
        } = done;
        self.tidy(&state).await?;
        status.observed_generation = Some(self.generation);
        let keys = status.secret.as_ref().map_or(0, |secret| secret.keys);
        let ready = state.ready(usize::try_from(keys).unwrap_or_default());
        let wanted = Wanted::of("Ready", &ready, self.generation);
        let failed_with = conditions::failed_with(&status.conditions, "Ready");
        let news = conditions::set(&mut status.conditions, &wanted, self.now);
        let warning = self.warn_of_expiry(&mut status);
        let rollout = self.roll_out(&mut status, &state).await;
        self.write_status(&status).await?;
        if news && matches!(state, State::Removed { .. }) {
            self.publish(EventKind::Warning, Reason::SecretRemoved, &ready.message);
        }
        self.controller
            .count(deed, self.key, &target_of(self.key, self.object));
        let before = self.object.status.as_ref();
        let synced_before = before.is_some_and(|status| status.secret.is_some());
        self.note(told::note_of(deed, synced_before), &ready.message);
        if let Some(note) = new_lineage {
            self.publish(EventKind::Warning, Reason::NewLineage, &note);
        }
        self.remember(looked_through, next_look, conclusion, intact);
        let recovery = told::note_of_recovery(failed_with, &state, deed);
        self.note(recovery, &ready.message);
        Ok(due_again([next_look, rollout, warning]))
    }

    /// Records a pass that failed: the last good Secret stays. Returns how often in a row.
    pub(super) async fn failure(&self, fault: &Fault, conclusion: Option<Arc<Conclusion>>) -> u32 {
        let failures = self.memory.failures.saturating_add(1);
        self.controller.index.remember(self.key, self.uid, |memory| {
            memory.failures = failures;
            // A pass that had no values says nothing against what the same ones came to.
            memory.conclusion = conclusion.or(memory.conclusion.take());
            memory.failing_since.get_or_insert(self.now);
        });
        tracing::warn!(object = %self.key, reason = %fault.reason.as_str(), request_id = fault.request_id.as_deref(), "{fault}");
        if !fault.is_worth_telling(failures) {
            return failures;
        }
        let mut status = self.object.status.clone().unwrap_or_default();
        status.observed_generation = Some(self.generation);
        self.warn_of_expiry(&mut status);
        let message = fault.to_string();
        let wanted = Wanted::failing(fault, &message, self.generation);
        if conditions::set(&mut status.conditions, &wanted, self.now) {
            self.publish(EventKind::Warning, fault.reason, &message);
        }
        if let Err(fault) = self.write_status(&status).await {
            tracing::warn!(object = %self.key, reason = %fault.reason.as_str(), "{fault}");
        }
        failures
    }

    /// Gives up what the object has in other Secrets than the one it keeps now: once for each spec, since another spec is
    /// what changes the Secret.
    async fn tidy(&self, state: &State) -> Outcome<()> {
        let writes = matches!(state, State::Synced | State::Removed { .. });
        if writes && self.memory.tidied != Some(self.generation) {
            self.controller.release_others(self.key, self.object).await?;
            self.controller
                .index
                .remember(self.key, self.uid, |memory| memory.tidied = Some(self.generation));
        }
        Ok(())
    }

    /// Says ahead that a store is going to stop serving a value. Returns how long it is until that has to be said.
    fn warn_of_expiry(&self, status: &mut SyncedSecretStatus) -> Option<Duration> {
        let expiries = status.versions.iter().filter_map(|version| version.expires);
        let expiry = told::Expiry::of(expiries, self.now);
        match &expiry {
            told::Expiry::Near(said) => {
                let wanted = Wanted::of("Expiring", said, self.generation);
                if conditions::set(&mut status.conditions, &wanted, self.now) {
                    self.warn(said.reason, &said.message);
                }
            }
            told::Expiry::None | told::Expiry::Later(_) => {
                conditions::remove(&mut status.conditions, "Expiring");
            }
        }
        expiry.warned_of_in()
    }

    /// Restarts consumers where the Secret is as it should be. Returns when to look at them again.
    async fn roll_out(&self, status: &mut SyncedSecretStatus, state: &State) -> Option<Duration> {
        if self.object.spec.consumers.is_empty() {
            status.rollout = None;
            conditions::remove(&mut status.conditions, "RolledOut");
            return None;
        }
        let as_it_should_be = matches!(state, State::Synced | State::Removed { .. });
        let secret = status.secret.as_ref().filter(|_| as_it_should_be)?;
        let SyncController {
            workloads, rollouts, ..
        } = self.controller;
        let step = rollout::advance(workloads, rollouts, self.key, self.object, &secret.values).await;
        for kind in &step.restarted {
            self.controller.metrics.rolled_out(&format!("{kind:?}"));
        }
        status.rollout = Some(step.status);
        let refusals = match &step.refused {
            Some(_) => self.memory.refused_restarts.saturating_add(1),
            None => 0,
        };
        self.controller.index.remember(self.key, self.uid, |memory| {
            memory.refused_restarts = refusals;
        });
        let said = match &step.refused {
            Some(fault) if fault.is_worth_telling(refusals) => Said {
                holds: Some(false),
                reason: fault.reason,
                message: fault.to_string(),
            },
            _ => step.said,
        };
        let wanted = Wanted::of("RolledOut", &said, self.generation);
        let news = conditions::set(&mut status.conditions, &wanted, self.now);
        if news && said.reason == Reason::RolloutComplete {
            self.publish(EventKind::Normal, said.reason, &said.message);
        } else if news && said.reason != Reason::RolloutProgressing {
            self.warn(said.reason, &said.message);
        }
        match &step.refused {
            Some(fault) => Some(delay_after(fault, refusals, rand::random())),
            None => (said.holds != Some(true)).then_some(ROLLOUT_LOOK),
        }
    }

    async fn write_status(&self, status: &SyncedSecretStatus) -> Outcome<()> {
        let before = self.object.status.as_ref();
        if before == Some(status) {
            return Ok(());
        }
        let version = self.object.metadata.resource_version.as_deref();
        let writer = &self.controller.status;
        let written = writer
            .write::<SyncedSecret, _>(self.key, self.uid, version, before, status)
            .await?;
        if let StatusWrite::Written(version) = written {
            self.controller.metrics.status_written(KIND);
            let index = &self.controller.index;
            index.wrote_status(self.key, self.uid, &version, status.clone());
        }
        Ok(())
    }

    fn remember(
        &self,
        looked_through: Option<u64>,
        next_look: Option<Duration>,
        conclusion: Option<Arc<Conclusion>>,
        intact: Option<Identity>,
    ) {
        self.controller.index.remember(self.key, self.uid, |memory| {
            if let Some(door) = looked_through {
                memory.looked_at = Some(self.at);
                memory.looked_through = door;
                memory.last_check = Some(self.now);
            }
            memory.failures = 0;
            memory.conclusion = conclusion;
            memory.failing_since = None;
            memory.next_check =
                next_look.and_then(|wait| self.now.checked_add_signed(TimeDelta::from_std(wait).ok()?));
            if let Some((uid, resource_version)) = intact {
                memory.intact = Some((uid.into(), resource_version.into()));
            }
        });
    }

    /// Tells of something that somebody should look into although the Secret is as it should be.
    fn warn(&self, reason: Reason, message: &str) {
        self.controller.metrics.failed(KIND, reason);
        self.publish(EventKind::Warning, reason, message);
    }

    fn note(&self, note: Option<Note>, otherwise: &str) {
        if let Some(note) = note {
            let kind = if note.warning {
                EventKind::Warning
            } else {
                EventKind::Normal
            };
            self.publish(kind, note.reason, note.words.unwrap_or(otherwise));
        }
    }

    fn publish(&self, kind: EventKind, reason: Reason, note: &str) {
        let regarding = Regarding::of::<SyncedSecret>(self.key.clone(), self.uid);
        self.controller.events.publish(regarding, kind, reason, note);
    }
}
