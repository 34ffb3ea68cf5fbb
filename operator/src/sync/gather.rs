//! Gathers what the stores say about the places of one object: first what is there, then, if it is needed, the values.

use std::sync::Arc;

use futures::future::try_join_all;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::sync::absence::{Absence, Gone};
use keyward_core::sync::fields::{Extraction, FieldSelection};
use keyward_core::sync::find;
use keyward_core::sync::grant::Wanted as Granted;
use keyward_core::sync::keys::DataKey;
use keyward_core::sync::lineage::{self, Accepted, Given, Offered, Origin, Shown};
use keyward_core::sync::version::SeenVersion;
use tokio::time::Instant;

use super::plan::{Plan, SourcePlan, Wanted};
use super::reader::{Look, Reader, SharedReading};
use super::translate;
use crate::store::{Asked, LiveStore, StoreRegistry};
use crate::stores::{Found, Outcome, Place, Probe, ReadOutcome, Reading, RemoteRef};

/// One place of one object, resolved and allowed.
pub(super) struct Target {
    /// Where in the spec it comes from.
    pub origin: Origin,
    /// The store to ask.
    pub store: Arc<LiveStore>,
    /// Where.
    pub at: RemoteRef,
    /// What to take of it.
    pub extraction: Extraction,
    /// How messages call it.
    pub label: String,
}

/// A place that a search gave once, lists no more, and that holds no value.
pub(super) struct Lost {
    called: String,
    label: String,
    absence: Absence,
}

/// What the stores gave, place by place.
pub(super) struct Readings<'a> {
    /// The values.
    pub values: Vec<(&'a Target, &'a Reading)>,
    /// The places without one.
    pub gone: Vec<Gone<'a>>,
}

impl Lost {
    /// As decisions see it.
    pub(super) fn gone(&self) -> Gone<'_> {
        Gone {
            label: &self.label,
            unlisted: Some(&self.called),
            absence: self.absence,
        }
    }
}

impl<'a> Readings<'a> {
    /// Tells values from absences.
    pub(super) fn of(targets: &'a [Target], shared: &'a [SharedReading]) -> Self {
        let (mut values, mut gone) = (Vec::with_capacity(shared.len()), Vec::new());
        for (target, shared) in targets.iter().zip(shared) {
            match shared.outcome.as_ref() {
                ReadOutcome::Value(reading) => values.push((target, reading)),
                ReadOutcome::Absent(absence) => gone.push(Gone {
                    label: &target.label,
                    unlisted: None,
                    absence: *absence,
                }),
            }
        }
        Self { values, gone }
    }

    /// The versions of the values.
    pub(super) fn offered(&self) -> impl Iterator<Item = Offered<'_>> {
        self.values.iter().map(|(target, reading)| Offered {
            origin: &target.origin,
            label: &target.label,
            version: translate::seen(&reading.version),
        })
    }
}

/// What each place shows. `compared` says of a source whether its values have been read since its turn began.
pub(super) fn shown<'a>(
    targets: &'a [Target],
    looks: &'a [Look],
    compared: impl Fn(usize) -> bool,
) -> impl Iterator<Item = (&'a Origin, Shown)> {
    let shown = move |target: &Target, look: &Look| match &look.probe {
        Probe::Current(version) if translate::seen(version) != SeenVersion::default() => {
            Shown::Version(translate::seen(version))
        }
        Probe::Absent(absence) => Shown::Gone(*absence),
        Probe::Current(_) | Probe::NeedsRead if compared(target.origin.source) => Shown::Compared,
        Probe::Current(_) | Probe::NeedsRead => Shown::Unknown,
    };
    targets
        .iter()
        .zip(looks)
        .map(move |(target, look)| (&target.origin, shown(target, look)))
}

/// What each place gave, to be remembered.
pub(super) fn given<'a>(
    targets: &'a [Target],
    shared: &'a [SharedReading],
) -> impl Iterator<Item = (Origin, Given)> {
    let given = |shared: &SharedReading| match shared.outcome.as_ref() {
        ReadOutcome::Value(Reading { version, .. }) => Given::Value {
            version: translate::seen(version),
            expires: version.expires,
        },
        ReadOutcome::Absent(absence) => Given::Gone(*absence),
    };
    targets
        .iter()
        .zip(shared)
        .map(move |(target, shared)| (target.origin.clone(), given(shared)))
}

