//! The key-value engine in both versions.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Call, Product, data, done, enveloped, nothing, now, refused, seconds, time};
use crate::http::Answer;

/// What is mounted.
pub(super) enum Engine {
    /// Version 1: a value for each path.
    Plain(BTreeMap<String, String>),
    /// Version 2.
    Versioned(BTreeMap<String, Secret>),
    /// An engine that is told about and does nothing.
    Other(String),
}

/// A path of version 2.
pub(super) struct Secret {
    created: DateTime<Utc>,
    updated: DateTime<Utc>,
    custom: Value,
    /// In seconds; 0 is never.
    delete_after: i64,
    newest: u64,
    versions: BTreeMap<u64, Version>,
}

struct Version {
    created: DateTime<Utc>,
    deleted: Option<DateTime<Utc>>,
    destroyed: bool,
    value: String,
}

#[derive(Deserialize)]
struct Write<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Engine {
    /// The engine that `sys/mounts` is asked for.
    pub(super) fn new(wanted: &Value) -> Option<Self> {
        let kind = wanted["type"].as_str()?;
        Some(match (kind, wanted["options"]["version"].as_str()) {
            ("kv", Some("2")) => Self::Versioned(BTreeMap::new()),
            ("kv", _) => Self::Plain(BTreeMap::new()),
            _ => Self::Other(kind.to_owned()),
        })
    }

    /// Its type and, for a key-value engine, its version.
    pub(super) fn kind(&self) -> (&str, Option<&str>) {
        match self {
            Self::Plain(_) => ("kv", Some("1")),
            Self::Versioned(_) => ("kv", Some("2")),
            Self::Other(kind) => (kind, None),
        }
    }

    /// Makes version 2 of version 1: each value becomes the first version of its secret.
    pub(super) fn upgrade(&mut self) {
        let Self::Plain(values) = self else { return };
        let versioned = values.iter().map(|(path, value)| {
            let mut secret = Secret::new();
            drop(secret.write(value));
            (path.clone(), secret)
        });
        *self = Self::Versioned(versioned.collect());
    }

    pub(super) fn serve(&mut self, product: Product, call: &Call<'_>) -> Answer {
        match self {
            Self::Plain(values) => plain(values, call),
            Self::Versioned(secrets) => versioned(secrets, product, call),
            Self::Other(_) => refused(404, &["unsupported path"]),
        }
    }
}

fn plain(values: &mut BTreeMap<String, String>, call: &Call<'_>) -> Answer {
    match call.method {
        "GET" => values
            .get(call.path)
            .map_or_else(nothing, |value| enveloped(200, value, "null", &Value::Null)),
        "LIST" => listed(&keys_below(values.keys(), call.path)),
        "DELETE" => {
            values.remove(call.path);
            done()
        }
        _ => {
            let value = String::from_utf8_lossy(&call.seen.body).into_owned();
            values.insert(call.path.to_owned(), value);
            done()
        }
    }
}

fn versioned(secrets: &mut BTreeMap<String, Secret>, product: Product, call: &Call<'_>) -> Answer {
    let (room, path) = call.path.split_once('/').unwrap_or((call.path, ""));
    match (call.method, room) {
        ("GET", "config") => {
            data(&json!({ "cas_required": false, "delete_version_after": "0s", "max_versions": 0 }))
        }
        (_, "config") => refused(405, &["1 error occurred:\n\t* unsupported operation\n\n"]),
        ("GET", "data") => {
            let wanted = call.seen.query("version").and_then(|number| number.parse().ok());
            secrets
                .get(path)
                .map_or_else(nothing, |secret| secret.read(wanted.unwrap_or(0)))
        }
        ("PUT", "data") => {
            let Ok(Write { data: Some(value) }) = serde_json::from_slice(&call.seen.body) else {
                return refused(400, &["no data provided"]);
            };
            secrets
                .entry(path.to_owned())
                .or_insert_with(Secret::new)
                .write(value.get())
        }
        ("DELETE", "data") => {
            if let Some(secret) = secrets.get_mut(path) {
                let newest = secret.newest;
                secret.change(&[newest], |version| version.deleted = Some(now()));
            }
            done()
        }
        ("PUT", "undelete" | "destroy") => {
            let numbers: Vec<u64> = serde_json::from_value(call.body["versions"].clone()).unwrap_or_default();
            match secrets.get_mut(path) {
                None => return nothing(),
                Some(secret) if room == "destroy" => {
                    secret.change(&numbers, |version| version.destroyed = true);
                }
                Some(secret) => secret.change(&numbers, |version| version.deleted = None),
            }
            done()
        }
        ("GET", "metadata") => secrets
            .get(path)
            .map_or_else(nothing, |secret| data(&secret.metadata())),
        ("PUT", "metadata") => {
            let secret = secrets.entry(path.to_owned()).or_insert_with(Secret::new);
            if !call.body["custom_metadata"].is_null() {
                secret.custom = call.body["custom_metadata"].clone();
            }
            if !call.body["delete_version_after"].is_null() {
                secret.delete_after = seconds(&call.body["delete_version_after"]);
            }
            done()
        }
        ("DELETE", "metadata") => {
            secrets.remove(path);
            done()
        }
        ("LIST", "metadata") => listed(&keys_below(secrets.keys(), path)),
        ("LIST", "detailed-metadata") if product == Product::OpenBao => {
            let keys = keys_below(secrets.keys(), path);
            if keys.is_empty() {
                return nothing();
            }
            let above = if path.is_empty() {
                String::new()
            } else {
                format!("{path}/")
            };
            let told = keys.iter().filter_map(|key| {
                let secret = secrets.get(&format!("{above}{key}"))?;
                Some((key.clone(), secret.metadata()))
            });
            let told: serde_json::Map<String, Value> = told.collect();
            data(&json!({ "keys": keys, "key_info": told }))
        }
        _ => enveloped(
            404,
            "null",
            r#"["Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use."]"#,
            &Value::Null,
        ),
    }
}

