//! Names among others, and what listings cost.

use futures::future::join_all;
use keyward_core::reason::Reason;
use keyward_stand_ins::openstack::time;
use uuid::Uuid;

use super::super::testing::secret;
use super::*;

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
