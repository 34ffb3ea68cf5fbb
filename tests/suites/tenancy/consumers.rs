//! A cluster store whose readers bring their own credentials: what is said of it is what they meet.

use anyhow::{Result, ensure};
use chrono::TimeDelta;
use k8s_openapi::api::events::v1::Event;
use keyward::runtime::clock;
use keyward_crds::SyncedSecret;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::{Operator, Settings};
use keyward_tests::rig::kubernetes::Parts;
use keyward_tests::rig::poll;
use keyward_tests::rig::tls::Authority;
use keyward_tests::rig::vault::Kv;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use super::borders::tenants_of_one_store;
use crate::scene::{self, SOON, Scene, ready_of};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_store_is_as_ready_as_its_readers_find_it,
        an_exception_ends_for_readers_too,
    );
}

async fn a_store_is_as_ready_as_its_readers_find_it(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let vault = case.private_vault().await?;
    let scene = Scene::on(&case, &kubernetes, &vault, Kv::V2).await?;
    let (first, second) = tenants_of_one_store(&scene).await?;
    let operator = scene.operator_of_all().await?;
    for namespace in [first, second] {
        reading_often(&scene, namespace).await?;
    }
    scene.reason_in(first, "banner", "Synced").await?;
    // What is wrong with one reader's credential is not wrong with the store.
    scene.reason_in(second, "banner", "CredentialRejected").await?;
    scene.cluster_store_reason("shared", "StoreReady").await?;

    vault.seal().await?;
    let status = scene.cluster_store_reason("shared", "StoreSealed").await?;
    ensure!(ready_of(&status.conditions).is_some_and(|ready| ready.status == "False"));
    scene.reason_in(first, "banner", "StoreSealed").await?;
    told(&scene, "StoreSealed").await?;
    let label = "kind=\"ClusterSecretStore\"";
    operator.counted("keyward_failures_total", label, 1.0).await?;

    vault.unseal().await?;
    scene.cluster_store_reason("shared", "StoreReady").await?;
    scene.reason_in(first, "banner", "Synced").await?;
    told(&scene, "StoreReady").await
}

async fn an_exception_ends_for_readers_too(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    let (first, _) = tenants_of_one_store(&scene).await?;
    let mut settings = Settings {
        scope: None,
        ..Settings::inside(&scene.namespace)
    };
    settings
        .arguments
        .extend(["--allow-insecure".to_owned(), "skip-tls-verify".to_owned()]);
    let everybody = json!([{"name": "all", "selector": {}, "paths": ["**"]}]);
    let mut spec = scene.consumer_spec(&everybody);
    spec["vault"]["ca"] = json!({"inline": Authority::new("stranger")?.certificate()});
    let until = |end: TimeDelta| {
        let expires = (clock::now() + end).to_rfc3339();
        json!({"reason": "the lab has no certificate yet", "expires": expires, "skipTlsVerify": true})
    };
    let operator = scene.operator_with(&settings).await?;
    spec["insecure"] = until(TimeDelta::seconds(30));
    scene.cluster_store("shared", &spec).await?;
    reading_often(&scene, first).await?;
    scene.reason_in(first, "banner", "Synced").await?;

    let logged_in = scene.vault.audit().mark()?;
    scene.cluster_store_reason("shared", "InsecureExpired").await?;
    told(&scene, "InsecureExpired").await?;
    let looks = looks_at_stores(&operator).await?;
    scene.reason_in(first, "banner", "StoreNotReady").await?;
    let given_back = || async {
        let asked = scene.vault.audit().since(logged_in);
        asked.is_ok_and(|asked| asked.iter().any(|asked| asked.path == "auth/token/revoke-self"))
    };
    poll::until("the reader's token to be given back", SOON, given_back).await?;
    spec["insecure"] = until(TimeDelta::hours(1));
    scene.cluster_store("shared", &spec).await?;
    scene.cluster_store_reason("shared", "StoreReady").await?;
    scene.reason_in(first, "banner", "Synced").await?;
    let more = looks_at_stores(&operator).await? - looks;
    ensure!(more < 20.0, "the store was looked at {more} times meanwhile");
    Ok(())
}

/// Reads from cluster store `shared` in another namespace, as often as is allowed.
async fn reading_often(scene: &Scene<'_>, namespace: &str) -> Result<()> {
    let source = json!({
        "storeRef": {"kind": "ClusterSecretStore", "name": "shared"}, "path": "shared/banner",
    });
    let object: Value = json!({"kind": "SyncedSecret", "spec": scene::often(&[source])});
    let api: Api<SyncedSecret> = Api::namespaced(scene.kubernetes.client(), namespace);
    scene::apply(&api, "banner", object).await
}

/// Waits for an event of this reason about cluster store `shared`: such events are in namespace `default`.
async fn told(scene: &Scene<'_>, reason: &str) -> Result<()> {
    let events: Api<Event> = Api::namespaced(scene.kubernetes.client(), "default");
    poll::until(&format!("an event {reason} about the store"), SOON, || async {
        let found = events.list(&ListParams::default()).await;
        found.is_ok_and(|events| {
            events.items.iter().any(|event| {
                let about = event.regarding.as_ref().and_then(|about| about.name.as_deref());
                about == Some("shared") && event.reason.as_deref() == Some(reason)
            })
        })
    })
    .await
}

async fn looks_at_stores(operator: &Operator) -> Result<f64> {
    let label = "kind=\"ClusterSecretStore\"";
    operator.metric("keyward_reconciles_total", label).await
}
