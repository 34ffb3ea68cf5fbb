//! Probes and reads: what each answer means, and what it costs.

use super::super::kv::{check_path, probe_of};
use super::*;
use crate::stores::Reading;

async fn read(server: &StandIn) -> Outcome<ReadOutcome> {
    store(server).read(&at("app")).await
}

fn json(outcome: Outcome<ReadOutcome>) -> (RemoteVersion, String) {
    match outcome {
        Ok(ReadOutcome::Value(Reading {
            version,
            payload: Payload::Json(json),
        })) => (version, json.expose_str().unwrap().to_owned()),
        Ok(ReadOutcome::Value(_)) => panic!("not JSON"),
        Ok(ReadOutcome::Absent(absence)) => panic!("absent: {absence:?}"),
        Err(fault) => panic!("{fault:?}"),
    }
}

fn absence(outcome: Outcome<ReadOutcome>) -> Absence {
    match outcome {
        Ok(ReadOutcome::Absent(absence)) => absence,
        Ok(ReadOutcome::Value(_)) => panic!("a value"),
        Err(fault) => panic!("{fault:?}"),
    }
}

#[tokio::test]
async fn a_value_comes_exactly_as_it_was_written() {
    let exact = r#"{"n":12345678901234567890.1000,"nested":{"b":[1, 2]},"a":"\u0041 ü"}"#;
    let server = vault(move |seen| (path(seen) == DATA).then(|| data(&value(exact, "", false)))).await;
    assert_eq!(json(read(&server).await), (version_3(), exact.to_owned()));
}

#[tokio::test]
async fn a_pinned_version_is_asked_for() {
    let server = vault(|_| None).await;
    let place = RemoteRef {
        version: Some(3),
        ..at("app")
    };
    let store = store(&server);
    assert_eq!(store.probe(&place).await.unwrap(), Probe::Current(version_3()));
    json(store.read(&place).await);
    assert_eq!(
        server.seen().last().unwrap().target,
        "/v1/secret/data/app?version=3"
    );
    let older = RemoteRef {
        version: Some(2),
        ..at("app")
    };
    assert_eq!(
        store.probe(&older).await.unwrap(),
        Probe::Absent(Absence::NotFound)
    );
}

#[tokio::test]
async fn the_ways_of_being_gone_are_told_apart() {
    let past = "2026-01-04T00:00:00Z";
    for (deletion, destroyed, expected) in [
        (past, false, Absence::Deleted),
        ("", true, Absence::Destroyed),
        (past, true, Absence::Destroyed),
    ] {
        let server = vault(move |seen| match path(seen) {
            METADATA => Some(data(&metadata(3, deletion, destroyed))),
            DATA => Some(Answer::json(
                404,
                &envelope(&value("null", deletion, destroyed), "null"),
            )),
            _ => None,
        })
        .await;
        assert_eq!(
            store(&server).probe(&at("app")).await.unwrap(),
            Probe::Absent(expected)
        );
        assert_eq!(absence(read(&server).await), expected);
    }
    let server = vault(|_| None).await;
    assert_eq!(
        store(&server).probe(&at("other")).await.unwrap(),
        Probe::Absent(Absence::NotFound)
    );
    assert_eq!(
        absence(store(&server).read(&at("other")).await),
        Absence::NotFound
    );
}

#[tokio::test]
async fn a_deletion_to_come_is_an_expiry() {
    let server = vault(|seen| match path(seen) {
        METADATA => Some(data(&metadata(3, "2999-01-01T00:00:00Z", false))),
        DATA => Some(data(&value("{}", "2999-01-01T00:00:00Z", false))),
        _ => None,
    })
    .await;
    let expected = RemoteVersion {
        expires: Some("2999-01-01T00:00:00Z".parse().unwrap()),
        ..version_3()
    };
    assert_eq!(
        store(&server).probe(&at("app")).await.unwrap(),
        Probe::Current(expected.clone())
    );
    assert_eq!(json(read(&server).await).0, expected);
}

#[test]
fn metadata_without_any_version_is_an_empty_place() {
    let metadata = serde_json::from_str(&metadata(0, "", false)).unwrap();
    let now = "2026-02-01T00:00:00Z".parse().unwrap();
    assert_eq!(
        probe_of(&metadata, None, now),
        Some(Probe::Absent(Absence::Empty))
    );
}

#[test]
fn metadata_with_unreadable_times_is_not_guessed_at() {
    let now = "2026-02-01T00:00:00Z".parse().unwrap();
    let metadata = serde_json::from_str(&metadata(3, "tomorrow", false)).unwrap();
    assert_eq!(probe_of(&metadata, None, now), None);
}

#[test]
fn paths_that_would_lead_elsewhere_are_refused() {
    for path in ["", "/a", "a/", "a//b", "a/../b", "./a", "a/\tb", "a\n"] {
        assert_eq!(
            check_path(path).unwrap_err().reason,
            Reason::SpecInvalid,
            "{path:?}"
        );
    }
    for path in ["a", "a/b", "a b/ü", "a/.b", "a/...", "%2e%2e/a"] {
        assert!(check_path(path).is_ok(), "{path:?}");
    }
}

#[tokio::test]
async fn a_policy_that_denies_metadata_is_asked_once_per_path() {
    let server = vault(|seen| path(seen).starts_with("/v1/secret/metadata/").then(denied)).await;
    let store = store(&server);
    for _ in 0..3 {
        assert_eq!(store.probe(&at("app")).await.unwrap(), Probe::NeedsRead);
        json(store.read(&at("app")).await);
    }
    assert_eq!((server.count("GET", METADATA), server.count("GET", DATA)), (1, 3));
}

