//! The only place that writes Secrets.
//!
//! Writes are server-side applies under one field manager, so another manager's key is a conflict and not a loss. What is
//! given up is taken out by name.
//! They are forced only where the plan saw, at the very resourceVersion it rests on, that every contested key may be
//! taken. Every write carries what it was planned on: that the Secret is absent, or its uid and resourceVersion. A
//! paused process that wakes up with an old plan therefore changes nothing.

mod refusal;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretMap;
use keyward_crds::{MANAGED_BY, MANAGED_BY_LABEL, OWNER_ANNOTATION};
use kube::Client;
use serde_json::json;
use zeroize::Zeroizing;

use super::call::{
    APPLY_PATCH, Answer, JSON, JSON_PATCH, METADATA_ONLY, Question, Written, append, call, segment,
};
use super::{ExistingSecret, ObjectKey, SecretEntry};
use refusal::meaning;

/// The field manager of everything Keyward applies.
pub const FIELD_MANAGER: &str = "keyward";

/// A resourceVersion that no stored object has: an apply that carries it creates, and conflicts where the object
/// exists.
const NEVER_STORED: &str = "1";

/// A Secret as it should be, as far as it is ours.
pub struct SecretApply<'a> {
    /// Which Secret.
    pub key: &'a ObjectKey,
    /// What the plan rests on.
    pub precondition: &'a Precondition,
    /// Our keys: any other key we owned before is removed.
    pub data: &'a SecretMap,
    /// Its type; `None` leaves the type to whoever owns the Secret.
    pub secret_type: Option<&'a str>,
    /// Our labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Our annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Who we are to the Secret.
    pub mark: Mark<'a>,
    /// Whether contested fields are taken: only for a plan that saw whose they are.
    pub force: bool,
}

/// Who we are to a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark<'a> {
    /// It is ours as a whole: it carries the managed-by label and the name of its `SyncedSecret`.
    Owner(&'a str),
    /// Some of its keys are ours: it carries the name of the `SyncedSecret` alone.
    Guest(&'a str),
    /// It is the operator's own, and no `SyncedSecret`'s.
    None,
}

/// What a write was planned on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// There is no Secret of that name.
    Absent,
    /// It is this one, unchanged.
    Unchanged {
        /// Its uid.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
}

/// A Secret after a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// Whether it was made by this write.
    pub created: bool,
}

impl Applied {
    /// The Secret as the index keeps it, with the object that our annotation names.
    #[must_use]
    pub fn entry(&self, owner: Option<&str>) -> SecretEntry {
        SecretEntry {
            uid: self.uid.as_str().into(),
            resource_version: self.resource_version.as_str().into(),
            owner: owner.map(Into::into),
        }
    }
}

/// Writes Secrets. Cheap to clone.
#[derive(Clone)]
pub struct SecretWriter {
    client: Client,
}

impl SecretWriter {
    /// A writer over `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Makes our part of the Secret what `apply` says.
    ///
    /// # Errors
    ///
    /// `KeyOwnedByOther` names the keys of other managers; class `Conflict` means that the precondition no longer
    /// holds; class `Ambiguous` that nobody knows whether the write took place.
    pub async fn apply(&self, apply: &SecretApply<'_>) -> Result<Applied, Fault> {
        self.send(apply, false).await
    }

    /// Makes a Secret that nobody can change any more.
    pub(super) async fn create_immutable(&self, apply: &SecretApply<'_>) -> Result<Applied, Fault> {
        self.send(apply, true).await
    }

    /// Gives up our keys, labels and annotations and leaves everything else, if the Secret is still as it was read.
    ///
    /// An apply of nothing would not do: with our last key it prunes the whole map, and so the keys that no manager owns.
    pub async fn release(&self, key: &ObjectKey, existing: &ExistingSecret) -> Result<Applied, Fault> {
        let what = format!("giving up what is ours in Secret {key}");
        let mut changes = vec![
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": existing.resource_version}),
        ];
        if let Some(declared) = &existing.declared {
            let entry = format!("/metadata/managedFields/{}", declared.entry);
            let fields = declared.alone.iter().chain([&entry]);
            changes.extend(fields.map(|field| json!({"op": "remove", "path": field})));
        }
        let changes = serde_json::Value::from(changes);
        let question = Question {
            what: &what,
            method: Method::PATCH,
            path: format!("{}?fieldManager={FIELD_MANAGER}", path_of(key)),
            accept: METADATA_ONLY,
            body: Some((JSON_PATCH, Zeroizing::new(changes.to_string().into_bytes()))),
        };
        match call(&self.client, question).await {
            Ok(answer) => applied(&answer),
            Err(refusal) if refusal.is_failed_test() => Err(overtaken(&what, refusal.fault)),
            Err(refusal) => Err(refusal.fault),
        }
    }

