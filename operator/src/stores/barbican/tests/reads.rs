//! Names, ids, containers, searches.

use futures::future::join_all;
use keyward_core::fault::Class;
use keyward_core::reason::Reason;
use serde_json::json;
use uuid::Uuid;

use super::super::testing::{Secret, State, time};
use super::*;
use crate::stores::transport::stand_in::Answer;
use crate::stores::{FindQuery, Found, Payload, Reading};

async fn value(store: &impl Store, place: &RemoteRef) -> Reading {
    match store.read(place).await.unwrap() {
        ReadOutcome::Value(reading) => reading,
        ReadOutcome::Absent(absence) => panic!("{absence:?}"),
    }
}

fn bytes(reading: &Reading) -> &[u8] {
    match &reading.payload {
        Payload::Bytes(bytes) => bytes.expose(),
        _ => panic!("another shape of value"),
    }
}

fn search(prefix: &str, tags: &[(&str, &str)], limit: usize) -> FindQuery {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    FindQuery {
        prefix: prefix.into(),
        tags: tags.iter().map(own).collect(),
        limit,
    }
}

fn names(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| found.name.as_str()).collect()
}

#[tokio::test]
async fn the_same_bytes_come_out_for_every_byte() {
    let mut secret = Secret::new(1, "key", 1);
    secret.payload = Some((0..=255).collect());
    let cloud = Cloud::start(vec![secret]).await;
    let all: Vec<u8> = (0..=255).collect();
    let store = cloud.store();
    assert_eq!(bytes(&value(&store, &name("key")).await), all);
    assert_eq!(bytes(&value(&store, &id(1)).await), all);
}

