//! Writes the status of our own kinds: one call, and no read.

use std::fmt::Display;

use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use kube::{Client, Resource};
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ObjectKey;
use super::apply::FIELD_MANAGER;
use super::call::{JSON_PATCH, METADATA_ONLY, Question, Written, call, segment};

/// Writes status. Cheap to clone.
#[derive(Clone)]
pub struct StatusWriter {
    client: Client,
}

/// What became of a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusWrite {
    /// It said nothing new, and no call was made.
    Unchanged,
    /// It was written; the object has this resourceVersion now.
    Written(String),
}

impl StatusWriter {
    /// A writer over `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Makes the status of the object with this uid `new`, where it was `old` before. With a resourceVersion, only
    /// while the object is still at it: a process that was paused does not undo what its successor wrote.
    ///
    /// # Errors
    ///
    /// Class `Absent` or `Conflict` means that the object is gone or another one has its name.
    pub async fn write<K, S>(
        &self,
        key: &ObjectKey,
        uid: &str,
        resource_version: Option<&str>,
        old: Option<&S>,
        new: &S,
    ) -> Result<StatusWrite, Fault>
    where
        K: Resource<DynamicType = ()>,
        S: Serialize + PartialEq,
    {
        let what = format!("writing the status of {} {key}", K::kind(&()));
        if old == Some(new) {
            return Ok(StatusWrite::Unchanged);
        }
        let status = serde_json::to_value(new).map_err(unfit(&what))?;
        let changes = vec![json!({"op": "add", "path": "/status", "value": status})];
        self.patch::<K>(key, &what, uid, resource_version, changes).await
    }

    /// Sets the conditions of an object whose status may hold what we do not understand; everything else in it stays.
    pub async fn write_conditions<K: Resource<DynamicType = ()>>(
        &self,
        key: &ObjectKey,
        object: &ObjectMeta,
        has_status: bool,
        conditions: &[Condition],
    ) -> Result<StatusWrite, Fault> {
        let what = format!("writing the conditions of {} {key}", K::kind(&()));
        let generation = object.generation.unwrap_or_default();
        let changes = if has_status {
            vec![
                json!({"op": "add", "path": "/status/observedGeneration", "value": generation}),
                json!({"op": "add", "path": "/status/conditions", "value": conditions}),
            ]
        } else {
            let status = json!({"observedGeneration": generation, "conditions": conditions});
            vec![json!({"op": "add", "path": "/status", "value": status})]
        };
        let uid = object.uid.as_deref().unwrap_or_default();
        let version = object.resource_version.as_deref();
        self.patch::<K>(key, &what, uid, version, changes).await
    }

    async fn patch<K: Resource<DynamicType = ()>>(
        &self,
        key: &ObjectKey,
        what: &str,
        uid: &str,
        resource_version: Option<&str>,
        changes: Vec<Value>,
    ) -> Result<StatusWrite, Fault> {
        // The status of a merge patch would land on whatever has this name: its uid is not compared there.
        let mut all = vec![json!({"op": "test", "path": "/metadata/uid", "value": uid})];
        all.extend(changes);
        if let Some(version) = resource_version {
            all.push(json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}));
        }
        let all = Value::from(all);
        let question = Question {
            what,
            method: Method::PATCH,
            path: format!("{}/status?fieldManager={FIELD_MANAGER}", path_of::<K>(key)),
            accept: METADATA_ONLY,
            body: Some((JSON_PATCH, Zeroizing::new(all.to_string().into_bytes()))),
        };
        match call(&self.client, question).await {
            Ok(answer) => {
                let written: Written = answer.parse()?;
                Ok(StatusWrite::Written(written.metadata.resource_version))
            }
            Err(refusal) if refusal.is_failed_test() => Err(another_object(what)),
            Err(refusal) => Err(refusal.fault),
        }
    }
}

/// The path of an object of kind `K`.
pub(super) fn path_of<K: Resource<DynamicType = ()>>(key: &ObjectKey) -> String {
    let namespace = (!key.namespace.is_empty()).then(|| segment(&key.namespace));
    format!(
        "{}/{}",
        K::url_path(&(), namespace.as_deref()),
        segment(&key.name)
    )
}

fn another_object(what: &str) -> Fault {
    let message = format!("{what}: another object has its name now");
    Fault::new(Class::Conflict, Reason::Conflict, message)
}

