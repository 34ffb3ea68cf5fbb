//! Barbican's answers as data. Pure parsing of hostile input; nothing here holds a value.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

/// The newest microversion whose answers this module knows.
const KNOWN: (u32, u32) = (1, 1);
/// The most letters of a name that Barbican stores.
const LONGEST_NAME: usize = 255;
/// The metadata key under which a writer counts the generations of a name.
const GENERATION: &str = "keyward-generation";

/// What Barbican tells about a secret without giving its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: Uuid,
    pub(super) name: Box<str>,
    pub(super) created: DateTime<Utc>,
    pub(super) expires: Option<DateTime<Utc>>,
    /// Whether a value has been stored yet.
    pub(super) has_payload: bool,
    pub(super) active: bool,
}

impl Entry {
    pub(super) fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// One page of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// How many there are on all pages.
    pub(super) total: usize,
}

/// A container: named references to secrets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) created: DateTime<Utc>,
    /// By name; sorted.
    pub(super) parts: Vec<(String, Uuid)>,
}

/// The answer is not of the shape it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

pub(super) fn entry(body: &[u8]) -> Result<Entry, Malformed> {
    serde_json::from_slice::<RawSecret>(body)
        .map_err(|_| Malformed)?
        .into_entry()
}

/// A page of no more than `limit` entries.
pub(super) fn page(body: &[u8], limit: usize) -> Result<Page, Malformed> {
    #[derive(Deserialize)]
    struct Raw {
        secrets: Vec<RawSecret>,
        total: usize,
    }
    let raw: Raw = serde_json::from_slice(body).map_err(|_| Malformed)?;
    if raw.secrets.len() > limit {
        return Err(Malformed);
    }
    let entries: Result<Vec<Entry>, Malformed> = raw.secrets.into_iter().map(RawSecret::into_entry).collect();
    Ok(Page {
        entries: entries?,
        total: raw.total,
    })
}

pub(super) fn container(body: &[u8]) -> Result<Container, Malformed> {
    #[derive(Deserialize)]
    struct Raw {
        created: String,
        #[serde(default)]
        secret_refs: Vec<RawRef>,
    }
    #[derive(Deserialize)]
    struct RawRef {
        name: Option<String>,
        secret_ref: String,
    }
    let raw: Raw = serde_json::from_slice(body).map_err(|_| Malformed)?;
    let mut parts = Vec::with_capacity(raw.secret_refs.len());
    for reference in raw.secret_refs {
        let id = last_uuid(&reference.secret_ref).ok_or(Malformed)?;
        let name = reference.name.filter(|name| !name.is_empty());
        parts.push((name.unwrap_or_else(|| id.to_string()), id));
    }
    parts.sort();
    Ok(Container {
        created: instant(&raw.created)?,
        parts,
    })
}

pub(super) fn metadata(body: &[u8]) -> Result<BTreeMap<String, String>, Malformed> {
    #[derive(Deserialize)]
    struct Raw {
        metadata: BTreeMap<String, String>,
    }
    serde_json::from_slice::<Raw>(body)
        .map(|raw| raw.metadata)
        .map_err(|_| Malformed)
}

/// The generation that a writer noted; text that is no number says nothing.
pub(super) fn generation(metadata: &BTreeMap<String, String>) -> Option<u64> {
    metadata.get(GENERATION)?.parse().ok()
}

/// The header value for the newest microversion that both sides know, from the server's version document.
pub(super) fn max_microversion(body: &[u8]) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct Raw {
        versions: Vec<Version>,
    }
    #[derive(Deserialize)]
    struct Version {
        max_version: Option<String>,
    }
    let raw: Raw = serde_json::from_slice(body).ok()?;
    let newest = raw
        .versions
        .iter()
        .filter_map(|version| {
            let (major, minor) = version.max_version.as_deref()?.split_once('.')?;
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        })
        .filter(|(major, _)| *major == KNOWN.0)
        .max()?;
    Some(if newest >= KNOWN {
        "key-manager 1.1"
    } else {
        "key-manager 1.0"
    })
}

/// The UUID that a user gave, plain or at the end of a reference.
pub(super) fn last_uuid(reference: &str) -> Option<Uuid> {
    let last = reference.trim_end_matches('/').rsplit('/').next()?;
    // Other spellings that the parser would take are not Barbican's.
    (last.len() == 36).then(|| Uuid::try_parse(last).ok()).flatten()
}

#[derive(Deserialize)]
struct RawSecret {
    name: Option<String>,
    secret_ref: String,
    status: String,
    created: String,
    expiration: Option<String>,
    content_types: Option<serde_json::Map<String, serde_json::Value>>,
}

impl RawSecret {
    fn into_entry(self) -> Result<Entry, Malformed> {
        let name = self.name.unwrap_or_default();
        if name.chars().count() > LONGEST_NAME {
            return Err(Malformed);
        }
        Ok(Entry {
            id: last_uuid(&self.secret_ref).ok_or(Malformed)?,
            name: name.into_boxed_str(),
            created: instant(&self.created)?,
            expires: self.expiration.as_deref().map(instant).transpose()?,
            has_payload: self.content_types.is_some_and(|types| !types.is_empty()),
            active: self.status == "ACTIVE",
        })
    }
}

