//! What real servers cannot be made to show: broken answers, and changes between two requests of one call.

use std::time::Duration;

use keyward_core::fault::Class;
use keyward_core::reason::Reason;
use keyward_stand_ins::http::{Answer, Seen};
use keyward_stand_ins::openstack::{Container, State, time};
use serde_json::json;
use uuid::Uuid;

use super::super::testing::{gate, password, secret};
use super::*;
use crate::stores::pacing::Unpaced;

#[tokio::test]
async fn a_listing_that_changed_on_the_way_is_made_again() {
    let cloud = Cloud::start((0..250).map(|n| secret(n, &format!("name-{n}"), 1)).collect()).await;
    cloud.state().before_page = Some(|state: &mut State, offset| {
        // Removed in front of what is read next: the rest moves forward.
        if offset == 100 && state.secrets.len() == 250 {
            state.secrets.drain(..10);
        }
    });
    let found = cloud.store().find(&everything("name-"), &Unpaced).await.unwrap();
    assert_eq!(found.len(), 240);

    cloud.state().before_page = Some(|state: &mut State, offset| {
        if offset > 0 {
            state.secrets.drain(..1);
        }
    });
    let fault = cloud
        .store()
        .find(&everything("name-"), &Unpaced)
        .await
        .unwrap_err();
    assert_eq!(fault.class, Class::Transient);
}

#[tokio::test]
async fn a_secret_that_vanished_after_the_listing_gives_way_to_its_successor() {
    let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
    let store = cloud.store();
    current(store.probe(&name("db")).await.unwrap());
    cloud.state().secrets = vec![secret(2, "db", 2)];
    let reading = value(&store, &name("db")).await;
    assert_eq!(reading.version.id, Some(Uuid::from_u128(2).to_string()));
    assert_eq!(bytes(&reading), format!("{CANARY} 2").as_bytes());
}

/// References change in several requests, and a part may go between them and the reading.
#[tokio::test]
async fn a_container_is_taken_whole_or_not_at_all() {
    let cloud = Cloud::start(vec![secret(1, "a", 1), secret(2, "b", 2), secret(3, "c", 9)]).await;
    let reference = |name: &str, id: u128| json!({"name": name, "secret_ref": format!("http://inside/v1/secrets/{}", Uuid::from_u128(id))});
    let body = |refs: &[serde_json::Value]| json!({"created": time(3), "updated": time(3), "type": "certificate", "secret_refs": refs});
    let both = body(&[reference("certificate", 1), reference("private_key", 2)]);
    cloud.state().containers = vec![Container::new(7, both.clone())];
    let place = newest(Place::Container(Uuid::from_u128(7).to_string()));
    let store = cloud.store();
    let version = current(store.probe(&place).await.unwrap());

    cloud.state().containers[0].body = body(&[reference("certificate", 1), reference("private_key", 3)]);
    assert!(current(store.probe(&place).await.unwrap()).created > version.created);
    cloud.state().containers[0].body = both;
    cloud.state().secrets[1].payload = None;
    assert_eq!(absent(&store.read(&place).await.unwrap()), Absence::Empty);
    cloud.state().secrets.remove(1);
    assert_eq!(absent(&store.read(&place).await.unwrap()), Absence::NotFound);
}

#[tokio::test]
async fn metadata_that_is_denied_leaves_the_generation_out() {
    let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
    cloud.state().fault = Some(|seen| seen.target.ends_with("metadata").then(|| Answer::json(403, "{}")));
    assert_eq!(
        current(cloud.store().probe(&name("db")).await.unwrap()).number,
        None
    );
}

/// A way that is broken, or a login that is refused, says nothing about rights.
#[tokio::test]
async fn metadata_that_cannot_be_asked_for_is_no_metadata_that_is_denied() {
    let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
    cloud.state().secrets[0].metadata = json!({"keyward-generation": "7"});
    let store = cloud.store_of(&gate(), password(CANARY));
    store.check().await.unwrap();
    // The next login is refused.
    cloud.state().users[1].password = "another".into();
    cloud.state().before_page = Some(|state: &mut State, _| state.tokens.clear());
    let fault = store.probe(&name("db")).await.unwrap_err();
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Denied, Reason::CredentialRejected)
    );
}

