//! Searching a mount: folders are listed one below the other, tags are custom metadata.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::{StreamExt, TryStreamExt};
use http::StatusCode;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use vaultrs::api::kv1::requests::ListSecretRequest;
use vaultrs::api::kv2::requests::ListSecretsRequest;
use vaultrs::api::kv2::responses::{ListSecretsResponse, ReadSecretMetadataResponse};

use super::classify::{is_nothing_there, is_unsupported, refused};
use super::endpoints::{DetailedList, ListWithMetadata};
use super::kv::{Engine, Metadata, Mount, check_path};
use super::standing;
use super::wire::data_of;
use crate::stores::pacing::Pacer;
use crate::stores::transport::Response;
use crate::stores::{FindQuery, Found, Outcome, Place, Probe, RemoteVersion};

/// A search that meets more folders than this is too wide.
const MOST_FOLDERS: usize = 1000;

/// How many metadata reads of one search run at once.
const AT_ONCE: usize = 8;

/// Searches one mount.
pub(super) struct Finder {
    /// Whether the server was seen to lack, or to deny, listing with metadata.
    lists_names_only: AtomicBool,
}

/// One search.
struct Search<'a> {
    finder: &'a Finder,
    mount: &'a Mount,
    engine: Engine,
    pacer: &'a dyn Pacer,
}

/// What a folder holds: entries and, for some, the metadata that came with the list.
type Listing = (Vec<String>, HashMap<String, ReadSecretMetadataResponse>);

/// A path with what the list told about it.
type Candidate = (String, Option<ReadSecretMetadataResponse>);

impl Finder {
    pub(super) fn new() -> Self {
        Self {
            lists_names_only: AtomicBool::new(false),
        }
    }

    /// Lists what `query` matches, ordered by path.
    pub(super) async fn find(
        &self,
        mount: &Mount,
        query: &FindQuery,
        pacer: &dyn Pacer,
    ) -> Outcome<Vec<Found>> {
        let prefix = query.prefix.trim_matches('/');
        if !prefix.is_empty() {
            check_path(prefix)?;
        }
        let search = |engine| async move {
            Search {
                finder: self,
                mount,
                engine,
                pacer,
            }
            .run(prefix, query)
            .await
        };
        mount.on_engine(search).await
    }
}

