//! One session per credential, however many store objects use it.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use keyward_crds::SecretStore;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::vault::{Kv, StoreRequest};
use keyward_tests::rig::{Mark, poll};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::scene::{AUTHOR, SOON, Scene};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        stores_with_one_credential_log_in_once_and_the_token_is_revoked_once,
        stores_that_share_a_bad_credential_cause_one_failed_login,
        stores_of_one_service_account_share_its_session_while_it_lends_itself,
    );
}

/// A role of `AppRole` that may read the scene's mount.
struct AppRole {
    mount: String,
    role_id: String,
    secret_id: String,
}

impl AppRole {
    async fn new(scene: &Scene<'_>) -> Result<Self> {
        let (api, mount) = (scene.vault.api(), format!("approle-{}", scene.mount));
        api.enable_auth(&mount, "approle").await?;
        let settings = json!({"token_policies": [format!("{}-reader", scene.mount)]});
        let (role_id, secret_id) = api.create_approle(&mount, "app", &settings).await?;
        Ok(Self {
            mount,
            role_id,
            secret_id,
        })
    }

    /// Makes stores that log in with this secret id, each from a Secret of its own, and something that reads from each.
    async fn stores(&self, scene: &Scene<'_>, names: &[&str], secret_id: &str) -> Result<()> {
        for name in names {
            scene.credential(name, &json!({"secret-id": secret_id})).await?;
            scene.store(name, &self.spec(scene, name)).await?;
            let source = json!({"storeRef": {"name": name}, "path": "apps/db"});
            let copy = json!({"sources": [source], "target": {"name": copy_of(name)}});
            scene.synced(name, &copy).await?;
        }
        Ok(())
    }

    fn spec(&self, scene: &Scene<'_>, secret: &str) -> Value {
        scene.vault_with(&json!({"appRole": {
            "mount": self.mount, "roleId": self.role_id,
            "secretIdRef": {"name": secret, "key": "secret-id"},
        }}))
    }

    fn logins(&self, scene: &Scene<'_>, mark: Mark) -> Result<usize> {
        count(scene, mark, |request| {
            request.is_login() && request.path.contains(&self.mount)
        })
    }

    /// The tokens of this role that were given back.
    fn revocations(&self, scene: &Scene<'_>, mark: Mark) -> Result<usize> {
        count(scene, mark, |request| {
            request.path == "auth/token/revoke-self" && request.display_name.contains(&self.mount)
        })
    }
}

async fn stores_with_one_credential_log_in_once_and_the_token_is_revoked_once(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let role = AppRole::new(&scene).await?;
    let names = ["one", "two", "three"];
    role.stores(&scene, &names, &role.secret_id).await?;
    let mark = scene.vault.audit().mark()?;
    let operator = scene.operator().await?;
    for name in names {
        scene.holds(&copy_of(name), &[("password", "first")]).await?;
        scene.store_reason(name, "StoreReady").await?;
    }
    assert_eq!(role.logins(&scene, mark)?, 1, "three stores, one credential");

    // One that goes takes nothing from the others.
    let stores: Api<SecretStore> = scene.api();
    stores.delete("one", &DeleteParams::default()).await?;
    scene.reason("one", "StoreNotFound").await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    for name in ["two", "three"] {
        scene.refresh(name).await?;
        scene.holds(&copy_of(name), &[("password", "second")]).await?;
    }
    assert_eq!(role.logins(&scene, mark)?, 1);
    assert_eq!(role.revocations(&scene, mark)?, 0);

    // Another secret id is another credential, also of the same role.
    let path = format!("auth/{}/role/app/secret-id", role.mount);
    let another = scene.vault.api().put(&path, &json!({})).await?;
    let another = another["data"]["secret_id"].as_str().unwrap_or_default();
    ensure!(!another.is_empty(), "Vault gives a second secret id");
    scene.credential("two", &json!({"secret-id": another})).await?;
    scene.write("apps/db", &json!({"password": "third"})).await?;
    poll::until("a login with the new secret id", SOON, || async {
        role.logins(&scene, mark).is_ok_and(|logins| logins == 2)
    })
    .await?;
    for name in ["two", "three"] {
        scene.refresh(name).await?;
        scene.holds(&copy_of(name), &[("password", "third")]).await?;
    }
    assert_eq!(
        role.revocations(&scene, mark)?,
        0,
        "the third store still uses it"
    );

    operator.stop().await?;
    assert_eq!(role.logins(&scene, mark)?, 2);
    assert_eq!(role.revocations(&scene, mark)?, 2, "each token once");
    Ok(())
}

async fn stores_that_share_a_bad_credential_cause_one_failed_login(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let role = AppRole::new(&scene).await?;
    let names = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"];
    role.stores(&scene, &names, "wrong").await?;
    let mark = scene.vault.audit().mark()?;
    let _operator = scene.operator().await?;
    for name in names {
        scene.store_reason(name, "CredentialRejected").await?;
        scene.reason(name, "CredentialRejected").await?;
    }
    assert_eq!(role.logins(&scene, mark)?, 1, "ten stores, one bad credential");

    // Each goes its own way once its own Secret is right.
    for name in names {
        scene
            .credential(name, &json!({"secret-id": role.secret_id}))
            .await?;
    }
    for name in names {
        scene.holds(&copy_of(name), &[("password", "first")]).await?;
        scene.store_reason(name, "StoreReady").await?;
    }
    assert_eq!(role.logins(&scene, mark)?, 2);
    Ok(())
}

async fn stores_of_one_service_account_share_its_session_while_it_lends_itself(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    // The scene has a store of the same account already.
    scene.store("second", &scene.vault_spec()).await?;
    let mark = scene.vault.audit().mark()?;
    let _operator = scene.operator().await?;
    for (name, store) in [("db", "vault"), ("copy", "second")] {
        scene.synced_from(name, store, "apps/db").await?;
        scene.holds(name, &[("password", "first")]).await?;
        scene.store_reason(store, "StoreReady").await?;
    }
    let logins = || {
        count(&scene, mark, |request| {
            request.is_login() && request.path.contains(&scene.mount)
        })
    };
    assert_eq!(logins()?, 1);

    // What was let in on its word goes out with it.
    let plain = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}});
    let accounts: Api<ServiceAccount> = scene.api();
    let as_author = PatchParams::apply(AUTHOR).force();
    accounts
        .patch("reader", &as_author, &Patch::Apply(&plain))
        .await?;
    for store in ["vault", "second"] {
        scene.store_reason(store, "CredentialNotGranted").await?;
    }
    scene.allow_reader("reader").await?;
    for (name, store) in [("db", "vault"), ("copy", "second")] {
        scene.store_reason(store, "StoreReady").await?;
        scene.ready(name).await?;
    }
    assert_eq!(logins()?, 2);
    Ok(())
}

fn copy_of(store: &str) -> String {
    format!("{store}-copy")
}

fn count(scene: &Scene<'_>, mark: Mark, wanted: impl Fn(&StoreRequest) -> bool) -> Result<usize> {
    Ok(scene
        .vault
        .audit()
        .since(mark)?
        .iter()
        .filter(|request| wanted(request))
        .count())
}
