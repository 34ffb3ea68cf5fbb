//! Single reads: a credential, a CA, and an existing Secret with the owners of its keys.
//!
//! Values come out as secret bytes, straight from the wiped buffer of the answer. Nothing is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use http::Method;
use keyward_core::fault::{Class, Fault};
use keyward_core::secret::{SecretBytes, SecretMap};
use keyward_core::sync::departure::Definition;
use keyward_core::sync::ownership::{Existing, Manager};
use keyward_crds::{MANAGED_BY, MANAGED_BY_LABEL, OWNER_ANNOTATION, SyncedSecret};
use kube::{Client, CustomResourceExt as _};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::apply::{FIELD_MANAGER, path_of};
use super::call::{JSON, Question, call, segment};
use super::{ObjectKey, Precondition};

/// A Secret that exists, with who owns what in it.
pub struct ExistingSecret {
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// Its type.
    pub secret_type: String,
    /// Whether it is marked immutable.
    pub immutable: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The `SyncedSecret` named by our annotation, where it carries one.
    pub owner: Option<String>,
    /// Whether it is ours as a whole.
    pub whole: Whole,
    /// When what is ours in it was last changed.
    pub written_at: Option<DateTime<Utc>>,
    /// What we declare in it.
    pub(super) declared: Option<Declared>,
    /// Its keys with the field managers that own each. A key may have no owner at all.
    pub key_owners: BTreeMap<String, BTreeSet<Manager>>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The values.
    pub data: SecretMap,
}

/// What we declare in a Secret by server-side apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    /// The place of our entry among the managed fields.
    pub entry: usize,
    /// JSON pointers of the keys, labels and annotations that are nobody else's: they go with us.
    pub alone: BTreeSet<String>,
}

/// Whether a Secret is ours as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// It carries our managed-by label.
    Labelled,
    /// Somebody took the label away; that we declared its type, which no hand can take away, says that it is ours.
    LabelLost,
    /// It is another's, whatever we have in it.
    No,
}

/// Reads single objects. Cheap to clone.
#[derive(Clone)]
pub struct ClusterReader {
    client: Client,
}

impl ClusterReader {
    /// A reader over `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The Secret of that name, or `None` where there is none.
    pub async fn secret(&self, key: &ObjectKey) -> Result<Option<ExistingSecret>, Fault> {
        let what = format!("reading Secret {key}");
        let wire: Option<SecretWire> = self.read(&what, path_of(key)).await?;
        Ok(wire.map(ExistingSecret::from))
    }

    /// The text of the ConfigMap of that name, or `None` where there is none.
    pub async fn config_map(&self, key: &ObjectKey) -> Result<Option<BTreeMap<String, String>>, Fault> {
        let what = format!("reading ConfigMap {key}");
        let path = format!(
            "/api/v1/namespaces/{}/configmaps/{}",
            segment(&key.namespace),
            segment(&key.name)
        );
        let wire: Option<ConfigMapWire> = self.read(&what, path).await?;
        Ok(wire.map(|wire| wire.data.unwrap_or_default()))
    }

    /// The definition of the kind `SyncedSecret`, or `None` where it is gone.
    pub async fn definition(&self) -> Result<Option<Definition>, Fault> {
        let name = SyncedSecret::crd_name();
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        let wire: Option<DefinitionWire> = self.read("reading the definition of SyncedSecret", path).await?;
        Ok(wire.map(|wire| Definition {
            installed: wire.metadata.creation_timestamp,
            leaving: wire.metadata.deletion_timestamp.is_some(),
        }))
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        path: String,
    ) -> Result<Option<T>, Fault> {
        let question = Question {
            what,
            method: Method::GET,
            path,
            accept: JSON,
            body: None,
        };
        match call(&self.client, question).await {
            Ok(answer) => answer.parse().map(Some),
            Err(refusal) if refusal.fault.class == Class::Absent => Ok(None),
            Err(refusal) => Err(refusal.fault),
        }
    }
}

impl ExistingSecret {
    /// That it is still this Secret, unchanged.
    #[must_use]
    pub fn unchanged(&self) -> Precondition {
        Precondition::Unchanged {
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
        }
    }

    /// What a decision about ownership needs to know of it.
    #[must_use]
    pub fn ownership(&self) -> Existing {
        Existing {
            uid: self.uid.clone(),
            secret_type: self.secret_type.clone(),
            immutable: self.immutable,
            deleting: self.deleting,
            marked_for: self.owner.clone(),
            whole: self.whole != Whole::No,
            keys: self.key_owners.clone(),
        }
    }
}