impl Search<'_> {
    async fn run(&self, prefix: &str, query: &FindQuery) -> Outcome<Vec<Found>> {
        let Self { mount, engine, .. } = *self;
        if engine == Engine::V1 && !query.tags.is_empty() {
            let message = format!("the mount `{}` is KV version 1 and has no tags", mount.name);
            return Err(
                Fault::new(Class::Permanent, Reason::SpecInvalid, message).advise("search without tags")
            );
        }
        let mut candidates = self.walk(prefix, query).await?;
        candidates.sort_by(|a, b| a.0.cmp(&b.0));
        let found = futures::stream::iter(
            candidates
                .into_iter()
                .map(|candidate| self.judge(&query.tags, candidate)),
        );
        // In order, however long each takes.
        let found: Vec<Option<Found>> = found.buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn walk(&self, prefix: &str, query: &FindQuery) -> Outcome<Vec<Candidate>> {
        let mut found = Vec::new();
        let mut folders = vec![prefix.to_owned()];
        let mut listed = 0_usize;
        while let Some(folder) = folders.pop() {
            listed += 1;
            let (entries, mut metadata) = self.list(&folder, !query.tags.is_empty()).await?;
            for entry in entries {
                let path = if folder.is_empty() {
                    entry.clone()
                } else {
                    format!("{folder}/{entry}")
                };
                match path.strip_suffix('/') {
                    Some(below) => folders.push(below.to_owned()),
                    None => found.push((path, metadata.remove(&entry))),
                }
            }
            if found.len() > query.limit || listed + folders.len() > MOST_FOLDERS {
                return Err(too_many(self.mount, prefix, query.limit));
            }
        }
        Ok(found)
    }

    async fn list(&self, folder: &str, with_metadata: bool) -> Outcome<Listing> {
        let Self {
            mount, engine, pacer, ..
        } = *self;
        let what = format!("listing {}", mount.shown(folder));
        let (name, path) = (mount.name.clone(), folder.to_owned());
        let answered = match engine {
            Engine::V1 => {
                let request = ListSecretRequest { mount: name, path };
                mount.client.call_in_turn(&request, &what, pacer).await?
            }
            Engine::V2 => {
                if with_metadata
                    && !self.finder.lists_names_only.load(Ordering::Relaxed)
                    && let Some(listing) = self.list_with_metadata(folder, &what).await?
                {
                    return Ok(listing);
                }
                let request = ListSecretsRequest { mount: name, path };
                mount.client.call_in_turn(&request, &what, pacer).await?
            }
        };
        let answer = answered.answer;
        if is_nothing_there(&answer, &what)? {
            return Ok(Listing::default());
        }
        if answer.status != StatusCode::OK {
            return Err(list_refused(mount, engine, folder, &answer, &what));
        }
        let list: ListSecretsResponse = data_of(&answer, &what)?;
        Ok((list.keys, HashMap::new()))
    }

    /// `None` if the server cannot or will not list that way, or such a list is too large: names take less room.
    async fn list_with_metadata(&self, folder: &str, what: &str) -> Outcome<Option<Listing>> {
        let request = ListWithMetadata {
            mount: self.mount.name.clone(),
            path: folder.to_owned(),
        };
        let answer = match self.mount.client.call_in_turn(&request, what, self.pacer).await {
            Ok(answered) => answered.answer,
            Err(fault) if fault.reason == Reason::RemoteTooLarge => return Ok(None),
            Err(fault) => return Err(fault),
        };
        if answer.status == StatusCode::FORBIDDEN || is_unsupported(&answer) {
            self.finder.lists_names_only.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        if is_nothing_there(&answer, what)? {
            return Ok(Some(Listing::default()));
        }
        if answer.status != StatusCode::OK {
            return Err(refused(&answer, what));
        }
        let list: DetailedList = data_of(&answer, what)?;
        Ok(Some((list.keys, list.key_info)))
    }

    /// Turns a candidate into a match, with the metadata it takes to tell.
    async fn judge(&self, tags: &BTreeMap<String, String>, candidate: Candidate) -> Outcome<Option<Found>> {
        let (path, listed) = candidate;
        let metadata = match listed {
            Some(metadata) => Some(metadata),
            None if tags.is_empty() => None,
            None => match self.mount.metadata(&path, self.pacer).await? {
                Metadata::There(metadata) => Some(metadata),
                // Removed since it was listed.
                Metadata::Missing => return Ok(None),
                Metadata::Denied(fault) => return Err(fault),
            },
        };
        if !tags.is_empty() && !metadata.as_ref().is_some_and(|metadata| has_tags(metadata, tags)) {
            return Ok(None);
        }
        Ok(Some(Found {
            name: path.clone(),
            version: metadata.and_then(|metadata| current(&metadata)),
            place: Place::Path(path),
        }))
    }
}

fn has_tags(metadata: &ReadSecretMetadataResponse, tags: &BTreeMap<String, String>) -> bool {
    let custom = metadata.custom_metadata.as_ref();
    tags.iter()
        .all(|(key, value)| custom.and_then(|custom| custom.get(key)) == Some(value))
}

fn current(metadata: &ReadSecretMetadataResponse) -> Option<RemoteVersion> {
    match standing::probed(metadata, None, None)? {
        Probe::Current(version) => Some(version),
        _ => None,
    }
}

fn list_refused(mount: &Mount, engine: Engine, folder: &str, answer: &Response, what: &str) -> Fault {
    let fault = refused(answer, what);
    if fault.reason != Reason::RemoteDenied {
        return fault;
    }
    let below = if engine == Engine::V2 { "metadata/" } else { "" };
    fault.advise(format!("grant `list` on `{}/{below}{folder}`", mount.name))
}

fn too_many(mount: &Mount, prefix: &str, limit: usize) -> Fault {
    Fault::new(
        Class::Permanent,
        Reason::FindLimit,
        format!(
            "the search below {} meets more than {limit} secrets, or too many folders",
            mount.shown(prefix)
        ),
    )
    .advise("search below a longer prefix, or raise the limit")
}
