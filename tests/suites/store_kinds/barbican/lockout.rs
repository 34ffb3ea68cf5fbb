//! Many different wrong passwords of one user, at a Keystone that locks users out.

use anyhow::{Context as _, Result, ensure};
use keyward_crds::SecretStore;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::Operator;
use keyward_tests::rig::openstack::{NewSecret, Service};
use keyward_tests::rig::poll;
use kube::api::Api;
use serde_json::json;

use super::Cloud;
use crate::scene::{SOON, Scene, ready_of};
use crate::store_kinds::store_message;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        of_many_wrong_passwords_of_one_user_two_are_sent,
        a_proven_password_is_sent_whatever_others_were_refused,
    );
}

/// More than the rig's Keystone forgives.
const WRONG: [&str; 8] = ["w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7"];

async fn of_many_wrong_passwords_of_one_user_two_are_sent(case: Case) -> Result<()> {
    let cloud = Cloud::new(&case).await?;
    let (scene, tenant) = (&cloud.scene, &cloud.tenant);
    let log = cloud.servers.access_log(Service::Keystone);
    let mark = log.mark()?;
    wrong_stores(&cloud).await?;
    let first = scene.operator().await?;
    assert_eq!(refused(scene).await?, 2);
    assert_eq!(log.failed_logins(mark, &tenant.user)?, 2);
    first.stop().await?;

    // A successor knows it; so the right one has to wait, too, and says until when.
    scene
        .credential("right", &json!({"password": tenant.password}))
        .await?;
    scene.store("right", &cloud.by_password("right")).await?;
    let second = scene.operator().await?;
    let words = "the last 2 passwords of this user";
    let status = scene.store_told(&second, "right", "LoginDelayed", words).await?;
    let message = store_message(&status)?;
    ensure!(message.contains("not sent before 20"), "{message}");
    tried(&second, WRONG.len() + 1).await?;
    assert_eq!(refused(scene).await?, 2);
    assert_eq!(log.logins(mark, &tenant.user)?.len(), 2);

    // Whoever else uses the user was never locked out.
    cloud.servers.session(tenant.login()).log_in().await?;
    Ok(())
}

async fn a_proven_password_is_sent_whatever_others_were_refused(case: Case) -> Result<()> {
    let cloud = Cloud::new(&case).await?;
    let (scene, tenant) = (&cloud.scene, &cloud.tenant);
    tenant
        .key_manager()
        .store(&NewSecret::named("db"), b"first")
        .await?;
    scene
        .credential("right", &json!({"password": tenant.password}))
        .await?;
    scene.store("right", &cloud.by_password("right")).await?;
    let source = json!({"storeRef": {"name": "right"}, "name": "db", "key": "password"});
    let target = json!({"sources": [source], "target": {"name": "copy"}});
    scene.synced("db", &target).await?;
    let first = scene.operator().await?;
    scene.store_reason("right", "StoreReady").await?;
    scene.holds_in("db", "copy", &[("password", "first")]).await?;
    let log = cloud.servers.access_log(Service::Keystone);
    let mark = log.mark()?;
    wrong_stores(&cloud).await?;
    assert_eq!(refused(scene).await?, 2);
    first.stop().await?;

    let before = log.logins(mark, &tenant.user)?.len();
    let second = scene.operator().await?;
    poll::until("a login with the proven password", SOON, || async {
        let logins = log.logins(mark, &tenant.user).unwrap_or_default();
        logins[before..].iter().any(|login| login.status == 201)
    })
    .await?;
    // It ends the count at Keystone, and so here: two more may be sent.
    tried(&second, WRONG.len()).await?;
    ensure!(log.failed_logins(mark, &tenant.user)? <= 4);
    scene.store_reason("right", "StoreReady").await?;
    Ok(())
}

/// Waits until an operator has tried so many stores in vain. Their statuses, an earlier one's work, say as before.
async fn tried(operator: &Operator, stores: usize) -> Result<()> {
    let stores = f64::from(u32::try_from(stores)?);
    let failures = "kind=\"SecretStore\",outcome=\"Failure\"";
    operator
        .counted("keyward_reconciles_total", failures, stores)
        .await
}

/// Makes a store for each wrong password, all of the tenant's user.
async fn wrong_stores(cloud: &Cloud<'_>) -> Result<()> {
    for name in WRONG {
        cloud.scene.credential(name, &json!({"password": name})).await?;
        cloud.scene.store(name, &cloud.by_password(name)).await?;
    }
    Ok(())
}

/// Waits until each of the wrong passwords was refused or is held back. Returns how many were refused.
async fn refused(scene: &Scene<'_>) -> Result<usize> {
    let stores: Api<SecretStore> = scene.api();
    let mut refused = 0;
    for name in WRONG {
        let reason = poll::some("a refusal or a delay", SOON, || async {
            let status = stores.get_opt(name).await.ok()??.status?;
            let reason = ready_of(&status.conditions)?.reason.clone();
            ["CredentialRejected", "LoginDelayed"]
                .contains(&reason.as_str())
                .then_some(reason)
        })
        .await
        .context(name)?;
        refused += usize::from(reason == "CredentialRejected");
    }
    Ok(refused)
}
