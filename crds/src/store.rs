//! What both store kinds share: how to reach one backend and how to log in to it.

use chrono::{DateTime, Utc};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigMapKey, ObjectName, SecretKey, ServiceAccountName};

/// A Vault or OpenBao server and one KV mount in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultStore {
    /// Address of the server, such as `https://vault.example.com:8200`, without a path.
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^/@?#\s]+/?$"))]
    pub address: String,
    /// Vault namespace of the mount (Vault Enterprise, OpenBao).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub namespace: Option<String>,
    /// Path of the KV mount.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^/].*[^/]$|^[^/]$"))]
    pub mount: String,
    /// Version of the KV engine; `Auto` asks the server once.
    #[serde(default)]
    pub kv_version: KvVersion,
    /// CA that signed the server's certificate. Without one, the system's roots are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSource>,
    /// Name to expect in the server's certificate, where it is not the address's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// How to log in.
    pub auth: VaultAuth,
}

/// Version of a KV engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KvVersion {
    /// Ask the server once.
    #[default]
    Auto,
    /// Values without versions.
    V1,
    /// Versioned values.
    V2,
}

/// Where a CA certificate comes from; exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("[has(self.inline), has(self.configMapRef), has(self.secretRef)].filter(x, x).size() == 1", "exactly one of inline, configMapRef, secretRef")
)]
pub struct CaSource {
    /// PEM certificates in the object itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub inline: Option<String>,
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKey>,
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKey>,
}

/// How to log in to Vault; exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("[has(self.kubernetes), has(self.appRole), has(self.token), has(self.jwt), has(self.userpass), has(self.cert)].filter(x, x).size() == 1", "exactly one of kubernetes, appRole, token, jwt, userpass, cert")
)]
pub struct VaultAuth {
    /// Vault namespace of the login, where it is not the mount's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub namespace: Option<String>,
    /// A token of a Kubernetes ServiceAccount: nothing to store, nothing to rotate. The preferred way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesAuth>,
    /// A role id and a secret id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_role: Option<AppRoleAuth>,
    /// A token made elsewhere. It is renewed where the server allows and never revoked by Keyward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenAuth>,
    /// A JWT, from a Secret or of a ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtAuth>,
    /// A user name and a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userpass: Option<UserpassAuth>,
    /// A TLS client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<CertAuth>,
}

/// Login with a ServiceAccount token at Vault's kubernetes method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesAuth {
    /// Where the method is mounted.
    #[serde(default = "kubernetes_mount")]
    #[schemars(length(min = 1, max = 253))]
    pub mount: String,
    /// The role to take.
    #[schemars(length(min = 1, max = 253))]
    pub role: String,
    /// The ServiceAccount to log in as.
    pub service_account_ref: ServiceAccountName,
    /// Audience of the token: a name for this Vault, and never the API server's own.
    #[schemars(length(min = 1, max = 253))]
    pub audience: String,
}

/// Login with AppRole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppRoleAuth {
    /// Where the method is mounted.
    #[serde(default = "approle_mount")]
    #[schemars(length(min = 1, max = 253))]
    pub mount: String,
    /// The role id.
    #[schemars(length(min = 1, max = 253))]
    pub role_id: String,
    /// The secret id.
    pub secret_id_ref: SecretKey,
}

/// Login with a ready-made token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenAuth {
    /// The token.
    pub token_ref: SecretKey,
}

/// Login with a JWT; from exactly one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.tokenRef) != has(self.serviceAccountRef)", "exactly one of tokenRef, serviceAccountRef"),
    validation = ("has(self.serviceAccountRef) == has(self.audience)", "serviceAccountRef and audience go together")
)]
pub struct JwtAuth {
    /// Where the method is mounted.
    #[serde(default = "jwt_mount")]
    #[schemars(length(min = 1, max = 253))]
    pub mount: String,
    /// The role to take.
    #[schemars(length(min = 1, max = 253))]
    pub role: String,
    /// A JWT kept in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ref: Option<SecretKey>,
    /// The ServiceAccount whose token is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountName>,
    /// Audience of the ServiceAccount's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub audience: Option<String>,
}

/// Login with a user name and a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserpassAuth {
    /// Where the method is mounted.
    #[serde(default = "userpass_mount")]
    #[schemars(length(min = 1, max = 253))]
    pub mount: String,
    /// The user's name.
    #[schemars(length(min = 1, max = 253))]
    pub username: String,
    /// The password.
    pub password_ref: SecretKey,
}

