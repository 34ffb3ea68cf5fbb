//! The API server refuses what the operator's rights allow: a quota, a policy, the end of a namespace.

use anyhow::{Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota, Secret};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::kubernetes::Parts;
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::scene::{self, FIRST, SOON, Scene};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        a_quota_and_a_policy_are_told_by_their_names_and_never_by_their_words,
        the_end_of_a_namespace_alarms_nobody,
    );
}

async fn a_quota_and_a_policy_are_told_by_their_names_and_never_by_their_words(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    // The operator's own Secrets are in the same namespace, and are made before anything is synced.
    scene.synced_path("before", "apps/db").await?;
    scene.ready("before").await?;

    // Its controller, which is not run here, would count what there is.
    let full = json!({"hard": {"count/secrets": "0"}});
    let quotas: Api<ResourceQuota> = scene.api();
    scene::apply(&quotas, "small", json!({"kind": "ResourceQuota", "spec": full})).await?;
    let counted = json!({"status": {"hard": full["hard"], "used": full["hard"]}});
    quotas
        .patch_status("small", &PatchParams::default(), &Patch::Merge(&counted))
        .await?;
    until_refused(&scene).await?;
    scene.synced_path("db", "apps/db").await?;
    scene
        .told(&operator, "db", "AdmissionRefused", "the resource quota `small`")
        .await?;
    ensure!(scene.values("db").await?.is_none());
    quotas.delete("small", &DeleteParams::default()).await?;
    scene.holds("db", &FIRST).await?;
    scene.ready("db").await?;

    let policy = scene.mount.clone();
    refuse_secrets(&scene, &policy).await?;
    until_refused(&scene).await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.refresh("db").await?;
    let words = format!("the cluster's admission policy `{policy}`");
    let object = scene.told(&operator, "db", "AdmissionRefused", &words).await?;
    let told = serde_json::to_string(&object.status)?;
    ensure!(!told.contains("c2Vjb25k"), "its message quotes the value: {told}");
    scene.holds("db", &FIRST).await?;
    Api::<ValidatingAdmissionPolicyBinding>::all(scene.kubernetes.client())
        .delete(&policy, &DeleteParams::default())
        .await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.ready("db").await?;
    let denied = operator
        .metric("keyward_failures_total", "reason=\"ClusterDenied\"")
        .await?;
    ensure!(denied.abs() < 0.5, "the operator has all its rights");
    Ok(())
}

async fn the_end_of_a_namespace_alarms_nobody(case: Case) -> Result<()> {
    // Without controllers a namespace that is deleted stays as it is: everything in it is still there.
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.ready("db").await?;
    Api::<Namespace>::all(kubernetes.client())
        .delete(&scene.namespace, &DeleteParams::default())
        .await?;
    until_refused(&scene).await?;
    scene
        .api::<Secret>()
        .delete("db", &DeleteParams::default())
        .await?;
    poll::until("attempts to make the Secret again", SOON, async || {
        let failed = operator
            .metric("keyward_failures_total", "reason=\"Conflict\"")
            .await;
        failed.is_ok_and(|failed| failed >= 2.0)
    })
    .await?;
    let failures = async |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        operator.metric("keyward_failures_total", &label).await
    };
    for alarming in ["ClusterDenied", "AdmissionRefused", "ClusterUnavailable"] {
        ensure!(failures(alarming).await?.abs() < 0.5, "{alarming}");
    }
    scene.reason("db", "Synced").await.map(drop)
}

/// Lets no Secret of Keyward's pass in the scene's namespace, in words that quote it.
async fn refuse_secrets(scene: &Scene<'_>, name: &str) -> Result<()> {
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}});
    let policy = json!({"kind": "ValidatingAdmissionPolicy", "spec": {
        "matchConstraints": {
            "namespaceSelector": here,
            "resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["secrets"],
            }],
        },
        "validations": [{
            "expression": "!has(object.data) || !('password' in object.data)",
            "messageExpression": "'unwanted: ' + string(object.data['password'])",
        }],
    }});
    let client = scene.kubernetes.client();
    scene::apply(
        &Api::<ValidatingAdmissionPolicy>::all(client.clone()),
        name,
        policy,
    )
    .await?;
    let binding = json!({"kind": "ValidatingAdmissionPolicyBinding", "spec": {
        "policyName": name, "validationActions": ["Deny"],
    }});
    scene::apply(
        &Api::<ValidatingAdmissionPolicyBinding>::all(client),
        name,
        binding,
    )
    .await
}

/// Waits until the API server, which learns of its own rules after a moment, makes no new Secret.
async fn until_refused(scene: &Scene<'_>) -> Result<()> {
    let probe: Value = json!({"metadata": {"name": "probe"}, "stringData": {"password": "x"}});
    let probe: Secret = serde_json::from_value(probe)?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let secrets = scene.api::<Secret>();
    poll::until("new Secrets to be refused", SOON, async || {
        secrets.create(&dry, &probe).await.is_err()
    })
    .await
}
