//! One KV mount: which version it is, what is at a path, and the value there.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use vaultrs::api::kv1::requests::GetSecretRequest;
use vaultrs::api::kv2::requests::{ReadSecretMetadataRequest, ReadSecretRequest};
use vaultrs::api::kv2::responses::ReadSecretMetadataResponse;

use super::attempts::Finding;
use super::classify::{is_nothing_there, not_understood, refused, time_of};
use super::client::{Answered, Client};
use super::config::KvVersion;
use super::endpoints::{LookUpMount, MountInfo, ValueEnvelope, VersionedValue};
use super::session::PassId;
use super::standing::{self, given_or};
use super::wire::{data_of, decode};
use crate::stores::pacing::Pacer;
use crate::stores::transport::Response;
use crate::stores::{Absence, Outcome, Probe, ReadOutcome, RemoteVersion};

/// How long a path whose metadata is denied is read without asking for metadata again.
const BLINDNESS: Duration = Duration::from_hours(1);

/// A KV mount.
pub(super) struct Mount {
    pub(super) client: Client,
    /// Without slashes at its ends.
    pub(super) name: String,
    declared: KvVersion,
    found: Finding<Engine>,
    /// Paths whose metadata is denied.
    blind: Mutex<HashMap<String, Blind>>,
}

/// That a path's metadata was denied.
struct Blind {
    since: Instant,
    /// To whom. Another token may be allowed it, and this one may have been dead.
    by: PassId,
}

/// The engine behind a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    V1,
    V2,
}

impl Mount {
    pub(super) fn new(client: Client, name: &str, declared: KvVersion) -> Outcome<Self> {
        let name = name.trim_matches('/').to_owned();
        check_path(&name)?;
        Ok(Self {
            client,
            name,
            declared,
            found: Finding::new(),
            blind: Mutex::default(),
        })
    }

    /// The engine as declared, or as the server says, asked once.
    pub(super) async fn engine(&self) -> Outcome<Engine> {
        match self.declared {
            KvVersion::V1 => Ok(Engine::V1),
            KvVersion::V2 => Ok(Engine::V2),
            KvVersion::Auto => self.found.get(self.look_up()).await,
        }
    }

