//! Logins, renewals, dead tokens, the end.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;

use super::*;

/// Logs in with `t0`, `t1` and so on; only the newest `alive` ones are accepted.
fn numbered(is_alive: impl Fn(&str) -> bool + Send + Sync) -> impl Fn(&Seen) -> Option<Answer> + Send + Sync {
    let logins = AtomicUsize::new(0);
    move |seen| {
        if path(seen) == LOGIN {
            return Some(granted(
                &format!("t{}", logins.fetch_add(1, Ordering::SeqCst)),
                3600,
                true,
            ));
        }
        let token = seen.header("x-vault-token")?;
        (!is_alive(token)).then(denied)
    }
}

#[tokio::test]
async fn many_callers_share_one_login_and_one_look_at_the_mount() {
    let server = vault(|_| None).await;
    let store = store(&server);
    let place = at("app");
    let probes = join_all((0..30).map(|_| store.probe(&place))).await;
    assert!(
        probes
            .iter()
            .all(|probe| *probe == Ok(Probe::Current(version_3()))),
        "{probes:?}"
    );
    assert_eq!((server.count("POST", LOGIN), server.count("GET", MOUNT)), (1, 1));
    let seen = server.seen();
    let login = seen.iter().find(|seen| path(seen) == LOGIN).unwrap();
    assert_eq!(login.header("x-vault-token"), None);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&login.body).unwrap(),
        serde_json::json!({"role_id": "role", "secret_id": "secret-id"})
    );
    assert!(
        seen.iter()
            .filter(|seen| path(seen) == METADATA)
            .all(|seen| seen.header("x-vault-token") == Some("t0"))
    );
}

#[tokio::test]
async fn a_failed_login_is_shared_by_those_who_waited_and_tried_again_by_later_ones() {
    let server = vault(|seen| (path(seen) == LOGIN).then(|| Answer::json(500, "{}"))).await;
    let store = store(&server);
    let place = at("app");
    for round in 1..=2 {
        let probes = join_all((0..10).map(|_| store.probe(&place))).await;
        assert!(
            probes
                .iter()
                .all(|probe| probe.as_ref().is_err_and(Fault::may_pass)),
            "{probes:?}"
        );
        assert_eq!(server.count("POST", LOGIN), round);
    }
}

