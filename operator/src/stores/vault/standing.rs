//! What becomes of a version of a secret (KV v2): there, to be deleted, deleted, destroyed.
//!
//! A deletion can lie ahead, so metadata alone must be held against a clock. That is the server's: ours may be wrong, and
//! would report a value as deleted that the server still gives. Where the two may round differently, the value is asked
//! for; what comes with it, or in its place, needs no clock.

use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::secret::SecretBytes;
use serde_json::value::RawValue;
use vaultrs::api::kv2::responses::{ReadSecretMetadataResponse, SecretVersionMetadata};

use super::endpoints::VersionedValue;
use crate::stores::{Absence, Payload, Probe, ReadOutcome, Reading, RemoteVersion};

/// A server tells its time in whole seconds, and another node may have set the deletion.
const NEAR: TimeDelta = TimeDelta::seconds(2);

/// Decides what metadata says about `wanted`, or about the newest version, at the server's time `now`, where that is
/// known. `None` if it cannot be understood.
pub(super) fn probed(
    metadata: &ReadSecretMetadataResponse,
    wanted: Option<u64>,
    now: Option<DateTime<Utc>>,
) -> Option<Probe> {
    if metadata.current_version == 0 {
        return Some(Probe::Absent(Absence::Empty));
    }
    let number = wanted.unwrap_or(metadata.current_version);
    let Some(found) = metadata.versions.get(&number.to_string()) else {
        // Never written, or dropped by the mount's limit on versions.
        return Some(Probe::Absent(Absence::NotFound));
    };
    let version = version(number, &found.created_time, &found.deletion_time)?;
    if found.destroyed {
        return Some(Probe::Absent(Absence::Destroyed));
    }
    let Some(deletion) = version.expires else {
        return Some(Probe::Current(version));
    };
    Some(match now.map(|now| deletion - now) {
        Some(ahead) if ahead > NEAR => Probe::Current(version),
        Some(ahead) if ahead < -NEAR => Probe::Absent(Absence::Deleted),
        _ => Probe::NeedsRead,
    })
}

/// What an answer with a value, or without one, says. `None` if it cannot be understood.
pub(super) fn read(value: &VersionedValue<'_>) -> Option<ReadOutcome> {
    let SecretVersionMetadata {
        created_time,
        deletion_time,
        destroyed,
        version: number,
        ..
    } = &value.metadata;
    let version = version(*number, created_time, deletion_time)?;
    // Gone is what the server gives no value for, whatever the time is here.
    let absence = match (destroyed, version.expires) {
        (true, _) => Absence::Destroyed,
        (false, Some(_)) => Absence::Deleted,
        (false, None) => Absence::Empty,
    };
    Some(given_or(value.data, version, absence))
}

/// A value as it was given, or how it is absent.
pub(super) fn given_or(data: Option<&RawValue>, version: RemoteVersion, absence: Absence) -> ReadOutcome {
    match data.map(RawValue::get) {
        None | Some("null") => ReadOutcome::Absent(absence),
        Some(json) => ReadOutcome::Value(Reading {
            version,
            payload: Payload::Json(SecretBytes::from(json)),
        }),
    }
}

fn version(number: u64, created: &str, deletion: &str) -> Option<RemoteVersion> {
    let expires = match deletion {
        "" => None,
        at => Some(instant(at)?),
    };
    Some(RemoteVersion {
        number: Some(number),
        created: Some(instant(created)?),
        expires,
        ..RemoteVersion::default()
    })
}

