//! Whose a Secret and its keys are, and what may therefore be written.
//!
//! A Secret that Keyward made is its own as a whole. In any other it is a guest, by consent only, and keeps to the
//! keys it was let in for. A key that another manager *applies* is a conflict that is shown; a key of ours that
//! somebody edited by hand is drift, and is taken back.

use std::collections::{BTreeMap, BTreeSet};

use crate::fault::{Class, Fault};
use crate::reason::Reason;

#[cfg(test)]
mod tests;

/// Secret types that are never written: the first makes the API server mint a token, the second lets machines join
/// the cluster, the third is a package manager's own record.
pub const REFUSED_TYPES: &[&str] = &[
    "kubernetes.io/service-account-token",
    "bootstrap.kubernetes.io/token",
    "helm.sh/release.v1",
];

/// The type of a Secret that says nothing about its keys.
pub const OPAQUE: &str = "Opaque";

/// Consent to write into a Secret that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Adoption {
    /// None.
    #[default]
    Never,
    /// Keys that do not exist yet may be added.
    AddKeys,
    /// Also these keys may be taken over from whoever has them.
    TakeKeys(BTreeSet<String>),
}

/// Who has a key, as the API server records it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// The field manager's name.
    pub name: String,
    /// Whether it declares the key by server-side apply, as opposed to having written it once.
    pub applies: bool,
}

/// A Secret as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Its uid.
    pub uid: String,
    /// Its type.
    pub secret_type: String,
    /// Whether it is marked immutable.
    pub immutable: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The object named by our mark, where it carries one.
    pub marked_for: Option<String>,
    /// Whether our mark says that the Secret is ours as a whole.
    pub whole: bool,
    /// Its keys with the managers that have each, ourselves included. A key may have none.
    pub keys: BTreeMap<String, BTreeSet<Manager>>,
}

/// What is to be written, and on whose behalf.
#[derive(Debug, Clone, Copy)]
pub struct Desired<'a> {
    /// Name of the object that keeps the Secret.
    pub object: &'a str,
    /// Our field manager.
    pub field_manager: &'a str,
    /// The Secret's type.
    pub secret_type: &'a str,
    /// The keys.
    pub keys: &'a BTreeSet<String>,
    /// Consent to write into a Secret that is not ours.
    pub adoption: &'a Adoption,
    /// What the object wrote last; `None` where nothing is known of it.
    pub written: Option<LastWrite<'a>>,
}

/// A Secret as it was written last.
#[derive(Debug, Clone, Copy)]
pub struct LastWrite<'a> {
    /// Its uid.
    pub uid: &'a str,
    /// The keys that were ours in it.
    pub keys: &'a BTreeSet<String>,
}

/// What may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// There is no such Secret: it is made, and is ours.
    Create,
    /// Our part of it is written.
    Update(Update),
    /// Nothing is written.
    Refused(Fault),
}

/// How an existing Secret is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Whether the Secret is ours as a whole; a guest leaves the type and the Secret's life to others.
    pub whole: bool,
    /// Keys of ours that are no longer wanted.
    pub remove: BTreeSet<String>,
    /// Keys that others have at the moment and that become ours: hand edits of our own keys, and keys given over
    /// by consent. Only these may be taken; any other conflict is shown.
    pub take: BTreeSet<String>,
}

/// What is left to do when our keys are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The Secret is ours and holds nothing of others.
    Secret,
    /// Others have keys in it, or it is not ours: only our keys go.
    Keys,
    /// There is nothing of ours in it.
    Nothing,
}

/// What was done to a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Nothing was needed.
    Nothing,
    /// It was made.
    Created,
    /// A new value was written.
    Updated,
    /// The same value was written again over a change by somebody else.
    Repaired,
    /// What was ours in it was given up.
    Released,
    /// It was ours alone, and was deleted.
    Deleted,
}

/// Decides what may be written.
#[must_use]
pub fn decide(existing: Option<&Existing>, desired: &Desired<'_>) -> Ownership {
    let outcome = match existing {
        _ if is_refused(desired.secret_type) => Err(refused_type(desired.secret_type)),
        None => return Ownership::Create,
        Some(existing) => update(existing, desired),
    };
    match outcome {
        Ok(update) => Ownership::Update(update),
        Err(fault) => Ownership::Refused(fault),
    }
}

/// Decides what goes when `object` gives up its keys.
#[must_use]
pub fn removal(existing: &Existing, object: &str, field_manager: &str) -> Removal {
    let marked = existing.marked_for.as_deref() == Some(object);
    let ours = |owners: &BTreeSet<Manager>| owners.iter().any(|owner| owner.is(field_manager));
    let only_ours = |owners: &BTreeSet<Manager>| owners.iter().all(|owner| owner.is(field_manager));
    if marked && existing.whole && existing.keys.values().all(only_ours) {
        Removal::Secret
    } else if marked && existing.keys.values().any(ours) {
        Removal::Keys
    } else {
        Removal::Nothing
    }
}