impl Secret {
    fn new() -> Self {
        Self {
            created: now(),
            updated: now(),
            custom: Value::Null,
            delete_after: 0,
            newest: 0,
            versions: BTreeMap::new(),
        }
    }

    fn write(&mut self, value: &str) -> Answer {
        let created = now();
        self.newest += 1;
        self.updated = created;
        let version = Version {
            created,
            deleted: (self.delete_after > 0).then(|| created + TimeDelta::seconds(self.delete_after)),
            destroyed: false,
            value: rounded(serde_json::from_str(value).unwrap_or_default()).to_string(),
        };
        let told = version.told(self.newest, &self.custom);
        self.versions.insert(self.newest, version);
        data(&told)
    }

    /// Version 0 is the newest.
    fn read(&self, wanted: u64) -> Answer {
        let number = if wanted == 0 { self.newest } else { wanted };
        let Some(version) = self.versions.get(&number) else {
            return nothing();
        };
        let gone = version.destroyed || version.deleted.is_some_and(|at| at <= now());
        let (status, value) = if gone {
            (404, "null")
        } else {
            (200, version.value.as_str())
        };
        let told = version.told(number, &self.custom);
        enveloped(
            status,
            &format!(r#"{{"data":{value},"metadata":{told}}}"#),
            "null",
            &Value::Null,
        )
    }

    fn change(&mut self, numbers: &[u64], change: impl Fn(&mut Version)) {
        for number in numbers {
            if let Some(version) = self.versions.get_mut(number) {
                change(version);
            }
        }
        self.updated = now();
    }

    fn metadata(&self) -> Value {
        let versions: BTreeMap<String, Value> = self
            .versions
            .iter()
            .map(|(number, version)| {
                let told = json!({
                    "created_time": time(version.created), "deletion_time": version.deletion(),
                    "destroyed": version.destroyed,
                });
                (number.to_string(), told)
            })
            .collect();
        json!({
            "cas_required": false, "created_time": time(self.created), "current_version": self.newest,
            "custom_metadata": self.custom, "delete_version_after": format!("{}s", self.delete_after),
            "max_versions": 0, "oldest_version": 0, "updated_time": time(self.updated), "versions": versions,
        })
    }
}

impl Version {
    fn told(&self, number: u64, custom: &Value) -> Value {
        json!({
            "created_time": time(self.created), "custom_metadata": custom, "deletion_time": self.deletion(),
            "destroyed": self.destroyed, "version": number,
        })
    }

    fn deletion(&self) -> String {
        self.deleted.map(time).unwrap_or_default()
    }
}

/// Version 2 takes each number for a float of 64 bits, and so rounds what is larger than 53 bits.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let float = number.as_f64().unwrap_or_default();
            let whole: Option<u64> = format!("{float:.0}").parse().ok();
            whole
                .filter(|_| float.fract() == 0.0)
                .map_or_else(|| json!(float), |whole| json!(whole))
        }
        Value::Array(values) => values.into_iter().map(rounded).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, rounded(value)))
            .collect(),
        other => other,
    }
}

/// What is right below a folder; folders end in a slash.
fn keys_below<'a>(paths: impl Iterator<Item = &'a String>, folder: &str) -> BTreeSet<String> {
    let above = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    let below = paths.filter_map(|path| path.strip_prefix(&above));
    below
        .map(|rest| match rest.split_once('/') {
            Some((folder, _)) => format!("{folder}/"),
            None => rest.to_owned(),
        })
        .collect()
}

fn listed(keys: &BTreeSet<String>) -> Answer {
    if keys.is_empty() {
        return nothing();
    }
    data(&json!({ "keys": keys }))
}
