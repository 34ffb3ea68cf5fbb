//! The store answers 429 beyond a rate: it is asked less often, and nothing fails for it.

use anyhow::{Result, ensure};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::vault::Kv;
use serde_json::json;

use super::many::Many;
use crate::scene::Scene;

/// Objects of one store.
const OBJECTS: usize = 60;

/// Requests that the store answers in a second.
const QUOTA: u32 = 10;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(suite, a_store_with_a_quota_is_asked_less_often_and_nothing_fails);
}

async fn a_store_with_a_quota_is_asked_less_often_and_nothing_fails(case: Case) -> Result<()> {
    let vault = case.private_vault().await?;
    let scene = Scene::with(&case, &vault, Kv::V2).await?;
    let many = Many::new(&scene, "limited", OBJECTS);
    many.write("first").await?;
    many.declare("vault", &json!({})).await?;
    vault.api().limit_rate(&scene.mount, QUOTA).await?;

    let (store, cluster) = (vault.audit().mark()?, scene.kubernetes.audit().mark().await?);
    let operator = scene.operator().await?;
    many.hold("first").await?;
    many.reason("Synced").await?;
    let asked = vault.audit().since(store)?;
    let refused = asked.iter().filter(|request| request.throttled).count();
    ensure!(refused > 0, "the quota was never reached: {asked:?}");
    let read = asked
        .iter()
        .filter(|request| !request.throttled && request.is_value_read(&scene.mount));
    assert_eq!(read.count(), OBJECTS, "what was answered is not asked for again");
    ensure!(
        refused < OBJECTS,
        "{refused} requests were refused for {OBJECTS} values"
    );
    let requests = scene.asked_of_kubernetes(cluster).await?;
    let statuses = requests
        .iter()
        .filter(|request| request.verb == "patch" && request.resource == "syncedsecrets/status");
    assert_eq!(statuses.count(), OBJECTS, "nothing is told of a short wait");
    ensure!(
        operator
            .metric("keyward_failures_total", "StoreThrottled")
            .await?
            < 1.0
    );
    vault.api().unlimit_rate(&scene.mount).await
}