fn update(existing: &Existing, desired: &Desired<'_>) -> Result<Update, Fault> {
    if existing.deleting {
        return Err(Fault::new(
            Class::Conflict,
            Reason::Conflict,
            "the Secret is being deleted by somebody else",
        ));
    }
    // Checked before anything else about it: no consent reaches into these.
    if is_refused(&existing.secret_type) {
        return Err(refused_type(&existing.secret_type));
    }
    let ours = is_ours(existing, desired)?;
    if !ours && *desired.adoption == Adoption::Never {
        return Err(fault(
            Reason::SecretNotOwned,
            "a Secret of this name exists and is not ours",
        )
        .advise("choose another name, or consent with `adoption`"));
    }
    if existing.immutable {
        return Err(fault(Reason::SecretImmutable, "the Secret is marked immutable")
            .advise("delete it, or choose another name"));
    }
    let whole = ours && existing.whole;
    // A guest that asks for no particular type leaves the type alone.
    let type_matters = whole || desired.secret_type != OPAQUE;
    if type_matters && existing.secret_type != desired.secret_type {
        return Err(fault(
            Reason::TypeConflict,
            format!(
                // The wanted one may be made of values.
                "the Secret has type `{}`, which cannot be changed to the wanted one",
                existing.secret_type
            ),
        )
        .advise("delete the Secret, or choose another name"));
    }
    let take = taken(existing, desired, whole)?;
    let remove = existing
        .keys
        .iter()
        .filter(|(key, owners)| {
            ours && owners.iter().any(|owner| owner.is(desired.field_manager)) && !desired.keys.contains(*key)
        })
        .map(|(key, _)| key.clone())
        .collect();
    Ok(Update { whole, remove, take })
}

/// Whether the Secret is kept by the object. A lost mark is forgiven where the object wrote this very Secret and
/// our manager still has keys in it.
fn is_ours(existing: &Existing, desired: &Desired<'_>) -> Result<bool, Fault> {
    match existing.marked_for.as_deref() {
        Some(object) if object == desired.object => Ok(true),
        Some(other) => Err(
            fault(Reason::SecretNotOwned, format!("the Secret is kept by `{other}`"))
                .advise("choose another name for one of them"),
        ),
        None => Ok(desired.written.is_some_and(|written| written.uid == existing.uid)
            && existing
                .keys
                .values()
                .flatten()
                .any(|owner| owner.is(desired.field_manager))),
    }
}

/// The wanted keys that others have and that may be taken; a fault where one may not.
fn taken(existing: &Existing, desired: &Desired<'_>, whole: bool) -> Result<BTreeSet<String>, Fault> {
    let mut take = BTreeSet::new();
    let mut contested = Vec::new();
    for key in desired.keys {
        let Some(owners) = existing.keys.get(key) else {
            continue;
        };
        let others: Vec<&Manager> = owners
            .iter()
            .filter(|owner| !owner.is(desired.field_manager))
            .collect();
        let free = others.is_empty() && (whole || !owners.is_empty());
        let given = matches!(desired.adoption, Adoption::TakeKeys(keys) if keys.contains(key));
        let edited = whole && others.iter().all(|owner| !owner.applies) && desired.had(existing, key);
        if free {
            continue;
        }
        if given || edited {
            take.insert(key.clone());
        } else {
            contested.push((key, others));
        }
    }
    if contested.is_empty() {
        Ok(take)
    } else {
        Err(contested_fault(&contested))
    }
}

fn contested_fault(contested: &[(&String, Vec<&Manager>)]) -> Fault {
    let list: Vec<String> = contested
        .iter()
        .map(|(key, others)| match others.as_slice() {
            [] => format!("`{key}` exists already"),
            others => {
                let names: Vec<&str> = others.iter().map(|owner| owner.name.as_str()).collect();
                format!("`{key}` is owned by {}", names.join(" and "))
            }
        })
        .collect();
    fault(Reason::KeyOwnedByOther, list.join(", ")).advise(
        "let go of them there, rename the keys, or take them over with `adoption` and policy `TakeKeys`",
    )
}

impl Desired<'_> {
    /// Whether a key may have been ours in this Secret. Of one that was not written by the object, such as one that was
    /// put back from a backup, its mark is all there is to go by.
    fn had(&self, existing: &Existing, key: &str) -> bool {
        let written = self.written.filter(|written| written.uid == existing.uid);
        written.is_none_or(|written| written.keys.contains(key))
    }
}

impl Manager {
    /// Whether this is our own declaration. A mere update under our name is somebody else's.
    fn is(&self, field_manager: &str) -> bool {
        self.applies && self.name == field_manager
    }
}

fn is_refused(secret_type: &str) -> bool {
    REFUSED_TYPES.contains(&secret_type)
}

fn refused_type(secret_type: &str) -> Fault {
    fault(
        Reason::TypeRefused,
        format!("Secrets of type `{secret_type}` are never written"),
    )
    .advise("choose another type")
}

fn fault(reason: Reason, message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::new(Class::Permanent, reason, message)
}