    /// Deletes the Secret, if it is still the one with this uid and resourceVersion.
    pub async fn delete(&self, key: &ObjectKey, uid: &str, resource_version: &str) -> Result<(), Fault> {
        let what = format!("deleting Secret {key}");
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid, "resourceVersion": resource_version},
        });
        call(
            &self.client,
            Question {
                what: &what,
                method: Method::DELETE,
                path: path_of(key),
                accept: METADATA_ONLY,
                body: Some((JSON, Zeroizing::new(options.to_string().into_bytes()))),
            },
        )
        .await?;
        Ok(())
    }

    async fn send(&self, apply: &SecretApply<'_>, immutable: bool) -> Result<Applied, Fault> {
        let what = format!("writing Secret {}", apply.key);
        let question = Question {
            what: &what,
            method: Method::PATCH,
            path: format!(
                "{}?fieldManager={FIELD_MANAGER}&force={}",
                path_of(apply.key),
                apply.force
            ),
            accept: METADATA_ONLY,
            body: Some((APPLY_PATCH, body_of(apply, immutable))),
        };
        let answer = call(&self.client, question)
            .await
            .map_err(|refusal| meaning(&what, refusal))?;
        applied(&answer)
    }
}

fn applied(answer: &Answer) -> Result<Applied, Fault> {
    let written: Written = answer.parse()?;
    Ok(Applied {
        uid: written.metadata.uid,
        resource_version: written.metadata.resource_version,
        created: answer.status == http::StatusCode::CREATED,
    })
}

fn overtaken(what: &str, refused: Fault) -> Fault {
    let message = format!("{what}: it has changed since");
    Fault::new(Class::Conflict, Reason::Conflict, message).with_request_id(refused.request_id)
}

/// The path of a Secret.
pub(super) fn path_of(key: &ObjectKey) -> String {
    format!(
        "/api/v1/namespaces/{}/secrets/{}",
        segment(&key.namespace),
        segment(&key.name)
    )
}

/// The apply patch as JSON. It is put together by hand, so that values go from their wiped buffers into one wiped
/// buffer and through no type that can be printed.
fn body_of(apply: &SecretApply<'_>, immutable: bool) -> Zeroizing<Vec<u8>> {
    let mut head = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata_of(apply),
    });
    if let Some(secret_type) = apply.secret_type {
        head["type"] = secret_type.into();
    }
    if immutable {
        head["immutable"] = true.into();
    }
    let mut head = head.to_string();
    if apply.data.is_empty() {
        return Zeroizing::new(head.into_bytes());
    }
    head.pop();
    let values: usize = apply
        .data
        .iter()
        .map(|(key, value)| key.len() + value.len().div_ceil(3) * 4 + 8)
        .sum();
    let mut body = Zeroizing::new(Vec::with_capacity(head.len() + values + 16));
    append(&mut body, head.as_bytes());
    append(&mut body, b",\"data\":{");
    for (index, (key, value)) in apply.data.iter().enumerate() {
        if index > 0 {
            append(&mut body, b",");
        }
        append(
            &mut body,
            serde_json::Value::from(key.as_str()).to_string().as_bytes(),
        );
        append(&mut body, b":\"");
        append(
            &mut body,
            Zeroizing::new(STANDARD.encode(value.expose())).as_bytes(),
        );
        append(&mut body, b"\"");
    }
    append(&mut body, b"}}");
    body
}

