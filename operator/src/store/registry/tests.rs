//! Who gets which door, beside an API server that the tests script.

use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use keyward_core::address::AddressPolicy;
use keyward_core::logins::{Known, Login, Step};
use keyward_core::sync::fingerprint::{FingerprintKey, KEY_BYTES};
use keyward_crds::synced_secret::StoreKind;
use keyward_crds::{ClusterSecretStore, SecretStore};
use keyward_stand_ins::http::{Answer, StandIn};
use serde_json::{Value, json};

use super::*;
use crate::cluster::{ApiAudiences, ClusterReader};
use crate::stores::barbican::BarbicanSessions;
use crate::stores::barbican::lockout::{LoginGate, LoginMemory};

/// No password is ever sent here.
struct NoPasswords;

impl LoginMemory for NoPasswords {
    fn known(&self, _: &Login, _: DateTime<Utc>) -> Known {
        Known::New
    }

    fn note(&self, _: Login, _: Step, _: DateTime<Utc>) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

/// A registry with one store, over an API server.
fn registry(server: &StandIn, key: &StoreKey, store: StoreObject) -> StoreRegistry {
    // Only the first test of the process installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = kube::Config::new(server.url().as_str().parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    let passwords = FingerprintKey::from_bytes(&[7; KEY_BYTES]).unwrap();
    let addresses = AddressPolicy {
        allow_loopback: true,
        ..AddressPolicy::default()
    };
    let builder = DoorBuilder {
        client: client.clone(),
        reader: ClusterReader::new(client),
        audiences: Arc::new(ApiAudiences::new(&[], None)),
        addresses: Arc::new(addresses.into()),
        vaults: Arc::default(),
        barbicans: Arc::new(BarbicanSessions::new(Arc::new(LoginGate::new(
            Arc::new(NoPasswords),
            Arc::new(passwords),
        )))),
    };
    let (listener, metrics) = (Arc::new(|_: &_, _: Option<&_>, _| ()), Arc::new(Metrics::new()));
    let registry = StoreRegistry::new(builder, Vec::new(), Pace::default(), listener, metrics);
    let identity = SlotIdentity {
        uid: "u-1".into(),
        generation: 1,
    };
    assert!(registry.put(key, identity, Ok(store)));
    registry
}

/// A store that logs in with a token of Secret `token`.
fn vault() -> Value {
    json!({
        "address": "https://127.0.0.1:1", "mount": "secret",
        "auth": {"token": {"tokenRef": {"name": "token", "key": "token"}}},
    })
}

fn token() -> Answer {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "apps", "name": "token", "uid": "u-2", "resourceVersion": "1"},
        "data": {"token": "cy4x"},
    });
    Answer::json(200, &secret.to_string())
}

async fn ask(registry: &StoreRegistry, key: &StoreKey) -> Result<u64, Reason> {
    let path: RemotePath = "apps/db".parse().unwrap();
    let asked = Asked::Place(Wanted::Path(&path));
    let door = registry.resolve("apps", key, asked).await;
    door.map(|door| door.id).map_err(|fault| fault.reason)
}

#[tokio::test]
async fn what_the_cluster_refuses_for_a_moment_does_not_stand() {
    let asked = AtomicUsize::new(0);
    let server = StandIn::plain(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::json(403, "{}"),
        1 => Answer::json(500, "{}"),
        _ => token(),
    })
    .await;
    let key = StoreKey {
        kind: StoreKind::SecretStore,
        object: ObjectKey::new("apps", "vault"),
    };
    let store = json!({"metadata": {"namespace": "apps", "name": "vault"}, "spec": {"vault": vault()}});
    let store: SecretStore = serde_json::from_value(store).unwrap();
    let registry = registry(&server, &key, StoreObject::of_namespace(key.clone(), store));
    assert_eq!(ask(&registry, &key).await, Err(Reason::ClusterDenied));
    assert_eq!(ask(&registry, &key).await, Err(Reason::ClusterUnavailable));
    let door = ask(&registry, &key).await.unwrap();
    assert_eq!(ask(&registry, &key).await, Ok(door), "it is built once");
}

#[tokio::test]
async fn a_namespace_that_is_not_known_yet_is_not_one_without_labels() {
    let server = StandIn::plain(|_| token()).await;
    let key = StoreKey {
        kind: StoreKind::ClusterSecretStore,
        object: ObjectKey::of_cluster("vault"),
    };
    let unless_restricted = json!({"matchExpressions": [{"key": "restricted", "operator": "DoesNotExist"}]});
    let excluding = json!({
        "access": [{"name": "all", "selector": unless_restricted, "paths": ["**"]}],
    });
    let of_production = json!({
        "environment": "production", "access": [{"name": "all", "selector": {}, "paths": ["**"]}],
    });
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    };
    for (mut spec, refused, reason) in [
        (excluding, ("restricted", "yes"), Reason::NamespaceRefused),
        (
            of_production,
            (ENVIRONMENT_LABEL, "test"),
            Reason::EnvironmentRefused,
        ),
    ] {
        spec["vault"] = vault();
        spec["credentials"] = json!({"from": "Namespace", "namespace": "apps"});
        let store: ClusterSecretStore =
            serde_json::from_value(json!({"metadata": {"name": "vault"}, "spec": spec})).unwrap();
        let object = StoreObject::of_cluster(key.clone(), store).unwrap();
        let registry = registry(&server, &key, object);
        assert_eq!(ask(&registry, &key).await, Err(Reason::Conflict));
        assert!(
            registry.put_namespace("apps".into(), labels(&[refused])),
            "its objects are woken"
        );
        assert_eq!(ask(&registry, &key).await, Err(reason));
        assert!(registry.put_namespace("apps".into(), labels(&[])));
        assert!(ask(&registry, &key).await.is_ok());
        registry.remove_namespace("apps");
        assert_eq!(
            ask(&registry, &key).await,
            Err(Reason::Conflict),
            "nobody is told"
        );
    }
}
