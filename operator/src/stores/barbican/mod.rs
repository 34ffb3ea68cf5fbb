//! The door to Barbican and Keystone.
//!
//! It knows both protocols and nothing of Kubernetes. A name stands for its newest active secret; what Barbican says
//! about absence is little, and no more than that is told: a 404 is never called a deletion.

mod api;
mod catalog;
mod classify;
pub mod clouds;
pub mod config;
mod flight;
mod keystone;
mod listing;
pub mod lockout;
mod login_body;
mod memory;
mod parts;
mod session;
mod snapshot;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use uuid::Uuid;

use self::api::{Api, Value};
use self::config::{BarbicanConfig, Limits};
use self::listing::{Age, Listings};
use self::lockout::LoginGate;
use self::memory::{Generation, Memory};
use self::session::Session;
use self::tokens::Tokens;
use self::wire::Entry;
use super::pacing::{Pacer, in_turn};
use super::pool::Pool;
use super::{
    Absence, FindQuery, Found, Outcome, Payload, Place, Probe, ReadOutcome, Reading, RemoteRef,
    RemoteVersion, Store,
};

/// How many secrets are asked about at once for one search or container.
const AT_ONCE: usize = 8;
/// How many secrets a search by tags may look at: Barbican cannot filter by them, so each costs a request.
const MOST_TAG_READS: usize = 1_000;

/// The sessions of a process: stores opened by it share what they can.
pub struct BarbicanSessions {
    tokens: Pool<Tokens>,
    gate: Arc<LoginGate>,
}

/// One project of one Barbican, by one credential.
pub struct BarbicanStore {
    api: Arc<Api>,
    listings: Listings,
    memory: Memory,
    limits: Limits,
}

/// What a reference to a single secret leads to.
enum Resolved {
    Secret(Entry),
    Absent(Absence),
}

impl BarbicanSessions {
    /// No sessions yet, and the gate that every login passes. A process has one of these.
    #[must_use]
    pub fn new(gate: Arc<LoginGate>) -> Self {
        Self {
            tokens: Pool::default(),
            gate,
        }
    }

    /// Prepares a store; nothing is sent yet. Stores with the same credential at the same Keystone share one token.
    pub fn open(&self, config: BarbicanConfig) -> Outcome<BarbicanStore> {
        let limits = config.limits;
        let api = Arc::new(Api {
            session: Session::open(config, &self.tokens, &self.gate)?,
            payload_limit: limits.payload,
        });
        Ok(BarbicanStore {
            listings: Listings::new(Arc::clone(&api), limits.listing_age),
            api,
            memory: Memory::default(),
            limits,
        })
    }
}

impl BarbicanStore {
    async fn probe_place(&self, place: &RemoteRef) -> Outcome<Probe> {
        if let Place::Container(id) = &place.place {
            only_newest(place)?;
            return self.probe_container(uuid(id)?).await;
        }
        match self.resolve(place, Age::OncePerListing).await? {
            Resolved::Secret(entry) => Ok(Probe::Current(self.version(&entry).await?)),
            Resolved::Absent(absence) => Ok(Probe::Absent(absence)),
        }
    }

    async fn read_place(&self, place: &RemoteRef) -> Outcome<ReadOutcome> {
        if let Place::Container(id) = &place.place {
            only_newest(place)?;
            return self.read_container(uuid(id)?).await;
        }
        let first = match self.resolve(place, Age::AsBefore).await? {
            Resolved::Secret(entry) => entry,
            Resolved::Absent(absence) => return Ok(ReadOutcome::Absent(absence)),
        };
        if let Some(found) = self.read_entry(&first).await? {
            return Ok(found);
        }
        // It vanished after the listing that showed it. Whatever is there now is the answer.
        let second = match self.resolve(place, Age::Now).await? {
            Resolved::Secret(entry) => entry,
            Resolved::Absent(absence) => return Ok(ReadOutcome::Absent(absence)),
        };
        let gone = || ReadOutcome::Absent(self.memory.absence(second.id, now()));
        Ok(self.read_entry(&second).await?.unwrap_or_else(gone))
    }

