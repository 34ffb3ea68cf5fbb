//! Answers that a real server cannot be made to give, or gives only in another version or edition.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::future::join_all;

use chrono::TimeDelta;

use super::*;
use crate::stores::Reading;

const HOUR: TimeDelta = TimeDelta::hours(1);

#[tokio::test]
async fn a_value_comes_exactly_as_it_is_spelled() {
    let exact = r#"{"n":12345678901234567890.1000,"nested":{"b":[1, 2]},"a":"\u0041 ü"}"#;
    let body = format!(
        r#"{{"data":{{"data":{exact},"metadata":{{"created_time":"2026-01-03T00:00:00.5Z","custom_metadata":null,
        "deletion_time":"","destroyed":false,"version":3}}}}}}"#
    );
    let server = vault(move |seen| (seen.path() == DATA).then(|| Answer::json(200, &body))).await;
    let Ok(ReadOutcome::Value(Reading { version, payload })) = store(&server).read(&at("app")).await else {
        panic!("there is a value")
    };
    let created = Some("2026-01-03T00:00:00.5Z".parse().unwrap());
    let expected = RemoteVersion {
        number: Some(3),
        created,
        ..RemoteVersion::default()
    };
    assert_eq!(version, expected);
    let Payload::Json(json) = payload else {
        panic!("it is JSON")
    };
    assert_eq!(json.expose_str(), Some(exact));
}

type Make = fn() -> Answer;

