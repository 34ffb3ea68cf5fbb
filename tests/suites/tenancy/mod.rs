//! What separates tenants: grants of cluster stores, borders of namespaces, and the operator's own rights.
//!
//! These tests run an operator for the whole cluster, so each has a control plane of its own.

mod borders;
mod consumers;
mod grants;
mod rights;

use anyhow::Result;
use k8s_openapi::api::core::v1::Namespace;
use keyward_crds::{ClusterSecretStore, StoreStatus, SyncedSecret};
use keyward_tests::harness::Suite;
use keyward_tests::operator::{Operator, Settings};
use keyward_tests::rig::poll;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::scene::{self, AUDIENCE, SOON, Scene, ready_of};

pub(super) fn register(suite: &mut Suite) {
    grants::register(suite);
    borders::register(suite);
    consumers::register(suite);
    rights::register(suite);
}

/// What tests with several namespaces need beside a scene.
impl Scene<'_> {
    /// Starts an operator for the whole cluster.
    pub async fn operator_of_all(&self) -> Result<Operator> {
        self.operator_with(&Settings {
            scope: None,
            ..Settings::inside(&self.namespace)
        })
        .await
    }

    /// Makes a namespace with these labels.
    pub async fn another_namespace(&self, name: &str, labels: &Value) -> Result<()> {
        self.kubernetes.create_namespace(name).await?;
        self.label_namespace(name, labels).await
    }

    /// Sets labels of a namespace; null takes one away.
    pub async fn label_namespace(&self, name: &str, labels: &Value) -> Result<()> {
        let patch = json!({"metadata": {"labels": labels}});
        Api::<Namespace>::all(self.kubernetes.client())
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }

    /// Applies a `SyncedSecret` in another namespace that reads from a cluster store.
    pub async fn synced_in(&self, namespace: &str, name: &str, store: &str, wanted: &Value) -> Result<()> {
        let mut source = wanted.clone();
        source["storeRef"] = json!({"kind": "ClusterSecretStore", "name": store});
        let api: Api<SyncedSecret> = Api::namespaced(self.kubernetes.client(), namespace);
        let object = json!({"kind": "SyncedSecret", "spec": {"sources": [source]}});
        scene::apply(&api, name, object).await
    }

    /// Waits until the object in another namespace has this reason, and returns the message.
    pub async fn reason_in(&self, namespace: &str, name: &str, reason: &str) -> Result<String> {
        let api: Api<SyncedSecret> = Api::namespaced(self.kubernetes.client(), namespace);
        let what = format!("{namespace}/{name} with {reason}");
        let found = poll::some(&what, SOON, || async {
            let status = api.get_opt(name).await.ok()??.status?;
            let ready = ready_of(&status.conditions)?;
            (ready.reason == reason).then(|| ready.message.clone())
        })
        .await;
        if found.is_err() {
            let now = api.get_opt(name).await?.and_then(|object| object.status);
            anyhow::bail!(
                "waited for {what}; the status is {}",
                serde_json::to_string(&now)?
            );
        }
        found
    }

    /// Waits until a cluster store's `Ready` condition has this reason.
    pub async fn cluster_store_reason(&self, name: &str, reason: &str) -> Result<StoreStatus> {
        let api: Api<ClusterSecretStore> = Api::all(self.kubernetes.client());
        poll::some(&format!("cluster store {name} with {reason}"), SOON, || async {
            let status = api.get_opt(name).await.ok()??.status?;
            ready_of(&status.conditions)
                .is_some_and(|ready| ready.reason == reason)
                .then_some(status)
        })
        .await
    }

    /// The spec of a cluster store that logs in with this scene's ServiceAccount `reader`.
    pub fn cluster_spec(&self, access: &Value) -> Value {
        let mut spec = self.vault_spec();
        spec["credentials"] = json!({"from": "Namespace", "namespace": self.namespace});
        spec["access"] = access.clone();
        spec
    }

    /// The spec of a cluster store that logs in as ServiceAccount `tenant` of whoever reads.
    pub fn consumer_spec(&self, access: &Value) -> Value {
        let mut spec = self.cluster_spec(access);
        spec["credentials"] = json!({"from": "Consumer"});
        spec["vault"]["auth"]["kubernetes"] = json!({
            "mount": self.auth_mount(), "role": "tenant", "audience": AUDIENCE,
            "serviceAccountRef": {"name": "tenant"},
        });
        spec
    }
}
