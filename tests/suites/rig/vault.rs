//! The store: state over seal and restart, its audit log, and every way to log in.

use anyhow::Result;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::http;
use keyward_tests::rig::vault::Kv;
use reqwest::{Method, StatusCode};
use serde_json::json;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        data_survives_seal_and_restart,
        the_audit_log_counts_each_request_once,
        kubernetes_logins_need_the_right_audience,
        every_login_works_right_and_fails_wrong,
        deletions_can_be_told_apart,
    );
}

async fn data_survives_seal_and_restart(case: Case) -> Result<()> {
    let vault = case.private_vault().await?;
    let api = vault.api();
    api.mount_kv("kv", Kv::V2).await?;
    api.write_secret("kv", Kv::V2, "app", &json!({ "password": "kept" }))
        .await?;

    vault.seal().await?;
    assert_eq!(api.seal_status().await?["sealed"], true);
    let refused = api.send(Method::GET, "kv/data/app", None).await?;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    vault.unseal().await?;
    assert_eq!(api.read("kv/data/app").await?["data"]["password"], "kept");

    vault.stop().await?;
    assert!(api.seal_status().await.is_err());
    vault.start_sealed().await?;
    assert_eq!(api.seal_status().await?["sealed"], true);
    vault.unseal().await?;
    vault.restart().await?;
    assert_eq!(api.read("kv/data/app").await?["data"]["password"], "kept");
    Ok(())
}

async fn the_audit_log_counts_each_request_once(case: Case) -> Result<()> {
    let vault = case.vault().await?;
    let mount = case.kv_mount(Kv::V2).await?;
    let policy = case.unique();
    vault
        .api()
        .write_policy(
            &policy,
            &format!("path \"{mount}/*\" {{ capabilities = [\"read\"] }}"),
        )
        .await?;
    let login = vault
        .api()
        .create_token(&[&policy], &json!({ "ttl": "5m" }))
        .await?;
    vault
        .api()
        .write_secret(&mount, Kv::V2, "app", &json!({ "a": "b" }))
        .await?;
    let reader = vault.api_as(Some(&login.token))?;

    let before = vault.audit().mark()?;
    reader.read(&format!("{mount}/data/app")).await?;
    reader.read(&format!("{mount}/metadata/app")).await?;
    let refused = reader
        .send(
            Method::PUT,
            &format!("{mount}/data/app"),
            Some(&json!({ "data": {} })),
        )
        .await?;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);

    let mut requests = vault.audit().since(before)?;
    requests.retain(|request| request.path.starts_with(&mount));
    let seen: Vec<_> = requests
        .iter()
        .map(|r| (r.operation.as_str(), r.is_value_read(&mount), r.failed))
        .collect();
    assert_eq!(
        seen,
        [
            ("read", true, false),
            ("read", false, false),
            ("update", false, true)
        ]
    );
    // One client keeps one connection.
    assert!(
        requests
            .iter()
            .all(|request| request.remote_port == requests[0].remote_port)
    );
    let later = vault.audit().mark()?;
    assert!(
        vault
            .audit()
            .since(later)?
            .iter()
            .all(|request| !request.path.starts_with(&mount))
    );
    Ok(())
}

async fn kubernetes_logins_need_the_right_audience(case: Case) -> Result<()> {
    let (kubernetes, vault) = tokio::try_join!(case.kubernetes(), case.vault())?;
    let namespace = case.namespace().await?;
    kubernetes.create_service_account(&namespace, "app").await?;
    let mount = case.unique();
    vault.enable_kubernetes_auth(&mount, kubernetes).await?;
    let role = json!({
        "bound_service_account_names": "app",
        "bound_service_account_namespaces": namespace,
        "audience": "store",
        "token_policies": ["default"],
    });
    vault.api().create_role(&mount, "app", &role).await?;

    let nobody = vault.api_as(None)?;
    let before = vault.audit().mark()?;
    let path = format!("{mount}/login");
    let jwt = kubernetes.token(&namespace, "app", &["store"]).await?;
    nobody.login(&path, &json!({ "role": "app", "jwt": jwt })).await?;

    for audiences in [&["another store"][..], &[]] {
        let jwt = kubernetes.token(&namespace, "app", audiences).await?;
        let body = json!({ "role": "app", "jwt": jwt });
        let refused = nobody
            .send(Method::PUT, &format!("auth/{path}"), Some(&body))
            .await?;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{audiences:?}");
    }
    let logins: Vec<_> = vault
        .audit()
        .since(before)?
        .into_iter()
        .filter(|r| r.is_login() && r.path.contains(&mount))
        .collect();
    let failed: Vec<_> = logins.iter().map(|login| login.failed).collect();
    assert_eq!(failed, [false, true, true]);
    Ok(())
}

