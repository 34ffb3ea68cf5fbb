//! Restarts consumers by writing the hash they should run with into their pod template.
//!
//! The same hash twice changes nothing, so a consumer restarts once for each value however often the operator dies. Each
//! restart carries the resourceVersion it was planned on: a process that slept does not bring an old hash back.

use http::Method;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use keyward_core::fault::Fault;
use keyward_crds::synced_secret::ConsumerKind;
use kube::Client;
use serde_json::json;
use zeroize::Zeroizing;

use super::ObjectKey;
use super::apply::FIELD_MANAGER;
use super::call::{MERGE_PATCH, METADATA_ONLY, Question, call};
use super::status::path_of;

/// Restarts consumers. Cheap to clone.
#[derive(Clone)]
pub struct RolloutWriter {
    client: Client,
}

impl RolloutWriter {
    /// A writer over `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Sets `annotation` of the pod template to `hash`, if the consumer is still at this version.
    ///
    /// # Errors
    ///
    /// Class `Absent` means that the consumer does not exist, class `Conflict` that it has changed since.
    pub async fn set_hash(
        &self,
        kind: ConsumerKind,
        key: &ObjectKey,
        resource_version: &str,
        annotation: &str,
        hash: &str,
    ) -> Result<(), Fault> {
        let path = match kind {
            ConsumerKind::Deployment => path_of::<Deployment>(key),
            ConsumerKind::StatefulSet => path_of::<StatefulSet>(key),
            ConsumerKind::DaemonSet => path_of::<DaemonSet>(key),
        };
        let change = json!({
            "metadata": {"resourceVersion": resource_version},
            "spec": {"template": {"metadata": {"annotations": {annotation: hash}}}},
        });
        let what = format!("restarting {kind:?} {key}");
        let question = Question {
            what: &what,
            method: Method::PATCH,
            path: format!("{path}?fieldManager={FIELD_MANAGER}"),
            accept: METADATA_ONLY,
            body: Some((MERGE_PATCH, Zeroizing::new(change.to_string().into_bytes()))),
        };
        call(&self.client, question).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::tests::scripted;
    use super::*;

    #[tokio::test]
    async fn the_hash_goes_into_the_pod_template() {
        let (client, seen) = scripted(|_| (200, json!({"metadata": {}})));
        RolloutWriter::new(client)
            .set_hash(
                ConsumerKind::StatefulSet,
                &ObjectKey::new("apps", "db"),
                "7",
                "keyward.dev/secret-hash",
                "h1",
            )
            .await
            .unwrap();
        let seen = &seen.lock().unwrap()[0];
        assert_eq!(
            seen.path,
            "/apis/apps/v1/namespaces/apps/statefulsets/db?fieldManager=keyward"
        );
        assert_eq!(
            seen.body,
            json!({
                "metadata": {"resourceVersion": "7"},
                "spec": {"template": {"metadata": {"annotations": {"keyward.dev/secret-hash": "h1"}}}},
            })
        );
    }
}
