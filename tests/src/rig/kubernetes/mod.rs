//! A real Kubernetes control plane: etcd, API server, controller manager, scheduler, and kwok in place of a
//! kubelet, so that workloads really roll out. RBAC and the audit log are on.

mod access;
mod audit;
mod control_plane;
mod node;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use self::access::Access;
pub use self::audit::{ApiRequest, AuditLog};
pub use self::node::{NEVER_READY, READINESS_LABEL};

use self::control_plane::ControlPlane;
use super::poll;
use super::run::Run;
use super::tls::Authority;

/// How long the API server may take to establish a kind.
const ESTABLISHED_WITHIN: Duration = Duration::from_mins(1);

/// How long the controllers may take to do their first work.
const CONTROLLERS_WITHIN: Duration = Duration::from_mins(2);

/// The name under which the rig writes to the API server.
const FIELD_MANAGER: &str = "rig";

/// Which programs to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// All of them.
    Whole,
    /// etcd and the API server alone: enough for a test that takes the API server away.
    ApiServer,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which programs to run.
    pub parts: Parts,
    /// Kinds to install before the controllers start: the garbage collector knows kinds that come later only
    /// after half a minute.
    pub kinds: Vec<CustomResourceDefinition>,
}

/// Where a control plane is. Enough to use it from another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// The API server's address.
    pub url: String,
    /// The folder that holds its certificates and logs.
    pub folder: PathBuf,
    /// The path of `kubectl`.
    pub kubectl: PathBuf,
}

/// A running control plane.
pub struct Kubernetes {
    connection: Connection,
    authority: Authority,
    admin: Access,
    client: kube::Client,
    control_plane: Option<ControlPlane>,
}

impl Kubernetes {
    /// Starts a control plane as part of `run`, in a folder called `name`, and waits until it is of use.
    pub async fn start(run: &Run, name: &str, options: &Options) -> Result<Self> {
        let (mut control_plane, connection) = ControlPlane::start(run, name, options.parts).await?;
        let mut kubernetes = Self::connect(connection).await?;
        control_plane
            .while_all_run(kubernetes.install(&options.kinds).boxed())
            .await?;
        if control_plane.start_controllers().await? {
            let first_work = async {
                tokio::try_join!(
                    node::register(&kubernetes.client),
                    kubernetes.wait_for_default_account()
                )
            };
            control_plane.while_all_run(first_work.boxed()).await?;
        }
        kubernetes.control_plane = Some(control_plane);
        Ok(kubernetes)
    }

    /// Uses a control plane that another process started.
    pub async fn connect(connection: Connection) -> Result<Self> {
        let authority = Authority::load(&connection.folder)?;
        let admin = Access::certificate(
            &connection.url,
            authority.certificate(),
            "admin",
            &authority.client("rig:admin", Some("system:masters"))?,
        );
        let client = admin.client(FIELD_MANAGER).await?;
        Ok(Self {
            connection,
            authority,
            admin,
            client,
            control_plane: None,
        })
    }