#[tokio::test]
async fn faults_of_server_and_way_are_never_taken_for_an_absence() {
    let wait = Some(Duration::from_secs(7));
    let cases: [(Make, Class, Reason, Option<Duration>); 7] = [
        (
            || Answer::json(429, "{}").with_header("retry-after", "7"),
            Class::Throttled,
            Reason::StoreThrottled,
            wait,
        ),
        (
            || Answer::json(502, "<html>"),
            Class::Transient,
            Reason::StoreUnavailable,
            None,
        ),
        (
            || Answer::Cut(vec![b'{'; 100]),
            Class::Transient,
            Reason::StoreUnavailable,
            None,
        ),
        (
            || Answer::json(200, "{\"data\": garbage"),
            Class::Transient,
            Reason::StoreProtocol,
            None,
        ),
        (
            || Answer::json(404, "<html>no such page"),
            Class::Transient,
            Reason::StoreProtocol,
            None,
        ),
        (
            || Answer::json(404, r#"{"message":"no Route matched with those values"}"#),
            Class::Transient,
            Reason::StoreProtocol,
            None,
        ),
        (
            || Answer::json(307, "").with_header("location", "http://127.0.0.1:1/"),
            Class::Transient,
            Reason::StoreProtocol,
            None,
        ),
    ];
    for (make, class, reason, retry_after) in cases {
        let server = vault(move |seen| matches!(seen.path(), DATA | METADATA).then(make)).await;
        let store = store(&server);
        let Err(read) = store.read(&at("app")).await else {
            panic!("{reason:?}: the read must fail")
        };
        let probe = store.probe(&at("app")).await.unwrap_err();
        for fault in [read, probe] {
            assert_eq!(
                (fault.class, fault.reason, fault.retry_after),
                (class, reason, retry_after),
                "{fault}"
            );
        }
    }
}

#[tokio::test]
async fn a_gateway_without_a_server_is_not_a_sealed_store() {
    for body in ["<html>503 Service Unavailable", "{}", r#"{"sealed":false}"#] {
        let server = vault(move |seen| (seen.path() == HEALTH).then(|| Answer::json(503, body))).await;
        let fault = store(&server).check().await.unwrap_err();
        let told = (fault.class, fault.reason);
        assert_eq!(told, (Class::Transient, Reason::StoreUnavailable), "{body}");
    }
}

/// Our clock is an hour ahead of the server's, which deletes the version in half an hour.
#[tokio::test]
async fn whether_a_deletion_has_come_is_for_the_servers_clock_to_say() {
    let (server_time, deletion) = (
        crate::runtime::clock::now() - HOUR,
        crate::runtime::clock::now() - HOUR / 2,
    );
    let server = vault(move |seen| {
        let version = json!({
            "created_time": "2026-01-03T00:00:00Z", "custom_metadata": null, "destroyed": false,
            "deletion_time": deletion.to_rfc3339(), "version": 3,
        });
        let answer = match seen.path() {
            METADATA => json!({
                "cas_required": false, "created_time": "2026-01-03T00:00:00Z", "current_version": 3,
                "custom_metadata": null, "delete_version_after": "90m", "max_versions": 0, "oldest_version": 0,
                "updated_time": "2026-01-03T00:00:00Z", "versions": {"3": version},
            }),
            DATA => json!({"data": {"password": "p"}, "metadata": version}),
            _ => return None,
        };
        let date = server_time.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        Some(enveloped(&answer, &Value::Null).with_header("date", &date))
    })
    .await;
    let store = store(&server);
    let Ok(Probe::Current(version)) = store.probe(&at("app")).await else {
        panic!("the server still has it")
    };
    assert_eq!(
        version.expires.map(|at| at.timestamp()),
        Some(deletion.timestamp())
    );
    let Ok(ReadOutcome::Value(reading)) = store.read(&at("app")).await else {
        panic!("the server gives it")
    };
    assert_eq!(reading.version, version);
}

#[tokio::test]
async fn a_mount_is_called_by_another_name_only_where_that_is_part_of_its_own() {
    for path in ["another/", "sec/", "secret/below/", "secre/", "/", ""] {
        let info = json!({"type": "kv", "options": {"version": "2"}, "path": path});
        let server = vault(move |seen| (seen.path() == MOUNT).then(|| enveloped(&info, &Value::Null))).await;
        let fault = store(&server).check().await.unwrap_err();
        assert_eq!(fault.reason, Reason::SpecInvalid, "{path}");
        assert_eq!(
            fault.to_string(),
            "`secret` is no mount; name a KV mount",
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_slow_server_is_cut_off() {
    let server = vault(|seen| (seen.path() == METADATA).then_some(Answer::Hang)).await;
    let mut slow = config(&server);
    slow.transport.deadline = Duration::from_millis(200);
    let fault = VaultStore::new(slow)
        .unwrap()
        .probe(&at("app"))
        .await
        .unwrap_err();
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Transient, Reason::StoreUnavailable)
    );
}

#[tokio::test]
async fn a_tree_without_an_end_is_given_up() {
    let endless = || enveloped(&json!({"keys": ["down/"]}), &Value::Null);
    let server = vault(move |seen| (seen.method == "LIST").then(endless)).await;
    let fault = store(&server)
        .find(&query("app", &[]), &Unpaced)
        .await
        .unwrap_err();
    assert_eq!(fault.reason, Reason::FindLimit);
}

/// Repeats what was one too many, without waiting.
#[derive(Default)]
struct Patient(AtomicUsize);

impl Pacer for Patient {
    fn turn(&self) -> BoxFuture<'_, ()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(()))
    }

    fn ended(&self, _: Sent, fault: Option<&Fault>) -> bool {
        fault.is_some_and(|fault| fault.reason == Reason::StoreThrottled)
    }
}

#[tokio::test]
async fn a_search_repeats_what_was_one_too_many_and_nothing_else() {
    const LIST: &str = "/v1/secret/metadata/team";
    let refusals = AtomicUsize::new(0);
    let server = vault(move |seen| {
        let limited = matches!(seen.path(), LIST | "/v1/secret/metadata/team/b");
        let refused = limited && refusals.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        refused.then(|| Answer::json(429, "{}"))
    })
    .await;
    for path in ["a", "b", "c"] {
        server.write(&format!("secret/data/team/{path}"), &json!({"data": {}}));
        let tags = json!({"custom_metadata": {"team": "x"}});
        server.write(&format!("secret/metadata/team/{path}"), &tags);
    }
    let (store, pacer) = (store(&server), Patient::default());
    let found = store
        .find(&query("team", &[("team", "x")]), &pacer)
        .await
        .unwrap();
    assert_eq!(found.len(), 3);
    let sent = [
        ("LIST", "/v1/secret/detailed-metadata/team", 1),
        ("LIST", LIST, 2),
        ("GET", "/v1/secret/metadata/team/a", 1),
        ("GET", "/v1/secret/metadata/team/b", 2),
        ("GET", "/v1/secret/metadata/team/c", 1),
    ];
    for (method, path, times) in sent {
        assert_eq!(server.count(method, path), times, "{method} {path}");
    }
    assert_eq!(pacer.0.load(Ordering::SeqCst), 7, "each has a turn of its own");
}

#[tokio::test]
async fn a_list_with_metadata_that_is_too_large_is_asked_for_by_names() {
    let server = vault_of(Product::OpenBao, |_| None).await;
    for number in 0..20 {
        server.write(&format!("secret/data/team/{number:02}"), &json!({"data": {}}));
        let tags = json!({"custom_metadata": {"team": "x", "note": "n".repeat(400)}});
        server.write(&format!("secret/metadata/team/{number:02}"), &tags);
    }
    let mut small = config(&server);
    small.transport.max_body = 4_000;
    let store = VaultStore::new(small).unwrap();
    let query = FindQuery {
        limit: 20,
        ..query("team", &[("team", "x")])
    };
    assert_eq!(store.find(&query, &Unpaced).await.unwrap().len(), 20);
    assert_eq!(server.count("LIST", "/v1/secret/metadata/team"), 1);
}

#[tokio::test]
async fn a_failed_login_is_shared_by_those_who_waited_and_tried_again_by_later_ones() {
    let server = vault(|seen| (seen.path() == LOGIN).then(|| Answer::json(500, "{}"))).await;
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
async fn a_403_that_names_the_token_needs_no_look_up() {
    let dead = || {
        Answer::json(
            403,
            r#"{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}"#,
        )
    };
    let server = vault(move |seen| matches!(seen.path(), METADATA | DATA).then(dead)).await;
    // The repeated call is denied as well, and then it is the policy's word.
    let store = store(&server);
    assert_eq!(store.probe(&at("app")).await.unwrap(), Probe::NeedsRead);
    assert_eq!((server.count("POST", LOGIN), server.count("GET", LOOKUP)), (2, 0));
    for _ in 0..3 {
        assert!(store.read(&at("app")).await.is_err());
    }
    let made = server.count("POST", LOGIN);
    assert_eq!(
        made, 2,
        "a server that calls new tokens dead is not asked for ever new ones"
    );
}

#[tokio::test]
async fn a_renewal_that_fails_for_now_is_tried_again_and_a_denied_one_is_not() {
    const RENEW: &str = "/v1/auth/token/renew-self";
    let renewals = AtomicUsize::new(0);
    let server = vault(move |seen| match seen.path() {
        LOGIN => Some(granted(6)),
        RENEW if renewals.fetch_add(1, Ordering::SeqCst) == 0 => Some(Answer::json(500, "{}")),
        RENEW => Some(denied()),
        _ => None,
    })
    .await;
    let store = store(&server);
    let deadline = Instant::now() + Duration::from_secs(20);
    // Once the token has ended, the next caller logs in. Every probe on the way works.
    while server.count("POST", LOGIN) < 2 {
        assert!(Instant::now() < deadline, "the second login did not come about");
        store.probe(&at("app")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((server.count("POST", LOGIN), server.count("POST", RENEW)), (2, 2));
}

/// Namespaces are Vault Enterprise's and OpenBao's.
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
