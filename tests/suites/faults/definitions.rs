//! The definitions of the kinds are removed, installed anew, or let through what Keyward does not know: no Secret goes
//! with them.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use keyward_crds::{ClusterSecretStore, SyncedSecret};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::Operator;
use keyward_tests::rig::kubernetes::{Kubernetes, Parts};
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use kube::CustomResourceExt as _;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::scene::{AUTHOR, FIRST, SOON, Scene, often, path};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        secrets_outlive_a_kind_that_is_removed_and_installed_anew,
        an_object_that_cannot_be_parsed_keeps_its_secret_and_is_told,
        a_store_that_cannot_be_parsed_is_out_of_use,
    );
}

async fn secrets_outlive_a_kind_that_is_removed_and_installed_anew(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    for name in ["db", "web"] {
        scene.synced_path(name, "apps/db").await?;
        scene.ready(name).await?;
    }
    let uid = uid_of(&scene, "db").await?;

    // While the operator runs.
    reinstall(&kubernetes).await?;
    for name in ["db", "web"] {
        left_in_place(&operator, name).await?;
        scene.holds(name, &FIRST).await?;
    }
    // What is deleted since goes with its Secret.
    scene.synced_path("later", "apps/db").await?;
    scene.ready("later").await?;
    scene.delete("later").await?;
    gone(&scene, "later").await?;

    // While it does not, so that it begins with Secrets and finds no object.
    scene.synced_path("last", "apps/db").await?;
    scene.ready("last").await?;
    scene.synced_path("db", "apps/db").await?;
    scene.ready("db").await?;
    operator.stop().await?;
    scene.delete("last").await?;
    let operator = scene.operator().await?;
    gone(&scene, "last").await?;
    left_in_place(&operator, "web").await?;
    scene.holds("web", &FIRST).await?;

    operator.stop().await?;
    reinstall(&kubernetes).await?;
    let operator = scene.operator().await?;
    for name in ["db", "web"] {
        left_in_place(&operator, name).await?;
        scene.holds(name, &FIRST).await?;
    }

    // An object that is back keeps its Secret as if nothing had happened.
    scene.synced_path("db", "apps/db").await?;
    scene.ready("db").await?;
    assert_eq!(uid_of(&scene, "db").await?, uid, "it is the same Secret");
    scene.delete("db").await?;
    gone(&scene, "db").await
}

async fn an_object_that_cannot_be_parsed_keeps_its_secret_and_is_told(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.synced_path("orphan", "apps/db").await?;
    let before = scene.ready("db").await?;
    scene.ready("orphan").await?;

    let unknown = json!({"sources": [path("apps/db")], "mode": "Dream"});
    let_through(&kubernetes, SyncedSecret::crd_name()).await?;
    raw_synced(&scene, "db", &unknown).await?;
    let raw = told_unread(&scene, &operator, "db").await?;
    let kept = serde_json::to_value(before.status.context("it was synced")?.secret)?;
    assert_eq!(raw["secret"], kept, "the rest of the status stays");
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.refresh("orphan").await?;
    scene.holds("orphan", &[("password", "second")]).await?;
    scene.holds("db", &FIRST).await?;

    // The sweep at the start takes what lost its object, and nothing else.
    operator.stop().await?;
    scene.delete("orphan").await?;
    let operator = scene.operator().await?;
    gone(&scene, "orphan").await?;
    scene.holds("db", &FIRST).await?;
    let state = operator.state(&scene.namespace, "db").await?;
    assert_eq!(state["reason"], "SpecInvalid", "{state}");

    scene.synced_path("db", "apps/db").await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.ready("db").await?;
    // One that is deleted takes its Secret along, whether it can be parsed or not.
    raw_synced(&scene, "db", &unknown).await?;
    told_unread(&scene, &operator, "db").await?;
    scene.delete("db").await?;
    gone(&scene, "db").await
}