#[tokio::test]
async fn kv_version_1_is_read_without_being_probed() {
    let server = vault(|seen| match path(seen) {
        MOUNT => Some(data(r#"{"type":"kv","options":null}"#)),
        "/v1/secret/app" => Some(data(r#"{"a":"b"}"#)),
        _ => None,
    })
    .await;
    let store = store(&server);
    assert_eq!(store.probe(&at("app")).await.unwrap(), Probe::NeedsRead);
    assert_eq!(
        json(store.read(&at("app")).await),
        (RemoteVersion::default(), r#"{"a":"b"}"#.to_owned())
    );
    assert_eq!(absence(store.read(&at("other")).await), Absence::NotFound);
    let pinned = RemoteRef {
        version: Some(1),
        ..at("app")
    };
    assert!(
        store
            .read(&pinned)
            .await
            .is_err_and(|fault| fault.reason == Reason::SpecInvalid)
    );
    let targets: Vec<_> = server.seen().iter().map(|seen| seen.target.clone()).collect();
    assert_eq!(targets, [LOGIN, MOUNT, "/v1/secret/app", "/v1/secret/other"]);
}

#[tokio::test]
async fn a_declared_version_is_believed_and_checked_once() {
    let server = vault(|_| None).await;
    let declared = |kv_version| {
        VaultStore::new(VaultConfig {
            kv_version,
            ..config(&server)
        })
        .unwrap()
    };
    let right = declared(KvVersion::V2);
    right.probe(&at("app")).await.unwrap();
    assert_eq!(server.count("GET", MOUNT), 0);
    right.check().await.unwrap();
    right.check().await.unwrap();
    assert_eq!(server.count("GET", MOUNT), 1);
    let fault = declared(KvVersion::V1).check().await.unwrap_err();
    assert_eq!(fault.reason, Reason::SpecInvalid);

    let hidden = vault(|seen| (path(seen) == MOUNT).then(denied)).await;
    let with = |kv_version| {
        VaultStore::new(VaultConfig {
            kv_version,
            ..config(&hidden)
        })
        .unwrap()
    };
    assert_eq!(with(KvVersion::V2).check().await, Ok(()));
    assert_eq!(
        with(KvVersion::Auto).check().await.unwrap_err().reason,
        Reason::RemoteDenied
    );
}

#[tokio::test]
async fn a_mount_that_is_no_kv_engine_is_refused() {
    let server = vault(|seen| (path(seen) == MOUNT).then(|| mount("transit", ""))).await;
    let fault = store(&server).probe(&at("app")).await.unwrap_err();
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Permanent, Reason::SpecInvalid)
    );
}

#[tokio::test]
async fn a_mount_declared_as_version_1_that_has_versions_is_no_absence() {
    let server = vault(|seen| {
        (path(seen) == "/v1/secret/app").then(|| {
            Answer::json(
                404,
                r#"{"data":null,"warnings":["Invalid path for a versioned K/V secrets engine."]}"#,
            )
        })
    })
    .await;
    let store = VaultStore::new(VaultConfig {
        kv_version: KvVersion::V1,
        ..config(&server)
    })
    .unwrap();
    assert!(
        store
            .read(&at("app"))
            .await
            .is_err_and(|fault| fault.reason == Reason::SpecInvalid)
    );
}

type Make = fn() -> Answer;

#[tokio::test]
async fn faults_of_server_and_way_are_never_taken_for_an_absence() {
    let wait = Some(Duration::from_secs(7));
    let cases: [(Make, Class, Reason, Option<Duration>); 8] = [
        (
            || Answer::json(429, "{}").with_header("retry-after", "7"),
            Class::Throttled,
            Reason::StoreThrottled,
            wait,
        ),
        (
            || Answer::json(503, r#"{"errors":["Vault is sealed"]}"#),
            Class::Sealed,
            Reason::StoreSealed,
            None,
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
            || Answer::json(404, r#"{"errors":["no handler for route \"secret/data/app\""]}"#),
            Class::Absent,
            Reason::RemoteNotFound,
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
        let server = vault(move |seen| matches!(path(seen), DATA | METADATA).then(make)).await;
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
async fn a_slow_server_is_cut_off() {
    let server = vault(|seen| (path(seen) == METADATA).then_some(Answer::Hang)).await;
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
async fn a_check_logs_in_and_looks_at_the_mount_once_and_then_asks_for_health_alone() {
    let server = vault(|_| None).await;
    let store = store(&server);
    store.check().await.unwrap();
    store.check().await.unwrap();
    let targets: Vec<_> = server.seen().iter().map(|seen| path(seen).to_owned()).collect();
    assert_eq!(targets, ["/v1/sys/health", LOGIN, MOUNT, "/v1/sys/health"]);
    assert!(
        server
            .seen()
            .iter()
            .filter(|seen| path(seen) == "/v1/sys/health")
            .all(|seen| { seen.header("x-vault-token").is_none() })
    );
}

#[tokio::test]
async fn a_sealed_server_fails_its_check_before_any_login() {
    let server = vault(|seen| (path(seen) == "/v1/sys/health").then(|| Answer::json(503, "{}"))).await;
    let fault = store(&server).check().await.unwrap_err();
    assert_eq!((fault.class, fault.reason), (Class::Sealed, Reason::StoreSealed));
    assert_eq!(server.count("POST", LOGIN), 0);
}

#[tokio::test]
async fn a_place_of_another_kind_of_store_is_refused() {
    let server = vault(|_| None).await;
    let place = RemoteRef {
        place: Place::Uuid("u".into()),
        version: None,
    };
    assert_eq!(
        store(&server).probe(&place).await.unwrap_err().reason,
        Reason::SpecInvalid
    );
    assert!(server.seen().is_empty());
}
