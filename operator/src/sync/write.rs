//! What the Secret of one object looks like, and the one write that makes it right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretMap;
use keyward_core::sync::fingerprint::{Comparison, Content};
use keyward_core::sync::observe::Difference;
use keyward_core::sync::ownership::{self, Deed, Desired, LastWrite, OPAQUE, Ownership, Removal};
use keyward_crds::synced_secret::SyncedSecretStatus;

use super::pass::Pass;
use super::plan::Plan;
use super::render::Rendered;
use super::translate;
use crate::cluster::{
    Applied, ClusterReader, ExistingSecret, FIELD_MANAGER, Mark, ObjectKey, Precondition, SecretApply,
    SecretIndex, SecretWriter, Whole,
};
use crate::stores::Outcome;

/// Examines and writes Secrets.
pub(super) struct Writer {
    /// Which Secrets exist.
    pub secrets: Arc<SecretIndex>,
    /// Reads one.
    pub reader: ClusterReader,
    /// Writes one.
    pub applier: SecretWriter,
}

/// The Secret before a write.
pub(super) enum SecretState {
    /// There is none.
    Missing,
    /// It holds what we wrote.
    Intact {
        /// Its uid.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
    /// We wrote it and it holds something else now.
    Drifted(Box<ExistingSecret>),
    /// We have not written it.
    Foreign(Box<ExistingSecret>),
}

/// The Secret after a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// What was done.
    pub deed: Deed,
}

/// uid and resourceVersion of a Secret.
pub(super) type Identity = (String, String);

/// What is left of a Secret after what was ours in it has been given up.
pub(super) struct Remains {
    /// What was done.
    pub deed: Deed,
    /// The Secret, where others have keys in it.
    pub secret: Option<Identity>,
}

/// What a write would do.
pub(super) struct Prospect {
    /// Whether it may, and how.
    pub verdict: Ownership,
    /// How the Secret differs from what would be written.
    pub difference: Difference,
}

impl SecretState {
    /// Whether it holds what was written.
    pub(super) fn is_intact(&self) -> bool {
        matches!(self, Self::Intact { .. })
    }

    /// Its uid and resourceVersion, where there is one.
    pub(super) fn identity(&self) -> Option<Identity> {
        match self {
            Self::Missing => None,
            Self::Intact {
                uid,
                resource_version,
            } => Some((uid.clone(), resource_version.clone())),
            Self::Drifted(existing) | Self::Foreign(existing) => {
                Some((existing.uid.clone(), existing.resource_version.clone()))
            }
        }
    }
}

impl Writer {
    /// Looks at the Secret: from what the watch says where that is enough, by one read where it is not.
    pub(super) async fn examine(
        &self,
        pass: &Pass<'_>,
        plan: &Plan,
        old: &SyncedSecretStatus,
    ) -> Outcome<SecretState> {
        let Some(entry) = self.secrets.get(&plan.target) else {
            return Ok(SecretState::Missing);
        };
        let ours = old
            .secret
            .as_ref()
            .filter(|written| *written.name == *plan.target.name && *written.uid == *entry.uid);
        let known = |uid: &str, version: &str| *entry.uid == *uid && *entry.resource_version == *version;
        let intact = ours.is_some_and(|written| known(&written.uid, &written.resource_version))
            || pass
                .memory
                .intact
                .as_ref()
                .is_some_and(|(uid, version)| known(uid, version));
        if intact {
            return Ok(SecretState::Intact {
                uid: entry.uid.into(),
                resource_version: entry.resource_version.into(),
            });
        }
        let Some(existing) = self.reader.secret(&plan.target).await? else {
            return Ok(SecretState::Missing);
        };
        let Some(written) = ours.filter(|written| written.uid == existing.uid) else {
            return Ok(SecretState::Foreign(Box::new(existing)));
        };
        if is_intact(pass, plan, &existing, &written.fingerprint) {
            return Ok(SecretState::Intact {
                uid: existing.uid,
                resource_version: existing.resource_version,
            });
        }
        Ok(SecretState::Drifted(Box::new(existing)))
    }

    /// Writes what was rendered, if the Secret does not hold it already.
    pub(super) async fn write(
        &self,
        pass: &Pass<'_>,
        plan: &Plan,
        old: &SyncedSecretStatus,
        secret: SecretState,
        rendered: &Rendered,
    ) -> Outcome<Written> {
        let same = rendered.is_as_written(old);
        if let SecretState::Intact {
            uid,
            resource_version,
        } = &secret
            && same
        {
            return Ok(Written {
                uid: uid.clone(),
                resource_version: resource_version.clone(),
                deed: Deed::Nothing,
            });
        }
        let existing = self.existing(&plan.target, secret).await?;
        let write = self.secrets.writing(&plan.target);
        let (deed, applied) = self
            .apply(pass, plan, old, existing.as_deref(), rendered, same)
            .await?;
        write.answered(applied.entry(Some(&pass.key.name)));
        Ok(Written {
            uid: applied.uid,
            resource_version: applied.resource_version,
            deed,
        })
    }

