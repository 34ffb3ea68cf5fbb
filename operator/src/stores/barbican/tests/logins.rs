//! Tokens and credentials.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use serde_json::json;

use super::super::config::{KeystoneAuth, ProjectRef, UserRef};
use super::super::keystone::Keystone;
use super::super::testing::{Secret, credential, gate, password};
use super::super::tokens::Tokens;
use super::super::{BarbicanSessions, BarbicanStore};
use super::*;
use crate::stores::pool::Pool;
use crate::stores::transport::TransportOptions;
use crate::stores::transport::stand_in::Answer;

async fn cloud() -> Cloud {
    Cloud::start(vec![Secret::new(1, "db", 1)]).await
}

async fn refused(cloud: &Cloud) -> Fault {
    cloud.store().check().await.unwrap_err()
}

#[tokio::test]
async fn many_calls_at_once_share_one_login() {
    let cloud = cloud().await;
    let store = cloud.store();
    let place = id(1);
    let probes = join_all((0..50).map(|_| store.probe(&place))).await;
    assert!(
        probes
            .into_iter()
            .all(|probe| matches!(probe, Ok(Probe::Current(_))))
    );
    assert_eq!(cloud.logins(), 1);
    assert_eq!(cloud.barbican.count("GET", "/"), 1);
}