/// The places that look empty.
pub(super) fn empty<'a>(targets: &'a [Target], looks: &'a [Look]) -> impl Iterator<Item = Gone<'a>> {
    targets
        .iter()
        .zip(looks)
        .filter_map(|(target, look)| match &look.probe {
            Probe::Absent(absence) => Some(Gone {
                label: &target.label,
                unlisted: None,
                absence: *absence,
            }),
            Probe::Current(_) | Probe::NeedsRead => None,
        })
}

/// The versions that the places show, as they would be taken.
pub(super) fn offered<'a>(targets: &'a [Target], looks: &'a [Look]) -> impl Iterator<Item = Offered<'a>> {
    targets
        .iter()
        .zip(looks)
        .filter_map(|(target, look)| match &look.probe {
            Probe::Current(version) => Some(Offered {
                origin: &target.origin,
                label: &target.label,
                version: translate::seen(version),
            }),
            Probe::Absent(_) | Probe::NeedsRead => None,
        })
}

/// The first place whose keys were removed, as messages put it; `None` where every place gave a value.
pub(super) fn removed(plan: &Plan, accepted: &[Accepted]) -> Option<String> {
    let gone = accepted.iter().find(|accepted| accepted.gone.is_some())?;
    let found = found_before(gone).map(|found| found.shown());
    let label = found.or_else(|| {
        let mut sources = plan.sources.iter();
        let source = sources.find(|source| source.id == gone.origin.asked)?;
        match &source.wanted {
            Wanted::One(at) => Some(at.place.to_string()),
            Wanted::Search { .. } => None,
        }
    });
    Some(gone.gone?.of(label.as_deref().unwrap_or("a value")))
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

/// Resolves every source to places behind its door, in the order of the sources. `since` says for each source how new
/// the answer must be.
///
/// # Errors
/// `RemoteNotFound` where a search gives nothing: an empty result is never taken for an order to remove keys.
pub(super) async fn resolve(
    reader: &Reader,
    plan: &Plan,
    doors: &[Arc<LiveStore>],
    since: &[Instant],
) -> Outcome<Vec<Target>> {
    let mut targets = Vec::new();
    for (index, ((source, store), since)) in plan.sources.iter().zip(doors).zip(since).enumerate() {
        match &source.wanted {
            Wanted::One(at) => targets.push(Target {
                origin: Origin {
                    source: index,
                    asked: source.id.clone(),
                    found_as: None,
                },
                store: Arc::clone(store),
                at: at.clone(),
                extraction: source.extraction.clone(),
                label: at.place.to_string(),
            }),
            Wanted::Search { query, pattern, max } => {
                let listed = reader.find(store, query, *since).await?;
                let listed = listed.iter().map(|found| (found.name.clone(), found.clone()));
                let matching = find::select(listed, pattern.as_ref(), *max)?;
                if matching.is_empty() {
                    return Err(nothing_found(index));
                }
                for (key, found) in matching {
                    targets.push(found_target(index, store, source, &key, found));
                }
            }
        }
    }
    Ok(targets)
}

/// Asks singly about the places that were accepted from a search and that it lists no more.
///
/// One that is there after all joins `targets` among those of its source, unless the search is by tags: then the store has said that it does not
/// carry them any more.
pub(super) async fn lost(
    reader: &Reader,
    plan: &Plan,
    doors: &[Arc<LiveStore>],
    accepted: &[Accepted],
    targets: &mut Vec<Target>,
    since: &[Instant],
) -> Outcome<Vec<Lost>> {
    let searched = |accepted: &Accepted| {
        let found = found_before(accepted)?;
        let asks = |source: &SourcePlan| source.id == accepted.origin.asked && source.asks_for(&found);
        let index = plan.sources.iter().position(asks)?;
        Some((index, found))
    };
    let listed = targets.iter().map(|target| &target.origin);
    let missing = lineage::lost(accepted, listed, |accepted| searched(accepted).is_some());
    let mut lost = Vec::new();
    for accepted in missing {
        let Some((index, found)) = searched(accepted) else {
            continue;
        };
        let (source, store) = (&plan.sources[index], &doors[index]);
        let key = DataKey::from_remote_name(&found.name)?;
        let target = found_target(index, store, source, &key, found.clone());
        match what_is_there(reader, &target, since[index]).await? {
            Some(absence) => lost.push(Lost {
                label: found.shown(),
                called: accepted.called().unwrap_or(found.name),
                absence,
            }),
            None if source.asks_for_tags() => {}
            None => targets.push(target),
        }
    }
    // Which source comes first decides which of two equal keys wins.
    targets.sort_by_key(|target| target.origin.source);
    Ok(lost)
}

/// Asks what is at each place. How many are asked at once is the store's own bound.
pub(super) async fn look_at_all(
    reader: &Reader,
    targets: &[Target],
    since: &[Instant],
) -> Outcome<Vec<Look>> {
    let mut asked = Vec::with_capacity(targets.len());
    for target in targets {
        asked.push(look_at(reader, target, since[target.origin.source]));
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

/// How a place is without a value; `None` where it has one.
async fn what_is_there(reader: &Reader, target: &Target, since: Instant) -> Outcome<Option<Absence>> {
    match look_at(reader, target, since).await?.probe {
        Probe::Current(_) => Ok(None),
        Probe::Absent(absence) => Ok(Some(absence)),
        Probe::NeedsRead => match read_at(reader, target, since).await?.outcome.as_ref() {
            ReadOutcome::Value(_) => Ok(None),
            ReadOutcome::Absent(absence) => Ok(Some(*absence)),
        },
    }
}

async fn look_at(reader: &Reader, target: &Target, since: Instant) -> Outcome<Look> {
    let look = reader.look(&target.store, &target.at, since).await;
    look.map_err(|fault| fault.about(&target.label))
}

async fn read_at(reader: &Reader, target: &Target, since: Instant) -> Outcome<SharedReading> {
    let read = reader.read(&target.store, &target.at, since).await;
    read.map_err(|fault| fault.about(&target.label))
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
        label: found.shown(),
        origin: Origin {
            source: index,
            asked: source.id.clone(),
            found_as: Some(found.name),
        },
        store: Arc::clone(store),
        at: RemoteRef {
            place: found.place,
            version: None,
        },
        extraction: Extraction {
            selection,
            ..source.extraction.clone()
        },
    }
}

/// What a search found when this version was accepted. It is asked for by the name that access rules know, and not by
/// an identity: whoever may write a status could put another's there.
fn found_before(accepted: &Accepted) -> Option<Found> {
    let name = accepted.origin.found_as.clone()?;
    let place = match &accepted.version.id {
        Some(_) => Place::Name(name.clone()),
        None => Place::Path(name.clone()),
    };
    Some(Found {
        name,
        place,
        version: None,
    })
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

fn nothing_found(source: usize) -> Fault {
    let message = format!("the search of sources[{source}] matches nothing");
    Fault::new(Class::Absent, Reason::RemoteNotFound, message)
        .advise("check prefix, pattern and tags; the last value is kept")
}

#[cfg(test)]
mod tests {
    use keyward_core::sync::lineage::SourceId;

    use super::*;

    #[test]
    fn what_a_search_lost_is_asked_for_by_name() {
        let accepted = |id: Option<&str>| Accepted {
            origin: Origin {
                source: 0,
                asked: SourceId::default(),
                found_as: Some("apps/db".to_owned()),
            },
            version: SeenVersion {
                id: id.map(str::to_owned),
                ..SeenVersion::default()
            },
            expires: None,
            gone: None,
        };
        let place = |id| {
            found_before(&accepted(id))
                .expect("it was found by a search")
                .place
        };
        assert_eq!(place(None), Place::Path("apps/db".into()));
        assert_eq!(place(Some("3d0b")), Place::Name("apps/db".into()));
    }
}
