//! Names among others, and what listings cost.

use std::pin::pin;
use std::time::Duration;

use futures::future::join_all;
use futures::poll;
use keyward_core::reason::Reason;
use keyward_stand_ins::http::Answer;
use keyward_stand_ins::openstack::{State, time};
use serde_json::json;
use uuid::Uuid;

use super::super::BarbicanSessions;
use super::super::config::{BarbicanConfig, Limits};
use super::super::testing::{gate, password, secret};
use super::*;
use crate::stores::pacing::Unpaced;
use crate::stores::{Found, Outcome};

#[tokio::test]
async fn a_name_is_the_newest_of_exactly_this_name() {
    let cloud = Cloud::start(vec![
        secret(1, "db_password", 1),
        secret(2, "db_password", 7),
        secret(4, "db_password", 7),
        secret(3, "db_password", 7),
        secret(5, "db-password", 9),
        secret(6, "DB_PASSWORD", 9),
    ])
    .await;
    let store = cloud.store();
    for _ in 0..2 {
        // The first answer comes from the project's listing and the second from a listing by name.
        let version = current(store.probe(&name("db_password")).await.unwrap());
        assert_eq!(version.id, Some(Uuid::from_u128(4).to_string()));
        assert_eq!(
            version.created.unwrap().format("%Y-%m-%dT%H:%M:%S").to_string(),
            time(7)
        );
    }
    assert!(
        cloud
            .barbican
            .seen()
            .iter()
            .any(|seen| seen.target.contains("name=db_password"))
    );
    let none = store.probe(&name("db%password")).await.unwrap();
    assert_eq!(none, Probe::Absent(Absence::NotFound));
}

#[tokio::test]
async fn a_thousand_names_cost_the_pages_of_the_project() {
    let secrets = (0..1000).map(|n| secret(n, &format!("name-{n}"), i64::try_from(n).unwrap()));
    let cloud = Cloud::start(secrets.collect()).await;
    let store = cloud.store();
    let places: Vec<RemoteRef> = (0..1000).map(|n| name(&format!("name-{n}"))).collect();
    let wave = async || {
        for outcome in join_all(places.iter().map(|place| store.probe(place))).await {
            current(outcome.unwrap());
        }
    };
    let mut mark = 0;
    wave().await;
    let asked = cloud.asked(&mut mark);
    let count = |path: &str| asked.iter().filter(|asked| *asked == path).count();
    assert_eq!((count("/v1/secrets"), count("/v1/secrets/metadata")), (10, 1000));
    assert_eq!(asked.len(), 1010);
}

#[tokio::test]
async fn reads_without_probes_share_a_listing_and_a_repeated_one_sees_what_is_new() {
    let secrets = (0..300).map(|n| secret(n, &format!("name-{n}"), 1));
    let cloud = Cloud::start(secrets.collect()).await;
    let store = cloud.store();
    let places: Vec<RemoteRef> = (0..300).map(|n| name(&format!("name-{n}"))).collect();
    let mut mark = 0;
    join_all(places.iter().map(|place| value(&store, place))).await;
    let asked = cloud.asked(&mut mark);
    let count = |path: &str| asked.iter().filter(|asked| *asked == path).count();
    assert_eq!(
        (
            count("/v1/secrets"),
            count("/v1/secrets?name"),
            count("/v1/secrets/payload")
        ),
        (3, 0, 300)
    );

    cloud.state().secrets.push(secret(999, "name-0", 2));
    let reading = value(&store, &places[0]).await;
    assert_eq!(reading.version.id, Some(Uuid::from_u128(999).to_string()));
}

#[tokio::test]
async fn one_name_in_a_large_project_costs_no_listing() {
    let cloud = Cloud::start((0..1000).map(|n| secret(n, &format!("name-{n}"), 1)).collect()).await;
    let store = cloud.store();
    let mut mark = 0;
    current(store.probe(&name("name-7")).await.unwrap());
    let first = cloud.asked(&mut mark);
    assert_eq!(first, ["/v1/secrets", "/v1/secrets?name", "/v1/secrets/metadata"]);
    current(store.probe(&name("name-8")).await.unwrap());
    assert_eq!(
        cloud.asked(&mut mark),
        ["/v1/secrets?name", "/v1/secrets/metadata"]
    );
}

