//! One pass over one object: gather, ask the core, do at most one write to the Secret and one to the status.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::schedule::RefreshGrid;
use keyward_core::sync::absence::{self, AbsenceKind};
use keyward_core::sync::fingerprint::{Comparison, FingerprintKey};
use keyward_core::sync::version::{self, Consent, VersionStep};
use keyward_crds::synced_secret::{
    AcceptedVersion, GonePolicy, Mode, RefreshPolicy, SyncedSecretStatus, WrittenSecret,
};
use keyward_crds::{ACKNOWLEDGE_ANNOTATION, REFRESH_ANNOTATION, SyncedSecret};
use tokio::time::Instant;

use super::gather::{self, Target};
use super::index::Memory;
use super::plan::{self, Plan};
use super::reader::{Look, Reader, SharedReading, WAVE_AGE};
use super::render::{self, Rendered};
use super::write::{Deed, SecretState, Writer};
use crate::cluster::ObjectKey;
use crate::store::StoreRegistry;
use crate::stores::{Outcome, Probe, ReadOutcome, Reading};

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
}

/// How a pass that did not fail ended.
pub(super) struct Done {
    /// What the status should say.
    pub status: SyncedSecretStatus,
    /// What is true now.
    pub state: State,
    /// Whether the stores were asked in this pass.
    pub looked: bool,
    /// The newest of the doors that were used for it.
    pub newest_door: u64,
    /// When to look again; `None` where nothing is due.
    pub next_look: Option<Duration>,
    /// What was done to the Secret.
    pub deed: Deed,
    /// Whether a new lineage was taken.
    pub new_lineage: Option<String>,
}

/// What is true of an object after a pass that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// The Secret holds what the stores hold.
    Synced,
    /// Nothing is written on purpose; this is what would be.
    Observed { pending: Option<String> },
    /// Left alone on purpose.
    Suspended,
    /// Keys or the Secret went because the store reported the value gone and the object asks for that.
    Removed(String),
}

