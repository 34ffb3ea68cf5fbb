//! A policy that is taken away at the store, and given back.

use anyhow::Result;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::vault::Kv;
use serde_json::json;

use crate::scene::Scene;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(suite, a_right_taken_away_keeps_the_secret_until_it_is_given_back,);
}

async fn a_right_taken_away_keeps_the_secret_until_it_is_given_back(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let rights = |path: &str| {
        format!(
            "path \"{}/{path}\" {{ capabilities = [\"read\", \"list\"] }}",
            scene.mount
        )
    };
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    let source = json!({"storeRef": {"name": "vault"}, "path": "apps/db"});
    let often = json!({"sources": [source], "refresh": {"interval": "5s"}});
    scene.synced("db", &often).await?;
    scene.holds("db", &[("password", "first")]).await?;

    scene.allow_policy("reader", &rights("nothing")).await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene
        .told(
            &operator,
            "db",
            "RemoteDenied",
            "was denied by the store's policy",
        )
        .await?;
    scene.holds("db", &[("password", "first")]).await?;

    scene.allow_policy("reader", &rights("*")).await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.ready("db").await?;
    Ok(())
}
