//! What becomes of a session: shared, renewed, ended by others, ended by us.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::join_all;
use keyward::stores::vault::VaultAuth;
use keyward::stores::{Probe, ReadOutcome, Store};
use keyward_core::fault::Class;
use keyward_core::reason::Reason;
use keyward_tests::harness::Suite;
use keyward_tests::rig::poll;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::server::Server;
use super::{Readable, app_role, at};

/// Longer than any token of these cases lives.
const SOON: Duration = Duration::from_mins(1);

pub(super) fn register(suite: &mut Suite) {
    super::cases!(
        suite,
        many_callers_share_one_login_and_one_look_at_the_mount,
        a_given_token_is_used_and_a_dead_one_waits,
        a_revoked_token_is_replaced_once_for_all_callers,
        a_denied_path_costs_no_login,
        a_token_that_may_not_look_itself_up_is_made_anew_once,
        a_given_token_that_may_not_look_itself_up_is_used,
        a_token_is_renewed_before_it_ends,
        a_token_past_its_longest_life_is_made_anew,
        a_token_that_cannot_be_renewed_is_made_anew,
        closing_revokes_the_token,
    );
}

async fn many_callers_share_one_login_and_one_look_at_the_mount(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let (auth_mount, auth) = app_role(&server, &held.policy, json!({})).await?;
    let store = server.store(&held.mount, auth)?;
    let (before, place) = (server.mark().await?, at("app"));
    for probe in join_all((0..30).map(|_| store.probe(&place))).await {
        ensure!(matches!(probe, Ok(Probe::Current(_))), "{probe:?}");
    }
    store.check().await?;
    assert_eq!(server.logins_since(before, &auth_mount).await?, 1);
    let look = format!("sys/internal/ui/mounts/{}", held.mount);
    let asked = server.since(before).await?;
    assert_eq!(asked.iter().filter(|asked| asked.path == look).count(), 1);
    Ok(())
}

async fn a_given_token_is_used_and_a_dead_one_waits(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let login = server.token(&[(&format!("{}/*", held.mount), &["read"])]).await?;
    let store = server.store(&held.mount, VaultAuth::Token(login.token.into()))?;
    assert!(matches!(store.probe(&at("app")).await?, Probe::Current(_)));

    server.api().revoke(&login.accessor).await?;
    let before = server.mark().await?;
    for _ in 0..3 {
        let fault = store.probe(&at("app")).await.expect_err("the token is dead");
        assert_eq!(fault.reason, Reason::CredentialRejected, "{fault}");
    }
    let asked = server.since(before).await?;
    let own = asked.iter().filter(|asked| asked.path.starts_with(&held.mount));
    assert_eq!(own.count(), 1, "{asked:?}");
    Ok(())
}

async fn a_revoked_token_is_replaced_once_for_all_callers(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let (auth_mount, auth) = app_role(&server, &held.policy, json!({})).await?;
    let store = server.store(&held.mount, auth)?;
    store.check().await?;
    let revoke = format!("sys/leases/revoke-prefix/auth/{auth_mount}/login");
    server.api().write(&revoke, &json!({})).await?;

    let (before, place) = (server.mark().await?, at("app"));
    for probe in join_all((0..20).map(|_| store.probe(&place))).await {
        ensure!(matches!(probe, Ok(Probe::Current(_))), "{probe:?}");
    }
    assert_eq!(server.logins_since(before, &auth_mount).await?, 1);
    Ok(())
}

async fn a_denied_path_costs_no_login(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let policy = server
        .policy(&[(&format!("{}/data/other", held.mount), &["read"])])
        .await?;
    let (auth_mount, auth) = app_role(&server, &policy, json!({})).await?;
    let (store, before) = (server.store(&held.mount, auth)?, server.mark().await?);
    for _ in 0..3 {
        denied(&store, &held.mount).await?;
    }
    assert_eq!(server.logins_since(before, &auth_mount).await?, 1);
    Ok(())
}

async fn a_token_that_may_not_look_itself_up_is_made_anew_once(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let rules: [(&str, &[&str]); 2] = [
        (&format!("{}/data/other", held.mount), &["read"]),
        ("auth/token/revoke-self", &["update"]),
    ];
    let policy = server.policy(&rules).await?;
    let settings = json!({ "token_no_default_policy": true });
    let (auth_mount, auth) = app_role(&server, &policy, settings).await?;
    let (store, before) = (server.store(&held.mount, auth)?, server.mark().await?);
    for _ in 0..3 {
        denied(&store, &held.mount).await?;
    }
    assert_eq!(server.logins_since(before, &auth_mount).await?, 2);
    let one_is_left = || async { tokens_of(&server, &auth_mount).await.is_ok_and(|left| left == 1) };
    poll::until("the replaced token to be revoked", SOON, one_is_left).await?;
    store.close().await;
    assert_eq!(tokens_of(&server, &auth_mount).await?, 0);
    Ok(())
}

