//! Writes to our own kinds: their status, and the finalizer of a `SyncedSecret`. One call each, and no read.

use std::fmt::Display;

use http::Method;
use keyward_core::fault::Fault;
use kube::{Client, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::ObjectKey;
use super::apply::FIELD_MANAGER;
use super::call::{MERGE_PATCH, METADATA_ONLY, Question, call, segment};

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

    /// Makes the status of the object with this uid `new`, where it was `old` before.
    ///
    /// # Errors
    ///
    /// Class `Absent` or `Conflict` means that the object is gone or another one has its name.
    pub async fn write<K, S>(
        &self,
        key: &ObjectKey,
        uid: &str,
        old: Option<&S>,
        new: &S,
    ) -> Result<StatusWrite, Fault>
    where
        K: Resource<DynamicType = ()>,
        S: Serialize,
    {
        let what = format!("writing the status of {} {key}", K::kind(&()));
        let old = old.map_or(Ok(Value::Null), serde_json::to_value);
        let (old, new) = (
            old.map_err(unfit(&what))?,
            serde_json::to_value(new).map_err(unfit(&what))?,
        );
        let Some(status) = difference(&old, &new) else {
            return Ok(StatusWrite::Unchanged);
        };
        let patch = json!({"metadata": {"uid": uid}, "status": status});
        let target = format!("{}/status", path_of::<K>(key));
        self.patch(&what, target, &patch).await.map(StatusWrite::Written)
    }

    /// Sets the finalizers of an object that has this uid and resourceVersion. Returns its new resourceVersion.
    pub async fn set_finalizers<K>(
        &self,
        key: &ObjectKey,
        uid: &str,
        resource_version: &str,
        finalizers: &[String],
    ) -> Result<String, Fault>
    where
        K: Resource<DynamicType = ()>,
    {
        let what = format!("writing the finalizers of {} {key}", K::kind(&()));
        let change = json!({"metadata": {
            "uid": uid, "resourceVersion": resource_version, "finalizers": finalizers,
        }});
        self.patch(&what, path_of::<K>(key), &change).await
    }

    async fn patch(&self, what: &str, path: String, patch: &Value) -> Result<String, Fault> {
        let question = Question {
            what,
            method: Method::PATCH,
            path: format!("{path}?fieldManager={FIELD_MANAGER}"),
            accept: METADATA_ONLY,
            body: Some((MERGE_PATCH, Zeroizing::new(patch.to_string().into_bytes()))),
        };
        let written: Written = call(&self.client, question).await?.parse()?;
        Ok(written.metadata.resource_version)
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

#[derive(Deserialize)]
struct Written {
    metadata: WrittenMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMeta {
    resource_version: String,
}

/// The merge patch (RFC 7386) that turns `old` into `new`, or `None` where they are equal. What `new` no longer has
/// is removed by name.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in new {
        let before = old.get(name).unwrap_or(&Value::Null);
        if let Some(change) = difference(before, value) {
            patch.insert(name.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

fn unfit<E: Display>(what: &str) -> impl Fn(E) -> Fault + '_ {
    use keyward_core::fault::Class;
    use keyward_core::reason::Reason;
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
        let (client, seen) = scripted(|_| (200, json!({"metadata": {"resourceVersion": "8"}})));
        (StatusWriter::new(client), seen)
    }

    #[tokio::test]
    async fn a_status_is_one_patch_of_what_changed() {
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
            .write::<SyncedSecret, _>(&key, "u1", Some(&old), &new)
            .await;
        assert_eq!(written.unwrap(), StatusWrite::Written("8".into()));
        let again = writer
            .write::<SyncedSecret, _>(&key, "u1", Some(&new), &new)
            .await;
        assert_eq!(again.unwrap(), StatusWrite::Unchanged);
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(
            seen[0].path,
            "/apis/keyward.dev/v1alpha1/namespaces/apps/syncedsecrets/db/status?fieldManager=keyward"
        );
        assert_eq!(seen[0].content_type, MERGE_PATCH);
        assert_eq!(
            seen[0].body,
            json!({"metadata": {"uid": "u1"}, "status": {"observedGeneration": 2, "rollout": null}})
        );
    }

    #[tokio::test]
    async fn objects_of_the_cluster_have_no_namespace() {
        let (writer, seen) = writer();
        let key = ObjectKey::of_cluster("vault");
        writer
            .write::<ClusterSecretStore, _>(&key, "u1", None, &StoreStatus::default())
            .await
            .unwrap();
        assert_eq!(
            seen.lock().unwrap()[0].path,
            "/apis/keyward.dev/v1alpha1/clustersecretstores/vault/status?fieldManager=keyward"
        );
    }

    #[test]
    fn patches_reproduce_the_new_document() {
        let old = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1]});
        let new = json!({"a": 1, "b": {"c": 3}, "e": [1, 2], "f": {"g": 1}});
        assert_eq!(
            difference(&old, &new),
            Some(json!({"b": {"c": 3, "d": null}, "e": [1, 2], "f": {"g": 1}}))
        );
        assert_eq!(difference(&new, &new), None);
    }
}
