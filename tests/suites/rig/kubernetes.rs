//! The control plane: rights, tokens, rollouts, the audit log, and what the API server makes of preconditions.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::kubernetes::{Kubernetes, NEVER_READY, Parts, READINESS_LABEL};
use keyward_tests::rig::{http, poll};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use serde_json::{Value, json};

const ROLLED_OUT_WITHIN: Duration = Duration::from_mins(2);

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        those_without_rights_are_refused,
        tokens_are_good_for_their_audience_alone,
        deployments_roll_out_unless_told_never_to,
        the_audit_log_counts_each_request_once,
        apiserver_apply_preconditions,
        the_api_server_comes_back_with_its_data,
    );
}

async fn those_without_rights_are_refused(case: Case) -> Result<()> {
    let kubernetes = case.kubernetes().await?;
    let namespace = case.namespace().await?;

    let someone = kubernetes.user(&case.unique(), None)?.client("someone").await?;
    let refused = Api::<Secret>::namespaced(someone, &namespace)
        .list(&ListParams::default())
        .await;
    assert_eq!(status(refused), 403);

    let anonymous = http::client(kubernetes.ca())?;
    let url = format!("{}/api/v1/namespaces/{namespace}/secrets", kubernetes.url());
    assert_eq!(anonymous.get(url).send().await?.status(), 403);

    let admin = kubernetes.admin().client("admin").await?;
    Api::<Secret>::namespaced(admin, &namespace)
        .list(&ListParams::default())
        .await?;
    Ok(())
}

async fn tokens_are_good_for_their_audience_alone(case: Case) -> Result<()> {
    let kubernetes = case.kubernetes().await?;
    let namespace = case.namespace().await?;
    kubernetes.create_service_account(&namespace, "caller").await?;
    let token = kubernetes.token(&namespace, "caller", &["store"]).await?;

    assert!(is_authenticated(kubernetes, &token, "store").await?);
    assert!(!is_authenticated(kubernetes, &token, "another store").await?);
    let as_bearer = kubernetes.bearer(&token).client("bearer").await?;
    assert_eq!(status(as_bearer.apiserver_version().await), 401);

    let own = kubernetes.bearer(&kubernetes.token(&namespace, "caller", &[]).await?);
    own.client("bearer").await?.apiserver_version().await?;
    Ok(())
}

async fn deployments_roll_out_unless_told_never_to(case: Case) -> Result<()> {
    let kubernetes = case.kubernetes().await?;
    let namespace = case.namespace().await?;
    let deployments: Api<Deployment> = Api::namespaced(kubernetes.client(), &namespace);

    for (name, labels) in [
        ("good", json!({ "app": "good" })),
        ("hangs", json!({ "app": "hangs", READINESS_LABEL: NEVER_READY })),
    ] {
        let deployment = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": { "app": name } },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": [{ "name": "main", "image": "none" }] },
                },
            },
        }))?;
        deployments.create(&PostParams::default(), &deployment).await?;
    }
    let ready = async |name: &str| {
        let status = deployments
            .get(name)
            .await
            .ok()
            .and_then(|deployment| deployment.status);
        status
            .and_then(|status| status.ready_replicas)
            .unwrap_or_default()
    };
    poll::until("the good rollout", ROLLED_OUT_WITHIN, async || {
        ready("good").await == 2
    })
    .await?;
    // The other one's pods have run by now too: wait until all are seen running, then none is ready.
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(kubernetes.client(), &namespace);
    let running = ListParams::default()
        .labels("app=hangs")
        .fields("status.phase=Running");
    poll::until("the hanging pods to run", ROLLED_OUT_WITHIN, async || {
        pods.list(&running).await.is_ok_and(|list| list.items.len() == 2)
    })
    .await?;
    assert_eq!(ready("hangs").await, 0);

    let patch = json!({ "spec": { "template": { "metadata": { "annotations": { "changed": "yes" } } } } });
    deployments
        .patch("good", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    poll::until("the second rollout", ROLLED_OUT_WITHIN, async || {
        deployments.get("good").await.is_ok_and(|deployment| {
            let generation = deployment.metadata.generation;
            deployment.status.is_some_and(|status| {
                status.observed_generation == generation
                    && status.updated_replicas == Some(2)
                    && status.ready_replicas == Some(2)
                    && status.replicas == Some(2)
            })
        })
    })
    .await
}

