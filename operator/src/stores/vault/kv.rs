//! One KV mount: which version it is, what is at a path, and the value there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use http::StatusCode;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use serde_json::value::RawValue;
use vaultrs::api::kv1::requests::GetSecretRequest;
use vaultrs::api::kv2::requests::{ReadSecretMetadataRequest, ReadSecretRequest};
use vaultrs::api::kv2::responses::{ReadSecretMetadataResponse, SecretVersionMetadata};

use super::attempts::Finding;
use super::classify::{is_nothing_there, not_understood, refused};
use super::client::Client;
use super::config::KvVersion;
use super::endpoints::{LookUpMount, MountInfo, ValueEnvelope, VersionedValue};
use super::wire::{data_of, decode};
use crate::stores::transport::Response;
use crate::stores::{Absence, Outcome, Payload, Probe, ReadOutcome, Reading, RemoteVersion};

/// How long a path whose metadata is denied is read without asking for metadata again.
const BLINDNESS: Duration = Duration::from_hours(1);

/// A KV mount.
pub(super) struct Mount {
    pub(super) client: Client,
    /// Without slashes at its ends.
    pub(super) name: String,
    declared: KvVersion,
    found: Finding<Engine>,
    /// Paths whose metadata is denied, and since when we know.
    blind: Mutex<HashMap<String, Instant>>,
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

    /// Says what is at `path` by its metadata.
    pub(super) async fn probe(&self, path: &str, version: Option<u64>) -> Outcome<Probe> {
        check_path(path)?;
        if self.engine().await? == Engine::V1 || self.is_blind(path) {
            return Ok(Probe::NeedsRead);
        }
        match self.metadata(path).await? {
            Metadata::There(metadata) => {
                probe_of(&metadata, version, now()).ok_or_else(|| self.garbled(path))
            }
            Metadata::Missing => Ok(Probe::Absent(Absence::NotFound)),
            Metadata::Denied(_) => {
                self.note_blind(path);
                // Whether the value may be read is another question.
                Ok(Probe::NeedsRead)
            }
        }
    }

    /// Reads the value at `path`.
    pub(super) async fn read(&self, path: &str, version: Option<u64>) -> Outcome<ReadOutcome> {
        check_path(path)?;
        match self.engine().await? {
            Engine::V1 if version.is_some() => Err(spec_fault(format!(
                "the mount `{}` is KV version 1 and keeps no versions",
                self.name
            ))
            .advise("leave out the version")),
            Engine::V1 => self.read_plain(path).await,
            Engine::V2 => self.read_versioned(path, version).await,
        }
    }

