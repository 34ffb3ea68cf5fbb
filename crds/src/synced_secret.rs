//! `SyncedSecret`: any number of remote sources, kept as one Kubernetes Secret.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;
use crate::references::{DATA_KEY, OBJECT_NAME};

/// Remote values that Keyward keeps as one Secret of the same namespace.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyward.dev",
    version = "v1alpha1",
    kind = "SyncedSecret",
    namespaced,
    status = "SyncedSecretStatus",
    derive = "PartialEq",
    shortname = "kwss",
    category = "keyward",
    doc = "Values of one or several stores, kept as one Kubernetes Secret of the same namespace."
)]
#[serde(rename_all = "camelCase")]
pub struct SyncedSecretSpec {
    /// Where the values come from.
    #[schemars(length(min = 1, max = 64))]
    pub sources: Vec<Source>,
    /// The Secret to write.
    #[serde(default)]
    pub target: Target,
    /// What to do when two sources give the same key.
    #[serde(default)]
    pub conflict: ConflictRule,
    /// When to look for changes.
    #[serde(default)]
    pub refresh: Refresh,
    /// `Observe` reads and reports what would change, and writes nothing.
    #[serde(default)]
    pub mode: Mode,
    /// Leaves everything as it is until set back.
    #[serde(default)]
    pub suspend: bool,
    /// What to do when a store says that a value is gone.
    #[serde(default)]
    pub when_gone: WhenGone,
    /// Workloads to restart, once, for each changed value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub consumers: Vec<Consumer>,
}

/// One place, or one search, in one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("[has(self.path), has(self.name), has(self.uuid), has(self.container), has(self.find)].filter(x, x).size() == 1", "exactly one of path, name, uuid, container, find"),
    validation = ("!has(self.version) || has(self.path)", "version goes with path"),
    validation = ("!has(self.key) || (!has(self.fields) && !has(self.find))", "key takes the whole value: no fields, no find"),
    validation = ("!has(self.key) || !has(self.container)", "a container is its parts: choose some with fields, or take all"),
    validation = ("!(has(self.name) || has(self.uuid)) || has(self.key) || has(self.fields)", "a secret of Barbican is bytes: name the key they go to, or fields of the JSON in them"),
    validation = ("!has(self.find) || !has(self.fields)", "find takes whole values: no fields")
)]
pub struct Source {
    /// Which store.
    pub store_ref: StoreRef,
    /// A path below the mount (Vault, OpenBao).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
    /// The newest active secret of exactly this name (Barbican).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub name: Option<String>,
    /// One secret by its UUID (Barbican).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 36),
        regex(pattern = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
    )]
    pub uuid: Option<String>,
    /// A container by its UUID: its parts are the fields (Barbican).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 36),
        regex(pattern = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
    )]
    pub container: Option<String>,
    /// Every place that matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub find: Option<Box<Find>>,
    /// A fixed version of a path; the newest without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub version: Option<i64>,
    /// Takes the whole value under this one key: the bytes of a Barbican secret, the JSON document of a Vault path.
    /// A `name` or `uuid` needs it, or `fields`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: Option<String>,
    /// Takes only these fields; all of them without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub fields: Option<Vec<Field>>,
    /// Put in front of every key of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^([.]|[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*)$")
    )]
    pub prefix: Option<String>,
    /// How every value of this source is encoded at the store.
    #[serde(default)]
    pub decode: Decode,
}

/// A store of the same namespace, or a cluster store that grants this namespace access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreRef {
    /// Which kind.
    #[serde(default)]
    pub kind: StoreKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
}

/// The kinds of store.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum StoreKind {
    /// In the same namespace.
    #[default]
    SecretStore,
    /// For the cluster.
    ClusterSecretStore,
}

/// One field of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// The field; dots reach into nested JSON, `\.` is a dot in a name.
    #[schemars(length(min = 1, max = 512))]
    pub field: String,
    /// Its key in the Secret; the field's last segment without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: Option<String>,
    /// How this value is encoded at the store, in place of the source's rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<Decode>,
}

/// How a value is encoded at the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decode {
    /// Taken as it is.
    #[default]
    None,
    /// Standard base64.
    Base64,
    /// URL-safe base64.
    Base64Url,
    /// Hexadecimal.
    Hex,
}

/// A search in one store. Every condition given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.prefix) || has(self.pattern) || has(self.tags)", "name a prefix, a pattern or tags"))]
pub struct Find {
    /// Below this path (Vault), or names that begin so (Barbican).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub prefix: Option<String>,
    /// A regular expression that the whole name must match: the path below the mount (Vault), the name (Barbican).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub pattern: Option<String>,
    /// Tags that must all be present: custom metadata (Vault), user metadata (Barbican).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub tags: Option<BTreeMap<String, String>>,
    /// More matches than this is an error, never a silent cut.
    #[serde(default = "find_max")]
    #[schemars(range(min = 1, max = 500))]
    pub max: i32,
}

/// The Secret to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!(has(self.template) && has(self.template.type)) || self.type == 'Opaque'", "`type` and `template.type` exclude each other"))]
pub struct Target {
    /// Its name; the object's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: Option<String>,
    /// Its type; immutable once written.
    #[serde(default = "opaque", rename = "type")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = ("!(self in ['kubernetes.io/service-account-token', 'bootstrap.kubernetes.io/token', 'helm.sh/release.v1'])", "a Secret of this type would give rights or break its owner"))]
    pub type_: String,
    /// What to make of the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// What to do with a Secret of that name that is not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<Adoption>,
}

