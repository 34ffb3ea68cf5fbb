//! A real Vault or `OpenBao` server: TLS by an authority of its own, state in a folder, a file audit device.
//!
//! What a test does on the store's own side goes through [`VaultApi`], as root.

mod api;
mod audit;
mod process;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

pub use self::api::{Answer, Kv, Login, VaultApi};
pub use self::audit::{AuditLog, StoreRequest};
pub use super::journal::Mark;

use self::process::Instance;
use super::kubernetes::Kubernetes;
use super::run::Run;
use super::tls::{Authority, Identity};

/// Which product to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Product {
    /// Vault.
    Vault,
    /// `OpenBao`, which runs only if it was handed in.
    OpenBao,
}

/// Where a server is. Enough to use it from another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// Which product it is.
    pub product: Product,
    /// The server's address.
    pub url: String,
    /// The folder that holds its certificates and its audit log.
    pub folder: PathBuf,
    /// The root token.
    pub root_token: String,
    /// What unseals it.
    pub unseal_key: String,
}

/// A running server.
pub struct Vault {
    connection: Connection,
    authority: Authority,
    api: VaultApi,
    instance: Option<Instance>,
}

/// The service account by which the server reviews tokens: its namespace and name.
const REVIEWER: (&str, &str) = ("kube-system", "rig-token-reviewer");

impl Vault {
    /// Starts a server as part of `run`, in a folder called `name`: initialised, unsealed, audit device on.
    pub async fn start(run: &Run, name: &str, product: Product) -> Result<Self> {
        let (instance, connection) = Instance::start(run, name, product).await?;
        let mut vault = Self::connect(connection)?;
        vault.instance = Some(instance);
        Ok(vault)
    }

    /// Uses a server that another process started.
    pub fn connect(connection: Connection) -> Result<Self> {
        let authority = Authority::load(&connection.folder)?;
        let api = VaultApi::new(
            &connection.url,
            authority.certificate(),
            Some(&connection.root_token),
        )?;
        Ok(Self {
            connection,
            authority,
            api,
            instance: None,
        })
    }

    /// Where the server is.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The server's address. Its certificate is for 127.0.0.1 and localhost.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.connection.url
    }

    /// The certificate authority of the server, PEM.
    #[must_use]
    pub fn ca(&self) -> &str {
        self.authority.certificate()
    }

    /// The store's API, as root.
    #[must_use]
    pub fn api(&self) -> &VaultApi {
        &self.api
    }

    /// The store's API for the bearer of `token`, or for nobody yet.
    pub fn api_as(&self, token: Option<&str>) -> Result<VaultApi> {
        VaultApi::new(self.url(), self.ca(), token)
    }

    /// A client certificate that the cert auth method can be told to trust by [`Self::ca`].
    pub fn client_identity(&self, name: &str) -> Result<Identity> {
        self.authority.client(name, None)
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> AuditLog {
        AuditLog::new(process::audit_log(&self.connection.folder))
    }

    /// Enables kubernetes auth at `mount`: tokens are reviewed by `kubernetes`.
    pub async fn enable_kubernetes_auth(&self, mount: &str, kubernetes: &Kubernetes) -> Result<()> {
        let (namespace, account) = REVIEWER;
        kubernetes.allow_token_review(namespace, account).await?;
        let reviewer = kubernetes.token(namespace, account, &[]).await?;
        self.api.enable_auth(mount, "kubernetes").await?;
        self.api
            .write(
                &format!("auth/{mount}/config"),
                &serde_json::json!({
                    "kubernetes_host": kubernetes.url(),
                    "kubernetes_ca_cert": kubernetes.ca(),
                    "token_reviewer_jwt": reviewer,
                    "disable_local_ca_jwt": true,
                }),
            )
            .await
    }

    /// Seals the server: it keeps its connections and refuses all work.
    pub async fn seal(&self) -> Result<()> {
        self.private()?;
        self.api.write("sys/seal", &serde_json::json!({})).await
    }

    /// Unseals the server and waits until it works again.
    pub async fn unseal(&self) -> Result<()> {
        process::unseal(&self.api, &self.connection.unseal_key).await
    }

    /// Stops the server in good order.
    pub async fn stop(&self) -> Result<()> {
        self.private()?.server().stop().await.map(drop)
    }

    /// Starts the server after [`Self::stop`]; it comes up sealed.
    pub async fn start_sealed(&self) -> Result<()> {
        self.private()?.start_again(&self.api).await
    }

    /// Stops the server, starts it again on the same port and state, and unseals it.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start_sealed().await?;
        self.unseal().await
    }

    /// Freezes the server: connections hang.
    pub fn pause(&self) -> Result<()> {
        self.private()?.server().pause()
    }

    /// Lets a frozen server go on.
    pub fn resume(&self) -> Result<()> {
        self.private()?.server().resume()
    }

    fn private(&self) -> Result<&Instance> {
        self.instance
            .as_ref()
            .context("this server belongs to another process: start a private one")
    }
}