#[tokio::test]
async fn a_name_that_the_listing_lacks_is_asked_for_alone() {
    let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
    let store = cloud.store();
    current(store.probe(&name("db")).await.unwrap());
    cloud.state().secrets.push(secret(2, "new", 2));
    current(store.probe(&name("new")).await.unwrap());
}

#[tokio::test]
async fn after_a_wish_for_news_no_earlier_listing_answers() {
    let cloud = Cloud::start(vec![secret(1, "a", 1), secret(2, "b", 1)]).await;
    let store = cloud.store();
    current(store.probe(&name("a")).await.unwrap());
    cloud.state().secrets.push(secret(3, "b", 2));
    store.forget_listings();
    let version = current(store.probe(&name("b")).await.unwrap());
    assert_eq!(version.id, Some(Uuid::from_u128(3).to_string()));
}

/// Calls that are made one after the other while Barbican answers none.
async fn while_held<A, B>(
    cloud: &Cloud,
    first: impl Future<Output = A>,
    between: impl FnOnce(&Cloud),
    second: impl Future<Output = B>,
) -> (A, B) {
    cloud.barbican.hold(true);
    let before = cloud.barbican.seen().len();
    let (mut first, mut second) = (pin!(first), pin!(second));
    let seen = async {
        while cloud.barbican.seen().len() == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = &mut first => panic!("nothing was answered yet"),
        () = seen => {}
    }
    between(cloud);
    assert!(poll!(&mut second).is_pending());
    cloud.barbican.hold(false);
    tokio::join!(first, second)
}

/// The id of a secret that takes the first one's place in listings.
const REPLACED: u128 = 999;

/// Replaces the first secret by one of its name.
fn replaced(cloud: &Cloud) {
    cloud.state().secrets[0].id = Uuid::from_u128(REPLACED);
}

/// The first place that a search gave.
fn found(outcome: Outcome<Vec<Found>>) -> Place {
    outcome.unwrap().swap_remove(0).place
}

#[tokio::test]
async fn a_search_is_not_answered_from_before_a_wish_for_news() {
    let cloud = Cloud::start((1..=150).map(|n| secret(n, &format!("name-{n:03}"), 1)).collect()).await;
    let store = cloud.store();
    store.check().await.unwrap();
    let query = everything("name-001");
    let wish = |cloud: &Cloud| {
        replaced(cloud);
        store.forget_listings();
    };
    let (old, new) = while_held(
        &cloud,
        store.find(&query, &Unpaced),
        wish,
        store.find(&query, &Unpaced),
    )
    .await;
    assert_eq!((found(old), found(new)), (id(1).place, id(REPLACED).place));
}

