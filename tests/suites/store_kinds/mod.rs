//! Stores as objects: what their specs may say, how they log in, and what becomes of what reads through them.

mod address;
mod barbican;
mod insecure;
mod kubectl;
mod lifecycle;
mod sharing;
mod vault_auth;
mod vault_tls;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyward_crds::StoreStatus;
use keyward_tests::harness::Suite;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::scene::{self, Scene};

pub(super) fn register(suite: &mut Suite) {
    address::register(suite);
    barbican::register(suite);
    insecure::register(suite);
    kubectl::register(suite);
    lifecycle::register(suite);
    sharing::register(suite);
    vault_auth::register(suite);
    vault_tls::register(suite);
}

/// What stores refer to.
impl Scene<'_> {
    /// Applies a ConfigMap of these texts.
    pub async fn config_map(&self, name: &str, texts: &Value) -> Result<()> {
        let map = json!({"kind": "ConfigMap", "data": texts});
        scene::apply(&self.api::<ConfigMap>(), name, map).await
    }

    /// Deletes a Secret.
    pub async fn delete_secret(&self, name: &str) -> Result<()> {
        self.api::<Secret>()
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Applies a `SyncedSecret` of one path of another store than `vault`.
    pub async fn synced_from(&self, name: &str, store: &str, path: &str) -> Result<()> {
        let source = json!({"storeRef": {"name": store}, "path": path});
        self.synced(name, &json!({ "sources": [source] })).await
    }

    /// The spec of the store that works, with another way to log in.
    pub fn vault_with(&self, auth: &Value) -> Value {
        let mut spec = self.vault_spec();
        spec["vault"]["auth"] = auth.clone();
        spec
    }
}

/// The message of a store's `Ready` condition.
fn store_message(status: &StoreStatus) -> Result<&str> {
    let ready = scene::ready_of(&status.conditions).context("there is no Ready condition")?;
    Ok(&ready.message)
}
