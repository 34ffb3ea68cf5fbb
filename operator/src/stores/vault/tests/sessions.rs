//! Tokens: which answers give one, when one counts as dead, and that none is left behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures::future::join_all;

use super::*;

const REVOKE: &str = "/v1/auth/token/revoke-self";

/// A login's answer with this `auth`.
fn login(auth: &Value) -> Answer {
    enveloped(&Value::Null, auth)
}

/// What a policy denies, as a real server says it.
fn denied_by_policy() -> Answer {
    Answer::json(
        403,
        r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#,
    )
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets time pass for what waits, without waiting.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_login_is_taken_without_what_servers_leave_out() {
    for auth in [
        json!({"client_token": ROOT_TOKEN}),
        // A role without policies.
        json!({"client_token": ROOT_TOKEN, "policies": [], "lease_duration": 60, "renewable": true}),
        json!({
            "client_token": ROOT_TOKEN, "policies": null, "token_policies": null, "lease_duration": null,
            "renewable": null, "mfa_requirement": null,
        }),
    ] {
        let told = auth.to_string();
        let server = vault(move |seen| (seen.path() == LOGIN).then(|| login(&auth))).await;
        let store = store(&server);
        for _ in 0..3 {
            assert!(store.probe(&at("app")).await.is_ok(), "{told}");
        }
        assert_eq!(server.count("POST", LOGIN), 1, "{told}");
    }
}

#[tokio::test]
async fn a_login_that_wants_a_second_factor_is_refused_in_these_words() {
    let auth = json!({
        "client_token": "", "policies": null, "token_policies": null, "lease_duration": 0, "renewable": false,
        "mfa_requirement": {"mfa_request_id": "m-1", "mfa_constraints": {"any": {}}},
    });
    let server = vault(move |seen| (seen.path() == LOGIN).then(|| login(&auth))).await;
    let fault = store(&server).check().await.unwrap_err();
    assert_eq!(fault.reason, Reason::CredentialRejected);
    assert!(fault.message.contains("second factor"), "{fault}");
}

#[tokio::test]
async fn a_login_that_is_not_understood_is_not_repeated_at_once() {
    for answer in [r#"{"auth":null}"#, r#"{"auth":{"client_token":[]}}"#, "welcome"] {
        let server = vault(move |seen| (seen.path() == LOGIN).then(|| Answer::json(200, answer))).await;
        let store = store(&server);
        for _ in 0..3 {
            let fault = store.check().await.unwrap_err();
            assert_eq!(fault.reason, Reason::StoreProtocol, "{answer}");
            assert!(
                fault
                    .retry_after
                    .is_some_and(|wait| wait <= Duration::from_secs(5))
            );
        }
        assert_eq!(
            server.count("POST", LOGIN),
            1,
            "there may be a token behind each: {answer}"
        );
        pass(Duration::from_secs(5)).await;
        assert!(store.check().await.is_err());
        assert_eq!(server.count("POST", LOGIN), 2, "{answer}");
    }
}

/// The server works on the login while its caller goes, and has made the token all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_no_token_behind() {
    let held = Arc::new(AtomicBool::new(true));
    let holding = Arc::clone(&held);
    let server = vault(move |seen| {
        while seen.path() == LOGIN && holding.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    })
    .await;
    let store = Arc::new(store(&server));
    let caller = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.probe(&at("app")).await }
    });
    until("the login is under way", || server.count("POST", LOGIN) == 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    held.store(false, Ordering::SeqCst);
    assert!(store.probe(&at("app")).await.is_ok());
    assert_eq!(server.count("POST", LOGIN), 1, "its outcome is the next caller's");
    store.close().await;
    assert_eq!(server.count("POST", REVOKE), 1);
}

#[tokio::test]
async fn a_dead_token_is_noticed_although_it_was_just_seen_alive() {
    let server = vault(|_| None).await;
    let rules = json!({"path": {"secret/metadata/app": {"capabilities": ["read"]}}});
    server.write("sys/policies/acl/app", &json!({"policy": rules.to_string()}));
    let store = store(&server);
    assert!(store.read(&at("app")).await.is_err(), "the value is denied");
    assert_eq!((server.count("POST", LOGIN), server.count("GET", LOOKUP)), (1, 1));
    server.write("sys/leases/revoke-prefix/auth/approle/login", &json!({}));
    assert!(matches!(store.probe(&at("app")).await, Ok(Probe::Current(_))));
    assert_eq!(server.count("POST", LOGIN), 2);
}

#[tokio::test]
async fn what_was_denied_to_one_token_is_asked_by_the_next() {
    let server = vault(|seen| (seen.path() == METADATA).then(denied_by_policy)).await;
    let store = store(&server);
    for _ in 0..3 {
        assert_eq!(store.probe(&at("app")).await, Ok(Probe::NeedsRead));
    }
    assert_eq!(server.count("GET", METADATA), 1, "it stays denied to this one");
    server.fail(|_| None);
    server.write("sys/leases/revoke-prefix/auth/approle/login", &json!({}));
    assert!(store.read(&at("app")).await.is_ok());
    assert!(matches!(store.probe(&at("app")).await, Ok(Probe::Current(_))));
}

#[tokio::test]
async fn a_token_that_may_not_look_itself_up_is_made_anew_ever_more_rarely() {
    let server = vault(|seen| matches!(seen.path(), METADATA | DATA | LOOKUP).then(denied_by_policy)).await;
    let (store, place) = (store(&server), at("app"));
    let mut logins = vec![];
    for _ in 0..4 {
        for reading in join_all((0..10).map(|_| store.read(&place))).await {
            assert!(reading.is_err_and(|fault| fault.reason == Reason::RemoteDenied));
        }
        logins.push(server.count("POST", LOGIN));
        pass(Duration::from_mins(1)).await;
    }
    assert_eq!(logins, [2, 3, 3, 4]);
    until("each token that was replaced is revoked", || {
        server.count("POST", REVOKE) == 3
    })
    .await;
    store.close().await;
    assert_eq!(server.count("POST", REVOKE), 4);
}

#[tokio::test]
async fn a_given_token_that_may_not_look_itself_up_serves_for_what_it_may_read() {
    let server = vault(|_| None).await;
    let rules = json!({"path": {"secret/metadata/app": {"capabilities": ["read"]}}});
    server.write("sys/policies/acl/app", &json!({"policy": rules.to_string()}));
    let token = json!({"id": "given", "policies": ["app"], "no_default_policy": true});
    let made = server.tell("PUT", "auth/token/create", &token);
    let given = VaultConfig {
        auth: VaultAuth::Token("given".into()),
        ..config(&server)
    };
    let store = VaultStore::new(given).unwrap();
    store.check().await.unwrap();
    assert!(matches!(store.probe(&at("app")).await, Ok(Probe::Current(_))));
    for _ in 0..3 {
        let read = store.read(&at("app")).await;
        assert!(read.is_err_and(|fault| fault.reason == Reason::RemoteDenied));
    }
    assert_eq!(
        server.count("GET", LOOKUP),
        2,
        "at first, and for the first denial"
    );
    let accessor = &made["auth"]["accessor"];
    server.write("auth/token/revoke-accessor", &json!({"accessor": accessor}));
    let fault = store.probe(&at("app")).await.unwrap_err();
    assert_eq!(fault.reason, Reason::CredentialRejected, "it is known no more");
}