    /// Asks the server what is mounted, unless that is known. A declared version stands when the server does not
    /// tell, and is held against what it tells.
    pub(super) async fn check(&self) -> Outcome<()> {
        let found = match self.found.get(self.look_up()).await {
            Ok(found) => found,
            Err(fault) if self.declared != KvVersion::Auto && fault.reason == Reason::RemoteDenied => {
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        if found == self.engine().await? {
            return Ok(());
        }
        Err(spec_fault(format!(
            "the mount `{}` is not of the declared KV version",
            self.name
        ))
        .advise("set the KV version to the other one, or to auto"))
    }

    /// What `call` gives for the engine behind the mount. One that was found out, and that the server contradicts by now,
    /// is found out once more: a mount can be upgraded, or made anew.
    pub(super) async fn on_engine<T, F>(&self, call: impl Fn(Engine) -> F) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>>,
    {
        let engine = self.engine().await?;
        let outcome = call(engine).await;
        let found = self.declared == KvVersion::Auto;
        if !found
            || !outcome
                .as_ref()
                .is_err_and(|fault| fault.reason == Reason::SpecInvalid)
        {
            return outcome;
        }
        self.found.forget(engine).await;
        match self.engine().await? {
            same if same == engine => outcome,
            another => call(another).await,
        }
    }

    /// Says what is at `path` by its metadata.
    pub(super) async fn probe(&self, path: &str, version: Option<u64>) -> Outcome<Probe> {
        check_path(path)?;
        self.on_engine(|engine| self.probe_as(engine, path, version))
            .await
    }

    /// Reads the value at `path`.
    pub(super) async fn read(&self, path: &str, version: Option<u64>) -> Outcome<ReadOutcome> {
        check_path(path)?;
        self.on_engine(|engine| self.read_as(engine, path, version)).await
    }

    /// The metadata at `path` (KV v2), for a search.
    pub(super) async fn metadata(&self, path: &str, pacer: &dyn Pacer) -> Outcome<Metadata> {
        let (request, what) = self.about_metadata(path);
        let answered = self.client.call_in_turn(&request, &what, pacer).await?;
        self.metadata_in(&answered.answer, path, &what)
    }

    /// `mount/path`, for messages.
    pub(super) fn shown(&self, path: &str) -> String {
        format!("`{}/{path}`", self.name)
    }

    async fn look_up(&self) -> Outcome<Engine> {
        let request = LookUpMount {
            mount: self.name.clone(),
        };
        let answer = self.client.call(&request).await?;
        let what = format!("looking up the mount `{}`", self.name);
        if answer.status != StatusCode::OK {
            let fault = refused(&answer, &what);
            return Err(match fault.reason {
                Reason::RemoteDenied => fault.advise(
                    "check the mount's name and that the role may read something below it, or declare the KV version",
                ),
                _ => fault,
            });
        }
        let info: MountInfo = data_of(&answer, &what)?;
        let real = info.path.as_deref().map(|path| path.trim_end_matches('/'));
        if let Some(real) = real.filter(|real| *real != self.name) {
            return Err(self.lies_in(real));
        }
        engine_of(&info).ok_or_else(|| {
            spec_fault(format!("the mount `{}` is no KV engine", self.name)).advise("name a KV mount")
        })
    }

    /// The fault of a mount that is none: the server says that it lies in `real`.
    fn lies_in(&self, real: &str) -> Fault {
        let below = self
            .name
            .strip_prefix(real)
            .and_then(|rest| rest.strip_prefix('/'));
        match below {
            Some(rest) => spec_fault(format!(
                "`{}` is no mount: it lies in the mount `{real}`",
                self.name
            ))
            .advise(format!(
                "set the mount to `{real}`, and begin paths with `{rest}/`"
            )),
            // The server's word, and nothing that the store's author has written.
            None => spec_fault(format!("`{}` is no mount", self.name)).advise("name a KV mount"),
        }
    }

    async fn probe_as(&self, engine: Engine, path: &str, version: Option<u64>) -> Outcome<Probe> {
        if engine == Engine::V1 || self.is_blind(path) {
            return Ok(Probe::NeedsRead);
        }
        let (request, what) = self.about_metadata(path);
        let Answered { answer, by } = self.client.call_by(&request).await?;
        match self.metadata_in(&answer, path, &what)? {
            Metadata::There(metadata) => {
                standing::probed(&metadata, version, time_of(&answer)).ok_or_else(|| not_understood(&what))
            }
            Metadata::Missing => Ok(Probe::Absent(Absence::NotFound)),
            Metadata::Denied(_) => {
                self.note_blind(path, by);
                // Whether the value may be read is another question.
                Ok(Probe::NeedsRead)
            }
        }
    }

    async fn read_as(&self, engine: Engine, path: &str, version: Option<u64>) -> Outcome<ReadOutcome> {
        match engine {
            Engine::V1 if version.is_some() => Err(spec_fault(format!(
                "the mount `{}` is KV version 1 and keeps no versions",
                self.name
            ))
            .advise("leave out the version")),
            Engine::V1 => self.read_plain(path).await,
            Engine::V2 => self.read_versioned(path, version).await,
        }
    }

    fn about_metadata(&self, path: &str) -> (ReadSecretMetadataRequest, String) {
        let request = ReadSecretMetadataRequest {
            mount: self.name.clone(),
            path: path.to_owned(),
        };
        (request, format!("reading the metadata of {}", self.shown(path)))
    }

    fn metadata_in(&self, answer: &Response, path: &str, what: &str) -> Outcome<Metadata> {
        if is_nothing_there(answer, what)? {
            return Ok(Metadata::Missing);
        }
        match answer.status {
            StatusCode::OK => Ok(Metadata::There(data_of(answer, what)?)),
            StatusCode::FORBIDDEN => Ok(Metadata::Denied(
                refused(answer, what).advise(format!("grant `read` on `{}/metadata/{path}`", self.name)),
            )),
            _ => Err(refused(answer, what)),
        }
    }

    async fn read_plain(&self, path: &str) -> Outcome<ReadOutcome> {
        let request = GetSecretRequest {
            mount: self.name.clone(),
            path: path.to_owned(),
        };
        let answer = self.client.call(&request).await?;
        let what = format!("reading {}", self.shown(path));
        if is_nothing_there(&answer, &what)? {
            return Ok(ReadOutcome::Absent(Absence::NotFound));
        }
        if answer.status != StatusCode::OK {
            return Err(self.read_refused(Engine::V1, &answer, &what, path));
        }
        let envelope: ValueEnvelope<'_> = decode(&answer, &what)?;
        Ok(given_or(envelope.data, RemoteVersion::default(), Absence::Empty))
    }

    async fn read_versioned(&self, path: &str, version: Option<u64>) -> Outcome<ReadOutcome> {
        let request = ReadSecretRequest {
            mount: self.name.clone(),
            path: path.to_owned(),
            version,
        };
        let answer = self.client.call(&request).await?;
        let what = format!("reading {}", self.shown(path));
        // A deleted or destroyed version is a 404 that still says which version it was.
        if answer.status != StatusCode::OK && !is_nothing_there(&answer, &what)? {
            return Err(self.read_refused(Engine::V2, &answer, &what, path));
        }
        let envelope: ValueEnvelope<'_> = decode(&answer, &what)?;
        let Some(data) = envelope.data.filter(|data| data.get() != "null") else {
            return Ok(ReadOutcome::Absent(Absence::NotFound));
        };
        let value: VersionedValue<'_> =
            serde_json::from_str(data.get()).map_err(|_| not_understood(&what))?;
        standing::read(&value).ok_or_else(|| not_understood(&what))
    }

    fn read_refused(&self, engine: Engine, answer: &Response, what: &str, path: &str) -> Fault {
        let fault = refused(answer, what);
        if fault.reason != Reason::RemoteDenied {
            return fault;
        }
        let below = if engine == Engine::V2 { "data/" } else { "" };
        fault.advise(format!("grant `read` on `{}/{below}{path}`", self.name))
    }

    /// Notes that only reading tells about `path`.
    fn note_blind(&self, path: &str, by: PassId) {
        let since = Instant::now();
        self.blind().insert(path.to_owned(), Blind { since, by });
    }

    fn is_blind(&self, path: &str) -> bool {
        let mut blind = self.blind();
        let Some(Blind { since, by }) = blind.get(path) else {
            return false;
        };
        let still = since.elapsed() < BLINDNESS && self.client.goes_by(*by);
        if !still {
            blind.remove(path);
        }
        still
    }

    fn blind(&self) -> MutexGuard<'_, HashMap<String, Blind>> {
        self.blind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What asking for metadata gave.
pub(super) enum Metadata {
    There(ReadSecretMetadataResponse),
    Missing,
    /// With the fault, for those who cannot do without.
    Denied(Fault),
}

/// Refuses what the server, or the URL on the way to it, would take for another path.
pub(super) fn check_path(path: &str) -> Outcome<()> {
    let odd =
        |piece: &str| piece.is_empty() || piece == "." || piece == ".." || piece.contains(char::is_control);
    if path.split('/').any(odd) {
        return Err(
            spec_fault("a remote path has an empty, a dotted or an unprintable part".to_owned())
                .advise("write it without `//`, `.`, `..` and slashes at its ends"),
        );
    }
    Ok(())
}

fn engine_of(info: &MountInfo) -> Option<Engine> {
    if info.kind != "kv" && info.kind != "generic" {
        return None;
    }
    let version = info.options.as_ref().and_then(|options| options.get("version"));
    Some(if version.is_some_and(|version| version == "2") {
        Engine::V2
    } else {
        Engine::V1
    })
}

fn spec_fault(message: String) -> Fault {
    Fault::new(Class::Permanent, Reason::SpecInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_would_lead_elsewhere_are_refused() {
        for path in ["", "/a", "a/", "a//b", "a/../b", "./a", "a/\tb", "a\n"] {
            assert_eq!(
                check_path(path).unwrap_err().reason,
                Reason::SpecInvalid,
                "{path:?}"
            );
        }
        for path in ["a", "a/b", "a b/ü", "a/.b", "a/...", "%2e%2e/a"] {
            assert!(check_path(path).is_ok(), "{path:?}");
        }
    }
}
