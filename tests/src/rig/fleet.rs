//! All servers together: started at once, and described for a person at a shell.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::assets;
use super::kubernetes::{Kubernetes, Options, Parts};
use super::lasting::Connections;
use super::openstack::{self, OpenStack};
use super::run::Run;
use super::tls;
use super::vault::{Product, Vault};

/// The mount at which the fleet's store knows the fleet's service accounts.
pub const KUBERNETES_AUTH: &str = "kubernetes";

/// One of each server.
pub struct Fleet {
    /// The control plane.
    pub kubernetes: Kubernetes,
    /// Keystone and Barbican.
    pub openstack: OpenStack,
    /// The store, with kubernetes auth at [`KUBERNETES_AUTH`].
    pub vault: Vault,
}

impl Fleet {
    /// Starts all servers at the same time, so that it takes as long as the slowest.
    pub async fn start(run: &Run, kinds: Vec<CustomResourceDefinition>) -> Result<Self> {
        assets::check_variables()?;
        check_tools()?;
        let options = Options {
            parts: Parts::Whole,
            kinds,
        };
        let openstack_options = openstack::Options::default();
        let (kubernetes, openstack, vault) = tokio::try_join!(
            Kubernetes::start(run, "kubernetes", &options),
            OpenStack::start(run, "openstack", &openstack_options),
            Vault::start(run, "vault", Product::Vault),
        )?;
        vault.enable_kubernetes_auth(KUBERNETES_AUTH, &kubernetes).await?;
        Ok(Self {
            kubernetes,
            openstack,
            vault,
        })
    }

    /// How to reach each server from another process.
    #[must_use]
    pub fn connections(&self) -> Connections {
        Connections {
            kubernetes: Some(self.kubernetes.connection().clone()),
            openstack: Some(self.openstack.connection().clone()),
            vault: Some(self.vault.connection().clone()),
        }
    }

    /// Writes a kubeconfig with all rights, and a file of shell variables, which only their owner can read.
    pub fn save_access(&self, folder: &Path) -> Result<()> {
        self.kubernetes.admin().save(&kubeconfig(folder))?;
        tls::write_private(
            &environment(folder),
            shell_variables(folder, &self.connections())?.as_bytes(),
        )
    }
}

/// Says everything that is missing on this machine, before minutes are spent on what is not.
fn check_tools() -> Result<()> {
    let missing: Vec<String> = [assets::check_tools(), openstack::look_for_python().map(drop)]
        .into_iter()
        .filter_map(|found| found.err().map(|error| format!("- {error:#}")))
        .collect();
    ensure!(
        missing.is_empty(),
        "something is missing here:\n{}",
        missing.join("\n")
    );
    Ok(())
}

/// What to type to use the servers whose access was saved to `folder`.
pub fn usage(folder: &Path, connections: &Connections) -> Result<String> {
    let mut text = String::new();
    if let Some(kubernetes) = &connections.kubernetes {
        writeln!(text, "Kubernetes  {}", kubernetes.url)?;
        writeln!(
            text,
            "            {} --kubeconfig={} get namespaces",
            kubernetes.kubectl.display(),
            kubeconfig(folder).display()
        )?;
    }
    if let Some(vault) = &connections.vault {
        writeln!(text, "Vault       {}", vault.url)?;
    }
    if let Some(openstack) = &connections.openstack {
        writeln!(text, "Keystone    {}/v3", openstack.keystone)?;
        writeln!(text, "Barbican    {}", openstack.barbican)?;
    }
    writeln!(text, "Addresses, tokens and certificates for your shell:")?;
    writeln!(text, "            . {}", environment(folder).display())?;
    Ok(text)
}

fn shell_variables(folder: &Path, connections: &Connections) -> Result<String> {
    let mut text = String::new();
    if let Some(kubernetes) = &connections.kubernetes {
        writeln!(text, "export KUBECONFIG='{}'", kubeconfig(folder).display())?;
        let programs = kubernetes.kubectl.parent().unwrap_or(Path::new("."));
        writeln!(text, "export PATH='{}':\"$PATH\"", programs.display())?;
    }
    if let Some(vault) = &connections.vault {
        writeln!(text, "export VAULT_ADDR='{}'", vault.url)?;
        writeln!(
            text,
            "export VAULT_CACERT='{}'",
            vault.folder.join(tls::CA_FILE).display()
        )?;
        writeln!(text, "export VAULT_TOKEN='{}'", vault.root_token)?;
    }
    if let Some(openstack) = &connections.openstack {
        for (name, value) in openstack.variables()? {
            writeln!(text, "export {name}='{value}'")?;
        }
    }
    Ok(text)
}

fn kubeconfig(folder: &Path) -> PathBuf {
    folder.join("kubeconfig")
}

fn environment(folder: &Path) -> PathBuf {
    folder.join("environment")
}
