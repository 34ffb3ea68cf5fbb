//! Every way to log in, right and wrong; what becomes of the session afterwards.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::join_all;
use keyward::stores::transport::Identity;
use keyward::stores::vault::{VaultAuth, VaultStore};
use keyward::stores::{Probe, Store};
use keyward_core::reason::Reason;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::{Kv, StoreRequest};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Fixed, at, config, policy_for, store, token_for};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        app_role_logs_in_once_and_a_rejected_one_is_not_repeated,
        userpass_logs_in_once_and_a_rejected_one_is_not_repeated,
        a_certificate_logs_in_once_and_a_rejected_one_is_not_repeated,
        kubernetes_logs_in_once_and_a_rejected_one_is_not_repeated,
        a_jwt_logs_in_once_and_a_rejected_one_is_not_repeated,
        a_given_token_is_used_and_a_dead_one_is_not_repeated,
        a_revoked_token_is_replaced_once_for_all_callers,
        a_token_is_renewed_before_it_ends,
        a_token_past_its_longest_life_is_made_anew,
        closing_revokes_the_token,
    );
}

/// A mount that holds `app`, and a policy to read it.
async fn mount_and_policy(case: &Case) -> Result<(String, String)> {
    let mount = case.kv_mount(Kv::V2).await?;
    case.vault()
        .await?
        .api()
        .write_secret(&mount, Kv::V2, "app", &json!({ "a": "b" }))
        .await?;
    let policy = policy_for(case, &[(&format!("{mount}/*"), &["read"])]).await?;
    Ok((mount, policy))
}

/// A role of `AppRole` with `settings`: its mount and the way to log in with it.
async fn app_role(case: &Case, policy: &str, settings: Value) -> Result<(String, VaultAuth)> {
    let (api, mount) = (case.vault().await?.api(), case.unique());
    let mut settings = settings;
    settings["token_policies"] = json!([policy]);
    api.enable_auth(&mount, "approle").await?;
    let (role_id, secret_id) = api.create_approle(&mount, "app", &settings).await?;
    let auth = VaultAuth::AppRole {
        mount: mount.clone(),
        role_id,
        secret_id: secret_id.into(),
    };
    Ok((mount, auth))
}

/// Uses a store made of `right` many times over and one made of `wrong`: the one logs in once, the other is told off
/// once and never asks again.
async fn right_and_wrong(case: &Case, auth_mount: &str, right: VaultStore, wrong: VaultStore) -> Result<()> {
    let vault = case.vault().await?;
    let before = vault.audit().mark()?;
    let place = at("app");
    for probe in join_all((0..20).map(|_| right.probe(&place))).await {
        ensure!(matches!(probe, Ok(Probe::Current(_))), "{probe:?}");
    }
    right.check().await?;
    let refusals = join_all((0..5).map(|_| wrong.probe(&place))).await;
    for refusal in refusals.into_iter().chain([wrong.probe(&place).await]) {
        let fault = refusal.expect_err("the login is wrong");
        assert_eq!(fault.reason, Reason::CredentialRejected, "{fault}");
    }
    let requests = vault.audit().since(before)?;
    let logins = requests
        .iter()
        .filter(|request| request.is_login() && request.path.contains(auth_mount));
    assert_eq!(logins.count(), 2, "one for each store");
    right.close().await;
    Ok(())
}

async fn app_role_logs_in_once_and_a_rejected_one_is_not_repeated(case: Case) -> Result<()> {
    let vault = case.vault().await?;
    let (mount, policy) = mount_and_policy(&case).await?;
    let (auth_mount, right) = app_role(&case, &policy, json!({})).await?;
    let VaultAuth::AppRole { role_id, .. } = &right else {
        unreachable!("it was made so")
    };
    let wrong = VaultAuth::AppRole {
        mount: auth_mount.clone(),
        role_id: role_id.clone(),
        secret_id: "wrong".into(),
    };
    right_and_wrong(
        &case,
        &auth_mount,
        store(vault, &mount, right)?,
        store(vault, &mount, wrong)?,
    )
    .await
}

