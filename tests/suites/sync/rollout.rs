//! Consumers: each changed value restarts each of them once, whoever dies in between, and the rollout is waited for.

use std::fmt::Debug;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyward_crds::{DESIRED_HASH_ANNOTATION, SyncedSecret};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::kubernetes::{NEVER_READY, READINESS_LABEL};
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::scene::{AUTHOR, SOON, Scene, often_with, path};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        each_changed_value_restarts_each_consumer_once,
        a_missing_consumer_is_told_and_rolled_out_when_it_comes,
        a_rollout_that_does_not_move_is_told,
        a_refused_restart_is_told_and_tried_again,
    );
}

/// The three kinds of consumer, each called as its kind in small letters.
const KINDS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

async fn each_changed_value_restarts_each_consumer_once(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    for kind in KINDS {
        workload(&scene, kind, &kind.to_lowercase(), &json!({})).await?;
    }
    let operator = scene.operator().await?;
    let consumers = KINDS.map(|kind| json!({"kind": kind, "name": kind.to_lowercase()}));
    let spec = often_with(&[path("apps/db")], &json!({"consumers": consumers}));
    scene.synced("db", &spec).await?;
    let first = rolled_out(&scene, "db", "3/3").await?;
    scene.ready("db").await?;
    let hashes = generations_and_hashes(&scene).await?;
    ensure!(
        hashes
            .iter()
            .all(|(generation, hash)| *generation == 2 && *hash == first),
        "each consumer is restarted once for the first value: {hashes:?}"
    );

    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.holds("db", &[("password", "second")]).await?;
    let second = scene
        .until("db", "rolled out with another hash", |object| {
            let rollout = object.status.as_ref().and_then(|status| status.rollout.as_ref());
            rollout.is_some_and(|rollout| rollout.hash != first && rollout.progress == "3/3")
        })
        .await?;
    let second = hash_of(&second)?;
    scene.event("db", "RolloutComplete").await?;
    operator.counted("keyward_rollouts_total", "", 6.0).await?;

    // Neither a restart of the operator, nor a look without news, nor a drift that is repaired is a changed value.
    operator.stop().await?;
    let store = scene.vault.audit().mark()?;
    let operator = scene.operator().await?;
    scene.looked_again(&operator, "db").await?;
    let asked = scene.asked_of_vault(store)?;
    ensure!(
        !asked.iter().any(|request| request.is_value_read(&scene.mount)),
        "a restart reads no value: {asked:?}"
    );
    let patch = json!({"stringData": {"password": "by hand"}});
    scene
        .api::<k8s_openapi::api::core::v1::Secret>()
        .patch("db", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.event("db", "DriftRepaired").await?;
    scene.looked_again(&operator, "db").await?;
    let hashes = generations_and_hashes(&scene).await?;
    ensure!(
        hashes
            .iter()
            .all(|(generation, hash)| *generation == 3 && *hash == second),
        "each consumer is restarted once for the second value: {hashes:?}"
    );
    Ok(())
}

async fn a_missing_consumer_is_told_and_rolled_out_when_it_comes(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    workload(&scene, "Deployment", "here", &json!({})).await?;
    let _operator = scene.operator().await?;
    let consumers = [
        json!({"kind": "Deployment", "name": "here"}),
        json!({"kind": "Deployment", "name": "missing"}),
    ];
    let spec = often_with(&[path("apps/db")], &json!({"consumers": consumers}));
    scene.synced("db", &spec).await?;
    let object = scene
        .until("db", "RolloutTargetMissing", |object| {
            rolled(object).is_some_and(|rolled| rolled.reason == "RolloutTargetMissing")
        })
        .await?;
    let condition = rolled(&object).context("there is no RolledOut condition")?;
    ensure!(
        condition.status == "False" && condition.message == "not found: Deployment missing",
        "the condition says: {condition:?}"
    );
    scene.event("db", "RolloutTargetMissing").await?;
    // The Secret is right whatever becomes of its consumers, and the others are not held up.
    scene.ready("db").await?;
    scene.holds("db", &[("password", "first")]).await?;
    progress(&scene, "db", "1/2").await?;
    workload(&scene, "Deployment", "missing", &json!({})).await?;
    rolled_out(&scene, "db", "2/2").await.map(drop)
}

async fn a_rollout_that_does_not_move_is_told(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let never = json!({"labels": {READINESS_LABEL: NEVER_READY}});
    workload(&scene, "Deployment", "web", &never).await?;
    let _operator = scene.operator().await?;
    let consumers = [json!({"kind": "Deployment", "name": "web"})];
    let spec = often_with(&[path("apps/db")], &json!({"consumers": consumers}));
    scene.synced("db", &spec).await?;
    let object = scene
        .until("db", "RolloutStalled", |object| {
            rolled(object).is_some_and(|rolled| rolled.reason == "RolloutStalled")
        })
        .await?;
    let condition = rolled(&object).context("there is no RolledOut condition")?;
    ensure!(
        condition.status == "False" && condition.message == "does not move: Deployment web",
        "the condition says: {condition:?}"
    );
    scene.event("db", "RolloutStalled").await?;
    scene.holds("db", &[("password", "first")]).await?;
    scene.ready("db").await?;
    workload(
        &scene,
        "Deployment",
        "web",
        &json!({"labels": {READINESS_LABEL: null}}),
    )
    .await?;
    rolled_out(&scene, "db", "1/1").await.map(drop)
}

async fn a_refused_restart_is_told_and_tried_again(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    for name in ["guarded", "other"] {
        workload(&scene, "Deployment", name, &json!({})).await?;
    }
    let guard = Guard::of(&scene, "guarded").await?;
    let operator = scene.operator().await?;
    let consumers = ["guarded", "other"].map(|name| json!({"kind": "Deployment", "name": name}));
    let mark = scene.vault.audit().mark()?;
    let spec = often_with(&[path("apps/db")], &json!({"consumers": consumers}));
    scene.synced("db", &spec).await?;
    let object = scene
        .until("db", "refused", |object| {
            rolled(object)
                .is_some_and(|rolled| rolled.status == "False" && rolled.reason != "RolloutProgressing")
        })
        .await?;
    let condition = rolled(&object).context("there is no RolledOut condition")?;
    scene.event("db", &condition.reason).await?;
    let label = format!("reason=\"{}\"", condition.reason);
    operator.counted("keyward_failures_total", &label, 1.0).await?;
    // What was written is on record, the other consumer is restarted, and no value is read for another attempt.
    scene.ready("db").await?;
    progress(&scene, "db", "1/2").await?;
    scene.looked_again(&operator, "db").await?;
    let asked = scene.asked_of_vault(mark)?;
    let reads = asked.iter().filter(|request| request.is_value_read(&scene.mount));
    ensure!(reads.count() == 1, "one value read: {asked:?}");
    guard.lift(&scene).await?;
    rolled_out(&scene, "db", "2/2").await.map(drop)
}

/// An admission policy that lets nobody change one Deployment.
struct Guard(String);

impl Guard {
    async fn of(scene: &Scene<'_>, deployment: &str) -> Result<Self> {
        let name = scene.case.unique();
        let client = scene.kubernetes.client();
        let policy = json!({
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}},
                    "resourceRules": [{
                        "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"],
                        "resources": ["deployments"], "resourceNames": [deployment],
                    }],
                },
                "validations": [{"expression": "false", "message": "not now"}],
            },
        });
        let binding = json!({
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        });
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        policies
            .create(&PostParams::default(), &serde_json::from_value(policy)?)
            .await?;
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client);
        bindings
            .create(&PostParams::default(), &serde_json::from_value(binding)?)
            .await?;
        // A policy takes a moment to be in force.
        let touch = Patch::Merge(json!({"metadata": {"annotations": {"example.com/touched": "x"}}}));
        let dry = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let deployments = scene.api::<Deployment>();
        poll::until("the policy to be in force", SOON, || async {
            deployments.patch(deployment, &dry, &touch).await.is_err()
        })
        .await?;
        Ok(Self(name))
    }

    async fn lift(self, scene: &Scene<'_>) -> Result<()> {
        let client = scene.kubernetes.client();
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        bindings.delete(&self.0, &DeleteParams::default()).await?;
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client);
        policies.delete(&self.0, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// Waits until every consumer runs with the present values, and returns their hash.
async fn rolled_out(scene: &Scene<'_>, name: &str, progress: &str) -> Result<String> {
    let object = scene
        .until(name, &format!("rolled out {progress}"), |object| {
            rolled(object).is_some_and(|rolled| rolled.status == "True" && rolled.reason == "RolloutComplete")
        })
        .await?;
    let rollout = object.status.as_ref().and_then(|status| status.rollout.as_ref());
    ensure!(
        rollout.is_some_and(|rollout| rollout.progress == progress),
        "{rollout:?}"
    );
    hash_of(&object)
}

async fn progress(scene: &Scene<'_>, name: &str, progress: &str) -> Result<()> {
    scene
        .until(name, &format!("at {progress}"), |object| {
            let rollout = object.status.as_ref().and_then(|status| status.rollout.as_ref());
            rollout.is_some_and(|rollout| rollout.progress == progress)
        })
        .await
        .map(drop)
}

fn hash_of(object: &SyncedSecret) -> Result<String> {
    let rollout = object.status.as_ref().and_then(|status| status.rollout.as_ref());
    Ok(rollout.context("there is no rollout")?.hash.clone())
}

fn rolled(object: &SyncedSecret) -> Option<&Condition> {
    let conditions = &object.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == "RolledOut")
}