    /// Where the control plane is.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A client with all rights, known to the audit log by the user agent `rig`.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The API server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.connection.url
    }

    /// The certificate authority of the API server, PEM.
    #[must_use]
    pub fn ca(&self) -> &str {
        self.authority.certificate()
    }

    /// The path of `kubectl`.
    #[must_use]
    pub fn kubectl(&self) -> &Path {
        &self.connection.kubectl
    }

    /// Access with all rights.
    #[must_use]
    pub fn admin(&self) -> &Access {
        &self.admin
    }

    /// Access for a user who is known by a client certificate.
    pub fn user(&self, name: &str, group: Option<&str>) -> Result<Access> {
        let identity = self.authority.client(name, group)?;
        Ok(Access::certificate(self.url(), self.ca(), name, &identity))
    }

    /// Access for the bearer of a token.
    #[must_use]
    pub fn bearer(&self, token: &str) -> Access {
        Access::token(self.url(), self.ca(), token)
    }

    /// A token of a service account, for a day: servers that are left running stay of use. Without an audience it is one for the API server itself.
    pub async fn token(&self, namespace: &str, account: &str, audiences: &[&str]) -> Result<String> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audiences.iter().map(ToString::to_string).collect(),
                expiration_seconds: Some(24 * 3600),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = self
            .all::<ServiceAccount>(namespace)
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("request a token of {namespace}/{account}"))?;
        answer
            .status
            .map(|status| status.token)
            .context("the token request was answered without a token")
    }

    /// The public keys, PEM, that verify service account tokens without asking the API server.
    pub fn token_keys(&self) -> Result<String> {
        let path = self.connection.folder.join(control_plane::TOKEN_KEYS);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Makes a namespace.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(self.client())
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("create the namespace {name}"))?;
        Ok(())
    }

    /// Makes a service account.
    pub async fn create_service_account(&self, namespace: &str, name: &str) -> Result<()> {
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        self.all(namespace)
            .create(&PostParams::default(), &account)
            .await
            .with_context(|| format!("create the service account {namespace}/{name}"))?;
        Ok(())
    }

    /// Makes a service account, if need be, that may ask the API server whose a token is.
    pub async fn allow_token_review(&self, namespace: &str, name: &str) -> Result<()> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name } });
        self.all::<ServiceAccount>(namespace)
            .patch(name, &params, &Patch::Apply(&account))
            .await?;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": name },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:auth-delegator",
            },
            "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": name }],
        });
        Api::<ClusterRoleBinding>::all(self.client())
            .patch(name, &params, &Patch::Apply(&binding))
            .await?;
        Ok(())
    }

    /// Installs kinds, or updates them, and waits until the API server serves them and gives what is made from then on a
    /// later time than theirs.
    pub async fn install(&self, kinds: &[CustomResourceDefinition]) -> Result<()> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client());
        futures::future::try_join_all(kinds.iter().map(|kind| install_one(&api, kind)))
            .await
            .map(drop)
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> AuditLog {
        AuditLog::new(control_plane::audit_log(&self.connection.folder), self.client())
    }

    /// Takes the API server away, as a crash would; etcd keeps its data.
    pub fn stop_api_server(&self) -> Result<()> {
        self.control_plane()?.api_server().kill()
    }

    /// Brings the API server back and waits until it is ready.
    pub async fn start_api_server(&self) -> Result<()> {
        let control_plane = self.control_plane()?;
        control_plane.api_server().start()?;
        control_plane.wait_for_api_server().await
    }

    /// No pod can be made before it exists.
    async fn wait_for_default_account(&self) -> Result<()> {
        let accounts = self.all::<ServiceAccount>("default");
        poll::until("the default service account", CONTROLLERS_WITHIN, async || {
            accounts
                .get_opt("default")
                .await
                .is_ok_and(|account| account.is_some())
        })
        .await
    }

    fn control_plane(&self) -> Result<&ControlPlane> {
        self.control_plane
            .as_ref()
            .context("this control plane belongs to another process: start a private one")
    }

    fn all<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client(), namespace)
    }
}

async fn install_one(api: &Api<CustomResourceDefinition>, kind: &CustomResourceDefinition) -> Result<()> {
    let name = kind.metadata.name.as_deref().context("a kind has no name")?;
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(name, &params, &Patch::Apply(kind))
        .await
        .with_context(|| format!("install {name}"))?;
    poll::until(name, ESTABLISHED_WITHIN, async || {
        api.get(name).await.is_ok_and(|kind| is_established(&kind))
    })
    .await?;
    // Lists are refused for a moment after that, until the cache behind them is filled.
    let version = kind.spec.versions.first().context("a kind has no version")?;
    let names = &kind.spec.names;
    let served = GroupVersionKind::gvk(&kind.spec.group, &version.name, &names.kind);
    let served = ApiResource::from_gvk_with_plural(&served, &names.plural);
    let objects: Api<DynamicObject> = Api::all_with(api.clone().into_client(), &served);
    poll::until(name, ESTABLISHED_WITHIN, async || {
        objects
            .list_metadata(&ListParams::default().limit(1))
            .await
            .is_ok()
    })
    .await?;
    // The API server keeps whole seconds: only what is made in a later one is younger than the kind for sure.
    let installed = api.get(name).await?.metadata.creation_timestamp;
    let installed = installed.context("a kind has no age")?.0.as_second();
    poll::until("a later second", ESTABLISHED_WITHIN, async || {
        DateTime::<Utc>::from(SystemTime::now()).timestamp() > installed
    })
    .await
}

fn is_established(kind: &CustomResourceDefinition) -> bool {
    // Status and its conditions are absent for an instant after creation.
    let conditions = kind.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Established" && c.status == "True")
}
