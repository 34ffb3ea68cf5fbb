//! Rights that are taken away at the store, and given back.

use anyhow::{Result, ensure};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::openstack::{Role, Service};
use keyward_tests::rig::vault::Kv;
use serde_json::json;

use crate::scene::{AUDIENCE, FIRST, Scene, message_of};
use crate::told::Failure;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_right_taken_away_keeps_the_secret_until_it_is_given_back,
        a_denial_that_goes_on_is_told_once,
        a_login_refused_later_keeps_the_secret_until_it_is_let_in_again,
    );
    keyward_tests::tests!(suite, a_failure_that_goes_on_keeps_its_first_request_id);
}

/// Barbican gives each answer an id, and Vault gives none to what it refuses.
async fn a_failure_that_goes_on_keeps_its_first_request_id(case: Case) -> Result<()> {
    let openstack = case.openstack().await?;
    // Keystone lets it in, and Barbican lets it see nothing.
    let tenant = openstack.tenant(Role::Reader).await?;
    let scene = Scene::new(&case, Kv::V2).await?;
    let spec = scene.barbican_spec(openstack, &tenant).await?;
    scene.store("barbican", &spec).await?;
    let log = openstack.access_log(Service::Barbican);
    let mark = log.mark()?;
    let operator = scene.operator().await?;
    let source = json!({"storeRef": {"name": "barbican"}, "name": "db", "key": "password"});
    scene.synced("db", &json!({"sources": [source]})).await?;
    let object = scene
        .told(&operator, "db", "RemoteDenied", "request id req-")
        .await?;
    let refused = || -> Result<Vec<String>> {
        let mut requests = log.since(mark)?;
        requests.retain(|request| request.is_of(&tenant.project_id) && request.status == 403);
        Ok(requests
            .into_iter()
            .filter_map(|request| request.request_id)
            .collect())
    };
    let told = message_of(&object)?;
    let before = refused()?;
    ensure!(
        before.iter().any(|id| told.contains(id)),
        "none of {before:?} is in: {told}"
    );
    for _ in 0..2 {
        scene.refreshed(&operator, "db").await?;
    }
    let after = refused()?;
    ensure!(
        after.len() >= before.len() + 2,
        "it was not refused again: {after:?}"
    );
    let object = scene.reason("db", "RemoteDenied").await?;
    assert_eq!(message_of(&object)?, told);
    Ok(())
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
    let denied = Failure::new("db", "RemoteDenied", "was denied by the store's policy").keeps(&FIRST);
    scene
        .survives(&operator, &denied, async || {
            scene.allow_policy("reader", &rights("*")).await
        })
        .await?;
    scene.holds("db", &[("password", "second")]).await
}

async fn a_denial_that_goes_on_is_told_once(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let elsewhere = format!("path \"{}/nothing\" {{ capabilities = [\"read\"] }}", scene.mount);
    scene.allow_policy("reader", &elsewhere).await?;
    let operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.told(&operator, "db", "RemoteDenied", "was denied").await?;
    // It fails on in the same words: that is told once.
    let mark = scene.kubernetes.audit().mark().await?;
    for _ in 0..2 {
        scene.refreshed(&operator, "db").await?;
    }
    let asked = scene.asked_of_kubernetes(mark).await?;
    let told = asked
        .iter()
        .filter(|request| request.resource == "syncedsecrets/status");
    assert_eq!(told.count(), 0, "a failure that goes on says nothing new");
    Ok(())
}

async fn a_login_refused_later_keeps_the_secret_until_it_is_let_in_again(case: Case) -> Result<()> {
    let (scene, operator) = Scene::with_db(&case, Kv::V2, &json!({})).await?;
    let nobody = json!({
        "bound_service_account_names": ["nobody"],
        "bound_service_account_namespaces": [scene.namespace],
        "audience": AUDIENCE,
    });
    let api = scene.vault.api();
    api.create_role(&scene.auth_mount(), "reader", &nobody).await?;
    scene.revoke_logins().await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    let refused = Failure::new("db", "CredentialRejected", "login").keeps(&FIRST);
    let rights = format!("path \"{}/*\" {{ capabilities = [\"read\"] }}", scene.mount);
    scene
        .survives(&operator, &refused, async || {
            scene
                .store_told(&operator, "vault", "CredentialRejected", "login")
                .await?;
            scene.allow_policy("reader", &rights).await
        })
        .await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.store_reason("vault", "StoreReady").await.map(drop)
}