/// Login with a TLS client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertAuth {
    /// Where the method is mounted.
    #[serde(default = "cert_mount")]
    #[schemars(length(min = 1, max = 253))]
    pub mount: String,
    /// The role to match; all roles are tried without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub role: Option<String>,
    /// A Secret of type `kubernetes.io/tls`.
    pub certificate_ref: ObjectName,
}

/// Barbican, found through Keystone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.cloudsYaml) != (has(self.authUrl) && has(self.auth))", "either cloudsYaml, or authUrl and auth"),
    validation = ("!has(self.cloudsYaml) || (!has(self.authUrl) && !has(self.auth))", "cloudsYaml stands alone: no authUrl, no auth")
)]
pub struct BarbicanStore {
    /// Keystone's address, such as `https://keystone.example.com/v3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^@?#\s]+$"))]
    pub auth_url: Option<String>,
    /// How to log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<KeystoneAuth>,
    /// A Secret that holds a `clouds.yaml`, in place of `authUrl` and `auth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clouds_yaml: Option<CloudsYaml>,
    /// Region of the key manager in the catalog; needed where there is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub region: Option<String>,
    /// Which endpoint of the catalog to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    /// Barbican's address, in place of the catalog's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^@?#\s]+$"))]
    pub endpoint_override: Option<String>,
    /// CA that signed the certificates of Keystone and Barbican. Without one, the system's roots are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSource>,
}

/// An endpoint interface of Keystone's catalog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Interface {
    /// For everybody.
    #[default]
    Public,
    /// For services inside the cloud.
    Internal,
    /// For administrators.
    Admin,
}

/// How to log in to Keystone; exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.applicationCredential) != has(self.password)", "exactly one of applicationCredential, password"))]
pub struct KeystoneAuth {
    /// An application credential: bound to one project, without the user's password. The preferred way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_credential: Option<ApplicationCredential>,
    /// A user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordAuth>,
}

/// An application credential of Keystone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationCredential {
    /// Its id.
    #[schemars(length(min = 1, max = 255))]
    pub id: String,
    /// Its secret.
    pub secret_ref: SecretKey,
}

/// A user's password, scoped to a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordAuth {
    /// The user's name.
    #[schemars(length(min = 1, max = 255))]
    pub username: String,
    /// The user's domain, by name.
    #[serde(default = "default_domain")]
    #[schemars(length(min = 1, max = 255))]
    pub user_domain: String,
    /// The password.
    pub password_ref: SecretKey,
    /// The project to work in, by name.
    #[schemars(length(min = 1, max = 255))]
    pub project: String,
    /// The project's domain, by name.
    #[serde(default = "default_domain")]
    #[schemars(length(min = 1, max = 255))]
    pub project_domain: String,
}

/// A `clouds.yaml` in a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudsYaml {
    /// Where it is.
    pub secret_ref: SecretKey,
    /// Which cloud of it to use; needed where it holds more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub cloud: Option<String>,
}

/// Choices that weaken a store. Each works only where the administrator allows it, is reported while it is in use,
/// and ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.plainHttp || self.skipTlsVerify || self.apiServerAudience", "name at least one insecure choice, or leave `insecure` out"))]
pub struct Insecure {
    /// Why it is needed; shown in the condition.
    #[schemars(length(min = 10, max = 512))]
    pub reason: String,
    /// When it ends. After this instant the store is refused.
    pub expires: DateTime<Utc>,
    /// Talk over plain http: everybody on the path reads every value.
    #[serde(default)]
    pub plain_http: bool,
    /// Do not verify the server's certificate: anybody on the path can pose as the store.
    #[serde(default)]
    pub skip_tls_verify: bool,
    /// Allow the API server's own audience: the store can use the token against the cluster.
    #[serde(default)]
    pub api_server_audience: bool,
}

fn kubernetes_mount() -> String {
    "kubernetes".into()
}

fn approle_mount() -> String {
    "approle".into()
}

fn jwt_mount() -> String {
    "jwt".into()
}

fn userpass_mount() -> String {
    "userpass".into()
}

fn cert_mount() -> String {
    "cert".into()
}

fn default_domain() -> String {
    "Default".into()
}