#[tokio::test]
async fn a_name_is_the_newest_of_exactly_this_name() {
    let cloud = Cloud::start(vec![
        Secret::new(1, "db_password", 1),
        Secret::new(2, "db_password", 7),
        Secret::new(4, "db_password", 7),
        Secret::new(3, "db_password", 7),
        Secret::new(5, "db-password", 9),
        Secret::new(6, "DB_PASSWORD", 9),
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
async fn a_new_secret_of_the_name_takes_over_and_the_metadata_is_read_once_per_secret() {
    let mut first = Secret::new(1, "db", 1);
    first.metadata = json!({"keyward-generation": "3"});
    let cloud = Cloud::start(vec![first]).await;
    let store = cloud.store();
    let mut mark = 0;
    assert_eq!(current(store.probe(&name("db")).await.unwrap()).number, Some(3));
    assert_eq!(cloud.asked(&mut mark), ["/v1/secrets", "/v1/secrets/metadata"]);
    assert_eq!(current(store.probe(&name("db")).await.unwrap()).number, Some(3));
    assert_eq!(cloud.asked(&mut mark), ["/v1/secrets?name"]);

    cloud.state().secrets.push(Secret::new(2, "db", 2));
    let version = current(store.probe(&name("db")).await.unwrap());
    assert_eq!(
        (version.number, version.id),
        (None, Some(Uuid::from_u128(2).to_string()))
    );
    assert_eq!(
        cloud.asked(&mut mark),
        ["/v1/secrets?name", "/v1/secrets/metadata"]
    );

    let third = RemoteRef {
        place: Place::Name("db".into()),
        version: Some(3),
    };
    assert_eq!(
        value(&store, &third).await.version.id,
        Some(Uuid::from_u128(1).to_string())
    );
}

#[tokio::test]
async fn a_read_after_its_probe_costs_one_request() {
    let cloud = Cloud::start(vec![Secret::new(1, "db", 1)]).await;
    let store = cloud.store();
    for place in [name("db"), id(1)] {
        store.probe(&place).await.unwrap();
        let mut mark = cloud.barbican.seen().len();
        value(&store, &place).await;
        assert_eq!(cloud.asked(&mut mark), ["/v1/secrets/payload"]);
    }
}

#[tokio::test]
async fn a_thousand_names_cost_the_pages_of_the_project() {
    let secrets = (0..1000).map(|n| Secret::new(n, &format!("name-{n}"), i64::try_from(n).unwrap()));
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
    let secrets = (0..300).map(|n| Secret::new(n, &format!("name-{n}"), 1));
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

    cloud.state().secrets.push(Secret::new(999, "name-0", 2));
    let reading = value(&store, &places[0]).await;
    assert_eq!(reading.version.id, Some(Uuid::from_u128(999).to_string()));
}

#[tokio::test]
async fn one_name_in_a_large_project_costs_no_listing() {
    let cloud = Cloud::start(
        (0..1000)
            .map(|n| Secret::new(n, &format!("name-{n}"), 1))
            .collect(),
    )
    .await;
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
async fn a_listing_that_changed_on_the_way_is_made_again() {
    let cloud = Cloud::start(
        (0..250)
            .map(|n| Secret::new(n, &format!("name-{n}"), 1))
            .collect(),
    )
    .await;
    cloud.state().before_page = Some(|state: &mut State, offset| {
        // Removed in front of what is read next: the rest moves forward.
        if offset == 100 && state.secrets.len() == 250 {
            state.secrets.drain(..10);
        }
    });
    let found = cloud.store().find(&search("name-", &[], 1000)).await.unwrap();
    assert_eq!(found.len(), 240);

    cloud.state().before_page = Some(|state: &mut State, offset| {
        if offset > 0 {
            state.secrets.drain(..1);
        }
    });
    let fault = cloud.store().find(&search("name-", &[], 1000)).await.unwrap_err();
    assert_eq!(fault.class, Class::Transient);
}

#[tokio::test]
async fn the_ways_of_absence() {
    let mut waiting = Secret::new(2, "waiting", 1);
    waiting.payload = None;
    let mut nothing = Secret::new(3, "nothing", 1);
    nothing.payload = Some(Vec::new());
    let cloud = Cloud::start(vec![Secret::new(1, "db", 1), waiting, nothing]).await;
    let store = cloud.store();
    for (place, absence) in [
        (name("other"), Absence::NotFound),
        (id(9), Absence::NotFound),
        (name("waiting"), Absence::Empty),
        (id(2), Absence::Empty),
    ] {
        assert_eq!(
            store.probe(&place).await.unwrap(),
            Probe::Absent(absence),
            "{place:?}"
        );
        assert_eq!(absent(&store.read(&place).await.unwrap()), absence);
    }
    assert_eq!(
        absent(&store.read(&name("nothing")).await.unwrap()),
        Absence::Empty
    );
}

#[tokio::test]
async fn a_deleted_secret_is_not_found_and_an_expired_one_is_expired() {
    let mut ending = Secret::new(2, "ending", 1);
    let end =
        chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()) + chrono::TimeDelta::seconds(2);
    ending.expiration = Some(end.format("%Y-%m-%dT%H:%M:%S%.6f").to_string());
    let cloud = Cloud::start(vec![Secret::new(1, "db", 1), ending]).await;
    let store = cloud.store();
    for place in [name("db"), id(1)] {
        assert_eq!(current(store.probe(&place).await.unwrap()).expires, None);
    }
    for place in [name("ending"), id(2)] {
        assert_eq!(
            current(store.probe(&place).await.unwrap()).expires,
            Some(end.with_nanosecond_of_micro())
        );
    }
    cloud.state().secrets.clear();
    for place in [name("db"), id(1)] {
        assert_eq!(absent(&store.read(&place).await.unwrap()), Absence::NotFound);
    }
    while end > std::time::SystemTime::now().into() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for place in [name("ending"), id(2)] {
        assert_eq!(
            store.probe(&place).await.unwrap(),
            Probe::Absent(Absence::Expired),
            "{place:?}"
        );
        assert_eq!(absent(&store.read(&place).await.unwrap()), Absence::Expired);
    }
}

/// Barbican gives microseconds.
trait Micro {
    fn with_nanosecond_of_micro(self) -> Self;
}

impl Micro for chrono::DateTime<chrono::Utc> {
    fn with_nanosecond_of_micro(self) -> Self {
        Self::from_timestamp_micros(self.timestamp_micros()).unwrap()
    }
}

#[tokio::test]
async fn a_secret_that_vanished_after_the_listing_gives_way_to_its_successor() {
    let cloud = Cloud::start(vec![Secret::new(1, "db", 1)]).await;
    let store = cloud.store();
    current(store.probe(&name("db")).await.unwrap());
    cloud.state().secrets = vec![Secret::new(2, "db", 2)];
    let reading = value(&store, &name("db")).await;
    assert_eq!(reading.version.id, Some(Uuid::from_u128(2).to_string()));
    assert_eq!(bytes(&reading), format!("{CANARY} 2").as_bytes());
}

#[tokio::test]
async fn a_container_is_its_parts_and_is_taken_whole() {
    let cloud = Cloud::start(vec![Secret::new(1, "a", 1), Secret::new(2, "b", 2)]).await;
    let reference = |name: &str, id: u128| json!({"name": name, "secret_ref": format!("http://inside/v1/secrets/{}", Uuid::from_u128(id))});
    let body = |refs: &[serde_json::Value]| json!({"created": time(3), "updated": time(3), "type": "certificate", "secret_refs": refs});
    let both = body(&[reference("certificate", 1), reference("private_key", 2)]);
    cloud.state().containers = vec![(Uuid::from_u128(7), both.clone())];
    let place = newest(Place::Container(Uuid::from_u128(7).to_string()));
    let store = cloud.store();
    let version = current(store.probe(&place).await.unwrap());
    let reading = value(&store, &place).await;
    assert_eq!(reading.version, version);
    let Payload::Parts(parts) = &reading.payload else {
        panic!("another shape of value");
    };
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["certificate", "private_key"]);
    assert!(parts["private_key"].same_as(format!("{CANARY} 2").as_bytes()));

    // An unchanged container costs one request: its parts cannot change.
    let mut mark = cloud.barbican.seen().len();
    assert_eq!(current(store.probe(&place).await.unwrap()), version);
    assert_eq!(cloud.asked(&mut mark), ["/v1/containers"]);

    cloud.state().containers[0].1 = body(&[reference("certificate", 1), reference("private_key", 1)]);
    let without = current(store.probe(&place).await.unwrap());
    assert_ne!(without.id, version.id);
    assert_eq!(without.created, version.created, "what lacks a part is not newer");
    cloud.state().secrets.push(Secret::new(3, "c", 9));
    cloud.state().containers[0].1 = body(&[reference("certificate", 1), reference("private_key", 3)]);
    assert!(current(store.probe(&place).await.unwrap()).created > version.created);
    cloud.state().containers[0].1 = body(&[reference("current", 1), reference("current", 2)]);
    assert_eq!(
        store.read(&place).await.err().unwrap().reason,
        Reason::KeyConflict
    );
    cloud.state().containers[0].1 = body(&[]);
    assert_eq!(absent(&store.read(&place).await.unwrap()), Absence::Empty);
    cloud.state().containers[0].1 = both;
    cloud.state().secrets[1].payload = None;
    assert_eq!(absent(&store.read(&place).await.unwrap()), Absence::Empty);
    cloud.state().secrets.remove(1);
    assert_eq!(absent(&store.read(&place).await.unwrap()), Absence::NotFound);
    cloud.state().containers.clear();
    assert_eq!(
        store.probe(&place).await.unwrap(),
        Probe::Absent(Absence::NotFound)
    );
}

#[tokio::test]
async fn a_search_goes_by_prefix_and_tags_up_to_its_limit() {
    let tagged = |id, name: &str, created, metadata| Secret {
        metadata,
        ..Secret::new(id, name, created)
    };
    let mut gone = tagged(5, "apps/gone", 9, json!({"team": "a"}));
    gone.expiration = Some("2020-01-01T00:00:00".into());
    let cloud = Cloud::start(vec![
        tagged(1, "apps/b", 1, json!({"team": "a", "keyward-generation": "1"})),
        tagged(2, "apps/a", 1, json!({"team": "a"})),
        tagged(3, "apps/a", 5, json!({"team": "b"})),
        tagged(4, "other", 1, json!({"team": "a"})),
        gone,
    ])
    .await;
    let store = cloud.store();
    let found = store.find(&search("apps/", &[], 2)).await.unwrap();
    assert_eq!(names(&found), ["apps/a", "apps/b"]);
    assert_eq!(found[0].place, id(3).place, "the newest of its name");
    assert_eq!(found[1].version.as_ref().unwrap().number, Some(1));
    let by_tag = store.find(&search("", &[("Team", "a")], 9)).await.unwrap();
    assert_eq!(names(&by_tag), ["apps/b", "other"]);
    assert!(
        store
            .find(&search("", &[("team", "a"), ("x", "y")], 9))
            .await
            .unwrap()
            .is_empty()
    );

    let fault = store.find(&search("apps/", &[], 1)).await.unwrap_err();
    assert_eq!((fault.class, fault.reason), (Class::Permanent, Reason::FindLimit));

    cloud.state().secrets.push(Secret::new(9, "apps/c", 9));
    let again = store.find(&search("apps/", &[], 9)).await.unwrap();
    assert_eq!(
        names(&again),
        ["apps/a", "apps/b", "apps/c"],
        "a search repeated at once sees what is new"
    );
}

#[tokio::test]
async fn a_name_that_the_listing_lacks_is_asked_for_alone() {
    let cloud = Cloud::start(vec![Secret::new(1, "db", 1)]).await;
    let store = cloud.store();
    current(store.probe(&name("db")).await.unwrap());
    cloud.state().secrets.push(Secret::new(2, "new", 2));
    current(store.probe(&name("new")).await.unwrap());
}

#[tokio::test]
async fn after_a_wish_for_news_no_earlier_listing_answers() {
    let cloud = Cloud::start(vec![Secret::new(1, "a", 1), Secret::new(2, "b", 1)]).await;
    let store = cloud.store();
    current(store.probe(&name("a")).await.unwrap());
    cloud.state().secrets.push(Secret::new(3, "b", 2));
    store.forget_listings();
    let version = current(store.probe(&name("b")).await.unwrap());
    assert_eq!(version.id, Some(Uuid::from_u128(3).to_string()));
}

#[tokio::test]
async fn metadata_that_is_denied_leaves_the_generation_out() {
    let cloud = Cloud::start(vec![Secret::new(1, "db", 1)]).await;
    cloud.state().fault = Some(|seen| seen.target.ends_with("metadata").then(|| Answer::json(403, "{}")));
    assert_eq!(
        current(cloud.store().probe(&name("db")).await.unwrap()).number,
        None
    );
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

#[tokio::test]
async fn faults_of_barbican_have_their_class_and_end() {
    type Fault = fn(&crate::stores::transport::stand_in::Seen) -> Option<Answer>;
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
        let cloud = Cloud::start(vec![Secret::new(1, "db", 1)]).await;
        let store = cloud.store();
        cloud.state().fault = Some(fault);
        for told in [
            store.read(&id(1)).await.err().unwrap(),
            store.probe(&name("db")).await.unwrap_err(),
            store.find(&search("x", &[], 1)).await.err().unwrap(),
        ] {
            assert_eq!((told.class, told.reason), (class, reason), "{told}");
        }
    }
}

#[tokio::test]
async fn a_value_beyond_the_cap_is_refused() {
    let mut large = Secret::new(1, "large", 1);
    large.payload = Some(vec![b'x'; 1001]);
    let mut fits = Secret::new(2, "fits", 1);
    fits.payload = Some(vec![b'x'; 1000]);
    let cloud = Cloud::start(vec![large, fits]).await;
    let store = cloud.store();
    assert_eq!(
        store.read(&name("large")).await.err().unwrap().reason,
        Reason::RemoteTooLarge
    );
    assert_eq!(bytes(&value(&store, &name("fits")).await).len(), 1000);
}

#[tokio::test]
async fn a_proxy_page_is_never_a_value() {
    let cloud = Cloud::start(vec![Secret::new(1, "db", 1)]).await;
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
