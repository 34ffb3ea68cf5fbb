//! Tokens and credentials.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use keyward_core::fault::Fault;
use keyward_core::reason::Reason;
use serde_json::json;

use super::super::BarbicanSessions;
use super::super::config::{KeystoneAuth, ProjectRef, UserRef};
use super::super::keystone::Keystone;
use super::super::testing::{credential, gate, password, secret};
use super::super::tokens::Tokens;
use super::*;
use crate::stores::pool::Pool;
use crate::stores::transport::TransportOptions;

async fn cloud() -> Cloud {
    Cloud::start(vec![secret(1, "db", 1)]).await
}

async fn refused(cloud: &Cloud) -> Fault {
    cloud.store().check().await.unwrap_err()
}

#[tokio::test]
async fn stores_with_one_credential_share_a_token_and_the_last_to_close_gives_it_back() {
    let cloud = cloud().await;
    let sessions = BarbicanSessions::new(gate());
    let stores: Vec<_> = (0..3)
        .map(|number| {
            let mut config = cloud.config(password(CANARY));
            match number {
                1 => config.auth_url.set_path("/v3/"),
                // Where Barbican is found does not matter to Keystone.
                2 => config.endpoint = Some(cloud.barbican.url()),
                _ => {}
            }
            sessions.open(config).ok().unwrap()
        })
        .collect();
    for outcome in join_all(stores.iter().map(Store::check)).await {
        outcome.unwrap();
    }
    assert_eq!((cloud.logins(), cloud.state().tokens.len()), (1, 2));
    for store in &stores[1..] {
        store.close().await;
        assert!(store.check().await.is_err());
    }
    stores[0].check().await.unwrap();
    assert_eq!((cloud.logins(), cloud.state().tokens.len()), (1, 2));
    stores[0].close().await;
    assert!(cloud.state().tokens.is_empty());
}

#[tokio::test]
async fn another_project_user_secret_keystone_or_trust_is_another_session() {
    let cloud = cloud().await;
    let user = |name: &str, project: &str| KeystoneAuth::Password {
        user: UserRef::Id(name.into()),
        password: CANARY.into(),
        project: ProjectRef::Id(project.into()),
    };
    let mut elsewhere = cloud.config(user("ada", "web"));
    elsewhere.auth_url.set_path("/identity");
    let mut trusting = cloud.config(user("ada", "web"));
    trusting.transport.verify = false;
    let mut other_ca = cloud.config(user("ada", "web"));
    other_ca.transport.ca_pem = Some(Vec::new());
    let configs = [
        cloud.config(user("ada", "web")),
        cloud.config(user("ada", "api")),
        cloud.config(user("bob", "web")),
        cloud.config(password(CANARY)),
        cloud.config(password("other")),
        cloud.config(credential(CANARY)),
        elsewhere,
        trusting,
        other_ca,
    ];
    let pool: Pool<Tokens> = Pool::default();
    let digests: HashSet<_> = configs
        .into_iter()
        .map(|config| {
            let usable = TransportOptions {
                plain_http_allowed: true,
                ..TransportOptions::new(Arc::clone(&config.transport.addresses))
            };
            let keystone = Keystone::new(&config.auth_url, config.auth, &usable)
                .ok()
                .unwrap();
            pool.digest(&keystone.session_key(&config.transport))
        })
        .collect();
    assert_eq!(digests.len(), 9);
}