fn metadata_of(apply: &SecretApply<'_>) -> serde_json::Value {
    let mut labels = apply.labels.clone();
    let mut annotations = apply.annotations.clone();
    match apply.mark {
        Mark::Owner(name) => {
            labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
            annotations.insert(OWNER_ANNOTATION.into(), name.into());
        }
        Mark::Guest(name) => {
            annotations.insert(OWNER_ANNOTATION.into(), name.into());
        }
        Mark::None => {}
    }
    let mut metadata = json!({
        "namespace": &*apply.key.namespace,
        "name": &*apply.key.name,
    });
    // An empty map would still be owned.
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    match apply.precondition {
        Precondition::Absent => metadata["resourceVersion"] = NEVER_STORED.into(),
        Precondition::Unchanged {
            uid,
            resource_version,
        } => {
            metadata["uid"] = uid.as_str().into();
            metadata["resourceVersion"] = resource_version.as_str().into();
        }
    }
    metadata
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::ClusterReader;
    use super::super::call::tests::scripted;
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> SecretMap {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect()
    }

    fn written() -> Value {
        json!({"kind": "PartialObjectMetadata", "metadata": {"uid": "u1", "resourceVersion": "42"}})
    }

    async fn write(status: u16, body: Value, precondition: &Precondition) -> (Result<Applied, Fault>, Value) {
        let (client, seen) = scripted(move |_| (status, body.clone()));
        let outcome = SecretWriter::new(client)
            .apply(&SecretApply {
                key: &ObjectKey::new("apps", "db"),
                precondition,
                data: &data(&[("password", "hunter2"), ("tls.crt", "\u{0}\"")]),
                secret_type: Some("Opaque"),
                labels: &[("tier".to_owned(), "db".to_owned())].into(),
                annotations: &BTreeMap::new(),
                mark: Mark::Owner("db"),
                force: false,
            })
            .await;
        let seen = seen.lock().unwrap()[0].clone();
        assert_eq!(
            seen.path,
            "/api/v1/namespaces/apps/secrets/db?fieldManager=keyward&force=false"
        );
        assert_eq!(seen.content_type, APPLY_PATCH);
        assert_eq!(seen.accept, METADATA_ONLY, "no value comes back");
        (outcome, seen.body)
    }

    #[tokio::test]
    async fn a_new_secret_is_applied_only_where_there_is_none() {
        let (outcome, body) = write(201, written(), &Precondition::Absent).await;
        assert!(outcome.unwrap().created);
        assert_eq!(
            body,
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "namespace": "apps", "name": "db", "resourceVersion": "1",
                    "labels": {"app.kubernetes.io/managed-by": "keyward", "tier": "db"},
                    "annotations": {"keyward.dev/synced-by": "db"},
                },
                "type": "Opaque",
                "data": {"password": "aHVudGVyMg==", "tls.crt": "ACI="},
            })
        );
    }

    #[tokio::test]
    async fn a_change_carries_what_it_was_planned_on() {
        let unchanged = Precondition::Unchanged {
            uid: "u1".into(),
            resource_version: "41".into(),
        };
        let (outcome, body) = write(200, written(), &unchanged).await;
        assert_eq!(
            outcome.unwrap(),
            Applied {
                uid: "u1".into(),
                resource_version: "42".into(),
                created: false
            }
        );
        assert_eq!(body["metadata"]["uid"], "u1");
        assert_eq!(body["metadata"]["resourceVersion"], "41");
    }

    #[tokio::test]
    async fn a_key_of_another_manager_is_named() {
        let conflict = json!({"kind": "Status", "code": 409, "reason": "Conflict", "message": "hunter2", "details": {"causes": [
            {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl\" using v1", "field": ".data.tls.crt"},
            {"reason": "FieldManagerConflict", "message": "conflict with \"helm\" using v1", "field": ".data.password"},
        ]}});
        let fault = write(409, conflict, &Precondition::Absent).await.0.unwrap_err();
        assert_eq!(fault.reason, Reason::KeyOwnedByOther);
        assert_eq!(fault.request_id.as_deref(), Some("audit-1"));
        assert_eq!(
            fault.message,
            "writing Secret apps/db: key `password`, key `tls.crt` owned by field manager `helm`, field manager `kubectl`"
        );
    }

    #[tokio::test]
    async fn a_plan_that_was_overtaken_is_a_conflict() {
        let conflict = json!({"kind": "Status", "code": 409, "reason": "Conflict"});
        let fault = write(409, conflict, &Precondition::Absent).await.0.unwrap_err();
        assert_eq!((fault.class, fault.reason), (Class::Conflict, Reason::Conflict));
    }

    #[tokio::test]
    async fn a_release_takes_out_what_is_ours_alone_and_our_entry() {
        let (client, seen) = scripted(|seen| match seen.method {
            Method::GET => (
                200,
                json!({
                    "metadata": {"uid": "u1", "resourceVersion": "41", "managedFields": [
                        {"manager": "helm", "operation": "Apply", "fieldsV1": {"f:data": {"f:shared": {}}}},
                        {"manager": "keyward", "operation": "Apply", "fieldsV1": {
                            "f:data": {"f:mine": {}, "f:shared": {}}, "f:type": {},
                            "f:metadata": {"f:annotations": {"f:keyward.dev/synced-by": {}}},
                        }},
                    ]},
                    "data": {"mine": "", "shared": "", "unowned": ""},
                }),
            ),
            _ => (200, written()),
        });
        let key = ObjectKey::new("apps", "db");
        let existing = ClusterReader::new(client.clone()).secret(&key).await.unwrap();
        let existing = existing.expect("it exists");
        SecretWriter::new(client).release(&key, &existing).await.unwrap();
        let seen = &seen.lock().unwrap()[1];
        assert_eq!(seen.content_type, JSON_PATCH);
        assert_eq!(
            seen.body,
            json!([
                {"op": "test", "path": "/metadata/resourceVersion", "value": "41"},
                {"op": "remove", "path": "/data/mine"},
                {"op": "remove", "path": "/metadata/annotations/keyward.dev~1synced-by"},
                {"op": "remove", "path": "/metadata/managedFields/1"},
            ])
        );
    }

    #[tokio::test]
    async fn a_deletion_names_the_one_secret() {
        let (client, seen) = scripted(|_| (200, json!({"kind": "Status", "status": "Success"})));
        SecretWriter::new(client)
            .delete(&ObjectKey::new("apps", "db"), "u1", "41")
            .await
            .unwrap();
        let seen = &seen.lock().unwrap()[0];
        assert_eq!(seen.method, Method::DELETE);
        assert_eq!(
            seen.body["preconditions"],
            json!({"uid": "u1", "resourceVersion": "41"})
        );
    }
}
