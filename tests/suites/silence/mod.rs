//! Values and credentials are planted in both stores, and looked for wherever the operator speaks: in no form may any
//! of them be there.

mod failures;
mod planted;
mod stores;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use keyward_crds::{ClusterSecretStore, SecretStore, SyncedSecret};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::Settings;
use keyward_tests::rig::kubernetes::Parts;
use keyward_tests::rig::vault::Kv;
use kube::api::{Api, DeleteParams, ListParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use self::planted::Planted;
use self::stores::Stores;
use crate::scene::Scene;

pub fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(suite, no_planted_value_or_credential_is_ever_told);
}

async fn no_planted_value_or_credential_is_ever_told(case: Case) -> Result<()> {
    // Cluster stores are everybody's, so the control plane is the test's own.
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    let mut planted = Planted::default();
    let stores = Stores::make(&scene, &mut planted).await?;
    let settings = Settings {
        scope: None,
        log: "trace".to_owned(),
        ..Settings::inside(&scene.namespace)
    };
    let operator = scene.operator_with(&settings).await?;
    for (name, source) in &stores.sources {
        scene.synced(name, &json!({"sources": [source]})).await?;
    }
    // A label that may hold the value does.
    let labelled = json!({"data": {"out": "fixed"}, "labels": {"example.com/out": "{{ value }}"}});
    let (_, source) = &stores.sources[0];
    let labelled = json!({"sources": [source], "target": {"template": labelled}});
    scene.synced("labelled", &labelled).await?;
    let failing = failures::make(&scene, &mut planted).await?;
    for (name, _) in &stores.sources {
        scene.ready(name).await.context(name.clone())?;
    }
    scene.ready("labelled").await?;
    for (name, reason) in &failing {
        scene.reason(name, reason).await.context(*name)?;
    }
    for (store, reason) in &stores.refused {
        scene.store_reason(store, reason).await.context(*store)?;
    }
    for (store, reason) in &stores.refused_clusterwide {
        scene.cluster_store_reason(store, reason).await.context(*store)?;
    }

    // A new value, a hand edit and a deletion are told of by events.
    let value = planted.plant("a second value of Vault");
    scene.write("open/value", &json!({ "value": value })).await?;
    scene.refresh("approle").await?;
    scene.holds("approle", &[("value", &value)]).await?;
    let by_hand = planted.plant_unwritten("a value by hand");
    scene
        .edit("approle", &json!({"stringData": {"value": by_hand}}))
        .await?;
    scene.holds("approle", &[("value", &value)]).await?;
    let secrets: Api<Secret> = scene.api();
    secrets.delete("approle", &DeleteParams::default()).await?;
    scene.holds("approle", &[("value", &value)]).await?;
    scene.event("approle", "DriftRepaired").await?;

    // What is looked for would be found.
    let written = everything::<Secret>(&scene.api()).await?;
    let found = planted.told_in(&written);
    for what in planted.written() {
        ensure!(
            found.contains(&what),
            "{what} is in no Secret, or would not be found"
        );
    }
    let of_cluster: Api<Event> = Api::namespaced(kubernetes.client(), "default");
    let mut spoken = vec![
        ("/metrics", operator.get("/metrics").await?),
        ("/state", operator.get("/state/syncedsecrets").await?),
        ("events", everything::<Event>(&scene.api()).await?),
        ("events of the cluster", everything(&of_cluster).await?),
        ("SyncedSecrets", everything::<SyncedSecret>(&scene.api()).await?),
        ("SecretStores", everything::<SecretStore>(&scene.api()).await?),
        (
            "ClusterSecretStores",
            everything::<ClusterSecretStore>(&Api::all(kubernetes.client())).await?,
        ),
    ];
    operator.stop().await?;
    let log = operator.process().read_log()?;
    ensure!(log.contains("\"TRACE\""), "everything was logged");
    spoken.push(("the log", log));
    for (place, text) in &spoken {
        assert_eq!(planted.told_in(text), Vec::<&str>::new(), "in {place}");
        for (what, beginning) in [("a token of Vault", "hvs."), ("a JWT", "eyJhbGciOi")] {
            assert!(
                !text.contains(beginning),
                "{what} is in {place}: {}",
                around(text, beginning)
            );
        }
    }
    Ok(())
}

/// All objects of a kind, as the API server shows them.
async fn everything<K>(api: &Api<K>) -> Result<String>
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let all = api.list(&ListParams::default()).await?;
    serde_json::to_string(&all.items).context("objects are JSON")
}

/// The place of a finding, for whoever has to mend it.
fn around<'a>(text: &'a str, found: &str) -> &'a str {
    let line = text.lines().find(|line| line.contains(found)).unwrap_or_default();
    let at = line.find(found).unwrap_or_default();
    let from = line.floor_char_boundary(at.saturating_sub(200));
    &line[from..at]
}
