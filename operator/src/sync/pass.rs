//! One pass over one object: gather, ask the core, do at most one write to the Secret, and say what came of it.
//!
//! What holds is decided in `keyward_core::sync`; here is the order of the steps, and nothing is kept between passes.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use keyward_core::fault::Fault;
use keyward_core::sync::absence::{Gone, Settlement};
use keyward_core::sync::fingerprint::FingerprintKey;
use keyward_core::sync::freshness::{self, LastLook, Occasion};
use keyward_core::sync::lineage::{self, Accepted, Offered};
use keyward_core::sync::observe;
use keyward_core::sync::ownership::Deed;
use keyward_core::sync::told::State;
use keyward_core::sync::version::Consent;
use keyward_crds::SyncedSecret;
use keyward_crds::synced_secret::{Mode, RefreshPolicy, SyncedSecretStatus, WrittenSecret};
use tokio::time::Instant;

use super::gather::{self, Lost, Readings};
use super::index::{Memory, Stuck};
use super::plan::{self, Plan};
use super::reader::{Reader, WAVE_AGE};
use super::render;
use super::translate;
use super::turn::{Turn, TurnClock};
use super::write::{SecretState, Writer};
use crate::cluster::ObjectKey;
use crate::store::{LiveStore, StoreRegistry};
use crate::stores::Outcome;

/// What a pass needs from around it.
pub(super) struct Pass<'a> {
    /// The stores.
    pub registry: &'a StoreRegistry,
    /// Shares reads.
    pub reader: &'a Reader,
    /// Writes the Secret.
    pub writer: &'a Writer,
    /// The key of all fingerprints.
    pub fingerprints: &'a FingerprintKey,
    /// The object's name.
    pub key: &'a ObjectKey,
    /// The object.
    pub object: &'a Arc<SyncedSecret>,
    /// What is remembered of it.
    pub memory: &'a Memory,
    /// The wall clock, for what is written.
    pub now: DateTime<Utc>,
    /// The same moment by the clock that only goes forward, for what is waited for.
    pub at: Instant,
    /// Tells in which turn that moment lies.
    pub turns: &'a TurnClock,
}

/// How a pass failed.
pub(super) struct Failed {
    /// Why.
    pub fault: Fault,
    /// What to remember of it, where it would come about again with the same values.
    pub stuck: Option<Arc<Stuck>>,
}

/// How a pass that did not fail ended.
pub(super) struct Done {
    /// What the status should say.
    pub status: SyncedSecretStatus,
    /// What is true now.
    pub state: State,
    /// The newest of the doors through which every place was asked about in this pass; `None` where none was asked.
    pub looked_through: Option<u64>,
    /// When to look again; `None` where nothing is due.
    pub next_look: Option<Duration>,
    /// What was done to the Secret.
    pub deed: Deed,
    /// What is told of a lineage that began anew.
    pub new_lineage: Option<String>,
}

