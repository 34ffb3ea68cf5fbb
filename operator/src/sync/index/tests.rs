use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keyward_crds::synced_secret::RefreshPolicy;
use serde_json::json;

use super::*;
use crate::cluster::time::to_kubernetes;

fn object(generation: i64, store: &str, target: &str) -> SyncedSecret {
    serde_json::from_value(json!({
        "apiVersion": "keyward.dev/v1alpha1", "kind": "SyncedSecret",
        "metadata": {"name": "db", "namespace": "apps", "uid": "u1", "generation": generation,
            "resourceVersion": generation.to_string()},
        "spec": {
            "sources": [{"storeRef": {"name": store}, "path": "db"}],
            "target": {"name": target},
            "consumers": [{"kind": "Deployment", "name": "web"}],
        }
    }))
    .expect("a valid object")
}

#[test]
fn a_late_echo_does_not_undo_our_own_status() {
    let index = SyncIndex::default();
    let key = ObjectKey::new("apps", "db");
    let at = |version: &str| {
        let mut object = object(1, "a", "one");
        object.metadata.resource_version = Some(version.to_owned());
        object
    };
    index.put(&key, &at("9"));
    let status = SyncedSecretStatus {
        observed_generation: Some(1),
        ..SyncedSecretStatus::default()
    };
    index.wrote_status(&key, "u1", "12", status.clone());
    let known = || index.get(&key).expect("it exists").0;
    assert_eq!(index.put(&key, &at("10")), Change::Echo);
    assert_eq!(known().status, Some(status));
    assert_eq!(known().metadata.resource_version.as_deref(), Some("12"));
    assert_eq!(index.put(&key, &at("13")), Change::Echo, "no other work");
    assert_eq!(known().status, None, "somebody took it away");
}

#[test]
fn who_reads_from_several_stores_waits_for_them_alone() {
    let index = SyncIndex::default();
    let put = |name: &str, stores: &[&str]| {
        let key = ObjectKey::new("apps", name);
        let mut object = object(1, "a", "one");
        let source = object.spec.sources[0].clone();
        object.spec.sources = stores
            .iter()
            .map(|store| {
                let mut source = source.clone();
                source.store_ref.name = (*store).to_owned();
                source
            })
            .collect();
        index.put(&key, &object);
        index.lane(&key).expect("it exists")
    };
    let both = put("both", &["a", "b"]);
    assert_eq!(both, put("both-too", &["b", "a", "b"]));
    assert!(![put("one", &["a"]), put("other", &["b"])].contains(&both));
}

#[test]
fn memory_ends_with_the_object() {
    let index = SyncIndex::default();
    let key = ObjectKey::new("apps", "db");
    index.put(&key, &object(1, "a", "one"));
    index.remember(&key, "u1", |memory| memory.failures = 3);
    index.put(&key, &object(2, "a", "one"));
    let failures = || index.get(&key).expect("it exists").1.failures;
    assert_eq!(failures(), 3);
    let mut another = object(1, "a", "one");
    another.metadata.uid = Some("u2".to_owned());
    assert_eq!(index.put(&key, &another), Change::Work);
    assert_eq!(failures(), 0);
}

#[test]
fn reverse_indexes_follow_the_spec() {
    let index = SyncIndex::default();
    let key = ObjectKey::new("apps", "db");
    assert_eq!(index.put(&key, &object(1, "a", "one")), Change::Work);
    assert_eq!(index.put(&key, &object(1, "a", "one")), Change::Echo);
    assert_eq!(index.put(&key, &object(2, "b", "two")), Change::Work);
    let store = |name: &str| StoreKey {
        kind: keyward_crds::synced_secret::StoreKind::SecretStore,
        object: key.sibling(name),
    };
    assert!(index.of_store(&store("a")).is_empty());
    assert_eq!(index.of_store(&store("b")), std::slice::from_ref(&key));
    assert!(index.of_target(&key.sibling("one")).is_empty());
    assert_eq!(index.of_target(&key.sibling("two")), std::slice::from_ref(&key));
    assert_eq!(
        index.of_consumer(ConsumerKind::Deployment, &key.sibling("web")),
        std::slice::from_ref(&key)
    );
    index.remove(&key);
    assert!(index.of_target(&key.sibling("two")).is_empty());
    assert!(index.get(&key).is_none());
}