async fn userpass_logs_in_once_and_a_rejected_one_is_not_repeated(case: Case) -> Result<()> {
    let vault = case.vault().await?;
    let (mount, policy) = mount_and_policy(&case).await?;
    let auth_mount = case.unique();
    vault.api().enable_auth(&auth_mount, "userpass").await?;
    vault
        .api()
        .create_user(&auth_mount, "someone", "right", &[&policy])
        .await?;
    let with = |password: &str| VaultAuth::Userpass {
        mount: auth_mount.clone(),
        username: "someone".into(),
        password: password.into(),
    };
    let (right, wrong) = (
        store(vault, &mount, with("right"))?,
        store(vault, &mount, with("wrong"))?,
    );
    right_and_wrong(&case, &auth_mount, right, wrong).await
}

async fn a_certificate_logs_in_once_and_a_rejected_one_is_not_repeated(case: Case) -> Result<()> {
    let vault = case.vault().await?;
    let (mount, policy) = mount_and_policy(&case).await?;
    let auth_mount = case.unique();
    vault.api().enable_auth(&auth_mount, "cert").await?;
    vault
        .api()
        .create_cert_role(&auth_mount, "app", vault.ca(), "right", &[&policy])
        .await?;
    let with = |name: &str| -> Result<VaultStore> {
        let auth = VaultAuth::Cert {
            mount: auth_mount.clone(),
            role: Some("app".into()),
        };
        let identity = vault.client_identity(name)?;
        let mut config = config(vault, &mount, auth)?;
        config.transport.identity = Some(Identity {
            certificate_pem: identity.certificate.into_bytes(),
            key_pem: identity.key.into(),
        });
        Ok(VaultStore::new(config)?)
    };
    right_and_wrong(&case, &auth_mount, with("right")?, with("wrong")?).await
}

async fn kubernetes_logs_in_once_and_a_rejected_one_is_not_repeated(case: Case) -> Result<()> {
    let (kubernetes, vault) = tokio::try_join!(case.kubernetes(), case.vault())?;
    let (mount, policy) = mount_and_policy(&case).await?;
    let (namespace, auth_mount) = (case.namespace().await?, case.unique());
    kubernetes.create_service_account(&namespace, "app").await?;
    vault.enable_kubernetes_auth(&auth_mount, kubernetes).await?;
    let role = json!({
        "bound_service_account_names": "app",
        "bound_service_account_namespaces": namespace,
        "audience": "store",
        "token_policies": [policy],
    });
    vault.api().create_role(&auth_mount, "app", &role).await?;
    let with = async |audience: &str| -> Result<VaultStore> {
        let auth = VaultAuth::Kubernetes {
            mount: auth_mount.clone(),
            role: "app".into(),
            jwt: Arc::new(Fixed(kubernetes.token(&namespace, "app", &[audience]).await?)),
        };
        store(vault, &mount, auth)
    };
    right_and_wrong(&case, &auth_mount, with("store").await?, with("another").await?).await
}

async fn a_jwt_logs_in_once_and_a_rejected_one_is_not_repeated(case: Case) -> Result<()> {
    let (kubernetes, vault) = tokio::try_join!(case.kubernetes(), case.vault())?;
    let (mount, policy) = mount_and_policy(&case).await?;
    let (namespace, auth_mount) = (case.namespace().await?, case.unique());
    kubernetes.create_service_account(&namespace, "app").await?;
    let api = vault.api();
    api.enable_auth(&auth_mount, "jwt").await?;
    let keys = json!({ "jwt_validation_pubkeys": kubernetes.token_keys()? });
    api.write(&format!("auth/{auth_mount}/config"), &keys).await?;
    let role = json!({
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": ["store"],
        "token_policies": [policy],
    });
    api.create_role(&auth_mount, "app", &role).await?;
    let with = async |audience: &str| -> Result<VaultStore> {
        let auth = VaultAuth::Jwt {
            mount: auth_mount.clone(),
            role: Some("app".into()),
            jwt: Arc::new(Fixed(kubernetes.token(&namespace, "app", &[audience]).await?)),
        };
        store(vault, &mount, auth)
    };
    right_and_wrong(&case, &auth_mount, with("store").await?, with("another").await?).await
}

async fn a_given_token_is_used_and_a_dead_one_is_not_repeated(case: Case) -> Result<()> {
    let vault = case.vault().await?;
    let (mount, _) = mount_and_policy(&case).await?;
    let login = token_for(&case, &[(&format!("{mount}/*"), &["read"])]).await?;
    let store = store(vault, &mount, VaultAuth::Token(login.token.into()))?;
    assert!(matches!(store.probe(&at("app")).await?, Probe::Current(_)));

    vault.api().revoke(&login.accessor).await?;
    let before = vault.audit().mark()?;
    for _ in 0..3 {
        let fault = store.probe(&at("app")).await.expect_err("the token is dead");
        assert_eq!(fault.reason, Reason::CredentialRejected, "{fault}");
    }
    let asked = vault.audit().since(before)?;
    let asked: Vec<_> = asked
        .iter()
        .filter(|request| request.path.starts_with(&mount))
        .collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    Ok(())
}