async fn a_given_token_that_may_not_look_itself_up_is_used(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let policy = server
        .policy(&[(&format!("{}/data/app", held.mount), &["read"])])
        .await?;
    let settings = json!({ "ttl": "5m", "no_default_policy": true });
    let login = server.api().create_token(&[&policy], &settings).await?;
    let store = server.store(&held.mount, VaultAuth::Token(login.token.into()))?;
    ensure!(matches!(store.read(&at("app")).await?, ReadOutcome::Value(_)));
    let Err(fault) = store.read(&at("other")).await else {
        bail!("the read is denied")
    };
    assert_eq!(fault.reason, Reason::RemoteDenied, "{fault}");
    Ok(())
}

async fn a_token_is_renewed_before_it_ends(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let (auth_mount, auth) = app_role(&server, &held.policy, json!({ "token_period": "5s" })).await?;
    let (store, before, place) = (server.store(&held.mount, auth)?, server.mark().await?, at("app"));
    let began = Instant::now();
    let outlived = || async {
        assert!(matches!(store.probe(&place).await, Ok(Probe::Current(_))));
        began.elapsed() > Duration::from_secs(16)
    };
    poll::until("three lives of the token", SOON, outlived).await?;
    assert_eq!(server.logins_since(before, &auth_mount).await?, 1);
    Ok(())
}

async fn a_token_past_its_longest_life_is_made_anew(server: Server) -> Result<()> {
    made_anew(&server, json!({ "token_ttl": "2s", "token_max_ttl": "3s" })).await
}

async fn a_token_that_cannot_be_renewed_is_made_anew(server: Server) -> Result<()> {
    made_anew(&server, json!({ "token_ttl": "2s", "token_type": "batch" })).await
}

/// Every call works until a second login has come about.
async fn made_anew(server: &Server, settings: serde_json::Value) -> Result<()> {
    let held = Readable::new(server).await?;
    let (auth_mount, auth) = app_role(server, &held.policy, settings).await?;
    let (store, before, place) = (server.store(&held.mount, auth)?, server.mark().await?, at("app"));
    let logged_in_again = || async {
        assert!(matches!(store.probe(&place).await, Ok(Probe::Current(_))));
        server
            .logins_since(before, &auth_mount)
            .await
            .is_ok_and(|logins| logins == 2)
    };
    poll::until("a second login", SOON, logged_in_again).await
}

async fn closing_revokes_the_token(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let (auth_mount, auth) = app_role(&server, &held.policy, json!({})).await?;
    let own = server.store(&held.mount, auth)?;
    own.check().await?;
    let login = server.token(&[(&format!("{}/*", held.mount), &["read"])]).await?;
    let given = server.store(&held.mount, VaultAuth::Token(login.token.into()))?;
    given.check().await?;

    assert_eq!(tokens_of(&server, &auth_mount).await?, 1);
    own.close().await;
    given.close().await;
    assert_eq!(tokens_of(&server, &auth_mount).await?, 0);
    assert!(
        server.api().is_alive(&login.accessor).await?,
        "a token made elsewhere is left alone"
    );
    assert!(own.probe(&at("app")).await.is_err());
    Ok(())
}

/// How many tokens that were made by logins at this mount live.
async fn tokens_of(server: &Server, auth_mount: &str) -> Result<usize> {
    let leases = format!("sys/leases/lookup/auth/{auth_mount}/login?list=true");
    let answer = server.api().send(Method::GET, &leases, None).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(0);
    }
    let keys = answer.body["data"]["keys"].as_array().map(Vec::len);
    keys.with_context(|| format!("a list of leases: {}", answer.body))
}

async fn denied(store: &impl Store, mount: &str) -> Result<()> {
    let Err(fault) = store.read(&at("app")).await else {
        bail!("the read is denied")
    };
    assert_eq!((fault.class, fault.reason), (Class::Denied, Reason::RemoteDenied));
    ensure!(fault.advice.contains(&format!("`{mount}/data/app`")), "{fault}");
    Ok(())
}