#[tokio::test]
async fn a_pinned_generation_is_found_once_its_writer_has_noted_it() {
    let cloud = Cloud::start(vec![secret(1, "db", 1), secret(2, "db", 2)]).await;
    let (store, pinned) = (
        cloud.store(),
        RemoteRef {
            version: Some(7),
            ..name("db")
        },
    );
    current(store.probe(&name("db")).await.unwrap());
    assert_eq!(
        store.probe(&pinned).await.unwrap(),
        Probe::Absent(Absence::NotFound)
    );
    cloud.state().secrets[1].metadata = json!({"keyward-generation": "7"});
    let version = current(store.probe(&pinned).await.unwrap());
    assert_eq!(version.id, Some(Uuid::from_u128(2).to_string()));

    // Where it may not be looked for, that is the reason why it is not found.
    cloud.state().fault = Some(|seen| seen.target.ends_with("metadata").then(|| Answer::json(403, "{}")));
    let other = RemoteRef {
        version: Some(8),
        ..name("db")
    };
    assert_eq!(
        store.probe(&other).await.unwrap_err().reason,
        Reason::RemoteDenied
    );
}

#[tokio::test]
async fn faults_of_barbican_have_their_class_and_end() {
    type Fault = fn(&Seen) -> Option<Answer>;
    let cases: [(Fault, Class, Reason); 8] = [
        (
            |_| Some(Answer::json(500, "{}")),
            Class::Transient,
            Reason::StoreUnavailable,
        ),
        (
            |_| Some(Answer::json(403, "{}")),
            Class::Denied,
            Reason::RemoteDenied,
        ),
        (
            |_| Some(Answer::json(429, "{}")),
            Class::Throttled,
            Reason::StoreThrottled,
        ),
        (
            |_| Some(Answer::Whole(406, vec![], b"<h1>no".to_vec())),
            Class::Permanent,
            Reason::StoreProtocol,
        ),
        (
            |_| Some(Answer::Cut(vec![b'x'; 100])),
            Class::Transient,
            Reason::StoreUnavailable,
        ),
        (|_| Some(Answer::Hang), Class::Transient, Reason::StoreUnavailable),
        (
            |_| Some(Answer::json(200, "<html>log in</html>")),
            Class::Transient,
            Reason::StoreProtocol,
        ),
        (
            |_| Some(Answer::json(200, &"x".repeat(5 << 20))),
            Class::Permanent,
            Reason::RemoteTooLarge,
        ),
    ];
    for (fault, class, reason) in cases {
        let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
        let store = cloud.store();
        cloud.state().fault = Some(fault);
        for told in [
            store.read(&id(1)).await.err().unwrap(),
            store.probe(&name("db")).await.unwrap_err(),
            store.find(&everything("x"), &Unpaced).await.err().unwrap(),
        ] {
            assert_eq!((told.class, told.reason), (class, reason), "{told}");
        }
    }
}

#[tokio::test]
async fn a_proxy_page_is_never_a_value() {
    let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
    let store = cloud.store();
    cloud.state().fault = Some(|seen| {
        let page = || {
            Answer::Whole(
                200,
                vec![("content-type".into(), "text/html".into())],
                b"log in".to_vec(),
            )
        };
        seen.target.ends_with("payload").then(page)
    });
    assert_eq!(
        store.read(&name("db")).await.err().unwrap().reason,
        Reason::StoreProtocol
    );
}

#[tokio::test]
async fn keystone_faults_have_their_class() {
    let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
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
        let told = cloud.store().check().await.unwrap_err();
        assert_eq!(told.class, class, "{told}");
    }
}

/// A gateway may lose the answer of a Keystone that has counted a failure.
#[tokio::test]
async fn a_lost_answer_is_not_repeated_at_once() {
    let lost: [fn() -> Answer; 5] = [
        || Answer::Cut(b"{}".to_vec()),
        || Answer::json(500, "{}"),
        || Answer::json(502, "<h1>bad gateway"),
        || Answer::json(503, "{}"),
        || Answer::json(504, "{}"),
    ];
    for answer in lost {
        let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
        cloud.state().login_fault = Some(answer);
        let store = cloud.store();
        for _ in 0..5 {
            let fault = store.check().await.unwrap_err();
            assert_eq!(fault.class, Class::Transient);
        }
        assert_eq!(cloud.logins(), 1);
    }
}

/// Something on the way forbids the login, and Keystone has not seen it.
#[tokio::test]
async fn a_login_that_was_not_judged_is_repeated_without_a_human() {
    let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
    cloud.state().login_fault = Some(|| Answer::json(403, "<h1>maintenance"));
    let fault = cloud.store().check().await.unwrap_err();
    assert_eq!(fault.reason, Reason::CredentialRejected);
    assert!(fault.retry_after.is_some(), "{fault:?}");
    cloud.state().login_fault = None;
    let wrong = cloud.store_of(&gate(), password("wrong"));
    let fault = wrong.check().await.unwrap_err();
    assert_eq!(fault.retry_after, None, "this one was");
}

#[tokio::test]
async fn what_is_left_of_a_token_is_used_while_keystone_is_away() {
    let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
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
