//! The first sync, an unchanged refresh, a change: what each costs on both sides, counted from the audit logs.

use anyhow::Result;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::vault::Kv;
use serde_json::json;

use crate::scene::Scene;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(suite, a_path_becomes_a_secret, a_change_arrives);
}

async fn a_path_becomes_a_secret(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene
        .write("apps/db", &json!({"username": "keyward", "password": "first"}))
        .await?;
    let _operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.ready("db").await?;
    scene
        .holds("db", &[("username", "keyward"), ("password", "first")])
        .await
}

async fn a_change_arrives(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let _operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.holds("db", &[("password", "first")]).await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.refresh("db").await?;
    scene.holds("db", &[("password", "second")]).await
}
