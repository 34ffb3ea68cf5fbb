//! What is kept of an object that a watch brings: everything else is dropped while it is being parsed.
//!
//! Managed fields and foreign annotations are never built in memory: they are most of an object's size. No type
//! here has a place for the values of a Secret.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Annotations outside this prefix are not ours to read.
const OWN_ANNOTATIONS: &str = "keyward.dev/";

/// Metadata of an object of kind `K`, through the metadata API.
#[derive(Debug, Clone)]
pub struct Metadata<K>(ObjectMeta, PhantomData<fn() -> K>);

/// An object of one of our kinds, or what is known of one that could not be parsed.
#[derive(Debug, Clone)]
pub struct Parsed<K> {
    metadata: ObjectMeta,
    body: Result<K, Box<Unreadable>>,
}

/// An object that exists and that this version cannot parse.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Its metadata, pruned.
    pub metadata: ObjectMeta,
    /// The conditions in its status; `None` where it has no status.
    pub conditions: Option<Vec<Condition>>,
    /// The field that is not understood.
    pub field: String,
}

/// How far a Deployment, StatefulSet or DaemonSet has rolled out.
#[derive(Debug, Clone)]
pub struct Workload<K> {
    metadata: ObjectMeta,
    progress: Progress,
    kind: PhantomData<fn() -> K>,
}

/// The counters of a workload, in one shape for the three kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// `metadata.resourceVersion`: a restart is planned on it.
    pub resource_version: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `status.observedGeneration`; what follows speaks of it.
    pub observed_generation: i64,
    /// Pods that should exist.
    pub desired: i32,
    /// Pods that exist, old ones among them.
    pub existing: i32,
    /// Pods made from the current template.
    pub updated: i32,
    /// Pods that serve, old ones among them.
    pub available: i32,
    /// A paused Deployment makes no new pods.
    pub paused: bool,
    /// Pods are replaced only when somebody deletes them (`OnDelete`).
    pub replaced_by_hand: bool,
    /// The Deployment gave up: its progress deadline has passed.
    pub deadline_exceeded: bool,
    /// The annotations of the pod template that begin with `keyward.dev/secret-hash`.
    pub hashes: BTreeMap<String, String>,
}

impl<K> Metadata<K> {
    /// The metadata, pruned.
    #[must_use]
    pub fn into_inner(self) -> ObjectMeta {
        self.0
    }
}

impl<K> Parsed<K> {
    /// The object, with pruned metadata, or what is known of it.
    pub fn into_result(self) -> Result<K, Box<Unreadable>> {
        self.body
    }
}

impl Unreadable {
    /// What is told of it. What the field holds is left out.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let version = env!("CARGO_PKG_VERSION");
        let message = format!(
            "`{}` is not understood by version {version} of Keyward",
            self.field
        );
        Fault::new(Class::Permanent, Reason::SpecInvalid, message)
            .advise("correct it, or run the version that belongs to the installed definitions")
    }
}

impl<K> Workload<K> {
    /// The counters.
    #[must_use]
    pub fn into_progress(self) -> Progress {
        self.progress
    }
}

/// The part of `ObjectMeta` that is parsed at all.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl From<SlimMeta> for ObjectMeta {
    fn from(slim: SlimMeta) -> Self {
        let annotations = slim.annotations.map(|all| {
            all.into_iter()
                .filter(|(name, _)| name.starts_with(OWN_ANNOTATIONS))
                .collect::<BTreeMap<_, _>>()
        });
        Self {
            name: slim.name,
            namespace: slim.namespace,
            uid: slim.uid,
            resource_version: slim.resource_version,
            generation: slim.generation,
            creation_timestamp: slim.creation_timestamp,
            deletion_timestamp: slim.deletion_timestamp,
            finalizers: slim.finalizers,
            labels: slim.labels,
            annotations: annotations.filter(|own| !own.is_empty()),
            ..Self::default()
        }
    }
}

impl<'de, K> Deserialize<'de> for Metadata<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: SlimMeta,
        }
        let wire = Wire::deserialize(deserializer)?;
        Ok(Self(wire.metadata.into(), PhantomData))
    }
}