    /// Says what a write would do, and does nothing.
    pub(super) async fn prospect(
        &self,
        pass: &Pass<'_>,
        plan: &Plan,
        old: &SyncedSecretStatus,
        secret: SecretState,
        rendered: &Rendered,
    ) -> Outcome<Prospect> {
        let existing = self.existing(&plan.target, secret).await?;
        let difference = existing
            .as_deref()
            .map(|existing| difference(existing, rendered))
            .unwrap_or_default();
        Ok(Prospect {
            verdict: verdict(pass, old, existing.as_deref(), rendered),
            difference,
        })
    }

    /// What giving up everything of ours would do, without doing it.
    pub(super) async fn prospect_of_removal(
        &self,
        object: &ObjectKey,
        target: &ObjectKey,
        secret: SecretState,
    ) -> Outcome<Removal> {
        let existing = self.existing(target, secret).await?;
        let removal = |existing: Box<ExistingSecret>| {
            ownership::removal(&existing.ownership(), &object.name, FIELD_MANAGER)
        };
        Ok(existing.map_or(Removal::Nothing, removal))
    }

    /// The Secret as it was examined, before its values were asked for: a later one may hold later values, written
    /// by a process that took over.
    async fn existing(
        &self,
        target: &ObjectKey,
        secret: SecretState,
    ) -> Outcome<Option<Box<ExistingSecret>>> {
        let (uid, resource_version) = match secret {
            SecretState::Missing => return Ok(None),
            SecretState::Drifted(existing) | SecretState::Foreign(existing) => return Ok(Some(existing)),
            SecretState::Intact {
                uid,
                resource_version,
            } => (uid, resource_version),
        };
        let existing = self.reader.secret(target).await?;
        let same = |now: &ExistingSecret| now.uid == uid && now.resource_version == resource_version;
        let Some(existing) = existing.filter(same) else {
            let message = format!("Secret {target} changed while its values were read");
            return Err(Fault::new(Class::Conflict, Reason::Conflict, message));
        };
        Ok(Some(Box::new(existing)))
    }

    async fn apply(
        &self,
        pass: &Pass<'_>,
        plan: &Plan,
        old: &SyncedSecretStatus,
        existing: Option<&ExistingSecret>,
        rendered: &Rendered,
        same: bool,
    ) -> Outcome<(Deed, Applied)> {
        let (precondition, whole, force, deed) = match (verdict(pass, old, existing, rendered), existing) {
            (Ownership::Refused(fault), _) => return Err(fault.about(&format!("Secret {}", plan.target))),
            (Ownership::Update(update), Some(existing)) => {
                let deed = if same { Deed::Repaired } else { Deed::Updated };
                // Our labels in our own Secret are ours to put right as well.
                let force = update.whole || !update.take.is_empty();
                (existing.unchanged(), update.whole, force, deed)
            }
            (Ownership::Create | Ownership::Update(_), _) => {
                let deed = if same { Deed::Repaired } else { Deed::Created };
                (Precondition::Absent, true, false, deed)
            }
        };
        let apply = SecretApply {
            key: &plan.target,
            precondition: &precondition,
            data: &rendered.data,
            secret_type: whole.then_some(rendered.secret_type.as_str()),
            labels: &rendered.labels,
            annotations: &rendered.annotations,
            mark: if whole {
                Mark::Owner(&pass.key.name)
            } else {
                Mark::Guest(&pass.key.name)
            },
            force,
        };
        Ok((deed, self.applier.apply(&apply).await?))
    }

    /// Gives up what `object` has in a Secret: the Secret itself where it holds nothing else.
    pub(super) async fn release(&self, object: &ObjectKey, target: &ObjectKey) -> Outcome<Deed> {
        if self.secrets.get(target).is_none() {
            return Ok(Deed::Nothing);
        }
        match self.reader.secret(target).await? {
            Some(existing) => Ok(self.give_up(object, target, &existing).await?.deed),
            None => Ok(Deed::Nothing),
        }
    }