/// Barbican writes times in UTC without saying so.
fn instant(text: &str) -> Result<DateTime<Utc>, Malformed> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    text.parse::<NaiveDateTime>()
        .map(|time| time.and_utc())
        .map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "1a2b3c4d-0000-4000-8000-00000000000a";

    fn secret() -> serde_json::Value {
        json!({
            "name": "db-password", "status": "ACTIVE", "secret_type": "opaque", "creator_id": "x",
            "created": "2026-11-22T11:00:00.123456", "updated": "2026-11-22T11:00:01",
            "expiration": "2026-11-23T11:00:00", "content_types": {"default": "text/plain"},
            "secret_ref": format!("http://inside.example:9311/v1/secrets/{ID}"),
        })
    }

    fn read(value: &serde_json::Value) -> Result<Entry, Malformed> {
        entry(value.to_string().as_bytes())
    }

    #[test]
    fn an_entry_is_read_with_times_in_utc() {
        let entry = read(&secret()).unwrap();
        assert_eq!(entry.id.to_string(), ID);
        assert_eq!(entry.created.to_rfc3339(), "2026-11-22T11:00:00.123456+00:00");
        assert_eq!(entry.expires.unwrap().to_rfc3339(), "2026-11-23T11:00:00+00:00");
        assert!(entry.has_payload && entry.active);
        assert!(!entry.is_expired(entry.created));
        assert!(entry.is_expired(entry.expires.unwrap()));
    }

    #[test]
    fn what_an_entry_may_lack() {
        let mut value = secret();
        for key in ["content_types", "expiration", "name"] {
            value.as_object_mut().unwrap().remove(key);
        }
        value["status"] = json!("PENDING");
        let entry = read(&value).unwrap();
        assert!(!entry.has_payload && !entry.active && entry.expires.is_none() && entry.name.is_empty());
    }

    #[test]
    fn what_an_entry_must_not_lack() {
        for (key, bad) in [
            ("created", json!("yesterday")),
            ("created", json!(null)),
            ("expiration", json!("soon")),
            ("secret_ref", json!("https://x/v1/secrets/../../admin")),
            ("secret_ref", json!("")),
            ("status", json!(7)),
            ("name", json!("ü".repeat(256))),
        ] {
            let mut value = secret();
            value[key] = bad;
            assert_eq!(read(&value), Err(Malformed), "{key}");
        }
        assert_eq!(page(b"<html></html>", 9), Err(Malformed));
        assert_eq!(page(br#"{"secrets": []}"#, 9), Err(Malformed));
    }

    #[test]
    fn a_page_holds_what_was_asked_for_and_no_more() {
        let mut longest = secret();
        longest["name"] = json!("ü".repeat(255));
        let two = json!({"secrets": [secret(), longest], "total": 2}).to_string();
        assert_eq!(page(two.as_bytes(), 2).unwrap().entries.len(), 2);
        assert_eq!(page(two.as_bytes(), 1), Err(Malformed));
    }

    #[test]
    fn a_container_keeps_doubled_names_and_names_the_nameless() {
        let other = ID.replace('a', "b");
        let body = json!({
            "created": "2026-11-22T11:00:00", "updated": "2026-11-22T12:00:00", "type": "generic", "consumers": [],
            "secret_refs": [
                {"name": "tls.key", "secret_ref": format!("http://h/v1/secrets/{ID}")},
                {"name": null, "secret_ref": format!("http://h/v1/secrets/{ID}")},
                {"name": "tls.key", "secret_ref": format!("http://h/v1/secrets/{other}")},
            ],
        });
        let container = container(body.to_string().as_bytes()).unwrap();
        let names: Vec<&str> = container.parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [ID, "tls.key", "tls.key"]);
    }

    #[test]
    fn the_microversion_is_the_newest_both_know() {
        let document = |max: &str| json!({"versions": [{"id": "v1", "max_version": max}]}).to_string();
        assert_eq!(
            max_microversion(document("1.0").as_bytes()),
            Some("key-manager 1.0")
        );
        assert_eq!(
            max_microversion(document("1.12").as_bytes()),
            Some("key-manager 1.1")
        );
        assert_eq!(max_microversion(document("2.0").as_bytes()), None);
        assert_eq!(
            max_microversion(br#"{"versions": {"values": [{"id": "v1"}]}}"#),
            None
        );
    }

    #[test]
    fn a_reference_is_as_good_as_its_uuid() {
        for text in [ID, &ID.to_uppercase(), &format!("https://h/v1/secrets/{ID}/")] {
            assert_eq!(last_uuid(text).unwrap().to_string(), ID);
        }
        for text in [
            "",
            "/",
            "1a2b3c4d000040008000",
            &format!("{{{ID}}}"),
            &format!("{ID}?x"),
            "%2e%2e",
        ] {
            assert_eq!(last_uuid(text), None, "{text}");
        }
    }

    #[test]
    fn a_generation_is_a_number_or_nothing() {
        let read = |value: &str| generation(&BTreeMap::from([(GENERATION.to_owned(), value.to_owned())]));
        assert_eq!(read("7"), Some(7));
        assert_eq!(read("seven"), None);
        assert_eq!(generation(&BTreeMap::new()), None);
        assert_eq!(
            metadata(br#"{"metadata": {"a": "b"}}"#).unwrap(),
            BTreeMap::from([("a".to_owned(), "b".to_owned())])
        );
    }
}
