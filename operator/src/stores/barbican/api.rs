//! The reads of Barbican's API that Keyward makes.
//!
//! A 404 is an answer here and not a fault: what it means is decided by who asked. Paths are built from UUIDs and
//! encoded queries only, never from the references in answers, which may name a host that is not reachable.

use std::collections::{BTreeMap, HashMap};

use http::StatusCode;
use http::header::CONTENT_TYPE;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use url::form_urlencoded;
use uuid::Uuid;

use super::classify::{Answered, request_id};
use super::session::{Call, Session};
use super::wire::{self, Container, Entry, Malformed, Page};
use crate::stores::Outcome;
use crate::stores::transport::Response;

const JSON: &str = "application/json";
/// Right for every secret, also for text: any other type makes Barbican convert or refuse.
const OCTETS: &str = "application/octet-stream";
/// The most that Barbican gives at once, whatever is asked.
const PAGE: usize = 100;
/// How often a listing starts anew because the project changed under it.
const LISTING_TRIES: usize = 4;
/// The most that the names of one listing may take, in bytes: room for fifty thousand of the longest in plain letters.
const MOST_NAME_BYTES: usize = 16 << 20;

/// Barbican as seen through one session.
pub(super) struct Api {
    pub(super) session: Session,
    /// The largest value that is read, in bytes.
    pub(super) payload_limit: usize,
}

/// What a secret holds.
pub(super) enum Value {
    /// These bytes.
    Bytes(SecretBytes),
    /// It is there and holds nothing.
    Empty,
    /// Barbican answers 404: it is not there, has expired or has no value.
    Missing,
}

/// The answer to a listing.
pub(super) enum Listed {
    /// Every active secret, each once.
    Whole {
        /// In no particular order.
        entries: Vec<Entry>,
        /// How many pages that took.
        pages: usize,
    },
    /// It has this many pages, more than was wanted.
    TooLong(usize),
    /// The project kept changing while its pages were read.
    Restless,
}

impl Api {
    /// Lists the project's secrets, or those whose name is like `name`, if that takes no more pages than are `wanted`
    /// when one of them has come.
    pub(super) async fn list(&self, name: Option<&str>, wanted: impl Fn() -> usize) -> Outcome<Listed> {
        for _ in 0..LISTING_TRIES {
            match self.list_once(name, &wanted).await? {
                Pass::Whole { entries, pages } => {
                    let entries = entries.into_values().filter(|entry| entry.active).collect();
                    return Ok(Listed::Whole { entries, pages });
                }
                Pass::TooLong(pages) => return Ok(Listed::TooLong(pages)),
                Pass::Torn => {}
            }
        }
        Ok(Listed::Restless)
    }

    /// Shows that the token is good for listing.
    pub(super) async fn list_one(&self) -> Outcome<()> {
        self.page(None, 0, 1).await.map(drop)
    }

    /// A secret without its value.
    pub(super) async fn entry(&self, id: Uuid) -> Outcome<Option<Entry>> {
        let tried = format!("looking at secret `{id}`");
        self.json(&tried, format!("/v1/secrets/{id}"), wire::entry).await
    }

    /// A secret's user metadata.
    pub(super) async fn metadata(&self, id: Uuid) -> Outcome<Option<BTreeMap<String, String>>> {
        let tried = format!("reading the metadata of secret `{id}`");
        self.json(&tried, format!("/v1/secrets/{id}/metadata"), wire::metadata)
            .await
    }

    /// A container and its references.
    pub(super) async fn container(&self, id: Uuid) -> Outcome<Option<Container>> {
        let tried = format!("looking at container `{id}`");
        self.json(&tried, format!("/v1/containers/{id}"), wire::container)
            .await
    }

    /// A secret's value.
    pub(super) async fn value(&self, id: Uuid) -> Outcome<Value> {
        let tried = format!("reading secret `{id}`");
        let call = Call {
            tried: &tried,
            path: format!("/v1/secrets/{id}/payload"),
            accept: OCTETS,
            versioned: true,
        };
        let answer = self.session.get(&call).await?;
        match answer.status {
            StatusCode::OK if !is_octets(&answer) => Err(malformed(&tried, &answer)),
            StatusCode::OK if answer.body.len() > self.payload_limit => Err(Fault::new(
                Class::Permanent,
                Reason::RemoteTooLarge,
                format!(
                    "{tried}: its value has {} bytes, and {} are allowed",
                    answer.body.len(),
                    self.payload_limit
                ),
            )),
            StatusCode::OK if answer.body.is_empty() => Ok(Value::Empty),
            StatusCode::OK => Ok(Value::Bytes(answer.body)),
            StatusCode::NO_CONTENT => Ok(Value::Empty),
            StatusCode::NOT_FOUND => Ok(Value::Missing),
            _ => Err(Answered::by("Barbican", &tried, &answer).fault()),
        }
    }

