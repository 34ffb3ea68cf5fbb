//! What one test gets: its servers, and names of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use super::servers::Servers;
use crate::rig::kubernetes::{Kubernetes, Parts};
use crate::rig::openstack::{self, OpenStack, Role, Tenant};
use crate::rig::run::Run;
use crate::rig::vault::{Kv, Product, Vault};

/// Longest start of a name that still leaves room for what tests add, within the 63 characters of a namespace.
const STEM_LENGTH: usize = 32;

/// One test.
pub struct Case {
    stem: String,
    product: Product,
    servers: Arc<Servers>,
    named: AtomicUsize,
}

impl Case {
    pub(super) fn new(name: &str, product: Product, servers: Arc<Servers>) -> Self {
        Self {
            stem: stem(name),
            product,
            servers,
            named: AtomicUsize::new(0),
        }
    }

    /// How every name of this test begins.
    pub(super) fn stem(&self) -> &str {
        &self.stem
    }

    /// A name that no other test has, nor an earlier run against servers of `rig up`. Fit for a namespace, a
    /// mount, a policy, a user or a project.
    #[must_use]
    pub fn unique(&self) -> String {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        let random = uuid::Uuid::new_v4().simple().to_string();
        format!("{}-{number}-{}", self.stem, &random[..8])
    }

    /// The shared control plane.
    pub async fn kubernetes(&self) -> Result<&Kubernetes> {
        self.servers.kubernetes().await
    }

    /// The shared store, of the product that the test is run for.
    pub async fn vault(&self) -> Result<&Vault> {
        self.servers.vault(self.product).await
    }

    /// The shared Keystone and Barbican.
    pub async fn openstack(&self) -> Result<&OpenStack> {
        self.servers.openstack().await
    }

    /// A new project of the shared Keystone, with a user who may do everything with its secrets.
    pub async fn tenant(&self) -> Result<Tenant> {
        self.openstack().await?.tenant(Role::Member).await
    }

    /// A new namespace of the shared control plane.
    pub async fn namespace(&self) -> Result<String> {
        let name = self.unique();
        self.kubernetes().await?.create_namespace(&name).await?;
        Ok(name)
    }

    /// A new key-value mount of the shared store.
    pub async fn kv_mount(&self, version: Kv) -> Result<String> {
        let name = self.unique();
        self.vault().await?.api().mount_kv(&name, version).await?;
        Ok(name)
    }

    /// A control plane that the test may disturb.
    pub async fn private_kubernetes(&self, parts: Parts) -> Result<Kubernetes> {
        Kubernetes::start(self.run().await?, &self.unique(), &self.servers.options(parts)).await
    }

    /// A store that the test may disturb.
    pub async fn private_vault(&self) -> Result<Vault> {
        Vault::start(self.run().await?, &self.unique(), self.product).await
    }

    /// A Keystone and a Barbican that the test may disturb.
    pub async fn private_openstack(&self, options: &openstack::Options) -> Result<OpenStack> {
        OpenStack::start(self.run().await?, &self.unique(), options).await
    }

    /// The run, for processes and files of the test's own.
    pub async fn run(&self) -> Result<&Run> {
        self.servers.run().await
    }
}

/// The end of the test's name, in the letters that every server takes in names.
fn stem(name: &str) -> String {
    let name = name.rsplit("::").next().unwrap_or(name);
    let stem: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    stem.chars()
        .take(STEM_LENGTH)
        .collect::<String>()
        .trim_matches('-')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_are_fit_for_names() {
        assert_eq!(stem("rig::vault_keeps_Data"), "vault-keeps-data");
        assert_eq!(stem("rig::aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_bbbb"), "a".repeat(31));
    }
}
