//! Stores that share a session, and what keeps them apart.

use futures::future::join_all;

use super::*;
use crate::stores::transport::Identity;

const REVOKE: &str = "/v1/auth/token/revoke-self";

type Change = Box<dyn FnOnce(&mut VaultConfig)>;

fn opened(sessions: &VaultSessions, server: &Vault, change: impl Fn(&mut VaultConfig)) -> VaultStore {
    let mut config = config(server);
    change(&mut config);
    sessions.open(config).unwrap()
}

#[tokio::test]
async fn stores_with_one_credential_log_in_once_and_the_last_to_close_revokes() {
    let server = vault(|_| None).await;
    let sessions = VaultSessions::default();
    let mut stores: Vec<_> = (0..3)
        .map(|number| {
            opened(&sessions, &server, |config| {
                // What is read afterwards does not matter.
                config.login_namespace = Some("team".into());
                config.namespace = (number == 1).then(|| "team/a".to_owned());
                if number == 2 {
                    config.kv_version = KvVersion::V2;
                }
            })
        })
        .collect();
    let place = at("app");
    assert!(
        join_all(stores.iter().map(|store| store.probe(&place)))
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(server.count("POST", LOGIN), 1);
    let last = stores.pop().unwrap();
    for store in &stores {
        store.close().await;
        assert!(store.probe(&place).await.is_err(), "a closed store is out of use");
    }
    assert_eq!(server.count("POST", REVOKE), 0);
    last.probe(&place).await.unwrap();
    assert_eq!(server.count("POST", LOGIN), 1);
    last.close().await;
    assert_eq!(server.count("POST", REVOKE), 1);

    let next = opened(&sessions, &server, |config| {
        config.login_namespace = Some("team".into());
    });
    next.probe(&place).await.unwrap();
    assert_eq!(
        server.count("POST", LOGIN),
        2,
        "what was revoked is not found again"
    );
}

#[tokio::test]
async fn any_difference_in_where_as_whom_or_over_which_trust_keeps_stores_apart() {
    let server = vault(|_| None).await;
    let by = |auth: VaultAuth| move |config: &mut VaultConfig| config.auth = auth;
    let role = |mount: &str, role_id: &str, secret_id: &str| VaultAuth::AppRole {
        mount: mount.into(),
        role_id: role_id.into(),
        secret_id: secret_id.into(),
    };
    let kubernetes = |token| VaultAuth::Kubernetes {
        mount: "approle".into(),
        role: "role".into(),
        jwt: Arc::new(Mint(token)),
    };
    let jwt = |role: Option<&str>| VaultAuth::Jwt {
        mount: "approle".into(),
        role: role.map(str::to_owned),
        jwt: Arc::new(Mint("a")),
    };
    let cert = |key: &'static str| {
        move |config: &mut VaultConfig| {
            config.auth = VaultAuth::Cert {
                mount: "approle".into(),
                role: None,
            };
            config.transport.identity = Some(Identity {
                certificate_pem: b"certificate".to_vec(),
                key_pem: key.into(),
            });
        }
    };
    let changes: Vec<Change> = vec![
        Box::new(|_| ()),
        Box::new(by(role("other", "role", "secret-id"))),
        Box::new(by(role("approle", "other", "secret-id"))),
        Box::new(by(role("approle", "role", "other"))),
        Box::new(by(kubernetes("a"))),
        Box::new(by(kubernetes("b"))),
        Box::new(by(jwt(None))),
        Box::new(by(jwt(Some("role")))),
        Box::new(by(VaultAuth::Token("secret-id".into()))),
        Box::new(by(VaultAuth::Token("other".into()))),
        Box::new(by(VaultAuth::Userpass {
            mount: "approle".into(),
            username: "role".into(),
            password: "secret-id".into(),
        })),
        Box::new(cert("one")),
        Box::new(cert("two")),
        Box::new(|config| config.address.set_path("/other")),
        Box::new(|config| config.login_namespace = Some("other".into())),
        Box::new(|config| config.transport.ca_pem = Some(b"ca".to_vec())),
        Box::new(|config| config.transport.server_name = Some("other".into())),
        Box::new(|config| config.transport.verify = false),
        Box::new(|config| config.transport.plain_http_allowed = false),
    ];
    let sessions = VaultSessions::default();
    let mut seen = std::collections::HashSet::new();
    for (number, change) in changes.into_iter().enumerate() {
        let mut config = config(&server);
        change(&mut config);
        let digest = sessions.pool.digest(&config.session_key());
        assert!(seen.insert(digest), "difference {number} makes none");
    }
    let mut config = config(&server);
    config.mount = "another".into();
    config.kv_version = KvVersion::V1;
    assert!(seen.contains(&sessions.pool.digest(&config.session_key())));
}

#[tokio::test]
async fn a_refused_credential_is_refused_once_for_all_who_share_it() {
    let server =
        vault(|seen| (seen.path() == LOGIN).then(|| Answer::json(400, r#"{"errors":["invalid"]}"#))).await;
    let sessions = VaultSessions::default();
    let mut stores = Vec::new();
    for _ in 0..10 {
        stores.push(opened(&sessions, &server, |_| ()));
        for outcome in join_all(stores.iter().map(Store::check)).await {
            assert_eq!(outcome.unwrap_err().reason, Reason::CredentialRejected);
        }
    }
    // One that leaves does not give the others another try.
    for store in stores.drain(1..) {
        store.close().await;
    }
    assert!(stores[0].check().await.is_err());
    assert_eq!(server.count("POST", LOGIN), 1);
}

#[tokio::test]
async fn a_refusal_outlives_the_stores_that_met_it_until_the_server_has_forgotten_it() {
    let server =
        vault(|seen| (seen.path() == LOGIN).then(|| Answer::json(400, r#"{"errors":["invalid"]}"#))).await;
    let sessions = VaultSessions::default();
    // Each edit of a store, or of the Secret that it names, is a new store with the same credential.
    for _ in 0..5 {
        let store = opened(&sessions, &server, |_| ());
        let fault = store.check().await.unwrap_err();
        assert_eq!(fault.reason, Reason::CredentialRejected);
        store.close().await;
    }
    assert_eq!(server.count("POST", LOGIN), 1);
    let another = opened(&sessions, &server, |config| {
        config.auth = VaultAuth::AppRole {
            mount: "approle".into(),
            role_id: "role".into(),
            secret_id: "another".into(),
        };
    });
    assert!(another.check().await.is_err());
    assert_eq!(server.count("POST", LOGIN), 2, "that is another credential");

    server.fail(|_| None);
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(20)).await;
    tokio::time::resume();
    let store = opened(&sessions, &server, |_| ());
    store.check().await.unwrap();
    assert_eq!(
        server.count("POST", LOGIN),
        3,
        "a lock-out does not outlive itself"
    );
}