    async fn list_once(&self, name: Option<&str>, wanted: &impl Fn() -> usize) -> Outcome<Pass> {
        let mut entries: HashMap<Uuid, Entry> = HashMap::new();
        let (mut offset, mut pages, mut before) = (0, 0, None);
        let (mut most, mut name_bytes) = (0, 0);
        loop {
            let page = self.page(name, offset, PAGE).await?;
            pages += 1;
            let left = page.total.saturating_sub(offset + page.entries.len());
            // As many as there will be if the others hold as much as this one. A server that grows while it is
            // read, or gives a little at a time, has no end otherwise.
            let in_all = pages + left.div_ceil(page.entries.len().max(1));
            most = most.max(wanted());
            if in_all > most && !page.entries.is_empty() {
                return Ok(Pass::TooLong(in_all));
            }
            name_bytes += page.entries.iter().map(|entry| entry.name.len()).sum::<usize>();
            if name_bytes > MOST_NAME_BYTES {
                return Err(too_many_letters());
            }
            // When secrets vanish, those behind them move forward, past the place that is read next.
            if before.is_some_and(|before| page.total < before) {
                return Ok(Pass::Torn);
            }
            before = Some(page.total);
            offset += page.entries.len();
            let ended = page.entries.is_empty() || offset >= page.total;
            entries.extend(page.entries.into_iter().map(|entry| (entry.id, entry)));
            if ended {
                // Equal times may be told in another order on each page, and one secret twice instead of another.
                return Ok(if entries.len() < page.total {
                    Pass::Torn
                } else {
                    Pass::Whole { entries, pages }
                });
            }
        }
    }

    async fn page(&self, name: Option<&str>, offset: usize, limit: usize) -> Outcome<Page> {
        let call = Call {
            tried: "listing secrets",
            path: listing_path(name, offset, limit),
            accept: JSON,
            // Newer versions add every consumer to every line.
            versioned: false,
        };
        let answer = self.session.get(&call).await?;
        match answer.status {
            StatusCode::OK => {
                wire::page(answer.body.expose(), limit).map_err(|_| malformed(call.tried, &answer))
            }
            _ => Err(Answered::by("Barbican", call.tried, &answer).fault()),
        }
    }

    async fn json<T>(
        &self,
        tried: &str,
        path: String,
        parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Outcome<Option<T>> {
        let call = Call {
            tried,
            path,
            accept: JSON,
            versioned: true,
        };
        let answer = self.session.get(&call).await?;
        match answer.status {
            StatusCode::OK => parse(answer.body.expose())
                .map(Some)
                .map_err(|_| malformed(tried, &answer)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(Answered::by("Barbican", tried, &answer).fault()),
        }
    }
}

/// One walk over the pages.
enum Pass {
    Whole {
        entries: HashMap<Uuid, Entry>,
        pages: usize,
    },
    TooLong(usize),
    /// The project changed in a way that may have hidden something.
    Torn,
}

fn listing_path(name: Option<&str>, offset: usize, limit: usize) -> String {
    let mut query =
        form_urlencoded::Serializer::for_suffix(String::from("/v1/secrets?"), "/v1/secrets?".len());
    query
        .append_pair("limit", &limit.to_string())
        .append_pair("offset", &offset.to_string())
        // Times may be whole seconds, and equal ones are told in any order: what one page ends with, the next one
        // could begin with again.
        .append_pair("sort", "created:desc,name:asc");
    if let Some(name) = name {
        // Barbican matches by SQL's LIKE, where more names fit than are meant: the caller compares. A backslash is
        // itself in some databases and hides the next letter in others; this stands for any one letter in all.
        query.append_pair("name", &name.replace('\\', "_"));
    }
    query.finish()
}

fn too_many_letters() -> Fault {
    Fault::new(
        Class::Permanent,
        Reason::RemoteTooLarge,
        format!(
            "listing secrets: their names have more than {} MiB together",
            MOST_NAME_BYTES >> 20
        ),
    )
}

/// A proxy's page with status 200 must not become a value.
fn is_octets(answer: &Response) -> bool {
    let kind = answer
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == OCTETS))
}

fn malformed(tried: &str, answer: &Response) -> Fault {
    Fault::new(
        Class::Transient,
        Reason::StoreProtocol,
        format!("{tried}: the answer is not Barbican's"),
    )
    .advise("check that no proxy stands at the key manager's address")
    .with_request_id(request_id(&answer.headers))
}