#[tokio::test]
async fn a_listing_that_others_wait_for_is_shared_only_while_it_is_young() {
    for (age, answer) in [(Duration::from_mins(1), id(1)), (Duration::ZERO, id(REPLACED))] {
        let cloud = Cloud::start(vec![secret(1, "a", 1), secret(2, "b", 1)]).await;
        let open = || {
            let config = cloud.config(password(CANARY));
            let limits = Limits {
                listing_age: age,
                ..config.limits
            };
            BarbicanSessions::new(gate())
                .open(BarbicanConfig { limits, ..config })
                .ok()
                .unwrap()
        };
        let (store, query) = (open(), everything("a"));
        store.check().await.unwrap();
        let (_, second) = while_held(
            &cloud,
            store.find(&query, &Unpaced),
            replaced,
            store.find(&query, &Unpaced),
        )
        .await;
        assert_eq!(found(second), answer.place, "a search, {age:?}");

        cloud.state().secrets[0].id = Uuid::from_u128(1);
        let (store, a, b) = (open(), name("a"), name("b"));
        store.check().await.unwrap();
        let (_, second) = while_held(&cloud, store.probe(&b), replaced, store.probe(&a)).await;
        let version = current(second.unwrap());
        assert_eq!(
            version.id.as_deref(),
            Some(answer.place.name()),
            "a name, {age:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_gives_ever_more_or_ever_less_comes_to_an_end() {
    // A project that grows by a page while one of its pages is read.
    let cloud = Cloud::start((0..100).map(|n| secret(n, &format!("name-{n}"), 1)).collect()).await;
    cloud.state().before_page = Some(|state: &mut State, _| {
        let from = u128::try_from(state.secrets.len()).unwrap();
        let more = (from..from + 20_000).map(|n| secret(n, "more", 1));
        state.secrets.extend(more);
    });
    let fault = cloud
        .store()
        .find(&everything("name-"), &Unpaced)
        .await
        .unwrap_err();
    assert_eq!(fault.reason, Reason::FindLimit);
    assert!(cloud.barbican.count("GET", "/v1/secrets") <= 3);

    // One that gives one of its secrets at a time.
    let cloud = Cloud::start(Vec::new()).await;
    cloud.state().fault = Some(|seen| {
        let offset: u128 = seen.query("offset")?.parse().ok()?;
        let one = json!({
            "name": "n", "status": "ACTIVE", "created": time(1), "secret_ref": Uuid::from_u128(offset).to_string(),
        });
        Some(Answer::json(
            200,
            &json!({"secrets": [one], "total": 50_000}).to_string(),
        ))
    });
    let fault = cloud.store().find(&everything(""), &Unpaced).await.unwrap_err();
    assert_eq!(fault.reason, Reason::FindLimit);
    assert_eq!(cloud.barbican.count("GET", "/v1/secrets"), 1);
}

#[tokio::test]
async fn names_that_fill_memory_are_refused() {
    let cloud = Cloud::start(Vec::new()).await;
    cloud.state().fault = Some(|seen| {
        let offset: u128 = seen.query("offset")?.parse().ok()?;
        let one = |n: u128| {
            json!({
                "name": "\u{1f511}".repeat(255), "status": "ACTIVE", "created": time(1),
                "secret_ref": Uuid::from_u128(offset + n).to_string(),
            })
        };
        let page: Vec<_> = (0..100).map(one).collect();
        Some(Answer::json(
            200,
            &json!({"secrets": page, "total": 50_000}).to_string(),
        ))
    });
    let fault = cloud.store().find(&everything(""), &Unpaced).await.unwrap_err();
    assert_eq!(fault.reason, Reason::RemoteTooLarge, "{fault}");
    assert!(cloud.barbican.count("GET", "/v1/secrets") < 200);
}

#[tokio::test]
async fn a_backslash_in_a_name_is_a_letter_like_others() {
    let cloud = Cloud::start(vec![secret(1, r"corp\db", 1), secret(2, "corp-db", 2)]).await;
    let store = cloud.store();
    for _ in 0..2 {
        // The first answer comes from the project's listing and the second from a listing by name.
        let version = current(store.probe(&name(r"corp\db")).await.unwrap());
        assert_eq!(version.id, Some(Uuid::from_u128(1).to_string()));
    }
}

#[tokio::test]
async fn a_place_that_barbican_does_not_have_is_a_mistake_in_the_spec() {
    let cloud = Cloud::start(Vec::new()).await;
    let store = cloud.store();
    for place in [
        newest(Place::Path("apps/db".into())),
        newest(Place::Uuid("../../v1/quotas".into())),
        newest(Place::Container("x".into())),
        RemoteRef {
            version: Some(1),
            ..id(1)
        },
    ] {
        assert_eq!(store.probe(&place).await.unwrap_err().reason, Reason::SpecInvalid);
        assert_eq!(
            store.read(&place).await.err().unwrap().reason,
            Reason::SpecInvalid
        );
    }
    assert!(cloud.barbican.seen().is_empty());
}
