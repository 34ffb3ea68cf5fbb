//! `SecretStore` and `ClusterSecretStore`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::{BarbicanStore, Insecure, VaultStore};

/// Holds where no address is plain http, or where that was chosen by name.
const NO_PLAIN_HTTP: &str = "(has(self.insecure) && self.insecure.plainHttp) || \
    !((has(self.vault) && self.vault.address.startsWith('http:')) || \
    (has(self.barbican) && has(self.barbican.authUrl) && self.barbican.authUrl.startsWith('http:')) || \
    (has(self.barbican) && has(self.barbican.endpointOverride) && self.barbican.endpointOverride.startsWith('http:')))";
const PLAIN_HTTP_IS_INSECURE: &str = "an http:// address needs `insecure.plainHttp`; use https://";

/// One backend that a namespace may read from. Credentials, CAs and ServiceAccounts are those of its own namespace.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyward.dev",
    version = "v1alpha1",
    kind = "SecretStore",
    namespaced,
    status = "StoreStatus",
    derive = "PartialEq",
    shortname = "kwst",
    category = "keyward",
    doc = "One Vault, OpenBao or Barbican and how to log in to it, for the namespace it lives in."
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.vault) != has(self.barbican)", "exactly one of vault, barbican"),
    validation = (NO_PLAIN_HTTP, PLAIN_HTTP_IS_INSECURE)
)]
pub struct SecretStoreSpec {
    /// The backend itself.
    #[serde(flatten)]
    pub backend: Backend,
}

/// A Vault, an OpenBao or a Barbican, whoever may read from it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Environment the store belongs to. A namespace labelled `keyward.dev/environment` with another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub environment: Option<String>,
    /// Vault or OpenBao.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultStore>,
    /// Barbican.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barbican: Option<BarbicanStore>,
    /// Choices that weaken the store, with a reason and an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure: Option<Insecure>,
}

/// One backend that several namespaces may read from, each only what an access rule grants it.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyward.dev",
    version = "v1alpha1",
    kind = "ClusterSecretStore",
    status = "StoreStatus",
    derive = "PartialEq",
    shortname = "kwcst",
    category = "keyward",
    doc = "One Vault, OpenBao or Barbican for several namespaces, with the remote paths that each may read."
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.vault) != has(self.barbican)", "exactly one of vault, barbican"),
    validation = (NO_PLAIN_HTTP, PLAIN_HTTP_IS_INSECURE),
    validation = ("self.credentials.from != 'Consumer' || (has(self.vault) && (has(self.vault.auth.kubernetes) || (has(self.vault.auth.jwt) && has(self.vault.auth.jwt.serviceAccountRef))))", "credentials from the consumer need a login by serviceAccountRef"),
    validation = ("self.credentials.from != 'Consumer' || !has(self.vault) || !has(self.vault.ca) || has(self.vault.ca.inline)", "with credentials from the consumer, the CA must be inline: a reader must not choose whom the store is")
)]
pub struct ClusterSecretStoreSpec {
    /// The backend itself.
    #[serde(flatten)]
    pub backend: Backend,
    /// Whose credentials are used.
    pub credentials: Credentials,
    /// Who may read what. Without a matching rule nothing is read.
    #[schemars(length(min = 1, max = 64))]
    pub access: Vec<AccessRule>,
}

/// Whose credentials a cluster store uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("(self.from == 'Namespace') == has(self.namespace)", "`namespace` goes with `from: Namespace`"))]
pub struct Credentials {
    /// `Namespace`: Secrets and ServiceAccounts of one namespace. `Consumer`: the ServiceAccount named in `auth`, in
    /// the namespace of whoever reads, so that the store's own policy and audit see the tenant.
    pub from: CredentialScope,
    /// The namespace that holds the Secrets and ServiceAccounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Where a cluster store's credentials live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialScope {
    /// In one named namespace.
    Namespace,
    /// In the consuming namespace.
    Consumer,
}

/// One grant of a cluster store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.namespaces) || has(self.selector)", "a rule names namespaces or a selector"))]
pub struct AccessRule {
    /// Name of the rule, which a refusal quotes.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub namespaces: Option<Vec<String>>,
    /// Namespaces by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// What they may read: `*` stands for one segment, a last `**` for everything below, `{{namespace}}` for the
    /// reader's namespace. For Barbican these match secret names; `uuid:…` and `container:…` name one object.
    #[schemars(length(min = 1, max = 256))]
    pub paths: Vec<String>,
}

/// What is known about a store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// Generation of the spec that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `Insecure` where a choice under `insecure` is in use.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