#[derive(Deserialize)]
struct DefinitionWire {
    metadata: DefinitionMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DefinitionMeta {
    creation_timestamp: DateTime<Utc>,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct ConfigMapWire {
    data: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct SecretWire {
    metadata: MetaWire,
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    immutable: bool,
    data: Option<BTreeMap<String, Encoded>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetaWire {
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    managed_fields: Option<Vec<ManagedFields>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedFields {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    operation: String,
    time: Option<DateTime<Utc>>,
    #[serde(default)]
    fields_v1: Value,
}

impl ManagedFields {
    /// Whether this is what we declare. A mere update under our name is somebody else's.
    fn is_ours(&self) -> bool {
        self.operation == "Apply" && self.manager == FIELD_MANAGER
    }

    /// JSON pointers of its keys, labels and annotations.
    fn pointers(&self) -> impl Iterator<Item = String> {
        let maps: [(&[&str], &str); 3] = [
            (&["f:data"], "/data"),
            (&["f:metadata", "f:labels"], "/metadata/labels"),
            (&["f:metadata", "f:annotations"], "/metadata/annotations"),
        ];
        maps.into_iter().flat_map(|(part, pointer)| {
            let names = names_in(&self.fields_v1, part);
            names.map(move |name| format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")))
        })
    }
}

impl From<SecretWire> for ExistingSecret {
    fn from(wire: SecretWire) -> Self {
        let data: SecretMap = wire
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, value.0))
            .collect();
        let mut key_owners: BTreeMap<String, BTreeSet<Manager>> =
            data.keys().map(|key| (key.clone(), BTreeSet::new())).collect();
        let managed = wire.metadata.managed_fields.unwrap_or_default();
        let (mut typed_by_us, mut written_at) = (false, None);
        for entry in &managed {
            if entry.is_ours() {
                typed_by_us |= entry.fields_v1.get("f:type").is_some();
                written_at = written_at.max(entry.time);
            }
            for key in names_in(&entry.fields_v1, &["f:data"]) {
                if let Some(owners) = key_owners.get_mut(key) {
                    owners.insert(manager_of(entry));
                }
            }
        }
        let declared = Declared::of(&managed);
        let labels = wire.metadata.labels.unwrap_or_default();
        let annotations = wire.metadata.annotations.unwrap_or_default();
        let labelled = labels.get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY);
        Self {
            uid: wire.metadata.uid,
            resource_version: wire.metadata.resource_version,
            secret_type: wire.r#type,
            immutable: wire.immutable,
            deleting: wire.metadata.deletion_timestamp.is_some(),
            owner: annotations.get(OWNER_ANNOTATION).cloned(),
            whole: match (labelled, typed_by_us) {
                (true, _) => Whole::Labelled,
                (false, true) => Whole::LabelLost,
                (false, false) => Whole::No,
            },
            written_at,
            declared,
            labels,
            annotations,
            key_owners,
            data,
        }
    }
}

impl Declared {
    fn of(managed: &[ManagedFields]) -> Option<Self> {
        let entry = managed.iter().position(ManagedFields::is_ours)?;
        let others = managed.iter().enumerate().filter(|(index, _)| *index != entry);
        let taken: BTreeSet<String> = others.flat_map(|(_, other)| other.pointers()).collect();
        let alone = managed[entry].pointers().filter(|field| !taken.contains(field));
        Some(Self {
            entry,
            alone: alone.collect(),
        })
    }
}

/// The names below a part of a field set, which writes each as `f:<name>`.
fn names_in<'a>(fields: &'a Value, part: &[&str]) -> impl Iterator<Item = &'a str> {
    let part = part.iter().try_fold(fields, |fields, name| fields.get(name));
    part.and_then(Value::as_object)
        .into_iter()
        .flat_map(|names| names.keys())
        .filter_map(|name| name.strip_prefix("f:"))
}

/// A field manager. One that bears our name and did not apply is somebody else, as the API server sees it.
fn manager_of(entry: &ManagedFields) -> Manager {
    let applies = entry.operation == "Apply";
    let name = if entry.manager == FIELD_MANAGER && !applies {
        format!("{} ({})", entry.manager, entry.operation)
    } else {
        entry.manager.clone()
    };
    Manager { name, applies }
}

/// A base64 text that is decoded while it is parsed, so that no copy of it is left behind.
struct Encoded(SecretBytes);

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Decode;
        impl Visitor<'_> for Decode {
            type Value = Encoded;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Encoded, E> {
                // The decoder's own error names a byte of the value.
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|_| E::custom("a value is not base64"))?;
                Ok(Encoded(SecretBytes::new(bytes)))
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Encoded, E> {
                Ok(Encoded(SecretBytes::default()))
            }
        }
        deserializer.deserialize_any(Decode).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::call::tests::scripted;
    use super::*;

    #[tokio::test]
    async fn owners_are_read_from_managed_fields() {
        let (client, _) = scripted(|_| {
            (
                200,
                json!({
                    "metadata": {
                        "name": "db", "namespace": "apps", "uid": "u1", "resourceVersion": "7",
                        "annotations": {"keyward.dev/synced-by": "db"},
                        "managedFields": [
                            {"manager": "keyward", "operation": "Apply", "time": "2027-01-15T08:00:00Z",
                             "fieldsV1": {"f:data": {"f:password": {}},
                                "f:metadata": {"f:annotations": {"f:keyward.dev/synced-by": {}}}}},
                            {"manager": "kubectl", "operation": "Update",
                             "fieldsV1": {"f:data": {".": {}, "f:tls.crt": {}, "f:password": {}}, "f:type": {}}},
                            {"manager": "keyward", "operation": "Update", "time": "2027-01-15T09:00:00Z",
                             "fieldsV1": {"f:data": {"f:other": {}}}},
                        ],
                    },
                    "type": "Opaque",
                    "data": {"password": "aHVudGVyMg==", "tls.crt": "", "other": null, "unowned": "AA=="},
                }),
            )
        });
        let secret = ClusterReader::new(client)
            .secret(&ObjectKey::new("apps", "db"))
            .await
            .unwrap()
            .expect("it exists");
        assert!(secret.data["password"].same_as(b"hunter2"));
        assert!(secret.data["other"].is_empty());
        assert_eq!(secret.owner.as_deref(), Some("db"));
        let manager = |name: &str, applies| Manager {
            name: name.into(),
            applies,
        };
        assert_eq!(
            secret.key_owners["other"],
            [manager("keyward (Update)", false)].into(),
            "an update under our name is not our apply"
        );
        assert!(secret.key_owners["unowned"].is_empty());
        assert_eq!(secret.whole, Whole::No, "another manager declared its type");
        let applied = DateTime::from_timestamp(1_800_000_000, 0);
        assert_eq!(secret.written_at, applied, "only our own declaration counts");
        let declared = secret.declared.expect("there is an entry of ours");
        assert_eq!(declared.entry, 0);
        assert_eq!(
            declared.alone,
            ["/metadata/annotations/keyward.dev~1synced-by".to_owned()].into(),
            "another has the key, too"
        );
        assert_eq!(
            secret.key_owners["password"],
            [manager("keyward", true), manager("kubectl", false)].into()
        );
    }

    #[tokio::test]
    async fn the_definition_says_since_when_and_whether_it_leaves() {
        let definition = async |status, metadata: serde_json::Value| {
            let (client, _) = scripted(move |_| (status, json!({ "metadata": metadata })));
            ClusterReader::new(client).definition().await.unwrap()
        };
        let installed = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let stays = definition(200, json!({"creationTimestamp": "2027-01-15T08:00:00Z"})).await;
        let leaving = false;
        assert_eq!(stays, Some(Definition { installed, leaving }));
        let goes =
            json!({"creationTimestamp": "2027-01-15T08:00:00Z", "deletionTimestamp": "2027-01-15T09:00:00Z"});
        let leaving = true;
        assert_eq!(
            definition(200, goes).await,
            Some(Definition { installed, leaving })
        );
        assert_eq!(definition(404, json!({})).await, None);
    }

    #[tokio::test]
    async fn a_missing_secret_is_no_fault() {
        let (client, _) = scripted(|_| (404, json!({"kind": "Status", "code": 404, "reason": "NotFound"})));
        let reader = ClusterReader::new(client);
        assert!(
            reader
                .secret(&ObjectKey::new("apps", "db"))
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(
            reader.config_map(&ObjectKey::new("apps", "ca")).await.unwrap(),
            None
        );
    }

    #[tokio::test]
    async fn a_broken_value_is_not_quoted() {
        let (client, _) = scripted(|_| {
            (
                200,
                json!({"metadata": {"uid": "u", "resourceVersion": "1"}, "data": {"a": "hunter2!"}}),
            )
        });
        let fault = ClusterReader::new(client)
            .secret(&ObjectKey::new("apps", "db"))
            .await
            .err()
            .expect("it is not base64");
        assert!(!fault.to_string().contains("hunter2"), "{fault}");
    }
}