impl<'de, K> Deserialize<'de> for Parsed<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: SlimMeta,
            #[serde(default)]
            spec: Value,
            #[serde(default)]
            status: Value,
        }
        let wire = Wire::deserialize(deserializer)?;
        let metadata = ObjectMeta::from(wire.metadata);
        let mut object = serde_json::Map::new();
        object.insert("apiVersion".into(), K::api_version(&()).into());
        object.insert("kind".into(), K::kind(&()).into());
        object.insert(
            "metadata".into(),
            serde_json::to_value(&metadata).map_err(D::Error::custom)?,
        );
        object.insert("spec".into(), wire.spec);
        if !wire.status.is_null() {
            object.insert("status".into(), wire.status);
        }
        let conditions = object
            .get("status")
            .map(|status| Vec::deserialize(&status["conditions"]).unwrap_or_default());
        let body = serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
            Box::new(Unreadable {
                metadata: metadata.clone(),
                conditions,
                field: error.path().to_string(),
            })
        });
        Ok(Self { metadata, body })
    }
}

impl<'de, K> Deserialize<'de> for Workload<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WorkloadWire::deserialize(deserializer)?;
        let metadata = ObjectMeta::from(wire.metadata);
        let progress = Progress::of(&metadata, wire.spec, wire.status);
        Ok(Self {
            metadata,
            progress,
            kind: PhantomData,
        })
    }
}

