//! Whether the API server serves our kinds.

use http::Method;
use keyward_core::fault::{Class, Fault};
use keyward_crds::{ClusterSecretStore, SecretStore, SyncedSecret};
use kube::{Client, Resource};

use super::call::{Question, call};

/// Asks for the metadata of a list only.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// The kinds that are not installed, by listing one object of each. It needs no right beyond those of the watches.
pub async fn missing_kinds(client: &Client, namespace: Option<&str>) -> Result<Vec<&'static str>, Fault> {
    let kinds = [
        ("SecretStore", SecretStore::url_path(&(), namespace)),
        ("ClusterSecretStore", ClusterSecretStore::url_path(&(), None)),
        ("SyncedSecret", SyncedSecret::url_path(&(), namespace)),
    ];
    let mut missing = Vec::new();
    for (kind, path) in kinds {
        let what = format!("listing {kind}s");
        let question = Question {
            what: &what,
            method: Method::GET,
            path: format!("{path}?limit=1"),
            accept: METADATA_LIST,
            body: None,
        };
        match call(client, question).await {
            Ok(_) => {}
            Err(refusal) if refusal.fault.class == Class::Absent => missing.push(kind),
            Err(refusal) => return Err(refusal.fault),
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::call::tests::scripted;
    use super::*;

    #[tokio::test]
    async fn kinds_that_are_not_served_are_named() {
        let (client, seen) = scripted(|seen| {
            if seen.path.contains("clustersecretstores") {
                (404, json!({"code": 404}))
            } else {
                (200, json!({"items": []}))
            }
        });
        let missing = missing_kinds(&client, Some("apps")).await.unwrap();
        assert_eq!(missing, ["ClusterSecretStore"]);
        let seen = seen.lock().unwrap();
        assert_eq!(
            seen[2].path,
            "/apis/keyward.dev/v1alpha1/namespaces/apps/syncedsecrets?limit=1"
        );
    }
}