#[tokio::test]
async fn a_wrong_project_is_told_to_all_who_share_it_by_one_login() {
    let cloud = cloud().await;
    let sessions = BarbicanSessions::new(gate());
    let stores: Vec<_> = (0..10)
        .map(|_| {
            let mut config = cloud.config(password(CANARY));
            if let KeystoneAuth::Password { project, .. } = &mut config.auth {
                *project = ProjectRef::Id("other".into());
            }
            sessions.open(config).ok().unwrap()
        })
        .collect();
    for store in &stores {
        let fault = store.check().await.unwrap_err();
        assert!(fault.advice.contains("project"), "{fault}");
        assert!(fault.retry_after.is_some(), "it may be put right at Keystone");
    }
    assert_eq!(cloud.logins(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_make_a_refusal_forgotten() {
    let cloud = cloud().await;
    let store = BarbicanSessions::new(gate())
        .open(cloud.config(password("wrong")))
        .ok()
        .unwrap();
    for _ in 0..20 {
        let _ = tokio::time::timeout(Duration::from_millis(1), store.check()).await;
    }
    assert!(store.check().await.is_err());
    assert_eq!(cloud.logins(), 1);
}

#[tokio::test]
async fn a_password_is_sent_only_to_keystone() {
    let cloud = cloud().await;
    let mut config = cloud.config(password(CANARY));
    config.auth_url = cloud.barbican.url();
    let store = BarbicanSessions::new(gate()).open(config).ok().unwrap();
    let fault = store.check().await.unwrap_err();
    assert_eq!(fault.reason, Reason::StoreProtocol);
    assert!(cloud.barbican.seen().iter().all(|seen| seen.body.is_empty()));
}

/// A password is shown for a token without a project, which would outlive the one that it is traded for.
#[tokio::test]
async fn no_token_is_left_behind() {
    let cloud = cloud().await;
    let store = cloud.store();
    store.check().await.unwrap();
    assert_eq!(cloud.state().tokens.len(), 2);
    store.close().await;
    assert!(cloud.state().tokens.is_empty(), "after the end of a session");

    let mut config = cloud.config(password(CANARY));
    if let KeystoneAuth::Password { project, .. } = &mut config.auth {
        *project = ProjectRef::Id("other".into());
    }
    let store = BarbicanSessions::new(gate()).open(config).ok().unwrap();
    store.check().await.unwrap_err();
    assert!(
        cloud.state().tokens.is_empty(),
        "after a login for a wrong project"
    );
}

#[tokio::test]
async fn a_short_token_is_renewed_before_its_end() {
    let cloud = cloud().await;
    // A quarter of it is left when it is renewed: time enough for a slow machine.
    cloud.state().token_seconds = 4;
    let store = cloud.store();
    let place = id(1);
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    while cloud.logins() < 3 {
        store.probe(&place).await.unwrap();
        assert!(tokio::time::Instant::now() < end, "the token was not renewed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cloud.state().turned_away, 0, "it was renewed once it was refused");
}

/// Moves the clock of what waits, and not that of the servers.
async fn later(wait: Duration) {
    tokio::time::pause();
    tokio::time::advance(wait).await;
    tokio::time::resume();
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_store_that_finds_no_barbican_costs_those_that_do_no_token() {
    let cloud = cloud().await;
    let sessions = BarbicanSessions::new(gate());
    let open = |config| sessions.open(config).ok().unwrap();
    let right = open(cloud.config(credential(CANARY)));
    let dead_end = || {
        let mut config = cloud.config(credential(CANARY));
        config.endpoint = Some("http://127.0.0.1:1".parse().unwrap());
        config
    };
    let mut nowhere = cloud.config(credential(CANARY));
    nowhere.region = Some("elsewhere".into());
    let (dead, nowhere) = (open(dead_end()), open(nowhere));
    for _ in 0..3 {
        right.check().await.unwrap();
        dead.check().await.unwrap_err();
        nowhere.check().await.unwrap_err();
        later(Duration::from_mins(2)).await;
    }
    assert_eq!(cloud.logins(), 1);

    // No other token would lead it elsewhere, also where nobody else uses this one.
    let alone = BarbicanSessions::new(gate()).open(dead_end()).ok().unwrap();
    for _ in 0..3 {
        alone.check().await.unwrap_err();
        later(Duration::from_mins(2)).await;
    }
    assert_eq!(cloud.logins(), 2);
}

#[tokio::test]
async fn a_catalog_that_led_nowhere_is_looked_at_again_and_its_token_given_back() {
    let cloud = cloud().await;
    let mut config = cloud.config(credential(CANARY));
    config.region = Some("elsewhere".into());
    let store = BarbicanSessions::new(gate()).open(config).ok().unwrap();
    store.check().await.unwrap_err();
    store.check().await.unwrap_err();
    assert_eq!(cloud.logins(), 1, "not at once");
    let first = cloud.state().tokens[0].id.clone();
    later(Duration::from_mins(2)).await;
    store.check().await.unwrap_err();
    let given_back = || cloud.state().tokens.iter().all(|token| token.id != first);
    until("the first token was not given back", given_back).await;
    store.check().await.unwrap_err();
    assert_eq!(cloud.logins(), 2);
}

/// Barbican answers what the access rules of a credential do not list as it answers a bad token.
#[tokio::test]
async fn a_token_that_was_refused_for_its_rights_is_given_back() {
    let cloud = cloud().await;
    cloud.state().credentials[0].rules = vec![("GET".into(), "/v1/containers".into())];
    let store = cloud.store_of(&gate(), credential(CANARY));
    assert!(store.check().await.is_err());
    assert_eq!(cloud.logins(), 2);
    let one_left = || cloud.state().tokens.len() == 1;
    until("two tokens live", one_left).await;
}

#[tokio::test]
async fn a_catalog_that_does_not_lead_to_barbican_is_explained() {
    let cloud = cloud().await;
    for (catalog, told) in [
        (json!(null), "no project scope"),
        (json!([{"type": "compute", "endpoints": []}]), "no key manager"),
        (
            json!([{"type": "key-manager", "endpoints":
                [{"interface": "public", "region_id": "east", "url": "http://127.0.0.1:1"}]}]),
            "`east`",
        ),
        (
            json!([{"type": "key-manager", "endpoints":
                [{"interface": "internal", "region_id": "north", "url": "http://127.0.0.1:1"}]}]),
            "public",
        ),
    ] {
        cloud.state().catalog = catalog;
        let fault = refused(&cloud).await;
        assert!(fault.message.contains(told), "{fault}");
    }
    assert!(cloud.barbican.seen().is_empty());
}

#[tokio::test]
async fn a_plain_endpoint_from_the_catalog_is_refused_by_name() {
    let cloud = cloud().await;
    let mut config = cloud.config(password(CANARY));
    config.transport.plain_http_allowed = false;
    assert_eq!(
        BarbicanSessions::new(gate()).open(config).err().unwrap().reason,
        Reason::InsecureRefused
    );

    cloud.state().catalog = json!([{"type": "key-manager", "endpoints":
        [{"interface": "public", "region_id": "north", "url": "http://169.254.169.254/v1"}]}]);
    let fault = refused(&cloud).await;
    assert_eq!(fault.reason, Reason::AddressRefused);
    assert!(fault.message.contains("169.254.169.254"), "{fault}");
}
