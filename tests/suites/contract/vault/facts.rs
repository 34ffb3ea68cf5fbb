//! Facts of the protocol that Keyward's door hides: statuses and the shapes of answers that its rules rest on.

use anyhow::{Context as _, Result, ensure};
use keyward_tests::harness::Suite;
use keyward_tests::rig::vault::{Answer, Kv, VaultApi};
use reqwest::Method;
use serde_json::{Value, json};

use super::server::Server;
use super::{Readable, app_role};

pub(super) fn register(suite: &mut Suite) {
    super::cases!(
        suite,
        nothing_is_a_404_with_an_empty_list_of_errors,
        a_deleted_version_is_a_404_that_still_names_its_version,
        a_path_that_the_mount_does_not_have_is_a_404_with_a_warning,
        a_mount_that_is_not_there_is_a_404_that_names_no_route,
        who_may_not_or_is_nobody_is_answered_403,
        a_mount_is_told_to_whoever_may_do_anything_below_it,
        a_token_tells_how_long_it_lives_and_dies_by_its_own_word,
        a_write_says_its_version_and_one_without_data_is_malformed,
        an_endpoint_that_cannot_do_that_answers_405,
    );
}

async fn get(api: &VaultApi, path: &str) -> Result<(u16, Value)> {
    answered(api.send(Method::GET, path, None).await)
}

async fn list(api: &VaultApi, path: &str) -> Result<(u16, Value)> {
    answered(api.send(Method::from_bytes(b"LIST")?, path, None).await)
}

fn answered(answer: Result<Answer>) -> Result<(u16, Value)> {
    answer.map(|answer| (answer.status.as_u16(), answer.body))
}

async fn nothing_is_a_404_with_an_empty_list_of_errors(server: Server) -> Result<()> {
    let (old, new) = (server.kv_mount(Kv::V1).await?, server.kv_mount(Kv::V2).await?);
    for path in [
        format!("{old}/none"),
        format!("{new}/data/none"),
        format!("{new}/metadata/none"),
    ] {
        assert_eq!(
            get(server.api(), &path).await?,
            (404, json!({ "errors": [] })),
            "{path}"
        );
    }
    for path in [format!("{old}/none"), format!("{new}/metadata/none")] {
        assert_eq!(
            list(server.api(), &path).await?,
            (404, json!({ "errors": [] })),
            "{path}"
        );
    }
    Ok(())
}

async fn a_deleted_version_is_a_404_that_still_names_its_version(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let path = format!("{}/data/app", held.mount);
    server.api().delete_secret(&held.mount, "app").await?;
    let (status, body) = get(server.api(), &path).await?;
    assert_eq!((status, &body["data"]["data"]), (404, &Value::Null));
    let told = &body["data"]["metadata"];
    assert_eq!((&told["version"], &told["destroyed"]), (&json!(1), &json!(false)));
    ensure!(
        told["deletion_time"].as_str().is_some_and(|at| !at.is_empty()),
        "{body}"
    );
    ensure!(body.get("errors").is_none(), "{body}");

    server.api().destroy_secret(&held.mount, "app", &[1]).await?;
    let (status, body) = get(server.api(), &path).await?;
    assert_eq!(
        (status, &body["data"]["metadata"]["destroyed"]),
        (404, &json!(true))
    );
    Ok(())
}

async fn a_path_that_the_mount_does_not_have_is_a_404_with_a_warning(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V2).await?;
    let (status, body) = get(server.api(), &format!("{mount}/app")).await?;
    assert_eq!(
        (status, body.get("errors"), &body["data"]),
        (404, None, &Value::Null)
    );
    ensure!(
        body["warnings"]
            .as_array()
            .is_some_and(|warnings| !warnings.is_empty()),
        "{body}"
    );
    Ok(())
}

async fn a_mount_that_is_not_there_is_a_404_that_names_no_route(server: Server) -> Result<()> {
    let mount = server.unique();
    let (status, body) = get(server.api(), &format!("{mount}/data/app")).await?;
    assert_eq!(status, 404);
    ensure!(
        body["errors"][0]
            .as_str()
            .is_some_and(|error| error.contains("no handler for route")),
        "{body}"
    );
    Ok(())
}