fn unfit<E: Display>(what: &str) -> impl Fn(E) -> Fault + '_ {
    move |error| Fault::new(Class::Permanent, Reason::SpecInvalid, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use keyward_crds::synced_secret::{RolloutStatus, SyncedSecretStatus};
    use keyward_crds::{ClusterSecretStore, StoreStatus, SyncedSecret};

    use super::super::call::tests::scripted;
    use super::*;

    fn writer() -> (
        StatusWriter,
        std::sync::Arc<std::sync::Mutex<Vec<super::super::call::tests::Seen>>>,
    ) {
        let (client, seen) = scripted(|_| (200, json!({"metadata": {"uid": "u1", "resourceVersion": "8"}})));
        (StatusWriter::new(client), seen)
    }

    #[tokio::test]
    async fn a_status_is_one_patch_of_the_object_that_was_meant() {
        let (writer, seen) = writer();
        let old = SyncedSecretStatus {
            observed_generation: Some(1),
            rollout: Some(RolloutStatus::default()),
            ..SyncedSecretStatus::default()
        };
        let new = SyncedSecretStatus {
            observed_generation: Some(2),
            ..SyncedSecretStatus::default()
        };
        let key = ObjectKey::new("apps", "db");
        let written = writer
            .write::<SyncedSecret, _>(&key, "u1", Some("7"), Some(&old), &new)
            .await;
        assert_eq!(written.unwrap(), StatusWrite::Written("8".into()));
        let again = writer
            .write::<SyncedSecret, _>(&key, "u1", None, Some(&new), &new)
            .await;
        assert_eq!(again.unwrap(), StatusWrite::Unchanged);
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(
            seen[0].path,
            "/apis/keyward.dev/v1alpha1/namespaces/apps/syncedsecrets/db/status?fieldManager=keyward"
        );
        assert_eq!(seen[0].content_type, JSON_PATCH);
        assert_eq!(
            seen[0].body,
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u1"},
                {"op": "add", "path": "/status", "value": {"observedGeneration": 2, "conditions": []}},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
            ])
        );
    }

    #[tokio::test]
    async fn conditions_are_written_beside_a_status_that_is_not_understood() {
        let (writer, seen) = writer();
        let object = ObjectMeta {
            uid: Some("u1".into()),
            resource_version: Some("7".into()),
            generation: Some(3),
            ..ObjectMeta::default()
        };
        let key = ObjectKey::new("apps", "db");
        for has_status in [true, false] {
            writer
                .write_conditions::<SyncedSecret>(&key, &object, has_status, &[])
                .await
                .unwrap();
        }
        let test = json!({"op": "test", "path": "/metadata/uid", "value": "u1"});
        let version = json!({"op": "replace", "path": "/metadata/resourceVersion", "value": "7"});
        let seen = seen.lock().unwrap();
        assert_eq!(
            seen[0].body,
            json!([
                test,
                {"op": "add", "path": "/status/observedGeneration", "value": 3},
                {"op": "add", "path": "/status/conditions", "value": []},
                version,
            ])
        );
        let status = json!({"observedGeneration": 3, "conditions": []});
        assert_eq!(
            seen[1].body,
            json!([test, {"op": "add", "path": "/status", "value": status}, version])
        );
    }

    #[tokio::test]
    async fn objects_of_the_cluster_have_no_namespace() {
        let (writer, seen) = writer();
        let key = ObjectKey::of_cluster("vault");
        writer
            .write::<ClusterSecretStore, _>(&key, "u1", None, None, &StoreStatus::default())
            .await
            .unwrap();
        assert_eq!(
            seen.lock().unwrap()[0].path,
            "/apis/keyward.dev/v1alpha1/clustersecretstores/vault/status?fieldManager=keyward"
        );
    }

    #[tokio::test]
    async fn another_object_of_that_name_is_a_conflict_and_a_refused_field_is_not() {
        let key = ObjectKey::new("apps", "db");
        let class_of = async |status: Value| {
            let (client, _) = scripted(move |_| (422, status.clone()));
            let writer = StatusWriter::new(client);
            let new = SyncedSecretStatus::default();
            writer
                .write::<SyncedSecret, _>(&key, "u1", None, None, &new)
                .await
                .unwrap_err()
                .class
        };
        let another = json!({"kind": "Status", "code": 422, "reason": "Invalid"});
        assert_eq!(class_of(another).await, Class::Conflict);
        let refused = json!({"kind": "Status", "code": 422, "reason": "Invalid",
            "details": {"causes": [{"reason": "FieldValueInvalid", "field": "status.rollout.ready"}]}});
        assert_eq!(class_of(refused).await, Class::Permanent);
    }
}
