//! One pass over one object: gather, ask the core, do at most one write to the Secret, and say what came of it.
//!
//! What holds is decided in `keyward_core::sync`; here is the order of the steps, and nothing is kept between passes.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use keyward_core::fault::Fault;
use keyward_core::sync::absence::{Gone, Settlement};
use keyward_core::sync::fingerprint::FingerprintKey;
use keyward_core::sync::freshness::{self, Held, LastLook, Occasion};
use keyward_core::sync::lineage::{self, Accepted, Offered};
use keyward_core::sync::observe;
use keyward_core::sync::ownership::Deed;
use keyward_core::sync::told::State;
use keyward_crds::SyncedSecret;
use keyward_crds::synced_secret::{Mode, RefreshPolicy, SyncedSecretStatus, WrittenSecret};
use tokio::time::Instant;

use super::gather::{self, Lost, Readings};
use super::index::{Conclusion, Memory};
use super::plan::{self, Plan};
use super::reader::{Reader, WAVE_AGE};
use super::render::{self, Rendered};
use super::rollout::{self, WorkloadIndex};
use super::translate;
use super::turn::{TurnClock, Turns};
use super::write::{Identity, SecretState, Writer};
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
    /// The workloads, to tell which of them a change would restart.
    pub workloads: &'a WorkloadIndex,
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
    /// Tells in which turns that moment lies.
    pub turns: &'a TurnClock,
}

/// How a pass failed.
pub(super) struct Failed {
    /// Why.
    pub fault: Fault,
    /// The same, to be remembered where it would come about again with the same values.
    pub conclusion: Option<Arc<Conclusion>>,
}

/// How a pass that did not fail ended.
pub(super) struct Done {
    /// What the status should say.
    pub status: SyncedSecretStatus,
    /// What is true now.
    pub state: State,
    /// The same, to be remembered where it would come about again with the same values.
    pub conclusion: Option<Arc<Conclusion>>,
    /// The Secret, where it holds what was written.
    pub intact: Option<Identity>,
    /// The newest of the doors through which every place was asked about in this pass; `None` where none was asked.
    pub looked_through: Option<u64>,
    /// When to look again; `None` where nothing is due.
    pub next_look: Option<Duration>,
    /// What was done to the Secret.
    pub deed: Deed,
    /// What is told of a lineage that began anew.
    pub new_lineage: Option<String>,
}

