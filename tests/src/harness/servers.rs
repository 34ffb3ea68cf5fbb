//! The servers that tests share: each started when the first test asks, or taken from a `rig up`.

use anyhow::{Context as _, Result, anyhow};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tokio::sync::OnceCell;

use super::evidence::Logs;
use crate::rig::kubernetes::{self, Kubernetes, Parts};
use crate::rig::lasting;
use crate::rig::openstack::{self, OpenStack};
use crate::rig::run::Run;
use crate::rig::vault::{Product, Vault};

/// Shared servers. Tests keep apart by namespace, mount and project, and never disturb these.
pub struct Servers {
    kinds: Vec<CustomResourceDefinition>,
    run: Shared<Run>,
    /// What `rig up` left running, if it did.
    lasting: Shared<lasting::Connections>,
    kubernetes: Shared<Kubernetes>,
    openstack: Shared<OpenStack>,
    vault: Shared<Vault>,
    openbao: Shared<Vault>,
}

/// A server, or why it did not start: it is tried once, or each test would wait for it to fail.
type Shared<T> = OnceCell<Result<T, String>>;

impl Servers {
    pub(super) fn new(kinds: Vec<CustomResourceDefinition>) -> Self {
        Self {
            kinds,
            run: OnceCell::new(),
            lasting: OnceCell::new(),
            kubernetes: OnceCell::new(),
            openstack: OnceCell::new(),
            vault: OnceCell::new(),
            openbao: OnceCell::new(),
        }
    }

    /// The control plane.
    pub async fn kubernetes(&self) -> Result<&Kubernetes> {
        let start = async {
            if let Some(connection) = self.lasting().await?.kubernetes.clone() {
                let kubernetes = Kubernetes::connect(connection).await?;
                kubernetes.install(&self.kinds).await?;
                return Ok(kubernetes);
            }
            Kubernetes::start(self.run().await?, "kubernetes", &self.options(Parts::Whole)).await
        };
        once(&self.kubernetes, start.boxed()).await
    }

    /// Keystone and Barbican.
    pub async fn openstack(&self) -> Result<&OpenStack> {
        let start = async {
            match self.lasting().await?.openstack.clone() {
                Some(connection) => OpenStack::connect(connection),
                None => {
                    OpenStack::start(self.run().await?, "openstack", &openstack::Options::default()).await
                }
            }
        };
        once(&self.openstack, start.boxed()).await
    }

    /// The store.
    pub async fn vault(&self, product: Product) -> Result<&Vault> {
        let (shared, name) = match product {
            Product::Vault => (&self.vault, "vault"),
            Product::OpenBao => (&self.openbao, "openbao"),
        };
        let start = async {
            match self.lasting().await?.vault.clone() {
                Some(connection) if connection.product == product => Vault::connect(connection),
                _ => Vault::start(self.run().await?, name, product).await,
            }
        };
        once(shared, start.boxed()).await
    }

    /// What a private control plane is to be started with.
    pub(super) fn options(&self, parts: Parts) -> kubernetes::Options {
        kubernetes::Options {
            parts,
            kinds: self.kinds.clone(),
        }
    }

    /// The run that everything started by this program belongs to.
    pub async fn run(&self) -> Result<&Run> {
        // Cleaning up after killed runs may take a moment.
        let start = async { tokio::task::spawn_blocking(Run::start).await? };
        once(&self.run, start.boxed()).await
    }

    /// The logs of all that was started, as they are now.
    pub(super) fn logs(&self) -> Logs {
        let run = self.run.get().and_then(|run| run.as_ref().ok());
        Logs::of(run.map(Run::logs).as_deref())
    }

    async fn lasting(&self) -> Result<&lasting::Connections> {
        once(
            &self.lasting,
            async { Ok(lasting::find()?.unwrap_or_default()) }.boxed(),
        )
        .await
    }
}

async fn once<'a, T>(shared: &'a Shared<T>, start: BoxFuture<'_, Result<T>>) -> Result<&'a T> {
    let started = shared
        .get_or_init(|| async { start.await.map_err(|error| format!("{error:#}")) })
        .await;
    started
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
        .context("start a shared server")
}
