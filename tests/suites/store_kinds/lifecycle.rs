//! Stores that go, come, and come back, while something reads from them.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use keyward_crds::{SecretStore, SyncedSecret};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use kube::api::DeleteParams;
use serde_json::json;

use crate::scene::{FIRST, SOON, Scene, ready_of};
use crate::told::Failure;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_store_deleted_while_used_leaves_the_secret,
        a_credential_deleted_while_used_leaves_the_secret,
        a_store_that_comes_later_wakes_what_waits_for_it,
        a_store_that_works_again_wakes_what_waits_and_brings_secrets_back,
        another_mount_of_a_store_is_read_at_once,
        a_credential_that_an_object_of_ours_writes_is_taken_up_at_once,
    );
}

async fn a_store_deleted_while_used_leaves_the_secret(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.ready("db").await?;
    scene.store_reason("vault", "StoreReady").await?;
    scene
        .api::<SecretStore>()
        .delete("vault", &DeleteParams::default())
        .await?;
    let lost = Failure::new("db", "StoreNotFound", "vault")
        .keeps(&FIRST)
        .ends_at_once();
    scene
        .survives(&operator, &lost, async || {
            scene.store("vault", &scene.vault_spec()).await
        })
        .await?;
    // Of that name something was told before, and of that object nothing yet.
    scene.store_reason("vault", "StoreReady").await.map(drop)
}

/// Every object that a store's login or its trust rests on: the store says which one is missing, and takes it up again.
async fn a_credential_deleted_while_used_leaves_the_secret(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let policy = format!("{}-reader", scene.mount);
    let token = scene
        .vault
        .api()
        .create_token(&[&policy], &json!({}))
        .await?
        .token;
    let plant = async |name: &str| match name {
        "by-token" => scene.credential("token", &json!({"token": token})).await,
        "by-account" => scene.allow_reader("account").await,
        _ => {
            scene
                .config_map("trust", &json!({"ca.crt": scene.vault.ca()}))
                .await
        }
    };
    let mut by_account = scene.vault_spec();
    by_account["vault"]["auth"]["kubernetes"]["serviceAccountRef"]["name"] = "account".into();
    by_account["vault"]["auth"]["kubernetes"]["role"] = "account".into();
    let reads = format!("path \"{}/*\" {{ capabilities = [\"read\"] }}", scene.mount);
    scene.allow_policy("account", &reads).await?;
    let mut by_trust = scene.vault_spec();
    by_trust["vault"]["ca"] = json!({"configMapRef": {"name": "trust", "key": "ca.crt"}});
    let by_token = json!({"token": {"tokenRef": {"name": "token", "key": "token"}}});
    let stores = [
        ("by-token", scene.vault_with(&by_token), "token does not exist"),
        ("by-account", by_account, "account"),
        ("by-trust", by_trust, "trust does not exist"),
    ];
    for (name, spec, _) in &stores {
        plant(name).await?;
        scene.store(name, spec).await?;
        scene.synced_from(name, name, "apps/db").await?;
    }
    let operator = scene.operator().await?;
    for (name, ..) in &stores {
        scene.holds(name, &FIRST).await?;
        scene.ready(name).await?;
    }
    scene.delete_secret("token").await?;
    let once = DeleteParams::default();
    scene.api::<ServiceAccount>().delete("account", &once).await?;
    scene.api::<ConfigMap>().delete("trust", &once).await?;
    for (name, _, words) in &stores {
        let lost = Failure::new(name, "CredentialMissing", words)
            .of_store()
            .keeps(&FIRST)
            .ends_at_once();
        scene
            .store_told(&operator, name, "CredentialMissing", words)
            .await?;
        scene
            .survives(&operator, &lost, async || plant(name).await)
            .await?;
        scene.store_reason(name, "StoreReady").await?;
    }
    Ok(())
}

async fn a_store_that_comes_later_wakes_what_waits_for_it(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    for number in 0..3 {
        scene
            .synced_from(&format!("db-{number}"), "late", "apps/db")
            .await?;
    }
    let late = Failure::new("db-0", "StoreNotFound", "late").ends_at_once();
    scene
        .survives(&operator, &late, async || {
            scene.store("late", &scene.vault_spec()).await
        })
        .await?;
    for number in 1..3 {
        scene.ready(&format!("db-{number}")).await?;
    }
    Ok(())
}

async fn a_store_that_works_again_wakes_what_waits_and_brings_secrets_back(case: Case) -> Result<()> {
    let vault = case.private_vault().await?;
    let scene = Scene::with(&case, &vault, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    scene.write("apps/web", &json!({"password": "other"})).await?;
    let operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.synced_path("web", "apps/web").await?;
    scene.ready("db").await?;
    scene.ready("web").await?;

    vault.seal().await?;
    scene.refresh("db").await?;
    let sealed = Failure::new("db", "StoreSealed", "sealed").keeps(&FIRST);
    scene.suffers(&operator, &sealed).await?;
    scene
        .store_told(&operator, "vault", "StoreSealed", "sealed")
        .await?;
    // While the last value is still shared, the Secret is made anew of it; then there is nothing to make it of.
    poll::until("the Secret to stay away", SOON, || async {
        let _ = scene.delete_secret("web").await;
        scene.api::<SyncedSecret>().get("web").await.is_ok_and(|object| {
            let status = object.status.unwrap_or_default();
            ready_of(&status.conditions).is_some_and(|ready| ready.reason == "StoreSealed")
        })
    })
    .await?;
    ensure!(scene.values("web").await?.is_none());

    vault.unseal().await?;
    scene.ready("db").await?;
    scene.holds("web", &[("password", "other")]).await?;
    scene.ready("web").await?;
    scene.store_reason("vault", "StoreReady").await?;
    Ok(())
}

async fn another_mount_of_a_store_is_read_at_once(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let _operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.holds("db", &[("password", "first")]).await?;

    let second = case.kv_mount(Kv::V2).await?;
    scene
        .vault
        .api()
        .write_secret(&second, Kv::V2, "apps/db", &json!({"password": "moved"}))
        .await?;
    let reads = format!("path \"{second}/*\" {{ capabilities = [\"read\"] }}");
    scene.allow_policy("reader", &reads).await?;
    let mut spec = scene.vault_spec();
    spec["vault"]["mount"] = second.into();
    scene.store("vault", &spec).await?;
    scene.holds("db", &[("password", "moved")]).await
}

async fn a_credential_that_an_object_of_ours_writes_is_taken_up_at_once(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    scene
        .write("logins/reader", &json!({"token": "hvs.wrong"}))
        .await?;
    let _operator = scene.operator().await?;
    scene.synced_path("login", "logins/reader").await?;
    scene.ready("login").await?;
    let by_token = json!({"token": {"tokenRef": {"name": "login", "key": "token"}}});
    scene.store("chained", &scene.vault_with(&by_token)).await?;
    scene.synced_from("db", "chained", "apps/db").await?;
    scene.store_reason("chained", "CredentialRejected").await?;

    let policy = format!("{}-reader", scene.mount);
    let right = scene
        .vault
        .api()
        .create_token(&[&policy], &json!({"ttl": "1h"}))
        .await?;
    scene
        .write("logins/reader", &json!({"token": right.token}))
        .await?;
    scene.refresh("login").await?;
    scene.store_reason("chained", "StoreReady").await?;
    scene.holds("db", &[("password", "first")]).await
}