async fn a_revoked_token_is_replaced_once_for_all_callers(case: Case) -> Result<()> {
    let vault = case.vault().await?;
    let (mount, policy) = mount_and_policy(&case).await?;
    let (auth_mount, auth) = app_role(&case, &policy, json!({})).await?;
    let store = store(vault, &mount, auth)?;
    store.check().await?;
    let prefix = format!("auth/{auth_mount}/login");
    vault
        .api()
        .write(&format!("sys/leases/revoke-prefix/{prefix}"), &json!({}))
        .await?;

    let before = vault.audit().mark()?;
    let place = at("app");
    for probe in join_all((0..20).map(|_| store.probe(&place))).await {
        ensure!(matches!(probe, Ok(Probe::Current(_))), "{probe:?}");
    }
    let logins = vault.audit().since(before)?;
    assert_eq!(logins.iter().filter(|request| request.path == prefix).count(), 1);
    Ok(())
}

async fn a_token_is_renewed_before_it_ends(case: Case) -> Result<()> {
    let vault = case.vault().await?;
    let (mount, policy) = mount_and_policy(&case).await?;
    let (auth_mount, auth) = app_role(&case, &policy, json!({ "token_period": "2s" })).await?;
    let store = store(vault, &mount, auth)?;
    let before = vault.audit().mark()?;
    store.check().await?;
    let renewals = || async {
        let requests = vault.audit().since(before).unwrap_or_default();
        let own = |request: &&StoreRequest| request.path == "auth/token/renew-self" && !request.failed;
        requests.iter().filter(own).count() >= 3
    };
    poll::until("three renewals", Duration::from_secs(20), renewals).await?;
    assert!(matches!(store.probe(&at("app")).await?, Probe::Current(_)));
    let requests = vault.audit().since(before)?;
    let logins = requests
        .iter()
        .filter(|request| request.is_login() && request.path.contains(&auth_mount));
    assert_eq!(logins.count(), 1);
    Ok(())
}

async fn a_token_past_its_longest_life_is_made_anew(case: Case) -> Result<()> {
    let vault = case.vault().await?;
    let (mount, policy) = mount_and_policy(&case).await?;
    let settings = json!({ "token_ttl": "2s", "token_max_ttl": "3s" });
    let (auth_mount, auth) = app_role(&case, &policy, settings).await?;
    let store = store(vault, &mount, auth)?;
    let before = vault.audit().mark()?;
    let place = at("app");
    let logged_in_again = || async {
        // Every call in between works.
        assert!(matches!(store.probe(&place).await, Ok(Probe::Current(_))));
        let requests = vault.audit().since(before).unwrap_or_default();
        let logins = requests
            .iter()
            .filter(|request| request.is_login() && request.path.contains(&auth_mount));
        logins.count() == 2
    };
    poll::until("a second login", Duration::from_secs(20), logged_in_again).await
}

async fn closing_revokes_the_token(case: Case) -> Result<()> {
    let vault = case.vault().await?;
    let (mount, policy) = mount_and_policy(&case).await?;
    let (auth_mount, auth) = app_role(&case, &policy, json!({})).await?;
    let own = store(vault, &mount, auth)?;
    own.check().await?;
    let login = token_for(&case, &[(&format!("{mount}/*"), &["read"])]).await?;
    let given = store(vault, &mount, VaultAuth::Token(login.token.into()))?;
    given.check().await?;

    let leases = format!("sys/leases/lookup/auth/{auth_mount}/login?list=true");
    let living =
        async || -> Result<StatusCode> { Ok(vault.api().send(Method::GET, &leases, None).await?.status) };
    assert_eq!(living().await?, StatusCode::OK);
    own.close().await;
    given.close().await;
    assert_eq!(
        living().await?,
        StatusCode::NOT_FOUND,
        "no token of this login is left"
    );
    assert!(
        vault.api().is_alive(&login.accessor).await?,
        "a token made elsewhere is left alone"
    );
    assert!(own.probe(&at("app")).await.is_err());
    Ok(())
}