/// Templates over the values of all sources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Keys to write, each rendered from its template.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub data: BTreeMap<String, String>,
    /// Also keep the keys of the sources beside those of `data`.
    #[serde(default)]
    pub keep_sources: bool,
    /// Type of the Secret, a template; in place of `target.type`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub type_: Option<String>,
    /// Labels of the Secret, each a template.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Secret, each a template.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// What to do with a Secret that exists and is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("(self.policy == 'TakeKeys') == has(self.keys)", "`keys` goes with `policy: TakeKeys`"))]
pub struct Adoption {
    /// How far the consent goes.
    #[serde(default)]
    pub policy: AdoptionPolicy,
    /// Keys that may be taken from their present owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub keys: Option<Vec<String>>,
}

/// How far consent to write into somebody else's Secret goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdoptionPolicy {
    /// Not at all.
    #[default]
    Never,
    /// Keys that nobody owns may be added.
    AddKeys,
    /// Also the listed keys may be taken over.
    TakeKeys,
}

/// What to do when two sources give the same key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConflictRule {
    /// Write nothing and say so.
    #[default]
    Fail,
    /// The source named first wins.
    FirstWins,
    /// The source named last wins.
    LastWins,
}

/// When to look for changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    /// `Periodic`: every interval. `Once`: until the first success.
    #[serde(default)]
    pub policy: RefreshPolicy,
    /// How often; at least `5s`.
    #[serde(default = "hourly")]
    #[x_kube(validation = ("duration(self) >= duration('5s')", "at least 5s"))]
    pub interval: Duration,
}

/// Whether a value is looked at again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RefreshPolicy {
    /// Every interval.
    #[default]
    Periodic,
    /// Until the first success of each spec.
    Once,
}

/// Whether anything is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Write the Secret.
    #[default]
    Sync,
    /// Only report what would change.
    Observe,
}

/// What to do when a store reports a value as gone. A plain "not found" always keeps the last value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhenGone {
    /// The store reports it as deleted; it may come back.
    #[serde(default)]
    pub deleted: GonePolicy,
    /// The store reports it as destroyed for good.
    #[serde(default)]
    pub destroyed: GonePolicy,
}

/// What happens to the Secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GonePolicy {
    /// The last value stays and the condition warns.
    #[default]
    Keep,
    /// The keys of that source are removed.
    RemoveKeys,
    /// All our keys are removed, and the Secret with them where it is ours alone.
    DeleteSecret,
}

/// A workload of the same namespace that reads the Secret only at start.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    /// Its kind.
    pub kind: ConsumerKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
}

/// The kinds of workload that can be rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ConsumerKind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `apps/v1` DaemonSet.
    DaemonSet,
}

/// What is known. It changes only when it says something new: the time of the last look is not here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncedSecretStatus {
    /// Generation of the spec that the rest speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `RolledOut` where there are consumers.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The Secret as it was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<WrittenSecret>,
    /// What each place gave, in the order of the sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<AcceptedVersion>,
    /// Restart of the consumers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Id of the last refresh request that was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_refresh: Option<String>,
}

/// The Secret as it was last written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WrittenSecret {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion after the write.
    pub resource_version: String,
    /// Keyed fingerprint of what was written; it says nothing without the operator's key.
    pub fingerprint: String,
    /// Keyed fingerprint of the values alone: what consumers are restarted for.
    pub values: String,
    /// Generation of the spec that it was made from.
    pub generation: i64,
    /// How many keys are ours.
    pub keys: i32,
    /// Their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_names: Vec<String>,
    /// When the content last changed.
    pub changed_at: DateTime<Utc>,
}

/// The version of one place that the Secret holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedVersion {
    /// Index of the source in the spec.
    pub source: i32,
    /// Digest of what the source asks for: a source that asks for something else begins anew.
    #[serde(default)]
    pub asked: String,
    /// Which place, where the source is a search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Version number (Vault KV v2) or generation (Barbican).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// UUID of the secret (Barbican).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When the version was created at the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<DateTime<Utc>>,
    /// When the store stops serving it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<DateTime<Utc>>,
    /// The store reported the value gone, and its keys were removed; the version is the last one before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
}

/// The ways in which a store can report a value gone that let keys be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Gone {
    /// Deleted; it may come back.
    Deleted,
    /// Destroyed for good.
    Destroyed,
}

/// How far the consumers have come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The hash that their pod templates should carry.
    pub hash: String,
    /// Consumers that run with it.
    pub ready: i32,
    /// Consumers in all.
    pub total: i32,
    /// `ready/total`, for the printed column.
    pub progress: String,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            name: None,
            type_: opaque(),
            template: None,
            adoption: None,
        }
    }
}

impl Default for Refresh {
    fn default() -> Self {
        Self {
            policy: RefreshPolicy::default(),
            interval: hourly(),
        }
    }
}

fn hourly() -> Duration {
    Duration::from_secs(3600)
}

fn find_max() -> i32 {
    100
}

fn opaque() -> String {
    "Opaque".into()
}