fn instant(text: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-02-01T00:00:00Z";

    fn probed_at(now: Option<&str>, current: u64, deletion: &str, destroyed: bool) -> Option<Probe> {
        let version = json!({
            "created_time": "2026-01-03T00:00:00.5Z", "deletion_time": deletion, "destroyed": destroyed,
        });
        let metadata = json!({
            "cas_required": false, "created_time": "2026-01-01T00:00:00Z", "current_version": current,
            "delete_version_after": "0s", "max_versions": 0, "oldest_version": 0,
            "updated_time": "2026-01-01T00:00:00Z", "custom_metadata": null, "versions": {"3": version},
        });
        let metadata = serde_json::from_value(metadata).unwrap();
        probed(&metadata, None, now.map(|now| now.parse().unwrap()))
    }

    fn version_3(expires: &str) -> RemoteVersion {
        version(3, "2026-01-03T00:00:00.5Z", expires).unwrap()
    }

    #[test]
    fn what_is_destroyed_is_so_whether_it_was_deleted_before_or_not() {
        let (past, to_come) = ("2026-01-04T00:00:00Z", "2026-03-01T00:00:00Z");
        for (deletion, destroyed, expected) in [
            ("", false, Probe::Current(version_3(""))),
            (past, false, Probe::Absent(Absence::Deleted)),
            ("", true, Probe::Absent(Absence::Destroyed)),
            (past, true, Probe::Absent(Absence::Destroyed)),
            (to_come, false, Probe::Current(version_3(to_come))),
        ] {
            let probe = probed_at(Some(NOW), 3, deletion, destroyed);
            assert_eq!(probe, Some(expected), "{deletion} {destroyed}");
        }
    }

    #[test]
    fn a_deletion_close_to_the_servers_time_or_without_one_is_left_to_a_read() {
        for (deletion, expected) in [
            ("2026-01-31T23:59:57.9Z", Probe::Absent(Absence::Deleted)),
            ("2026-01-31T23:59:58Z", Probe::NeedsRead),
            (NOW, Probe::NeedsRead),
            ("2026-02-01T00:00:02Z", Probe::NeedsRead),
            (
                "2026-02-01T00:00:02.1Z",
                Probe::Current(version_3("2026-02-01T00:00:02.1Z")),
            ),
        ] {
            assert_eq!(
                probed_at(Some(NOW), 3, deletion, false),
                Some(expected),
                "{deletion}"
            );
            assert_eq!(probed_at(None, 3, deletion, false), Some(Probe::NeedsRead));
        }
        assert_eq!(
            probed_at(None, 3, "", false),
            Some(Probe::Current(version_3(""))),
            "without a deletion there is nothing to compare"
        );
    }

    #[test]
    fn what_is_given_is_there_and_what_is_not_is_gone_whatever_the_time_is_here() {
        for deletion in ["2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z", ""] {
            let outcome = |data: &str, destroyed: bool| {
                let answer = format!(
                    r#"{{"data":{data},"metadata":{{"created_time":"2026-01-03T00:00:00.5Z",
                    "custom_metadata":null,"deletion_time":"{deletion}","destroyed":{destroyed},"version":3}}}}"#
                );
                let value: VersionedValue<'_> = serde_json::from_str(&answer).unwrap();
                read(&value).unwrap()
            };
            let ReadOutcome::Value(Reading { version, .. }) = outcome(r#"{"a":"b"}"#, false) else {
                panic!("{deletion}: it is given")
            };
            assert_eq!(version, version_3(deletion));
            let absence = if deletion.is_empty() {
                Absence::Empty
            } else {
                Absence::Deleted
            };
            for (destroyed, absence) in [(false, absence), (true, Absence::Destroyed)] {
                let told = outcome("null", destroyed);
                assert!(
                    matches!(told, ReadOutcome::Absent(told) if told == absence),
                    "{deletion}"
                );
            }
        }
    }

    #[test]
    fn metadata_without_any_version_is_an_empty_place() {
        assert_eq!(
            probed_at(Some(NOW), 0, "", false),
            Some(Probe::Absent(Absence::Empty))
        );
    }

    #[test]
    fn metadata_with_unreadable_times_is_not_guessed_at() {
        assert_eq!(probed_at(Some(NOW), 3, "tomorrow", false), None);
    }
}