/// What the stores gave in a pass, and what the pass knows beside it.
struct Given<'a> {
    plan: &'a Plan,
    occasion: &'a Occasion,
    old: SyncedSecretStatus,
    accepted: Vec<Accepted>,
    read: Readings<'a>,
    /// What is to be remembered of the places.
    versions: &'a [Accepted],
    secret: SecretState,
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
        let known = self.conclusion(secret.identity().as_ref());
        let occasion = self.occasion(&old, &secret, known);
        let intact = if secret.is_intact() {
            secret.identity()
        } else {
            None
        };
        let at_rest = |old, state| Done {
            intact: intact.clone(),
            ..Done::at_rest(old, state)
        };
        if occasion.needs_no_store() {
            return Ok(at_rest(old, State::Synced));
        }
        let turns = self
            .turns
            .turns_of(&plan, self.object.spec.refresh.interval.get(), self.at);
        // Asked first: a grant that was withdrawn ends the use of what was read under it.
        let doors = gather::doors(self.registry, &self.key.namespace, &plan).await?;
        let newest_door = newest(&doors);
        let done = if occasion.served_by(&self.last_look(), &turns.latest(self.at), newest_door) {
            let state = known.and_then(|known| known.result.as_ref().ok().cloned());
            let state = state.unwrap_or_else(|| standing(&plan, &translate::accepted(&old.versions)));
            Done {
                conclusion: known.cloned(),
                ..at_rest(old, state)
            }
        } else {
            let done = self
                .ask(&plan, &doors, &occasion, &turns, old, secret, known)
                .await?;
            Done {
                intact: done
                    .intact
                    .or_else(|| intact.filter(|_| done.deed == Deed::Nothing)),
                looked_through: Some(newest_door),
                ..done
            }
        };
        // One success is enough where the object says so, and a Secret that lacks keys is none.
        let goes_on = !occasion.once || matches!(done.state, State::Removed { .. });
        Ok(Done {
            next_look: goes_on.then_some(turns.left),
            ..done
        })
    }

    /// Asks the stores what is there, and for the values where that is not what was accepted.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is known by the caller and by nobody before it"
    )]
    async fn ask(
        &self,
        plan: &Plan,
        doors: &[Arc<LiveStore>],
        occasion: &Occasion,
        turns: &Turns,
        old: SyncedSecretStatus,
        secret: SecretState,
        known: Option<&Arc<Conclusion>>,
    ) -> Result<Done, Failed> {
        if occasion.requested {
            for door in doors {
                door.forget_listings();
            }
        }
        let last_look = self.last_look();
        let newest_door = newest(doors);
        let now = Instant::now();
        let wave_began = now.checked_sub(WAVE_AGE).unwrap_or(now);
        let since = |began: &Instant| occasion.looks_from(*began, wave_began, self.memory.failures > 0, now);
        let since: Vec<Instant> = turns.began.iter().map(since).collect();
        let mut targets = gather::resolve(self.reader, plan, doors, &since).await?;
        let accepted = translate::accepted(&old.versions);
        let lost = gather::lost(self.reader, plan, doors, &accepted, &mut targets, &since).await?;
        // What is kept anyway is not worth a read of all the rest.
        self.settlement(lost.iter().map(Lost::gone))?;
        let mut looked: Vec<Option<Instant>> = vec![None; targets.len()];
        if occasion.settled() || known.is_some() {
            let looks = gather::look_at_all(self.reader, &targets, &since).await?;
            let compared = |source: usize| occasion.served_by(&last_look, &turns.began[source], newest_door);
            let shown = || gather::shown(&targets, &looks, compared);
            if occasion.settled() && lineage::nothing_new(&accepted, shown()) {
                let state = standing(plan, &accepted);
                return Ok(Done::at_rest(self.acknowledge(old), state));
            }
            if let Some(known) = known.filter(|known| lineage::nothing_new(&known.versions, shown())) {
                return self.again(old, known);
            }
            // What looks alone refuse is not worth a value. Before anything is removed, the places are read.
            let gone = lost.iter().map(Lost::gone);
            self.settlement(gone.chain(gather::empty(&targets, &looks)))?;
            self.take(&accepted, gather::offered(&targets, &looks))?;
            looked = looks.iter().map(|look| Some(look.at)).collect();
        }
        let from = |looked| occasion.values_from(looked, wave_began, now);
        let from: Vec<Instant> = looked.into_iter().map(from).collect();
        let shared = gather::read_all(self.reader, &targets, &from).await?;
        let mut read = Readings::of(&targets, &shared);
        read.gone.extend(lost.iter().map(Lost::gone));
        let versions = lineage::remembered(&accepted, gather::given(&targets, &shared));
        let on = secret.identity();
        let given = Given {
            plan,
            occasion,
            old,
            accepted,
            read,
            versions: &versions,
            secret,
        };
        self.settle(given).await.map_err(|fault| {
            let again = freshness::fails_again(fault.reason);
            Failed {
                conclusion: again.then(|| self.conclude(Err(fault.clone()), versions, on)),
                fault,
            }
        })
    }

    /// Decides what the values come to, and does it.
    async fn settle(&self, mut given: Given<'_>) -> Outcome<Done> {
        let state = match self.settlement(given.read.gone.iter().copied())? {
            Settlement::Complete => State::Synced,
            Settlement::RemoveKeys(cause) => State::Removed { cause },
            Settlement::DeleteSecret(cause) => {
                given.read.values.clear();
                State::Removed { cause }
            }
        };
        let new_lineage = self.take(&given.accepted, given.read.offered())?;
        if given.read.values.is_empty() {
            return self.remove(given, state).await;
        }
        let Given { plan, read, .. } = &given;
        let wanted_type = &self.object.spec.target.type_;
        let rendered = render::render(plan, wanted_type, &read.values, self.fingerprints).await?;
        if self.object.spec.mode == Mode::Observe {
            return self.observe(given, &rendered).await;
        }
        let Given {
            plan,
            occasion,
            old,
            versions,
            secret,
            ..
        } = given;
        let written = self.writer.write(self, plan, &old, secret, &rendered).await?;
        let written_secret = WrittenSecret {
            name: plan.target.name.to_string(),
            uid: written.uid.clone(),
            resource_version: written.resource_version.clone(),
            generation: occasion.generation,
            keys: i32::try_from(rendered.data.len()).unwrap_or(i32::MAX),
            key_names: rendered.data.keys().cloned().collect(),
            values: rendered.values.as_str().to_owned(),
            changed_at: rendered.unchanged_since(&old).unwrap_or(self.now),
            fingerprint: rendered.fingerprint.as_str().to_owned(),
        };
        let status = SyncedSecretStatus {
            versions: translate::versions(versions),
            secret: Some(written_secret),
            ..self.acknowledge(old)
        };
        Ok(Done {
            deed: written.deed,
            intact: Some((written.uid, written.resource_version)),
            new_lineage,
            ..Done::at_rest(status, state)
        })
    }

    /// Gives up everything that is ours, because no value is left that the Secret should hold.
    async fn remove(&self, given: Given<'_>, state: State) -> Outcome<Done> {
        let (target, versions) = (&given.plan.target, given.versions);
        if self.object.spec.mode == Mode::Observe {
            let on = given.secret.identity();
            let removal = self
                .writer
                .prospect_of_removal(self.key, target, given.secret)
                .await?;
            let cause = match &state {
                State::Removed { cause } => cause,
                _ => "no value is left",
            };
            let pending = observe::of_removal(removal, cause);
            return Ok(self.observed(given.old, pending, versions, on));
        }
        let remains = self
            .writer
            .release_examined(self.key, target, given.secret)
            .await?;
        let conclusion = self.conclude(Ok(state.clone()), versions.to_vec(), remains.secret);
        let status = SyncedSecretStatus {
            secret: None,
            versions: translate::versions(versions),
            ..self.acknowledge(given.old)
        };
        Ok(Done {
            deed: remains.deed,
            conclusion: Some(conclusion),
            ..Done::at_rest(status, state)
        })
    }

    /// Says what a write would change.
    async fn observe(&self, given: Given<'_>, rendered: &Rendered) -> Outcome<Done> {
        let on = given.secret.identity();
        let prospect = self
            .writer
            .prospect(self, given.plan, &given.old, given.secret, rendered)
            .await?;
        let restarts = rollout::to_restart(self.workloads, self.key, self.object, rendered.values.as_str());
        let keys = rendered.data.keys().cloned().collect();
        let pending = observe::of_write(&prospect.verdict, &keys, &prospect.difference, restarts);
        Ok(self.observed(given.old, pending, given.versions, on))
    }

    fn observed(
        &self,
        old: SyncedSecretStatus,
        pending: Option<String>,
        versions: &[Accepted],
        on: Option<Identity>,
    ) -> Done {
        let state = State::Observed { pending };
        let conclusion = self.conclude(Ok(state.clone()), versions.to_vec(), on);
        Done {
            conclusion: Some(conclusion),
            ..Done::at_rest(self.acknowledge(old), state)
        }
    }

    /// What the last pass came to, where it was over this object and this Secret.
    fn conclusion(&self, secret: Option<&Identity>) -> Option<&Arc<Conclusion>> {
        let metadata = &self.object.metadata;
        self.memory.conclusion.as_ref().filter(|known| {
            known.secret.as_ref() == secret
                && known.generation == metadata.generation
                && known.annotations == metadata.annotations
        })
    }

    fn conclude(
        &self,
        result: Result<State, Fault>,
        versions: Vec<Accepted>,
        secret: Option<Identity>,
    ) -> Arc<Conclusion> {
        Arc::new(Conclusion {
            result,
            generation: self.object.metadata.generation,
            annotations: self.object.metadata.annotations.clone(),
            versions,
            secret,
        })
    }

    /// Comes to the same as before.
    fn again(&self, old: SyncedSecretStatus, known: &Arc<Conclusion>) -> Result<Done, Failed> {
        let conclusion = Some(Arc::clone(known));
        match &known.result {
            Ok(state) => Ok(Done {
                conclusion,
                ..Done::at_rest(self.acknowledge(old), state.clone())
            }),
            Err(fault) => Err(Failed {
                fault: fault.clone(),
                conclusion,
            }),
        }
    }

    /// Places what is offered in its lineage, with the consent that the object gives.
    fn take<'a>(
        &self,
        accepted: &[Accepted],
        offered: impl Iterator<Item = Offered<'a>>,
    ) -> Outcome<Option<String>> {
        lineage::take(accepted, offered, translate::acknowledgement(self.object))
    }

    fn occasion(
        &self,
        old: &SyncedSecretStatus,
        secret: &SecretState,
        known: Option<&Arc<Conclusion>>,
    ) -> Occasion {
        let asked = translate::refresh_id(self.object);
        Occasion {
            generation: self.object.metadata.generation.unwrap_or_default(),
            made_from: old.secret.as_ref().map(|secret| secret.generation),
            held: match secret.is_intact() {
                true if old.versions.iter().any(|version| version.gone.is_some()) => Held::Lacking,
                true => Held::Complete,
                false => Held::Other,
            },
            concluded: known.is_some_and(|known| known.result.is_ok()),
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

/// The newest of these doors: one that is built later has a higher number.
fn newest(doors: &[Arc<LiveStore>]) -> u64 {
    doors.iter().map(|door| door.id).max().unwrap_or_default()
}

/// What is true of a Secret that holds what was written: it may lack keys that its store reported gone.
fn standing(plan: &Plan, accepted: &[Accepted]) -> State {
    match gather::removed(plan, accepted) {
        Some(cause) => State::Removed { cause },
        None => State::Synced,
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            conclusion: None,
        }
    }
}

impl Done {
    /// Nothing was done.
    fn at_rest(status: SyncedSecretStatus, state: State) -> Self {
        Self {
            status,
            state,
            conclusion: None,
            intact: None,
            looked_through: None,
            next_look: None,
            deed: Deed::Nothing,
            new_lineage: None,
        }
    }
}