async fn a_store_that_cannot_be_parsed_is_out_of_use(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    let sound = scene.cluster_spec(&json!([{"name": "all", "selector": {}, "paths": ["**"]}]));
    scene.cluster_store("shared", &sound).await?;
    let source = json!({"storeRef": {"kind": "ClusterSecretStore", "name": "shared"}, "path": "apps/db"});
    scene.synced("db", &often(&[source])).await?;
    scene.ready("db").await?;

    // Its administrator takes the grant away, by words of a later version.
    let_through(&kubernetes, ClusterSecretStore::crd_name()).await?;
    let mut unknown = sound.clone();
    unknown["access"] = json!([{"name": "all", "selector": {}, "paths": {"but": "apps/db"}}]);
    raw_apply::<ClusterSecretStore>(
        &Api::all_with(kubernetes.client(), &raw::<ClusterSecretStore>()),
        "shared",
        &unknown,
    )
    .await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene
        .told(&operator, "db", "StoreNotReady", "not understood")
        .await?;
    let stores: Api<DynamicObject> = Api::all_with(kubernetes.client(), &raw::<ClusterSecretStore>());
    poll::until("a store that cannot be parsed", SOON, async || {
        let store = stores.get("shared").await;
        store.is_ok_and(|store| store.data["status"]["conditions"][0]["reason"] == "SpecInvalid")
    })
    .await?;
    scene.holds("db", &FIRST).await?;

    scene.cluster_store("shared", &sound).await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.ready("db").await.map(drop)
}

/// Removes the definition of `SyncedSecret` and installs it anew.
async fn reinstall(kubernetes: &Kubernetes) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(kubernetes.client());
    let name = SyncedSecret::crd_name();
    api.delete(name, &DeleteParams::default()).await?;
    poll::until("the definition to be gone", SOON, async || {
        matches!(api.get_opt(name).await, Ok(None))
    })
    .await?;
    kubernetes.install(&[SyncedSecret::crd()]).await
}

/// Lets any spec through: what a definition of a later version would do for some.
async fn let_through(kubernetes: &Kubernetes, definition: &str) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(kubernetes.client());
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let change = json!([{
        "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec", "value": anything,
    }]);
    let change: Patch<()> = Patch::Json(serde_json::from_value(change)?);
    api.patch(definition, &PatchParams::default(), &change).await?;
    Ok(())
}

/// Applies a spec that our types may not be able to read, once the API server lets it through.
async fn raw_apply<K: kube::Resource<DynamicType = ()>>(
    api: &Api<DynamicObject>,
    name: &str,
    spec: &Value,
) -> Result<()> {
    let object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": name}, "spec": spec,
    });
    let params = PatchParams::apply(AUTHOR).force();
    poll::until("the API server to let it through", SOON, async || {
        api.patch(name, &params, &Patch::Apply(&object)).await.is_ok()
    })
    .await
}

async fn raw_synced(scene: &Scene<'_>, name: &str, spec: &Value) -> Result<()> {
    raw_apply::<SyncedSecret>(&raw_api(scene), name, spec).await
}

fn raw_api(scene: &Scene<'_>) -> Api<DynamicObject> {
    Api::namespaced_with(
        scene.kubernetes.client(),
        &scene.namespace,
        &raw::<SyncedSecret>(),
    )
}

fn raw<K: kube::Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// Waits until it is told in all places that an object cannot be parsed, and returns its status.
async fn told_unread(scene: &Scene<'_>, operator: &Operator, name: &str) -> Result<Value> {
    let api = raw_api(scene);
    let status = poll::some("an object that cannot be parsed", SOON, async || {
        let object = api.get(name).await.ok()?;
        let status = object.data["status"].clone();
        let ready = status["conditions"]
            .as_array()?
            .iter()
            .find(|condition| condition["type"] == "Ready")?;
        let told = ready["reason"] == "SpecInvalid"
            && ready["status"] == "False"
            && ready["observedGeneration"] == json!(object.metadata.generation)
            && ready["message"]
                .as_str()?
                .contains("`spec.mode` is not understood");
        told.then_some(status)
    })
    .await?;
    scene.event(name, "SpecInvalid").await?;
    operator
        .counted("keyward_unreadable_objects_total", "kind=\"SyncedSecret\"", 1.0)
        .await?;
    Ok(status)
}

async fn left_in_place(operator: &Operator, name: &str) -> Result<()> {
    let object = format!("/{name}\"");
    poll::until("a word of what is left in place", SOON, async || {
        operator.process().read_log().is_ok_and(|log| {
            log.lines()
                .any(|line| line.contains("left in place") && line.contains(&object))
        })
    })
    .await
}

async fn gone(scene: &Scene<'_>, name: &str) -> Result<()> {
    poll::until(&format!("Secret {name} to be gone"), SOON, async || {
        matches!(scene.values(name).await, Ok(None))
    })
    .await
}

async fn uid_of(scene: &Scene<'_>, name: &str) -> Result<Option<String>> {
    Ok(scene.api::<Secret>().get(name).await?.metadata.uid)
}