async fn every_login_works_right_and_fails_wrong(case: Case) -> Result<()> {
    let vault = case.vault().await?;
    let (api, nobody) = (vault.api(), vault.api_as(None)?);
    let is_refused = async |path: &str, body: serde_json::Value| {
        let answer = nobody
            .send(Method::PUT, &format!("auth/{path}"), Some(&body))
            .await;
        answer.is_ok_and(|answer| !answer.status.is_success() && answer.body["errors"].is_array())
    };

    let mount = case.unique();
    api.enable_auth(&mount, "approle").await?;
    let (role_id, secret_id) = api
        .create_approle(&mount, "app", &json!({ "token_ttl": "5m" }))
        .await?;
    let path = format!("{mount}/login");
    let login = nobody
        .login(&path, &json!({ "role_id": role_id, "secret_id": secret_id }))
        .await?;
    assert!(api.is_alive(&login.accessor).await?);
    api.revoke(&login.accessor).await?;
    assert!(!api.is_alive(&login.accessor).await?);
    assert!(is_refused(&path, json!({ "role_id": role_id, "secret_id": "wrong" })).await);

    let mount = case.unique();
    api.enable_auth(&mount, "userpass").await?;
    api.create_user(&mount, "someone", "right", &["default"]).await?;
    let path = format!("{mount}/login/someone");
    nobody.login(&path, &json!({ "password": "right" })).await?;
    assert!(is_refused(&path, json!({ "password": "wrong" })).await);

    let mount = case.unique();
    api.enable_auth(&mount, "cert").await?;
    api.create_cert_role(&mount, "app", vault.ca(), "right", &["default"])
        .await?;
    for (name, expected) in [("right", StatusCode::OK), ("wrong", StatusCode::BAD_REQUEST)] {
        let client = http::client_as(vault.ca(), &vault.client_identity(name)?)?;
        let url = format!("{}/v1/auth/{mount}/login", vault.url());
        let answer = client
            .put(url)
            .body(json!({ "name": "app" }).to_string())
            .send()
            .await?;
        assert_eq!(answer.status(), expected, "{name}");
    }

    let mount = case.unique();
    let kubernetes = case.kubernetes().await?;
    api.enable_auth(&mount, "jwt").await?;
    let keys = kubernetes.token_keys()?;
    api.write(
        &format!("auth/{mount}/config"),
        &json!({ "jwt_validation_pubkeys": keys }),
    )
    .await?;
    let role = json!({
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": ["store"],
        "token_policies": ["default"],
    });
    api.create_role(&mount, "app", &role).await?;
    let path = format!("{mount}/login");
    let namespace = case.namespace().await?;
    kubernetes.create_service_account(&namespace, "app").await?;
    let right = kubernetes.token(&namespace, "app", &["store"]).await?;
    nobody
        .login(&path, &json!({ "role": "app", "jwt": right }))
        .await?;
    let wrong = kubernetes.token(&namespace, "app", &["another"]).await?;
    assert!(is_refused(&path, json!({ "role": "app", "jwt": wrong })).await);
    Ok(())
}

async fn deletions_can_be_told_apart(case: Case) -> Result<()> {
    let api = case.vault().await?.api();
    let mount = case.kv_mount(Kv::V2).await?;
    for version in [1, 2] {
        assert_eq!(
            api.write_secret(&mount, Kv::V2, "app", &json!({ "v": version }))
                .await?,
            version
        );
    }
    let value = format!("{mount}/data/app");

    api.delete_secret(&mount, "app").await?;
    let deleted = api.send(Method::GET, &value, None).await?;
    assert_eq!(deleted.status, StatusCode::NOT_FOUND);
    assert_ne!(deleted.body["data"]["metadata"]["deletion_time"], "");
    api.undelete_secret(&mount, "app", &[2]).await?;
    assert_eq!(api.read(&value).await?["data"]["v"], 2);

    api.destroy_secret(&mount, "app", &[2]).await?;
    let destroyed = api.send(Method::GET, &value, None).await?;
    assert_eq!(destroyed.status, StatusCode::NOT_FOUND);
    assert_eq!(destroyed.body["data"]["metadata"]["destroyed"], true);

    api.delete_metadata(&mount, "app").await?;
    let gone = api.send(Method::GET, &value, None).await?;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert!(gone.body["data"].is_null());
    Ok(())
}
