//! Every document of the examples is what the API's types understand, down to the last field.

#![expect(clippy::unwrap_used, reason = "a page that cannot be read fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use keyward_crds::{ClusterSecretStore, SecretStore, SyncedSecret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[test]
fn every_document_is_understood_completely() {
    let mut kinds = BTreeSet::new();
    for (file, text) in examples() {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        for document in documents {
            let kind = document["kind"].as_str().unwrap_or_default().to_owned();
            let place = format!("{file}: {kind} {}", document["metadata"]["name"]);
            match kind.as_str() {
                "ClusterSecretStore" => check::<ClusterSecretStore>(&document, &place),
                "SecretStore" => check::<SecretStore>(&document, &place),
                "SyncedSecret" => check::<SyncedSecret>(&document, &place),
                "Deployment" => check::<Deployment>(&document, &place),
                "Namespace" => check::<Namespace>(&document, &place),
                "ServiceAccount" => check::<ServiceAccount>(&document, &place),
                _ => panic!("{place}: a kind that this test does not know"),
            }
            kinds.insert(kind);
        }
    }
    for kind in ["ClusterSecretStore", "SecretStore", "SyncedSecret"] {
        assert!(kinds.contains(kind), "no example of {kind}");
    }
}

#[test]
fn every_token_is_explained() {
    let used: BTreeSet<String> = examples().values().flat_map(|text| tokens(text)).collect();
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let explained: BTreeSet<String> = readme
        .lines()
        .filter(|line| line.starts_with("| `${"))
        .flat_map(tokens)
        .collect();
    assert_eq!(used, explained);
}

#[test]
fn no_example_holds_a_secret() {
    for (file, text) in examples() {
        assert!(!text.contains("kind: Secret\n"), "{file}");
        assert!(!text.contains("PRIVATE KEY"), "{file}");
    }
}

/// A field that the types do not know is lost on the way through them.
fn check<T: DeserializeOwned + Serialize>(document: &Value, place: &str) {
    let typed: T =
        serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{place}: {error}"));
    let kept = serde_json::to_value(&typed).unwrap();
    if let Some(lost) = first_lost(document, &kept) {
        panic!("{place}: {lost} is no field of the API");
    }
}

/// The path of the first member of `given` that `kept` lacks.
fn first_lost(given: &Value, kept: &Value) -> Option<String> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => given.iter().find_map(|(name, value)| {
            let Some(kept) = kept.get(name) else {
                return Some(format!(".{name}"));
            };
            first_lost(value, kept).map(|lost| format!(".{name}{lost}"))
        }),
        (Value::Array(given), Value::Array(kept)) if given.len() == kept.len() => given
            .iter()
            .zip(kept)
            .enumerate()
            .find_map(|(index, (given, kept))| {
                first_lost(given, kept).map(|lost| format!("[{index}]{lost}"))
            }),
        (given, kept) if given == kept => None,
        _ => Some(String::new()),
    }
}

fn tokens(text: &str) -> Vec<String> {
    text.split("${")
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn examples() -> BTreeMap<String, String> {
    let files: BTreeMap<_, _> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(!files.is_empty());
    files
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/examples")
}

#[test]
fn a_lost_field_is_found() {
    let given = serde_json::json!({"spec": {"a": [{"b": 1, "typo": 2}]}});
    let kept = serde_json::json!({"spec": {"a": [{"b": 1}], "more": true}});
    assert_eq!(first_lost(&given, &kept).as_deref(), Some(".spec.a[0].typo"));
    assert_eq!(first_lost(&kept, &kept), None);
}