fn unreadable(generation: i64, field: &str) -> Unreadable {
    Unreadable {
        metadata: object(generation, "a", "one").metadata,
        conditions: None,
        field: field.into(),
    }
}

#[test]
fn an_object_that_cannot_be_parsed_is_there_and_is_not_worked_on() {
    let index = SyncIndex::default();
    let key = ObjectKey::new("apps", "db");
    let secret = key.sibling("one");
    index.put(&key, &object(1, "a", "one"));
    assert_eq!(
        index.put_unreadable(&key, unreadable(2, "spec.new")),
        Change::Work
    );
    assert!(index.get(&key).is_none());
    assert!(index.of_target(&secret).is_empty());
    assert!(
        !index.is_abandoned(&secret, &key),
        "its Secret is not without an object"
    );
    let state = index.state(&key).expect("it is shown");
    assert_eq!(
        (state.ready, state.reason.as_deref()),
        (Some(false), Some("SpecInvalid"))
    );
    assert_eq!(index.states().len(), 1);

    let mut told = unreadable(2, "spec.new");
    told.metadata.resource_version = Some("9".into());
    told.conditions = Some(Vec::new());
    assert_eq!(
        index.put_unreadable(&key, told),
        Change::Echo,
        "what we wrote ourselves"
    );
    assert_eq!(
        index.put_unreadable(&key, unreadable(3, "spec.new")),
        Change::Work
    );
    assert_eq!(index.put(&key, &object(4, "a", "one")), Change::Work);
    assert!(index.unread(&key).is_none());
    assert_eq!(index.states().len(), 1);
}

#[test]
fn of_an_object_that_is_gone_it_is_known_when_it_was_made() {
    let index = SyncIndex::default();
    let (key, made) = (
        ObjectKey::new("apps", "db"),
        DateTime::from_timestamp(1_800_000_000, 0),
    );
    let secret = key.sibling("one");
    let aged = |mut meta: ObjectMeta| {
        meta.creation_timestamp = made.map(to_kubernetes);
        meta
    };
    let mut known = object(1, "a", "one");
    known.metadata = aged(known.metadata);
    index.put(&key, &known);
    assert!(!index.is_abandoned(&secret, &key));
    index.remove(&key);
    assert_eq!(index.departed(&key), made.map(Departed::Seen));
    assert!(index.is_abandoned(&secret, &key));

    // The same for one that nobody could parse.
    let mut broken = unreadable(2, "spec.new");
    broken.metadata = aged(broken.metadata);
    index.put_unreadable(&key, broken);
    assert_eq!(index.departed(&key), None);
    index.remove(&key);
    assert_eq!(index.departed(&key), made.map(Departed::Seen));

    index.leave_in_place(&key);
    assert!(!index.is_abandoned(&secret, &key), "nobody asks again");
    index.put(&key, &known);
    assert_eq!(index.departed(&key), None, "it is back");
    index.remove(&key);
    index.forget(&key);
    assert_eq!(index.departed(&key), None);
    index.remove(&key);
    assert_eq!(index.departed(&key), None, "nobody has seen it");
}

#[test]
fn only_what_recurs_grows_old_and_from_the_moment_it_was_seen() {
    let index = SyncIndex::default();
    let key = ObjectKey::new("apps", "db");
    let current = || index.state(&key).expect("it exists").current_as_of;
    index.put(&key, &object(1, "a", "one"));
    let seen = current().expect("its first look is owed");
    index.put(&key, &object(2, "a", "one"));
    assert_eq!(current(), Some(seen), "an edit is no look");
    let looked = DateTime::from_timestamp(1_800_000_000, 0);
    index.remember(&key, "u1", |memory| memory.last_check = looked);
    assert_eq!(current(), looked);

    let mut once = object(3, "a", "one");
    once.spec.refresh.policy = RefreshPolicy::Once;
    index.put(&key, &once);
    assert_eq!(current(), None);
    let mut suspended = object(4, "a", "one");
    suspended.spec.suspend = true;
    index.put(&key, &suspended);
    assert_eq!(current(), None);
}