/// Generation and hash of the consumer of each kind.
async fn generations_and_hashes(scene: &Scene<'_>) -> Result<[(i64, String); 3]> {
    Ok([
        generation_and_hash::<Deployment>(scene, "deployment").await?,
        generation_and_hash::<StatefulSet>(scene, "statefulset").await?,
        generation_and_hash::<DaemonSet>(scene, "daemonset").await?,
    ])
}

async fn generation_and_hash<K>(scene: &Scene<'_>, name: &str) -> Result<(i64, String)>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + serde::Serialize
        + DeserializeOwned,
{
    let workload = serde_json::to_value(scene.api::<K>().get(name).await?)?;
    let annotations = &workload["spec"]["template"]["metadata"]["annotations"];
    let hash = &annotations[format!("{DESIRED_HASH_ANNOTATION}.db")];
    Ok((
        workload["metadata"]["generation"].as_i64().unwrap_or_default(),
        hash.as_str().unwrap_or_default().to_owned(),
    ))
}

/// Applies a workload whose pods carry this metadata.
async fn workload(scene: &Scene<'_>, kind: &str, name: &str, pod: &Value) -> Result<()> {
    let mut labels = json!({"app": name});
    for (label, value) in pod["labels"].as_object().into_iter().flatten() {
        if !value.is_null() {
            labels[label.as_str()] = value.clone();
        }
    }
    let mut spec = json!({
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "web", "image": "example.com/web"}]},
        },
    });
    match kind {
        "StatefulSet" => spec["serviceName"] = name.into(),
        // What gets ready may take its time.
        "Deployment" if labels[READINESS_LABEL] == NEVER_READY => spec["progressDeadlineSeconds"] = 2.into(),
        _ => {}
    }
    let object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let params = PatchParams::apply(AUTHOR).force();
    let patch = Patch::Apply(&object);
    match kind {
        "StatefulSet" => drop(scene.api::<StatefulSet>().patch(name, &params, &patch).await?),
        "DaemonSet" => drop(scene.api::<DaemonSet>().patch(name, &params, &patch).await?),
        _ => drop(scene.api::<Deployment>().patch(name, &params, &patch).await?),
    }
    Ok(())
}