impl Pass<'_> {
    /// Runs the pass.
    pub(super) async fn run(&self) -> Outcome<Done> {
        let spec = &self.object.spec;
        let old = self.object.status.clone().unwrap_or_default();
        if spec.suspend {
            return Ok(done(old, State::Suspended, false, None));
        }
        let plan = plan::parse(self.key, self.object)?;
        let secret = self.writer.examine(self, &plan, &old).await?;
        let accepted = !self.spec_changed(&old);
        let settled = accepted && matches!(secret, SecretState::Intact { .. });
        if settled && spec.refresh.policy == RefreshPolicy::Once && self.refresh_request(&old).is_none() {
            return Ok(done(old, State::Synced, false, None));
        }
        let turn = Turn::of(self);
        // Asked first: a grant that was withdrawn ends the use of what was read under it.
        let doors = gather::doors(self.registry, &self.key.namespace, &plan).await?;
        let newest_door = doors.iter().map(|door| door.id).max().unwrap_or_default();
        if settled
            && self.memory.failures == 0
            && self.memory.looked_through >= newest_door
            && self.memory.looked_at.is_some_and(|at| at >= turn.began)
            && self.refresh_request(&old).is_none()
        {
            // Something else woke us: the stores, as they are now, have been asked in this turn already.
            return Ok(done(old, State::Synced, false, Some(turn.left)));
        }
        let targets = gather::resolve(&plan, &doors).await?;
        if let Some(fault) = gather::nothing_found(&plan, &targets) {
            return Err(fault);
        }
        let since = if self.refresh_request(&old).is_some() {
            for target in &targets {
                target.store.forget_listings();
            }
            Instant::now()
        } else {
            turn.began
        };
        let looks = if settled {
            let looks = gather::look_at_all(self.reader, &targets, since).await?;
            if nothing_new(&old, &targets, &looks) {
                let done = done(self.acknowledge(old), State::Synced, true, Some(turn.left));
                return Ok(Done { newest_door, ..done });
            }
            Some(looks)
        } else {
            None
        };
        let read = self.read(&targets, looks.as_deref(), since).await?;
        let done = self.settle(&plan, old, secret, &targets, &read).await?;
        Ok(Done {
            next_look: (spec.refresh.policy == RefreshPolicy::Periodic).then_some(turn.left),
            newest_door,
            ..done
        })
    }

    /// Reads the values: as fresh as the looks that asked for them, or as fresh as the present wave. Whoever asks for
    /// a refresh, or edits an object that is synced already, means the value as it is now.
    async fn read(
        &self,
        targets: &[Target],
        looks: Option<&[Look]>,
        since: Instant,
    ) -> Outcome<Vec<SharedReading>> {
        let wave = Instant::now().checked_sub(WAVE_AGE).unwrap_or(since);
        let old = self.object.status.clone().unwrap_or_default();
        let edited = old.secret.is_some() && self.spec_changed(&old);
        let since = match looks {
            Some(looks) => looks.iter().map(|look| look.at).collect(),
            None if self.refresh_request(&old).is_some() => vec![since; targets.len()],
            None if edited => vec![Instant::now(); targets.len()],
            None => vec![wave; targets.len()],
        };
        gather::read_all(self.reader, targets, &since).await
    }

    async fn settle(
        &self,
        plan: &Plan,
        old: SyncedSecretStatus,
        secret: SecretState,
        targets: &[Target],
        read: &[SharedReading],
    ) -> Outcome<Done> {
        let spec = &self.object.spec;
        let mut values: Vec<(&Target, &Reading)> = Vec::with_capacity(read.len());
        let mut gone: Vec<(&Target, AbsenceKind)> = Vec::new();
        for (target, shared) in targets.iter().zip(read) {
            match shared.outcome.as_ref() {
                ReadOutcome::Value(reading) => values.push((target, reading)),
                ReadOutcome::Absent(absence) => gone.push((target, gather::kind(absence))),
            }
        }
        let mut state = State::Synced;
        if let Some((target, kind)) = gone.first() {
            let fault = gather::absent(&target.label, *kind);
            match when_gone(spec.when_gone).decide_all(gone.iter().map(|(_, kind)| *kind)) {
                absence::GonePolicy::Keep => return Err(fault),
                absence::GonePolicy::RemoveKeys => state = State::Removed(fault.message.into_owned()),
                absence::GonePolicy::DeleteSecret => {
                    values.clear();
                    state = State::Removed(fault.message.into_owned());
                }
            }
        }
        let new_lineage = self.check_versions(&old, &values)?;
        if values.is_empty() && spec.mode == Mode::Sync {
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
                ..done(status, state, true, None)
            });
        }
        let rendered = render::render(plan, &spec.target.type_, &values, self.fingerprints)?;
        let versions = accepted_versions(&values);
        if spec.mode == Mode::Observe {
            let pending = difference(&old, &secret, &rendered);
            return Ok(done(
                self.acknowledge(old),
                State::Observed { pending },
                true,
                None,
            ));
        }
        let written = self.writer.write(self, plan, &old, secret, &rendered).await?;
        let mut status = SyncedSecretStatus {
            versions,
            ..self.acknowledge(old)
        };
        status.secret = Some(WrittenSecret {
            name: plan.target.name.to_string(),
            uid: written.uid.clone(),
            resource_version: written.resource_version.clone(),
            generation: self.object.metadata.generation.unwrap_or_default(),
            keys: i32::try_from(rendered.data.len()).unwrap_or(i32::MAX),
            values: rendered.values.as_str().to_owned(),
            fingerprint: rendered.fingerprint.as_str().to_owned(),
            changed_at: match status.secret {
                Some(before) if before.fingerprint == rendered.fingerprint.as_str() => before.changed_at,
                _ => self.now,
            },
        });
        Ok(Done {
            deed: written.deed,
            new_lineage,
            ..done(status, state, true, None)
        })
    }

    /// Whether the Secret was made from another spec than the present one, or not at all yet.
    fn spec_changed(&self, old: &SyncedSecretStatus) -> bool {
        let made_from = old.secret.as_ref().map(|secret| secret.generation);
        made_from != Some(self.object.metadata.generation.unwrap_or_default())
    }

    /// Places every value in its lineage. Returns what is told about a new one.
    fn check_versions(
        &self,
        old: &SyncedSecretStatus,
        values: &[(&Target, &Reading)],
    ) -> Outcome<Option<String>> {
        let consent = Consent {
            spec_changed: self.spec_changed(old),
            acknowledged: self.annotation(ACKNOWLEDGE_ANNOTATION),
        };
        let mut new_lineage = None;
        for (target, reading) in values {
            let before = old.versions.iter().find(|accepted| {
                let place = gather::place_name(&target.at.place);
                usize::try_from(accepted.source) == Ok(target.source)
                    && accepted.place.as_deref().is_none_or(|accepted| accepted == place)
            });
            let before = before.map(seen_before);
            match version::step(before.as_ref(), &gather::seen(&reading.version), consent) {
                VersionStep::Regressed(regression) => {
                    let message = format!("{}: {regression}", target.label);
                    return Err(Fault::new(Class::Denied, Reason::VersionRegressed, message).advise(format!(
                        "if going back is meant, annotate the object with `{ACKNOWLEDGE_ANNOTATION}: {}`; the last value is kept",
                        regression.acknowledgement()
                    )));
                }
                VersionStep::NewLineage => {
                    new_lineage = Some(format!(
                        "{} was deleted and made anew in the store; its new value is taken",
                        target.label
                    ));
                }
                _ => {}
            }
        }
        Ok(new_lineage)
    }

    /// The status with the present refresh request marked as handled.
    fn acknowledge(&self, mut status: SyncedSecretStatus) -> SyncedSecretStatus {
        if let Some(id) = self.annotation(REFRESH_ANNOTATION) {
            status.handled_refresh = Some(id.to_owned());
        }
        status
    }

    /// The id of a refresh request that has not been handled yet.
    fn refresh_request(&self, old: &SyncedSecretStatus) -> Option<&str> {
        self.annotation(REFRESH_ANNOTATION)
            .filter(|id| old.handled_refresh.as_deref() != Some(*id))
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.object
            .metadata
            .annotations
            .as_ref()?
            .get(name)
            .map(String::as_str)
    }
}