#[derive(Deserialize)]
struct WorkloadWire {
    metadata: SlimMeta,
    #[serde(default)]
    spec: WorkloadSpec,
    #[serde(default)]
    status: WorkloadStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WorkloadSpec {
    replicas: Option<i32>,
    paused: bool,
    template: PodTemplate,
    update_strategy: Strategy,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodTemplate {
    metadata: TemplateMeta,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TemplateMeta {
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Strategy {
    r#type: String,
}

/// The union of what the three kinds report; a DaemonSet has its own names for the same counters.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WorkloadStatus {
    observed_generation: i64,
    replicas: i32,
    updated_replicas: i32,
    available_replicas: i32,
    desired_number_scheduled: Option<i32>,
    current_number_scheduled: i32,
    updated_number_scheduled: i32,
    number_available: i32,
    conditions: Option<Vec<WorkloadCondition>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WorkloadCondition {
    r#type: String,
    reason: String,
}

impl Progress {
    fn of(metadata: &ObjectMeta, spec: WorkloadSpec, status: WorkloadStatus) -> Self {
        let counted = match status.desired_number_scheduled {
            Some(desired) => Self {
                desired,
                existing: status.current_number_scheduled,
                updated: status.updated_number_scheduled,
                available: status.number_available,
                ..Self::default()
            },
            None => Self {
                desired: spec.replicas.unwrap_or(1),
                existing: status.replicas,
                updated: status.updated_replicas,
                available: status.available_replicas,
                ..Self::default()
            },
        };
        let gave_up = |condition: &WorkloadCondition| {
            condition.r#type == "Progressing" && condition.reason == "ProgressDeadlineExceeded"
        };
        Self {
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            observed_generation: status.observed_generation,
            paused: spec.paused,
            replaced_by_hand: spec.update_strategy.r#type == "OnDelete",
            deadline_exceeded: status.conditions.unwrap_or_default().iter().any(gave_up),
            hashes: spec
                .template
                .metadata
                .annotations
                .unwrap_or_default()
                .into_iter()
                .filter(|(name, _)| name.starts_with(keyward_crds::DESIRED_HASH_ANNOTATION))
                .collect(),
            ..counted
        }
    }
}

/// The three types stand for kind `K` and differ in what they parse and where their metadata lies.
macro_rules! stands_for_kind {
    ($type:ident, $metadata:tt, $metadata_api:expr) => {
        impl<K: Resource<DynamicType = ()>> Resource for $type<K> {
            type DynamicType = ();
            type Scope = K::Scope;

            fn kind((): &()) -> Cow<'_, str> {
                K::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                K::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                K::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                K::plural(&())
            }

            fn metadata_api() -> bool {
                $metadata_api
            }

            fn meta(&self) -> &ObjectMeta {
                &self.$metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.$metadata
            }
        }
    };
}

stands_for_kind!(Metadata, 0, true);
stands_for_kind!(Parsed, metadata, false);
stands_for_kind!(Workload, metadata, false);

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
    use k8s_openapi::api::core::v1::Secret;
    use keyward_crds::SyncedSecret;
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_is_pruned() {
        let object: Metadata<Secret> = serde_json::from_value(json!({
            "metadata": {
                "name": "db", "namespace": "apps", "uid": "u", "resourceVersion": "7",
                "annotations": {"keyward.dev/synced-by": "db", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                "managedFields": [{"manager": "kubectl"}],
            }
        }))
        .unwrap();
        let meta = object.into_inner();
        assert_eq!(meta.resource_version.as_deref(), Some("7"));
        assert_eq!(meta.managed_fields, None);
        assert_eq!(
            meta.annotations.unwrap().into_keys().collect::<Vec<_>>(),
            ["keyward.dev/synced-by"]
        );
    }

    #[test]
    fn of_an_unreadable_object_name_conditions_and_the_field_are_known_and_no_value() {
        let ready = json!({"type": "Ready", "status": "True", "reason": "Synced", "message": "",
            "lastTransitionTime": "2027-01-15T08:00:00Z"});
        let object = |status: &Value| -> Box<Unreadable> {
            let object: Parsed<SyncedSecret> = serde_json::from_value(json!({
                "metadata": {"name": "db", "namespace": "apps", "generation": 3},
                "spec": {"sources": [{"storeRef": {"name": "vault", "kind": "hunter2"}, "path": "db"}]},
                "status": status,
            }))
            .unwrap();
            assert_eq!(object.meta().name.as_deref(), Some("db"));
            object.into_result().unwrap_err()
        };
        let known = object(&json!({"conditions": [ready]}));
        assert_eq!(known.metadata.generation, Some(3));
        assert_eq!(known.conditions.as_ref().map(Vec::len), Some(1));
        assert_eq!(known.field, "spec.sources[0].storeRef.kind");
        let told = known.fault().to_string();
        assert!(told.contains(&known.field) && !told.contains("hunter2"), "{told}");
        assert_eq!(object(&Value::Null).conditions, None);
        assert_eq!(object(&json!({"conditions": 7})).conditions, Some(Vec::new()));
    }

    #[test]
    fn a_sound_object_is_parsed() {
        let object: Parsed<SyncedSecret> = serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "apps", "generation": 3},
            "spec": {"sources": [{"storeRef": {"name": "vault"}, "path": "db"}]},
            "status": {"observedGeneration": 2}
        }))
        .unwrap();
        let parsed = object.into_result().unwrap();
        assert_eq!(parsed.metadata.generation, Some(3));
        assert_eq!(parsed.spec.sources[0].path.as_deref(), Some("db"));
        assert_eq!(parsed.status.unwrap().observed_generation, Some(2));
    }

    #[test]
    fn workloads_of_all_kinds_report_alike() {
        let deployment: Workload<Deployment> = serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 5, "resourceVersion": "9"},
            "spec": {"replicas": 3, "template": {"metadata": {"annotations": {"keyward.dev/secret-hash": "h1"}}}},
            "status": {"observedGeneration": 5, "replicas": 4, "updatedReplicas": 2, "availableReplicas": 3,
                "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}
        }))
        .unwrap();
        assert_eq!(
            deployment.into_progress(),
            Progress {
                resource_version: "9".to_owned(),
                generation: 5,
                observed_generation: 5,
                desired: 3,
                existing: 4,
                updated: 2,
                available: 3,
                paused: false,
                replaced_by_hand: false,
                deadline_exceeded: true,
                hashes: [("keyward.dev/secret-hash".to_owned(), "h1".to_owned())].into(),
            }
        );
        let daemon: Workload<DaemonSet> = serde_json::from_value(json!({
            "metadata": {"name": "agent", "generation": 1},
            "spec": {"template": {"metadata": {"annotations": null}}, "updateStrategy": {"type": "OnDelete"}},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
                "updatedNumberScheduled": 1, "numberAvailable": 2}
        }))
        .unwrap();
        let progress = daemon.into_progress();
        assert_eq!(
            (progress.desired, progress.updated, progress.available),
            (2, 1, 2)
        );
        assert!(progress.replaced_by_hand);
        assert!(progress.hashes.is_empty());
    }
}