#[tokio::test]
async fn an_application_credential_logs_in_with_one_call() {
    let cloud = cloud().await;
    let store = BarbicanSessions::new(gate())
        .open(cloud.config(credential(CANARY)))
        .ok()
        .unwrap();
    store.check().await.unwrap();
    assert_eq!(cloud.keystone.count("POST", "/v3/auth/tokens"), 1);
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
    assert_eq!((cloud.logins(), cloud.state().tokens.len()), (1, 1));
    for store in &stores[1..] {
        store.close().await;
        assert!(store.check().await.is_err());
    }
    stores[0].check().await.unwrap();
    assert_eq!((cloud.logins(), cloud.state().tokens.len()), (1, 1));
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
async fn ten_stores_with_one_wrong_password_show_it_once() {
    let cloud = cloud().await;
    let gate = gate();
    let stores: Vec<BarbicanStore> = (0..10)
        .map(|n| {
            // Neither the project nor the spelling of the address makes it another password.
            let mut config = cloud.config(password("wrong"));
            if let KeystoneAuth::Password { project, .. } = &mut config.auth {
                *project = ProjectRef::Id(format!("project-{n}"));
            }
            if n % 2 == 0 {
                config.auth_url.set_path("/v3/");
            }
            BarbicanSessions::new(Arc::clone(&gate))
                .open(config)
                .ok()
                .unwrap()
        })
        .collect();
    for _ in 0..5 {
        for outcome in join_all(stores.iter().map(Store::check)).await {
            let fault = outcome.unwrap_err();
            assert_eq!(
                (fault.class, fault.reason),
                (Class::Denied, Reason::CredentialRejected)
            );
        }
    }
    assert_eq!(cloud.logins(), 1);

    let right = BarbicanSessions::new(gate)
        .open(cloud.config(password(CANARY)))
        .ok()
        .unwrap();
    right.check().await.unwrap();
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
async fn a_wrong_project_is_not_taken_for_a_wrong_password() {
    let cloud = cloud().await;
    let gate = gate();
    let mut config = cloud.config(password(CANARY));
    if let KeystoneAuth::Password { project, .. } = &mut config.auth {
        *project = ProjectRef::Id("other".into());
    }
    let fault = BarbicanSessions::new(Arc::clone(&gate))
        .open(config)
        .ok()
        .unwrap()
        .check()
        .await
        .unwrap_err();
    assert!(fault.advice.contains("project"), "{fault}");
    let right = BarbicanSessions::new(gate)
        .open(cloud.config(password(CANARY)))
        .ok()
        .unwrap();
    right.check().await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_to_an_unproven_password_is_not_repeated_at_once() {
    let cloud = cloud().await;
    cloud.state().login_fault = Some(|| Answer::Cut(b"{}".to_vec()));
    let store = cloud.store();
    for _ in 0..5 {
        let fault = store.check().await.unwrap_err();
        assert_eq!(fault.class, Class::Transient);
    }
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

#[tokio::test]
async fn a_short_token_is_renewed_before_its_end() {
    let cloud = cloud().await;
    cloud.state().token_seconds = 1;
    let store = cloud.store();
    let place = id(1);
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while cloud.logins() < 3 {
        store.probe(&place).await.unwrap();
        assert!(tokio::time::Instant::now() < end, "the token was not renewed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_left_of_a_token_is_used_while_keystone_is_away() {
    let cloud = cloud().await;
    cloud.state().token_seconds = 4;
    let store = cloud.store();
    store.check().await.unwrap();
    cloud.state().login_fault = Some(|| Answer::json(503, ""));
    let tries = cloud.logins();
    let end = tokio::time::Instant::now() + Duration::from_millis(3700);
    while tokio::time::Instant::now() < end {
        store.check().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(cloud.logins() > tries, "a renewal was tried");
}

#[tokio::test]
async fn a_dead_token_is_replaced_once_for_all() {
    let cloud = cloud().await;
    let store = cloud.store();
    store.check().await.unwrap();
    cloud.state().tokens.clear();
    let place = id(1);
    for outcome in join_all((0..20).map(|_| store.probe(&place))).await {
        current(outcome.unwrap());
    }
    assert_eq!(cloud.logins(), 2);
}

#[tokio::test]
async fn a_second_refusal_stops_and_is_not_repeated_for_each_object() {
    let cloud = cloud().await;
    cloud.state().fault = Some(|_| Some(Answer::json(401, "{}")));
    let store = cloud.store();
    for _ in 0..30 {
        let fault = store.check().await.unwrap_err();
        assert_eq!((fault.class, fault.reason), (Class::Denied, Reason::RemoteDenied));
    }
    assert_eq!(cloud.logins(), 2);
}

#[tokio::test]
async fn a_closed_session_gives_its_token_back_and_takes_no_other() {
    let cloud = cloud().await;
    let store = cloud.store();
    store.check().await.unwrap();
    assert_eq!(cloud.state().tokens.len(), 1);
    store.close().await;
    assert!(cloud.state().tokens.is_empty());
    assert_eq!(store.check().await.unwrap_err().reason, Reason::StoreNotReady);
    assert_eq!(cloud.logins(), 1);
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
    assert!(fault.message.contains("http://169.254.169.254"), "{fault}");
}

#[tokio::test]
async fn an_endpoint_in_the_store_goes_before_the_catalog() {
    let cloud = cloud().await;
    cloud.state().catalog = json!(null);
    let mut config = cloud.config(password(CANARY));
    config.endpoint = Some(cloud.barbican.url());
    let store = BarbicanSessions::new(gate()).open(config).ok().unwrap();
    store.check().await.unwrap();
}

#[tokio::test]
async fn keystone_faults_have_their_class() {
    let cloud = cloud().await;
    for (fault, class) in [
        ((|| Answer::json(503, "")) as fn() -> Answer, Class::Transient),
        (
            || Answer::json(429, "").with_header("retry-after", "3"),
            Class::Throttled,
        ),
        (
            || Answer::json(302, "").with_header("location", "http://127.0.0.1:1/"),
            Class::Permanent,
        ),
        (|| Answer::json(201, "{}"), Class::Transient),
        (|| Answer::json(403, "{}"), Class::Denied),
        (|| Answer::json(404, "{}"), Class::Permanent),
        (|| Answer::json(400, "{}"), Class::Permanent),
    ] {
        cloud.state().login_fault = Some(fault);
        let told = refused(&cloud).await;
        assert_eq!(told.class, class, "{told}");
    }
}