    /// Finds the secret that `place` means, and tells one without a value apart from none.
    async fn resolve(&self, place: &RemoteRef, age: Age) -> Outcome<Resolved> {
        let found = match &place.place {
            Place::Name(name) => {
                let alive = self.listings.named(name, age).await?;
                if let Some(newest) = alive.first() {
                    self.memory.note(newest);
                    self.memory.note_name(name, newest);
                }
                let meant = match place.version {
                    None => alive.into_iter().next(),
                    Some(generation) => self.of_generation(alive, generation).await?,
                };
                meant.ok_or_else(|| match place.version {
                    None => self.memory.absence_of_name(name, now()),
                    Some(_) => Absence::NotFound,
                })
            }
            Place::Uuid(id) => {
                only_newest(place)?;
                let id = uuid(id)?;
                self.by_id(id, age)
                    .await?
                    .ok_or_else(|| self.memory.absence(id, now()))
            }
            Place::Container(_) => Err(Absence::NotFound),
            Place::Path(_) => {
                return Err(wrong_place("Barbican has no paths").advise("give a name, a UUID or a container"));
            }
        };
        Ok(match found {
            Ok(entry) if !entry.has_payload => Resolved::Absent(Absence::Empty),
            Ok(entry) => Resolved::Secret(entry),
            Err(absence) => Resolved::Absent(absence),
        })
    }

    async fn by_id(&self, id: Uuid, age: Age) -> Outcome<Option<Entry>> {
        if age == Age::AsBefore
            && let Some(known) = self.memory.known(id)
        {
            // The probe before has just seen it; should it be gone since, its value is missing and tells.
            return Ok(Some(known.entry(id)));
        }
        let listed = self.listings.listed(id, age).await?;
        let entry = match listed {
            Some(entry) => Some(entry),
            None => self.api.entry(id).await?.filter(|entry| entry.active),
        };
        Ok(entry.inspect(|entry| self.memory.note(entry)))
    }

