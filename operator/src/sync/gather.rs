//! Gathers what the stores say about the places of one object: first what is there, then, if it is needed, the values.

use std::sync::Arc;

use futures::future::try_join_all;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::sync::absence::AbsenceKind;
use keyward_core::sync::fields::{Extraction, FieldSelection};
use keyward_core::sync::find;
use keyward_core::sync::grant::Wanted as Granted;
use keyward_core::sync::keys::DataKey;
use keyward_core::sync::version::SeenVersion;
use tokio::time::Instant;

use super::plan::{Plan, SourcePlan, Wanted};
use super::reader::{Look, Reader, SharedReading};
use crate::store::{Asked, LiveStore, StoreRegistry};
use crate::stores::{Absence, Found, Outcome, Place, RemoteRef, RemoteVersion};

/// One place of one object, resolved and allowed.
pub(super) struct Target {
    /// Index of the source.
    pub source: usize,
    /// The name under which a search found it.
    pub found_as: Option<String>,
    /// The store to ask.
    pub store: Arc<LiveStore>,
    /// Where.
    pub at: RemoteRef,
    /// What to take of it.
    pub extraction: Extraction,
    /// How messages call it.
    pub label: String,
}

/// The store of each source, where the namespace may read what the source asks for. Nothing is sent to a store.
pub(super) async fn doors(
    registry: &StoreRegistry,
    namespace: &str,
    plan: &Plan,
) -> Outcome<Vec<Arc<LiveStore>>> {
    let mut doors = Vec::with_capacity(plan.sources.len());
    for source in &plan.sources {
        doors.push(
            registry
                .resolve(namespace, &source.store, granted(source))
                .await?,
        );
    }
    Ok(doors)
}

/// Resolves every source to places behind its door, in the order of the sources.
pub(super) async fn resolve(plan: &Plan, doors: &[Arc<LiveStore>]) -> Outcome<Vec<Target>> {
    let mut targets = Vec::new();
    for (index, (source, store)) in plan.sources.iter().zip(doors).enumerate() {
        match &source.wanted {
            Wanted::One(at) => targets.push(Target {
                source: index,
                found_as: None,
                store: Arc::clone(store),
                at: at.clone(),
                extraction: source.extraction.clone(),
                label: describe(&at.place),
            }),
            Wanted::Search { query, pattern, max } => {
                let listed = store.find(query).await?;
                let listed = listed
                    .into_iter()
                    .map(|found| (found.name.clone(), found))
                    .collect::<Vec<_>>();
                for (key, found) in find::select(listed, pattern.as_ref(), *max)? {
                    targets.push(found_target(index, store, source, &key, found));
                }
            }
        }
    }
    Ok(targets)
}

fn found_target(
    index: usize,
    store: &Arc<LiveStore>,
    source: &SourcePlan,
    key: &DataKey,
    found: Found,
) -> Target {
    let selection = FieldSelection::Whole {
        key: key.as_str().to_owned(),
    };
    Target {
        source: index,
        store: Arc::clone(store),
        label: describe(&found.place),
        at: RemoteRef {
            place: found.place,
            version: None,
        },
        extraction: Extraction {
            selection,
            ..source.extraction.clone()
        },
        found_as: Some(found.name),
    }
}

/// A source as access rules see it.
fn granted(source: &SourcePlan) -> Asked<'_> {
    let place = match &source.wanted {
        Wanted::One(RemoteRef {
            place: Place::Uuid(uuid),
            ..
        }) => Granted::Uuid(uuid),
        Wanted::One(RemoteRef {
            place: Place::Container(uuid),
            ..
        }) => Granted::Container(uuid),
        Wanted::One(_) => match &source.granted_as {
            Some(path) => Granted::Path(path),
            None => Granted::Below(None),
        },
        Wanted::Search { query, .. } => {
            return Asked::Search {
                prefix: &query.prefix,
                path: source.granted_as.as_ref(),
            };
        }
    };
    Asked::Place(place)
}