    /// The same for a Secret as it was examined.
    pub(super) async fn release_examined(
        &self,
        object: &ObjectKey,
        target: &ObjectKey,
        secret: SecretState,
    ) -> Outcome<Remains> {
        match self.existing(target, secret).await? {
            Some(existing) => self.give_up(object, target, &existing).await,
            None => Ok(Remains {
                deed: Deed::Nothing,
                secret: None,
            }),
        }
    }

    /// The same for a Secret that has just been read.
    pub(super) async fn give_up(
        &self,
        object: &ObjectKey,
        target: &ObjectKey,
        existing: &ExistingSecret,
    ) -> Outcome<Remains> {
        match ownership::removal(&existing.ownership(), &object.name, FIELD_MANAGER) {
            Removal::Nothing => Ok(Remains {
                deed: Deed::Nothing,
                secret: Some((existing.uid.clone(), existing.resource_version.clone())),
            }),
            Removal::Secret => {
                self.applier
                    .delete(target, &existing.uid, &existing.resource_version)
                    .await?;
                self.secrets.deleted(target, &existing.uid);
                Ok(Remains {
                    deed: Deed::Deleted,
                    secret: None,
                })
            }
            Removal::Keys => {
                let write = self.secrets.writing(target);
                let applied = self.applier.release(target, existing).await?;
                write.answered(applied.entry(None));
                Ok(Remains {
                    deed: Deed::Released,
                    secret: Some((applied.uid, applied.resource_version)),
                })
            }
        }
    }
}

/// Decides what may be written.
fn verdict(
    pass: &Pass<'_>,
    old: &SyncedSecretStatus,
    existing: Option<&ExistingSecret>,
    rendered: &Rendered,
) -> Ownership {
    let written = old.secret.as_ref();
    let before = written.map(|written| written.key_names.iter().cloned().collect());
    let written_keys: BTreeSet<String> = before.unwrap_or_default();
    let owned = existing.map(ExistingSecret::ownership);
    let desired = Desired {
        object: &pass.key.name,
        field_manager: FIELD_MANAGER,
        secret_type: &rendered.secret_type,
        keys: &rendered.data.keys().cloned().collect(),
        adoption: &translate::adoption(&pass.object.spec.target),
        written: written.map(|written| LastWrite {
            uid: &written.uid,
            keys: &written_keys,
        }),
    };
    ownership::decide(owned.as_ref(), &desired)
}

fn difference(existing: &ExistingSecret, rendered: &Rendered) -> Difference {
    let mut difference = Difference::default();
    for (key, value) in &rendered.data {
        match existing.data.get(key) {
            None => difference.added.insert(key.clone()),
            Some(now) if now.expose() != value.expose() => difference.changed.insert(key.clone()),
            Some(_) => false,
        };
    }
    let lacks = |wanted: &BTreeMap<String, String>, has: &BTreeMap<String, String>| {
        wanted.iter().any(|(name, text)| has.get(name) != Some(text))
    };
    difference.metadata =
        lacks(&rendered.labels, &existing.labels) || lacks(&rendered.annotations, &existing.annotations);
    difference
}

/// Whether the keys, labels and annotations that are ours are still what was written.
fn is_intact(pass: &Pass<'_>, plan: &Plan, existing: &ExistingSecret, fingerprint: &str) -> bool {
    if existing.owner.as_deref() != Some(&*pass.key.name) || existing.whole == Whole::LabelLost {
        return false;
    }
    let is_ours = |key: &str| {
        let owners = existing.key_owners.get(key);
        owners.is_some_and(|owners| {
            owners
                .iter()
                .any(|owner| owner.applies && owner.name == FIELD_MANAGER)
        })
    };
    let data: SecretMap = existing
        .data
        .iter()
        .filter(|(key, _)| is_ours(key))
        .map(|(key, value)| (key.clone(), value.duplicate()))
        .collect();
    let ours = |all: &BTreeMap<String, String>, names: &[(String, _)]| {
        let named = names
            .iter()
            .filter_map(|(name, _)| Some((name.clone(), all.get(name)?.clone())));
        named.collect()
    };
    let labels = ours(&existing.labels, &plan.labels);
    let annotations = ours(&existing.annotations, &plan.annotations);
    let same_as = |secret_type| {
        let content = Content {
            secret_type,
            labels: &labels,
            annotations: &annotations,
            data: &data,
        };
        pass.fingerprints.of_secret(&content).compare(fingerprint) == Comparison::Same
    };
    // A type that a template made is not kept, since values may be in it. It is the Secret's own, which cannot change;
    // only a guest may have asked for none in particular.
    match &plan.secret_type {
        None => same_as(&pass.object.spec.target.type_),
        Some(_) => same_as(&existing.secret_type) || same_as(OPAQUE),
    }
}