/// The present turn of an object on its refresh grid.
struct Turn {
    began: Instant,
    left: Duration,
}

impl Turn {
    /// Objects whose first place is the same share their turns, so that one look serves them all.
    fn of(pass: &Pass<'_>) -> Self {
        let interval = pass.object.spec.refresh.interval.get();
        let name = pass.object.spec.sources.first().map(|source| {
            let store = &source.store_ref;
            let place = [&source.path, &source.name, &source.uuid, &source.container]
                .into_iter()
                .flatten()
                .next();
            format!(
                "{:?}/{}/{}",
                store.kind,
                store.name,
                place.map_or("", String::as_str)
            )
        });
        let grid = RefreshGrid::new(name.unwrap_or_default().as_bytes(), interval);
        let left = grid.wait(pass.now);
        let began = Instant::now()
            .checked_sub(interval.saturating_sub(left))
            .unwrap_or_else(Instant::now);
        Self { began, left }
    }
}

fn accepted_versions(values: &[(&Target, &Reading)]) -> Vec<AcceptedVersion> {
    let accepted = values.iter().map(|(target, reading)| AcceptedVersion {
        source: i32::try_from(target.source).unwrap_or(i32::MAX),
        place: target
            .found_as
            .as_ref()
            .map(|_| gather::place_name(&target.at.place).to_owned()),
        number: reading
            .version
            .number
            .and_then(|number| i64::try_from(number).ok()),
        id: reading.version.id.clone(),
        created: reading.version.created,
        expires: reading.version.expires,
    });
    accepted.collect()
}

fn seen_before(accepted: &AcceptedVersion) -> version::SeenVersion {
    version::SeenVersion {
        number: accepted.number.and_then(|number| u64::try_from(number).ok()),
        id: accepted.id.clone(),
        created: accepted.created,
    }
}

fn when_gone(api: keyward_crds::synced_secret::WhenGone) -> absence::WhenGone {
    let policy = |policy| match policy {
        GonePolicy::Keep => absence::GonePolicy::Keep,
        GonePolicy::RemoveKeys => absence::GonePolicy::RemoveKeys,
        GonePolicy::DeleteSecret => absence::GonePolicy::DeleteSecret,
    };
    absence::WhenGone {
        deleted: policy(api.deleted),
        destroyed: policy(api.destroyed),
    }
}

/// Whether what the stores show is what was accepted, place for place.
fn nothing_new(old: &SyncedSecretStatus, targets: &[Target], looks: &[Look]) -> bool {
    old.versions.len() == targets.len()
        && targets
            .iter()
            .zip(looks)
            .zip(&old.versions)
            .all(|((target, look), accepted)| {
                let same_place = usize::try_from(accepted.source) == Ok(target.source)
                    && accepted
                        .place
                        .as_deref()
                        .is_none_or(|place| place == gather::place_name(&target.at.place));
                let Probe::Current(current) = &look.probe else {
                    return false;
                };
                let step = version::step(
                    Some(&seen_before(accepted)),
                    &gather::seen(current),
                    Consent::default(),
                );
                same_place && matches!(step, VersionStep::Same)
            })
}

/// What a pass that may write would change.
fn difference(old: &SyncedSecretStatus, secret: &SecretState, rendered: &Rendered) -> Option<String> {
    let keys = rendered.data.len();
    match secret {
        SecretState::Missing => Some(format!("the Secret would be created with {keys} keys")),
        SecretState::Foreign(_) | SecretState::Drifted(_) => Some(format!(
            "the Secret exists; {keys} keys would be written as far as adoption allows"
        )),
        SecretState::Intact { .. } => {
            let kept = old
                .secret
                .as_ref()
                .map_or("", |secret| secret.fingerprint.as_str());
            match rendered.fingerprint.compare(kept) {
                Comparison::Same => None,
                _ => Some(format!(
                    "the Secret's {keys} keys would be written with other values"
                )),
            }
        }
    }
}

fn done(status: SyncedSecretStatus, state: State, looked: bool, next_look: Option<Duration>) -> Done {
    Done {
        status,
        state,
        looked,
        newest_door: 0,
        next_look,
        deed: Deed::Nothing,
        new_lineage: None,
    }
}