    /// The metadata at `path` (KV v2).
    pub(super) async fn metadata(&self, path: &str) -> Outcome<Metadata> {
        let request = ReadSecretMetadataRequest {
            mount: self.name.clone(),
            path: path.to_owned(),
        };
        let answer = self.client.call(&request).await?;
        let what = format!("reading the metadata of {}", self.shown(path));
        if is_nothing_there(&answer, &what)? {
            return Ok(Metadata::Missing);
        }
        match answer.status {
            StatusCode::OK => Ok(Metadata::There(data_of(&answer, &what)?)),
            StatusCode::FORBIDDEN => Ok(Metadata::Denied(
                refused(&answer, &what).advise(format!("grant `read` on `{}/metadata/{path}`", self.name)),
            )),
            _ => Err(refused(&answer, &what)),
        }
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
        engine_of(&data_of(&answer, &what)?).ok_or_else(|| {
            spec_fault(format!("the mount `{}` is no KV engine", self.name)).advise("name a KV mount")
        })
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
        Ok(value_or_empty(envelope.data, RemoteVersion::default()))
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
        match standing_of(&value.metadata, now()).ok_or_else(|| self.garbled(path))? {
            Standing::Live(version) => Ok(value_or_empty(value.data, version)),
            Standing::Gone(absence) => Ok(ReadOutcome::Absent(absence)),
        }
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
    fn note_blind(&self, path: &str) {
        let mut blind = self.blind.lock().unwrap_or_else(PoisonError::into_inner);
        blind.insert(path.to_owned(), Instant::now());
    }

    fn is_blind(&self, path: &str) -> bool {
        let mut blind = self.blind.lock().unwrap_or_else(PoisonError::into_inner);
        match blind.get(path) {
            Some(since) if since.elapsed() < BLINDNESS => true,
            Some(_) => {
                blind.remove(path);
                false
            }
            None => false,
        }
    }

    fn garbled(&self, path: &str) -> Fault {
        not_understood(&format!("reading {}", self.shown(path)))
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

/// What a version of a secret is, now.
enum Standing {
    Live(RemoteVersion),
    Gone(Absence),
}

/// Decides what metadata says about `wanted`, or about the newest version. `None` if it cannot be understood.
pub(super) fn probe_of(
    metadata: &ReadSecretMetadataResponse,
    wanted: Option<u64>,
    now: DateTime<Utc>,
) -> Option<Probe> {
    if metadata.current_version == 0 {
        return Some(Probe::Absent(Absence::Empty));
    }
    let number = wanted.unwrap_or(metadata.current_version);
    let Some(found) = metadata.versions.get(&number.to_string()) else {
        // Never written, or dropped by the mount's limit on versions.
        return Some(Probe::Absent(Absence::NotFound));
    };
    Some(
        match standing(
            number,
            &found.created_time,
            &found.deletion_time,
            found.destroyed,
            now,
        )? {
            Standing::Live(version) => Probe::Current(version),
            Standing::Gone(absence) => Probe::Absent(absence),
        },
    )
}

fn standing_of(metadata: &SecretVersionMetadata, now: DateTime<Utc>) -> Option<Standing> {
    let SecretVersionMetadata {
        created_time,
        deletion_time,
        destroyed,
        version,
        ..
    } = metadata;
    standing(*version, created_time, deletion_time, *destroyed, now)
}

fn standing(
    number: u64,
    created: &str,
    deletion: &str,
    destroyed: bool,
    now: DateTime<Utc>,
) -> Option<Standing> {
    let mut version = RemoteVersion {
        number: Some(number),
        created: Some(instant(created)?),
        ..RemoteVersion::default()
    };
    if destroyed {
        return Some(Standing::Gone(Absence::Destroyed));
    }
    if deletion.is_empty() {
        return Some(Standing::Live(version));
    }
    let deletion = instant(deletion)?;
    if deletion <= now {
        return Some(Standing::Gone(Absence::Deleted));
    }
    version.expires = Some(deletion);
    Some(Standing::Live(version))
}

fn value_or_empty(data: Option<&RawValue>, version: RemoteVersion) -> ReadOutcome {
    match data.map(RawValue::get) {
        None | Some("null") => ReadOutcome::Absent(Absence::Empty),
        Some(json) => ReadOutcome::Value(Reading {
            version,
            payload: Payload::Json(SecretBytes::from(json)),
        }),
    }
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

fn instant(text: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

pub(super) fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

fn spec_fault(message: String) -> Fault {
    Fault::new(Class::Permanent, Reason::SpecInvalid, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn probed(current: u64, deletion: &str, destroyed: bool) -> Option<Probe> {
        let version = json!({
            "created_time": "2026-01-03T00:00:00.5Z", "deletion_time": deletion, "destroyed": destroyed,
        });
        let metadata = json!({
            "cas_required": false, "created_time": "2026-01-01T00:00:00Z", "current_version": current,
            "delete_version_after": "0s", "max_versions": 0, "oldest_version": 0,
            "updated_time": "2026-01-01T00:00:00Z", "custom_metadata": null, "versions": {"3": version},
        });
        let now = "2026-02-01T00:00:00Z".parse().unwrap();
        probe_of(&serde_json::from_value(metadata).unwrap(), None, now)
    }

    #[test]
    fn what_is_destroyed_is_so_whether_it_was_deleted_before_or_not() {
        let version = RemoteVersion {
            number: Some(3),
            created: Some("2026-01-03T00:00:00.5Z".parse().unwrap()),
            ..RemoteVersion::default()
        };
        let (past, to_come) = ("2026-01-04T00:00:00Z", "2026-03-01T00:00:00Z");
        for (deletion, destroyed, expected) in [
            ("", false, Probe::Current(version.clone())),
            (past, false, Probe::Absent(Absence::Deleted)),
            ("", true, Probe::Absent(Absence::Destroyed)),
            (past, true, Probe::Absent(Absence::Destroyed)),
            (
                to_come,
                false,
                Probe::Current(RemoteVersion {
                    expires: Some(to_come.parse().unwrap()),
                    ..version
                }),
            ),
        ] {
            assert_eq!(
                probed(3, deletion, destroyed),
                Some(expected),
                "{deletion} {destroyed}"
            );
        }
    }

    #[test]
    fn metadata_without_any_version_is_an_empty_place() {
        assert_eq!(probed(0, "", false), Some(Probe::Absent(Absence::Empty)));
    }

    #[test]
    fn metadata_with_unreadable_times_is_not_guessed_at() {
        assert_eq!(probed(3, "tomorrow", false), None);
    }

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