    async fn of_generation(&self, alive: Vec<Entry>, wanted: u64) -> Outcome<Option<Entry>> {
        let known = |entry: &Entry| self.memory.known(entry.id).map(|known| known.generation);
        let (numbered, others): (Vec<Entry>, Vec<Entry>) = alive
            .into_iter()
            .partition(|entry| matches!(known(entry), Some(Generation::Read(Some(_)))));
        let found = |entry: &Entry| known(entry) == Some(Generation::Read(Some(wanted)));
        if let Some(entry) = numbered.into_iter().find(found) {
            return Ok(Some(entry));
        }
        // Somebody asks for it by number, so one that had none may have got it since.
        for entry in others {
            if self.read_generation(&entry).await? == Some(wanted) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The value of `entry`; `None` where Barbican no longer has it.
    async fn read_entry(&self, entry: &Entry) -> Outcome<Option<ReadOutcome>> {
        Ok(match self.api.value(entry.id).await? {
            Value::Bytes(bytes) => Some(ReadOutcome::Value(Reading {
                version: self.version(entry).await?,
                payload: Payload::Bytes(bytes),
            })),
            Value::Empty => Some(ReadOutcome::Absent(Absence::Empty)),
            Value::Missing => None,
        })
    }

    async fn version(&self, entry: &Entry) -> Outcome<RemoteVersion> {
        Ok(RemoteVersion {
            number: self.generation(entry).await?,
            id: Some(entry.id.to_string()),
            created: Some(entry.created),
            expires: entry.expires,
        })
    }

    /// Read once per secret, since no writer changes it. Whoever stores a secret and its value in one request can set
    /// it only afterwards: it is missing then where the secret was seen in between, and creation times must do.
    async fn generation(&self, entry: &Entry) -> Outcome<Option<u64>> {
        self.memory.note(entry);
        if let Some(known) = self.memory.known(entry.id)
            && let Generation::Read(generation) = known.generation
        {
            return Ok(generation);
        }
        match self.read_generation(entry).await {
            // A credential may be allowed the value and not the metadata.
            Err(fault) if fault.reason == Reason::RemoteDenied => {
                self.memory.note_generation(entry.id, None);
                Ok(None)
            }
            read => read,
        }
    }

    async fn read_generation(&self, entry: &Entry) -> Outcome<Option<u64>> {
        self.memory.note(entry);
        let metadata = self.api.metadata(entry.id).await?;
        let generation = metadata.as_ref().and_then(wire::generation);
        self.memory.note_generation(entry.id, generation);
        Ok(generation)
    }

    async fn find_all(&self, query: &FindQuery) -> Outcome<Vec<Found>> {
        let mut entries = self.listings.newest_below(&query.prefix).await?;
        if !query.tags.is_empty() {
            entries = self.tagged(entries, &query.tags).await?;
        }
        if entries.len() > query.limit {
            return Err(find_limit(format!(
                "searching the project: {} secrets match, and {} are allowed",
                entries.len(),
                query.limit
            )));
        }
        futures::stream::iter(entries)
            .map(|entry| async move {
                // Once it is listed no more, it may be asked for by its name.
                self.memory.note_name(&entry.name, &entry);
                Ok(Found {
                    version: Some(self.version(&entry).await?),
                    place: Place::Uuid(entry.id.to_string()),
                    name: entry.name.into_string(),
                })
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Those with all of `tags`. Metadata may change at any time, so it is read anew.
    async fn tagged(&self, entries: Vec<Entry>, tags: &BTreeMap<String, String>) -> Outcome<Vec<Entry>> {
        if entries.len() > MOST_TAG_READS {
            return Err(find_limit(format!(
                "searching the project by tags: {} secrets would have to be looked at, and {MOST_TAG_READS} are allowed",
                entries.len()
            )));
        }
        let checked: Vec<Option<Entry>> = futures::stream::iter(entries)
            .map(|entry| async move {
                let metadata = self.api.metadata(entry.id).await?.unwrap_or_default();
                // Barbican stores keys in lower case.
                let has = |(key, value): (&String, &String)| metadata.get(&key.to_lowercase()) == Some(value);
                Ok::<_, Fault>(tags.iter().all(has).then_some(entry))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(checked.into_iter().flatten().collect())
    }
}

impl Store for BarbicanStore {
    fn probe<'a>(&'a self, place: &'a RemoteRef) -> BoxFuture<'a, Outcome<Probe>> {
        Box::pin(self.probe_place(place))
    }

    fn read<'a>(&'a self, place: &'a RemoteRef) -> BoxFuture<'a, Outcome<ReadOutcome>> {
        Box::pin(self.read_place(place))
    }

    fn find<'a>(&'a self, query: &'a FindQuery, pacer: &'a dyn Pacer) -> BoxFuture<'a, Outcome<Vec<Found>>> {
        Box::pin(in_turn(pacer, || self.find_all(query)))
    }

    fn check(&self) -> BoxFuture<'_, Outcome<()>> {
        Box::pin(self.api.list_one())
    }

    fn forget_listings(&self) {
        self.listings.forget();
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.api.session.close()
    }
}

/// The one place where this door reads the clock that expiries are measured by.
fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

fn uuid(text: &str) -> Outcome<Uuid> {
    wire::last_uuid(text).ok_or_else(|| {
        wrong_place("the reference is not a UUID").advise("give the UUID that the reference ends in")
    })
}

fn only_newest(place: &RemoteRef) -> Outcome<()> {
    match place.version {
        None => Ok(()),
        Some(_) => Err(wrong_place("a UUID already names one version").advise("leave the version out")),
    }
}

fn wrong_place(message: &'static str) -> Fault {
    Fault::new(Class::Permanent, Reason::SpecInvalid, message)
}

fn find_limit(message: String) -> Fault {
    Fault::new(Class::Permanent, Reason::FindLimit, message).advise("narrow the prefix or raise the limit")
}