/// Asks what is at each place. How many are asked at once is the store's own bound.
pub(super) async fn look_at_all(reader: &Reader, targets: &[Target], since: Instant) -> Outcome<Vec<Look>> {
    let mut asked = Vec::with_capacity(targets.len());
    for target in targets {
        asked.push(look_at(reader, target, since));
    }
    try_join_all(asked).await
}

/// Reads the value at each place, as of the instant given for it.
pub(super) async fn read_all(
    reader: &Reader,
    targets: &[Target],
    since: &[Instant],
) -> Outcome<Vec<SharedReading>> {
    let mut asked = Vec::with_capacity(targets.len());
    for (target, since) in targets.iter().zip(since) {
        asked.push(read_at(reader, target, *since));
    }
    try_join_all(asked).await
}

async fn look_at(reader: &Reader, target: &Target, since: Instant) -> Outcome<Look> {
    reader
        .look(&target.store, &target.at, since)
        .await
        .map_err(|fault| at(target, fault))
}

async fn read_at(reader: &Reader, target: &Target, since: Instant) -> Outcome<SharedReading> {
    reader
        .read(&target.store, &target.at, since)
        .await
        .map_err(|fault| at(target, fault))
}

/// A version as decisions see it.
pub(super) fn seen(version: &RemoteVersion) -> SeenVersion {
    SeenVersion {
        number: version.number,
        id: version.id.clone(),
        created: version.created,
    }
}

/// An absence as decisions see it.
pub(super) fn kind(absence: &Absence) -> AbsenceKind {
    match absence {
        Absence::NotFound => AbsenceKind::NotFound,
        Absence::Deleted(_) => AbsenceKind::Deleted,
        Absence::Destroyed(_) => AbsenceKind::Destroyed,
        Absence::Expired => AbsenceKind::Expired,
        Absence::Empty => AbsenceKind::Empty,
    }
}

/// The fault that says why the last value is kept.
pub(super) fn absent(label: &str, kind: AbsenceKind) -> Fault {
    let (what, advice) = match kind {
        AbsenceKind::NotFound => (
            "is not there",
            "check the name and the policy; the last value is kept",
        ),
        AbsenceKind::Deleted => (
            "is deleted in the store",
            "restore it, or set `whenGone.deleted`; the last value is kept",
        ),
        AbsenceKind::Destroyed => (
            "is destroyed in the store",
            "write it anew, or set `whenGone.destroyed`; the last value is kept",
        ),
        AbsenceKind::Expired => (
            "has expired in the store",
            "store a new value; the last value is kept",
        ),
        AbsenceKind::Empty => (
            "exists and holds no value",
            "store a value; the last value is kept",
        ),
    };
    Fault::new(Class::Absent, kind.reason(), format!("{label} {what}")).advise(advice)
}

fn at(target: &Target, fault: Fault) -> Fault {
    if fault.message.contains(&target.label) {
        return fault;
    }
    Fault {
        message: format!("{}: {}", target.label, fault.message).into(),
        ..fault
    }
}

fn describe(place: &Place) -> String {
    match place {
        Place::Path(path) => format!("path `{path}`"),
        Place::Name(name) => format!("secret `{name}`"),
        Place::Uuid(uuid) => format!("secret {uuid}"),
        Place::Container(uuid) => format!("container {uuid}"),
    }
}

/// A stable name of a place, for status and for spreading refreshes.
pub(super) fn place_name(place: &Place) -> &str {
    match place {
        Place::Path(text) | Place::Name(text) | Place::Uuid(text) | Place::Container(text) => text,
    }
}

/// Reported where a search gave nothing: an empty result is never taken for an order to remove keys.
pub(super) fn nothing_found(plan: &Plan, targets: &[Target]) -> Option<Fault> {
    let searches = plan
        .sources
        .iter()
        .enumerate()
        .filter(|(_, source)| matches!(source.wanted, Wanted::Search { .. }));
    let empty = searches
        .map(|(index, _)| index)
        .find(|index| targets.iter().all(|target| target.source != *index));
    empty.map(|index| {
        Fault::new(
            Class::Absent,
            Reason::RemoteNotFound,
            format!("the search of sources[{index}] matches nothing"),
        )
        .advise("check prefix, pattern and tags; the last value is kept")
    })
}