impl Pass<'_> {
    /// Runs the pass.
    pub(super) async fn run(&self) -> Result<Done, Failed> {
        let old = self.object.status.clone().unwrap_or_default();
        if self.object.spec.suspend {
            return Ok(Done::at_rest(old, State::Suspended));
        }
        let plan = plan::parse(self.key, self.object)?;
        let secret = self.writer.examine(self, &plan, &old).await?;
        let occasion = self.occasion(&old, &secret);
        if occasion.needs_no_store() {
            return Ok(Done::at_rest(old, State::Synced));
        }
        let interval = self.object.spec.refresh.interval.get();
        let turn = self.turns.turn_of(&plan, interval, self.at);
        let next_look = (!occasion.once).then_some(turn.left);
        // Asked first: a grant that was withdrawn ends the use of what was read under it.
        let doors = gather::doors(self.registry, &self.key.namespace, &plan).await?;
        let newest_door = doors.iter().map(|door| door.id).max().unwrap_or_default();
        if occasion.served_by(&self.last_look(), &turn.began, newest_door) {
            let done = Done::at_rest(old, State::Synced);
            return Ok(Done { next_look, ..done });
        }
        let done = self.ask(&plan, &doors, &occasion, &turn, old, secret).await?;
        Ok(Done {
            next_look,
            looked_through: Some(newest_door),
            ..done
        })
    }

    /// Asks the stores what is there, and for the values where that is not what was accepted.
    async fn ask(
        &self,
        plan: &Plan,
        doors: &[Arc<LiveStore>],
        occasion: &Occasion,
        turn: &Turn,
        old: SyncedSecretStatus,
        secret: SecretState,
    ) -> Result<Done, Failed> {
        if occasion.requested {
            for door in doors {
                door.forget_listings();
            }
        }
        let mut targets = gather::resolve(plan, doors).await?;
        let now = Instant::now();
        let wave_began = now.checked_sub(WAVE_AGE).unwrap_or(now);
        let since = occasion.looks_from(turn.began, wave_began, self.memory.failures > 0, now);
        let accepted = translate::accepted(&old.versions);
        let lost = gather::lost(self.reader, plan, doors, &accepted, &mut targets, since).await?;
        // What is kept anyway is not worth a read of all the rest.
        self.settlement(lost.iter().map(Lost::gone))?;
        let mut looked: Vec<Option<Instant>> = vec![None; targets.len()];
        let on = secret.identity();
        let stuck = self.stuck(on.as_ref());
        if occasion.settled() || stuck.is_some() {
            let looks = gather::look_at_all(self.reader, &targets, since).await?;
            if occasion.settled() && lineage::nothing_new(&accepted, gather::shown(&targets, &looks)) {
                return Ok(Done::at_rest(self.acknowledge(old), State::Synced));
            }
            if let Some(stuck) =
                stuck.filter(|stuck| lineage::nothing_new(&stuck.versions, gather::shown(&targets, &looks)))
            {
                return Err(Failed::again(stuck));
            }
            // What looks alone refuse is not worth a value. Before anything is removed, the places are read.
            let gone = lost.iter().map(Lost::gone);
            self.settlement(gone.chain(gather::empty(&targets, &looks)))?;
            self.take(occasion, &accepted, gather::offered(&targets, &looks))?;
            looked = looks.iter().map(|look| Some(look.at)).collect();
        }
        let from = |looked| occasion.values_from(looked, wave_began, now);
        let from: Vec<Instant> = looked.into_iter().map(from).collect();
        let shared = gather::read_all(self.reader, &targets, &from).await?;
        let mut read = Readings::of(&targets, &shared);
        read.gone.extend(lost.iter().map(Lost::gone));
        let versions = read.versions();
        let settled = self.settle(plan, occasion, old, secret, read).await;
        settled.map_err(|fault| self.failed_with(fault, versions, on))
    }

    /// The last failure, where it was over this object and this Secret.
    fn stuck(&self, secret: Option<&(String, String)>) -> Option<&Arc<Stuck>> {
        let metadata = &self.object.metadata;
        self.memory.stuck.as_ref().filter(|stuck| {
            stuck.secret.as_ref() == secret
                && stuck.generation == metadata.generation
                && stuck.annotations == metadata.annotations
        })
    }

    fn failed_with(&self, fault: Fault, versions: Vec<Accepted>, secret: Option<(String, String)>) -> Failed {
        let stuck = freshness::fails_again(fault.reason).then(|| Stuck {
            fault: fault.clone(),
            generation: self.object.metadata.generation,
            annotations: self.object.metadata.annotations.clone(),
            versions,
            secret,
        });
        Failed {
            fault,
            stuck: stuck.map(Arc::new),
        }
    }

    /// Decides what the values come to, and does it.
    async fn settle(
        &self,
        plan: &Plan,
        occasion: &Occasion,
        old: SyncedSecretStatus,
        secret: SecretState,
        mut read: Readings<'_>,
    ) -> Outcome<Done> {
        let spec = &self.object.spec;
        let state = match self.settlement(read.gone.iter().copied())? {
            Settlement::Complete => State::Synced,
            Settlement::RemoveKeys(cause) => State::Removed { cause },
            Settlement::DeleteSecret(cause) => {
                read.values.clear();
                State::Removed { cause }
            }
        };
        let accepted = translate::accepted(&old.versions);
        let new_lineage = self.take(occasion, &accepted, read.offered())?;
        if read.values.is_empty() && spec.mode == Mode::Sync {
            let deed = self
                .writer
                .release_examined(self.key, &plan.target, secret)
                .await?;
            let status = SyncedSecretStatus {
                secret: None,
                versions: Vec::new(),
                ..self.acknowledge(old)
            };
            return Ok(Done {
                deed,
                ..Done::at_rest(status, state)
            });
        }
        let rendered = render::render(plan, &spec.target.type_, &read.values, self.fingerprints).await?;
        if spec.mode == Mode::Observe {
            let before = secret.before(rendered.is_as_written(&old));
            let pending = observe::difference(before, rendered.data.len());
            return Ok(Done::at_rest(self.acknowledge(old), State::Observed { pending }));
        }
        let written = self.writer.write(self, plan, &old, secret, &rendered).await?;
        let taken = read.values.iter();
        let versions = taken.map(|(target, read)| translate::accepted_from(&target.origin, &read.version));
        let written_secret = WrittenSecret {
            name: plan.target.name.to_string(),
            uid: written.uid,
            resource_version: written.resource_version,
            generation: occasion.generation,
            keys: i32::try_from(rendered.data.len()).unwrap_or(i32::MAX),
            values: rendered.values.as_str().to_owned(),
            changed_at: rendered.unchanged_since(&old).unwrap_or(self.now),
            fingerprint: rendered.fingerprint.as_str().to_owned(),
        };
        let status = SyncedSecretStatus {
            versions: versions.collect(),
            secret: Some(written_secret),
            ..self.acknowledge(old)
        };
        Ok(Done {
            deed: written.deed,
            new_lineage,
            ..Done::at_rest(status, state)
        })
    }

    /// Places what is offered in its lineage, with the consent that the object gives.
    fn take<'a>(
        &self,
        occasion: &Occasion,
        accepted: &[Accepted],
        offered: impl Iterator<Item = Offered<'a>>,
    ) -> Outcome<Option<String>> {
        let acknowledgement = translate::acknowledgement(self.object);
        let consent = Consent {
            spec_changed: occasion.spec_changed(),
            acknowledged: acknowledgement.given,
        };
        lineage::take(accepted, offered, consent, acknowledgement.annotation)
    }

    fn occasion(&self, old: &SyncedSecretStatus, secret: &SecretState) -> Occasion {
        let asked = translate::refresh_id(self.object);
        Occasion {
            generation: self.object.metadata.generation.unwrap_or_default(),
            made_from: old.secret.as_ref().map(|secret| secret.generation),
            intact: secret.is_intact(),
            requested: asked.is_some() && asked != old.handled_refresh.as_deref(),
            once: self.object.spec.refresh.policy == RefreshPolicy::Once,
        }
    }

    fn last_look(&self) -> LastLook<Instant> {
        LastLook {
            at: self.memory.looked_at,
            through: self.memory.looked_through,
            failed_since: self.memory.failures > 0,
        }
    }

    fn settlement<'a>(&self, gone: impl Iterator<Item = Gone<'a>>) -> Outcome<Settlement> {
        let policy = translate::when_gone(self.object.spec.when_gone);
        policy.settle(&gone.collect::<Vec<_>>(), translate::acknowledgement(self.object))
    }

    /// The status with the present refresh request marked as handled.
    fn acknowledge(&self, mut status: SyncedSecretStatus) -> SyncedSecretStatus {
        if let Some(id) = translate::refresh_id(self.object) {
            status.handled_refresh = Some(id.to_owned());
        }
        status
    }
}

impl Failed {
    /// Failed as before.
    fn again(stuck: &Arc<Stuck>) -> Self {
        Self {
            fault: stuck.fault.clone(),
            stuck: Some(Arc::clone(stuck)),
        }
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self { fault, stuck: None }
    }
}

impl Done {
    /// Nothing was done.
    fn at_rest(status: SyncedSecretStatus, state: State) -> Self {
        Self {
            status,
            state,
            looked_through: None,
            next_look: None,
            deed: Deed::Nothing,
            new_lineage: None,
        }
    }
}