async fn who_may_not_or_is_nobody_is_answered_403(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let elsewhere = server.token(&[("elsewhere/*", &["read"])]).await?;
    // Later versions say more about a token that they do not know.
    for token in [Some("nobody"), None, Some(elsewhere.token.as_str())] {
        let (status, body) = get(&server.api_as(token)?, &format!("{}/data/app", held.mount)).await?;
        let error = body["errors"][0].as_str().context("it says why")?;
        ensure!(
            status == 403 && error.contains("permission denied"),
            "{token:?}: {status} {body}"
        );
        // Of a token that it knows, it says in one piece that a policy denies.
        let known = token == Some(&elsewhere.token);
        assert_eq!(error.starts_with("1 error occurred"), known, "{token:?}: {body}");
        ensure!(
            body.get("request_id").is_none(),
            "a refusal does not name its request: {body}"
        );
    }
    Ok(())
}

async fn a_mount_is_told_to_whoever_may_do_anything_below_it(server: Server) -> Result<()> {
    let (old, new) = (server.kv_mount(Kv::V1).await?, server.kv_mount(Kv::V2).await?);
    let rules = [old.clone(), new.clone()].map(|mount| format!("{mount}/any/thing"));
    let login = server
        .token(&[(&rules[0], &["read"]), (&rules[1], &["list"])])
        .await?;
    let api = server.api_as(Some(&login.token))?;
    for (mount, version) in [(&old, "1"), (&new, "2")] {
        let (status, body) = get(&api, &format!("sys/internal/ui/mounts/{mount}")).await?;
        let data = &body["data"];
        assert_eq!(
            (status, &data["type"], &data["options"]["version"]),
            (200, &json!("kv"), &json!(version))
        );
    }
    let (status, body) = get(&api, &format!("sys/internal/ui/mounts/{new}/any/folder")).await?;
    let told = format!("{new}/");
    assert_eq!(
        (status, &body["data"]["path"]),
        (200, &json!(told)),
        "the mount above it"
    );
    let hidden = server.kv_mount(Kv::V2).await?;
    for mount in [hidden, server.unique()] {
        let (status, _) = get(&api, &format!("sys/internal/ui/mounts/{mount}")).await?;
        assert_eq!(status, 403, "one that is hidden looks like one that is not there");
    }
    Ok(())
}

async fn a_token_tells_how_long_it_lives_and_dies_by_its_own_word(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let (mount, _) = app_role(&server, &held.policy, json!({ "token_ttl": "90s" })).await?;
    let role_id = server
        .api()
        .read(&format!("auth/{mount}/role/app/role-id"))
        .await?["role_id"]
        .take();
    let secret = server
        .api()
        .put(&format!("auth/{mount}/role/app/secret-id"), &json!({}))
        .await?;
    let login = json!({ "role_id": role_id, "secret_id": secret["data"]["secret_id"] });
    let granted = server
        .api_as(None)?
        .put(&format!("auth/{mount}/login"), &login)
        .await?;
    let auth = &granted["auth"];
    assert_eq!(
        (&auth["lease_duration"], &auth["renewable"]),
        (&json!(90), &json!(true))
    );

    let api = server.api_as(auth["client_token"].as_str())?;
    let told = api.read("auth/token/lookup-self").await?;
    ensure!(
        told["ttl"].as_u64().is_some_and(|ttl| (80..=90).contains(&ttl)),
        "{}",
        told["ttl"]
    );
    assert_eq!(told["renewable"], true);
    let renewed = api.put("auth/token/renew-self", &json!({})).await?;
    assert_eq!(renewed["auth"]["lease_duration"], 90);
    let ended = api.send(Method::POST, "auth/token/revoke-self", None).await?;
    assert_eq!(ended.status, 204);
    assert_eq!(get(&api, "auth/token/lookup-self").await?.0, 403);

    let root = server.api().read("auth/token/lookup-self").await?;
    assert_eq!(root["ttl"], 0, "a token without an end");
    Ok(())
}

async fn a_write_says_its_version_and_one_without_data_is_malformed(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V2).await?;
    for version in 1..=2 {
        let value = json!({ "a": version });
        assert_eq!(
            server.api().write_secret(&mount, Kv::V2, "app", &value).await?,
            version
        );
    }
    let bare = server
        .api()
        .send(Method::PUT, &format!("{mount}/data/app"), Some(&json!({})))
        .await?;
    assert_eq!(bare.status, 400);
    Ok(())
}

async fn an_endpoint_that_cannot_do_that_answers_405(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V2).await?;
    let answer = server
        .api()
        .send(Method::DELETE, &format!("{mount}/config"), None)
        .await?;
    assert_eq!(answer.status, 405);
    ensure!(
        answer.body["errors"][0]
            .as_str()
            .context("it says why")?
            .contains("unsupported operation")
    );
    Ok(())
}