async fn the_audit_log_counts_each_request_once(case: Case) -> Result<()> {
    let kubernetes = case.kubernetes().await?;
    let namespace = case.namespace().await?;
    let user = case.unique();
    let client = kubernetes
        .user(&user, Some("system:masters"))?
        .client("counted/1.0")
        .await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);

    let audit = kubernetes.audit();
    let before = audit.mark().await?;
    for name in ["one", "two"] {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        let map = ConfigMap {
            metadata,
            ..ConfigMap::default()
        };
        maps.create(&PostParams::default(), &map).await?;
    }
    for _ in 0..3 {
        maps.get("one").await?;
    }
    assert_eq!(status(maps.get("absent").await), 404);
    maps.list(&ListParams::default()).await?;
    maps.delete("two", &DeleteParams::default()).await?;

    let mut requests = audit.since(before).await?;
    requests.retain(|request| request.user == user);
    let seen: Vec<_> = requests
        .iter()
        .map(|r| (r.verb.as_str(), r.name.as_str(), r.status))
        .collect();
    assert_eq!(
        seen,
        [
            ("create", "one", 201),
            ("create", "two", 201),
            ("get", "one", 200),
            ("get", "one", 200),
            ("get", "one", 200),
            ("get", "absent", 404),
            ("list", "", 200),
            ("delete", "two", 200),
        ]
    );
    for request in requests {
        assert_eq!(
            (request.resource, request.namespace, request.user_agent),
            (
                "configmaps".to_owned(),
                namespace.clone(),
                "counted/1.0".to_owned()
            )
        );
    }
    let later = audit.mark().await?;
    assert!(
        audit
            .since(later)
            .await?
            .iter()
            .all(|request| request.user != user)
    );
    Ok(())
}

/// What the operator's writes stand on: an apply may carry the version that it was planned on, and "does not
/// exist" can be said too.
async fn apiserver_apply_preconditions(case: Case) -> Result<()> {
    let kubernetes = case.kubernetes().await?;
    let secrets: Api<Secret> = Api::namespaced(kubernetes.client(), &case.namespace().await?);
    let apply = async |name: &str, preconditions: Value| {
        let mut secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": preconditions, "data": { "key": "dmFsdWU=" } });
        secret["metadata"]["name"] = json!(name);
        secrets
            .patch(
                name,
                &PatchParams::apply("precondition-test").force(),
                &Patch::Apply(secret),
            )
            .await
    };

    // A version without a uid, on an object that does not exist: created.
    let created = apply("absent", json!({ "resourceVersion": "1" })).await?;
    assert_eq!(created.data.map(|data| data.len()), Some(1));

    // The same on an object that exists: refused, so a Secret made meanwhile is never overwritten.
    let existing = apply("existing", json!({})).await?;
    assert_eq!(
        status(apply("existing", json!({ "resourceVersion": "1" })).await),
        409
    );

    // The right uid with an old version: refused.
    let uid = existing.metadata.uid.context("a created Secret has a uid")?;
    let planned_on = existing
        .metadata
        .resource_version
        .context("a created Secret has a version")?;
    let label = json!({ "metadata": { "labels": { "touched": "yes" } } });
    let touched = secrets
        .patch("existing", &PatchParams::default(), &Patch::Merge(label))
        .await?;
    let stale = json!({ "uid": uid, "resourceVersion": planned_on });
    assert_eq!(status(apply("existing", stale).await), 409);
    let current = json!({ "uid": uid, "resourceVersion": touched.metadata.resource_version });
    apply("existing", current.clone()).await?;

    // The right uid and version of an object that was deleted meanwhile: refused, not made again.
    secrets.delete("existing", &DeleteParams::default()).await?;
    assert_eq!(status(apply("existing", current).await), 409);
    assert!(secrets.get_opt("existing").await?.is_none());

    // Version 0 is no precondition at all.
    apply("absent", json!({ "resourceVersion": "0" })).await?;
    Ok(())
}

async fn the_api_server_comes_back_with_its_data(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    kubernetes.create_namespace("kept").await?;
    kubernetes.stop_api_server()?;
    assert!(kubernetes.create_namespace("refused").await.is_err());
    kubernetes.start_api_server().await?;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(kubernetes.client());
    namespaces.get("kept").await?;
    Ok(())
}

async fn is_authenticated(kubernetes: &Kubernetes, token: &str, audience: &str) -> Result<bool> {
    let review = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![audience.to_owned()]),
        },
        ..TokenReview::default()
    };
    let review = Api::all(kubernetes.client())
        .create(&PostParams::default(), &review)
        .await?;
    Ok(review
        .status
        .and_then(|status| status.authenticated)
        .unwrap_or_default())
}

/// The HTTP status of a refusal.
fn status<T>(answer: kube::Result<T>) -> u16 {
    match answer {
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("no answer of the API server: {error}"),
        Ok(_) => 200,
    }
}