#[tokio::test]
async fn a_rejected_credential_is_never_presented_again() {
    let server =
        vault(|seen| (path(seen) == LOGIN).then(|| Answer::json(400, r#"{"errors":["invalid"]}"#))).await;
    let store = store(&server);
    for _ in 0..3 {
        let fault = store.probe(&at("app")).await.unwrap_err();
        assert_eq!(
            (fault.class, fault.reason),
            (Class::Denied, Reason::CredentialRejected)
        );
        assert_eq!(
            store.check().await.unwrap_err().reason,
            Reason::CredentialRejected
        );
    }
    assert_eq!(server.count("POST", LOGIN), 1);
}

#[tokio::test]
async fn each_method_sends_its_own_login() {
    let kubernetes = VaultAuth::Kubernetes {
        mount: "kubernetes/a".into(),
        role: "r".into(),
        jwt: Arc::new(Mint("jwt-1")),
    };
    let jwt = |role: Option<&str>| VaultAuth::Jwt {
        mount: "jwt".into(),
        role: role.map(str::to_owned),
        jwt: Arc::new(Mint("jwt-2")),
    };
    let userpass = VaultAuth::Userpass {
        mount: "userpass".into(),
        username: "a b".into(),
        password: "pw".into(),
    };
    let cert = |role: Option<&str>| VaultAuth::Cert {
        mount: "cert".into(),
        role: role.map(str::to_owned),
    };
    for (auth, target, body) in [
        (
            kubernetes,
            "/v1/auth/kubernetes/a/login",
            r#"{"role":"r","jwt":"jwt-1"}"#,
        ),
        (
            jwt(Some("r")),
            "/v1/auth/jwt/login",
            r#"{"jwt":"jwt-2","role":"r"}"#,
        ),
        (jwt(None), "/v1/auth/jwt/login", r#"{"jwt":"jwt-2"}"#),
        (userpass, "/v1/auth/userpass/login/a%20b", r#"{"password":"pw"}"#),
        (cert(Some("r")), "/v1/auth/cert/login", r#"{"name":"r"}"#),
        (cert(None), "/v1/auth/cert/login", ""),
    ] {
        let server = vault(|seen| path(seen).contains("/login").then(|| granted("t0", 60, true))).await;
        let method = auth.method();
        let store = VaultStore::new(VaultConfig {
            auth,
            ..config(&server)
        })
        .unwrap();
        assert!(store.probe(&at("app")).await.is_ok(), "{method}");
        let login = server.seen().remove(0);
        assert_eq!((login.method.as_str(), login.target.as_str()), ("POST", target));
        assert_eq!(String::from_utf8(login.body).unwrap(), body);
    }
}

#[tokio::test]
async fn login_and_mount_may_live_in_different_namespaces() {
    let server = vault(|_| None).await;
    let store = VaultStore::new(VaultConfig {
        namespace: Some("team/a".into()),
        login_namespace: Some("team".into()),
        ..config(&server)
    })
    .unwrap();
    store.probe(&at("app")).await.unwrap();
    let namespaces: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| seen.header("x-vault-namespace").map(str::to_owned))
        .collect();
    assert_eq!(
        namespaces,
        ["team", "team/a", "team/a"].map(|name| Some(name.to_owned()))
    );
}

#[tokio::test]
async fn a_dead_token_is_replaced_once_for_everybody() {
    let server = vault(numbered(|token| token != "t0")).await;
    let store = store(&server);
    let place = at("app");
    let probes = join_all((0..10).map(|_| store.probe(&place))).await;
    assert!(probes.iter().all(Result::is_ok), "{probes:?}");
    assert_eq!((server.count("POST", LOGIN), server.count("GET", LOOKUP)), (2, 1));
}

#[tokio::test]
async fn a_403_that_names_the_token_needs_no_look_up() {
    let server = vault(|seen| {
        let dead = seen.header("x-vault-token") == Some("t0") && path(seen) == METADATA;
        if dead {
            return Some(Answer::json(
                403,
                r#"{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}"#,
            ));
        }
        None
    })
    .await;
    let store = store(&server);
    // The login always gives `t0`, so the repeated call is denied as well, and then it is the policy's word.
    assert_eq!(store.probe(&at("app")).await.unwrap(), Probe::NeedsRead);
    assert_eq!((server.count("POST", LOGIN), server.count("GET", LOOKUP)), (2, 0));
}

#[tokio::test]
async fn a_denied_policy_costs_one_look_up_and_no_login() {
    let server = vault(|seen| path(seen).starts_with(DATA).then(denied)).await;
    let store = store(&server);
    for _ in 0..3 {
        let Err(fault) = store.read(&at("app")).await else {
            panic!("the read is denied")
        };
        assert_eq!((fault.class, fault.reason), (Class::Denied, Reason::RemoteDenied));
        assert!(fault.advice.contains("`secret/data/app`"), "{fault}");
    }
    assert_eq!((server.count("POST", LOGIN), server.count("GET", LOOKUP)), (1, 1));
}

#[tokio::test]
async fn a_token_that_may_not_look_itself_up_is_not_made_anew_for_every_denied_call() {
    let server = vault(|seen| (path(seen).starts_with(DATA) || path(seen) == LOOKUP).then(denied)).await;
    let store = store(&server);
    for _ in 0..3 {
        assert!(
            store
                .read(&at("app"))
                .await
                .is_err_and(|fault| fault.reason == Reason::RemoteDenied)
        );
    }
    assert_eq!((server.count("POST", LOGIN), server.count("GET", LOOKUP)), (2, 1));
}

#[tokio::test]
async fn a_dead_token_made_elsewhere_is_rejected_and_remembered() {
    let server = vault(numbered(|_| false)).await;
    let auth = VaultAuth::Token("mine".into());
    rejected_once(&server, auth).await;
}

#[tokio::test]
async fn a_token_made_elsewhere_that_dies_later_is_rejected_too() {
    let lookups = AtomicUsize::new(0);
    let server = vault(move |seen| match path(seen) {
        LOOKUP => (lookups.fetch_add(1, Ordering::SeqCst) > 0).then(denied),
        DATA => Some(denied()),
        _ => None,
    })
    .await;
    let auth = VaultAuth::Token("mine".into());
    let store = VaultStore::new(VaultConfig {
        auth,
        ..config(&server)
    })
    .unwrap();
    for _ in 0..2 {
        assert!(
            store
                .read(&at("app"))
                .await
                .is_err_and(|fault| fault.reason == Reason::CredentialRejected)
        );
    }
    assert_eq!((server.count("GET", DATA), server.count("GET", LOOKUP)), (1, 2));
}

#[tokio::test]
async fn a_renewable_token_is_renewed_before_it_ends_without_anybody_asking() {
    let server = vault(|seen| match path(seen) {
        LOGIN | "/v1/auth/token/renew-self" => Some(granted("t0", 1, true)),
        _ => None,
    })
    .await;
    let store = store(&server);
    store.probe(&at("app")).await.unwrap();
    until("the second renewal", || {
        server.count("POST", "/v1/auth/token/renew-self") >= 2
    })
    .await;
    store.probe(&at("app")).await.unwrap();
    assert_eq!(server.count("POST", LOGIN), 1);
}

#[tokio::test]
async fn a_renewal_that_fails_for_now_is_tried_again_and_a_denied_one_is_not() {
    let renewals = AtomicUsize::new(0);
    let server = vault(move |seen| match path(seen) {
        LOGIN => Some(granted("t0", 6, true)),
        "/v1/auth/token/renew-self" if renewals.fetch_add(1, Ordering::SeqCst) == 0 => {
            Some(Answer::json(500, "{}"))
        }
        "/v1/auth/token/renew-self" => Some(denied()),
        _ => None,
    })
    .await;
    let store = store(&server);
    store.probe(&at("app")).await.unwrap();
    until("the second attempt", || {
        server.count("POST", "/v1/auth/token/renew-self") == 2
    })
    .await;
    // Once the token has ended, the next caller logs in.
    probe_until_logged_in_twice(&store, &server).await;
    assert_eq!(
        (
            server.count("POST", LOGIN),
            server.count("POST", "/v1/auth/token/renew-self")
        ),
        (2, 2)
    );
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_made_anew_when_it_is_needed() {
    let server = vault(|seen| (path(seen) == LOGIN).then(|| granted("t0", 1, false))).await;
    let store = store(&server);
    store.probe(&at("app")).await.unwrap();
    probe_until_logged_in_twice(&store, &server).await;
    assert_eq!(server.count("POST", "/v1/auth/token/renew-self"), 0);
}

/// Every probe on the way must succeed.
async fn probe_until_logged_in_twice(store: &VaultStore, server: &StandIn) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while server.count("POST", LOGIN) < 2 {
        assert!(
            std::time::Instant::now() < deadline,
            "the second login did not come about"
        );
        store.probe(&at("app")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_refused_login_with_a_minted_token_pauses() {
    let server = vault(|seen| path(seen).ends_with("/login").then(denied)).await;
    let auth = VaultAuth::Kubernetes {
        mount: "kubernetes".into(),
        role: "r".into(),
        jwt: Arc::new(Mint("jwt")),
    };
    rejected_once(&server, auth).await;
}

#[tokio::test]
async fn closing_revokes_our_token_and_leaves_others_alone() {
    for (auth, revoked) in [(app_role(), 1), (VaultAuth::Token("mine".into()), 0)] {
        let server = vault(|_| None).await;
        let store = VaultStore::new(VaultConfig {
            auth,
            ..config(&server)
        })
        .unwrap();
        store.probe(&at("app")).await.unwrap();
        store.close().await;
        store.close().await;
        assert_eq!(server.count("POST", "/v1/auth/token/revoke-self"), revoked);
        let before = server.seen().len();
        assert!(store.probe(&at("app")).await.is_err());
        assert_eq!(server.seen().len(), before);
    }
}

#[tokio::test]
async fn a_store_that_was_never_used_closes_without_a_call() {
    let server = vault(|_| None).await;
    store(&server).close().await;
    assert!(server.seen().is_empty());
}

/// Asks three times with a login that is refused: it is shown to the server once.
async fn rejected_once(server: &StandIn, auth: VaultAuth) {
    let store = VaultStore::new(VaultConfig {
        auth,
        ..config(server)
    })
    .unwrap();
    for _ in 0..3 {
        assert_eq!(
            store.probe(&at("app")).await.unwrap_err().reason,
            Reason::CredentialRejected
        );
    }
    assert_eq!(server.seen().len(), 1);
}
