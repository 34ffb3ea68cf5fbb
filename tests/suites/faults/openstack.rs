//! Barbican or Keystone is away: the last good Secrets stay, and all comes back by itself.

use anyhow::Result;
use k8s_openapi::api::core::v1::Secret;
use keyward_crds::SyncedSecret;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::openstack::{NewSecret, Options, Role, Service};
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;

use super::many::reason_of;
use crate::scene::{SOON, Scene};
use crate::told::Failure;

/// Objects, each of a secret of its own.
const OBJECTS: usize = 10;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(suite, barbican_and_keystone_are_waited_out);
}

async fn barbican_and_keystone_are_waited_out(case: Case) -> Result<()> {
    let openstack = case.private_openstack(&Options::default()).await?;
    let tenant = openstack.tenant(Role::Member).await?;
    let scene = Scene::new(&case, Kv::V2).await?;
    let spec = scene.barbican_spec(&openstack, &tenant).await?;
    scene.store("barbican", &spec).await?;
    let keys = tenant.key_manager();
    for number in 0..OBJECTS {
        keys.store(&NewSecret::named(&format!("app-{number}")), b"first")
            .await?;
        let source = json!({
            "storeRef": {"name": "barbican"}, "name": format!("app-{number}"), "key": "value",
        });
        let spec = json!({"sources": [source], "refresh": {"interval": "5s"}});
        scene.synced(&format!("app-{number}"), &spec).await?;
    }
    let operator = scene.operator().await?;
    until_all(&scene, "Synced").await?;

    openstack.stop(Service::Barbican).await?;
    until_all(&scene, "StoreUnavailable").await?;
    let away = Failure::new("app-0", "StoreUnavailable", "cannot be reached").keeps(&[("value", "first")]);
    scene.suffers(&operator, &away).await?;
    scene
        .store_told(&operator, "barbican", "StoreUnavailable", "cannot be reached")
        .await?;
    // What others delete meanwhile comes back with the store.
    let secrets: Api<Secret> = scene.api();
    secrets.delete("app-1", &DeleteParams::default()).await?;

    // Without Keystone there is no token either for whoever starts now.
    openstack.stop(Service::Keystone).await?;
    operator.stop().await?;
    operator.process().start()?;
    operator.ready().await?;
    for number in 0..OBJECTS {
        scene.tried(&operator, &format!("app-{number}")).await?;
    }
    until_all(&scene, "StoreUnavailable").await?;
    scene.suffers(&operator, &away).await?;

    openstack.restart(Service::Keystone).await?;
    openstack.restart(Service::Barbican).await?;
    until_all(&scene, "Synced").await?;
    scene.store_reason("barbican", "StoreReady").await?;
    scene.holds("app-1", &[("value", "first")]).await?;
    keys.store(&NewSecret::named("app-2"), b"second").await?;
    scene.holds("app-2", &[("value", "second")]).await
}

async fn until_all(scene: &Scene<'_>, reason: &str) -> Result<()> {
    let api: Api<SyncedSecret> = scene.api();
    let what = format!("all objects with {reason}");
    poll::until(&what, SOON, async || {
        let Ok(all) = api.list(&ListParams::default()).await else {
            return false;
        };
        all.items
            .iter()
            .filter(|object| reason_of(object) == reason)
            .count()
            == OBJECTS
    })
    .await
}
