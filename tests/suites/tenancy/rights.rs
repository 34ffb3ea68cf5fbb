//! The operator's rights: what the chart grants is what it needs, and all of it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::{self, Operator, Settings};
use keyward_tests::rig::kubernetes::{ApiRequest, Parts};
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use crate::scene::{self, SOON, Scene};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(suite, the_operator_has_the_rights_it_uses_and_no_other);
    keyward_tests::tests!(suite, an_operator_of_one_namespace_needs_little_of_the_cluster);
}

/// A verb and a resource, with its subresource.
type Right = (String, String);

async fn the_operator_has_the_rights_it_uses_and_no_other(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let mark = kubernetes.audit().mark().await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    let operator = scene.operator_of_all().await?;
    be_busy(&scene).await?;
    operator.stop().await?;

    let account = format!("system:serviceaccount:{}:keyward", scene.namespace);
    let asked = async || {
        let mut asked = kubernetes.audit().since(mark).await?;
        asked.retain(|request| request.user == account);
        anyhow::Ok(asked)
    };
    let granted = granted()?;
    let idle = async || {
        let used: BTreeSet<Right> = asked().await?.iter().flat_map(rights_of).collect();
        anyhow::Ok(granted.difference(&used).cloned().collect::<Vec<_>>())
    };
    // A watch is in the log some time after its connection was closed.
    let all_used = poll::until("every right to be used", SOON, async || {
        idle().await.is_ok_and(|idle| idle.is_empty())
    });
    if all_used.await.is_err() {
        bail!("granted and never used: {:?}", idle().await?);
    }
    let mut refused = asked().await?;
    refused.retain(|request| request.status == 403);
    ensure!(refused.is_empty(), "{refused:?}");
    Ok(())
}

/// Kinds of the file's `ClusterRole` that lie in no namespace.
const OF_THE_CLUSTER: [&str; 4] = [
    "clustersecretstores",
    "clustersecretstores/status",
    "customresourcedefinitions",
    "namespaces",
];

async fn an_operator_of_one_namespace_needs_little_of_the_cluster(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::Whole).await?;
    let mark = kubernetes.audit().mark().await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    narrow_rights(&scene).await?;
    let settings = Settings::inside(&scene.namespace);
    let run = case.run().await?;
    let operator = Operator::launch_installed(run, &kubernetes, &case.unique(), &settings).await?;
    operator.ready().await?;
    be_busy(&scene).await?;
    operator.stop().await?;
    let account = format!("system:serviceaccount:{}:keyward", scene.namespace);
    let asked = kubernetes.audit().since(mark).await?;
    let refused: Vec<_> = asked
        .iter()
        .filter(|request| request.user == account && request.status == 403)
        .collect();
    ensure!(refused.is_empty(), "{refused:?}");
    Ok(())
}

/// Grants what the file grants, but in the scene's namespace alone where that is possible.
async fn narrow_rights(scene: &Scene<'_>) -> Result<()> {
    let (client, home) = (scene.kubernetes.client(), scene.namespace.as_str());
    operator::grant_rights(scene.kubernetes, home).await?;
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    bindings
        .delete(&format!("keyward-{home}"), &DeleteParams::default())
        .await?;
    let roles: Api<ClusterRole> = Api::all(client);
    let (mut everywhere, mut here) = (Vec::new(), Vec::new());
    for rule in roles.get("keyward").await?.rules.unwrap_or_default() {
        let of_cluster = |resource: &String| OF_THE_CLUSTER.contains(&resource.as_str());
        let all = rule.resources.clone().unwrap_or_default();
        let (cluster, inside): (Vec<_>, Vec<_>) = all.into_iter().partition(of_cluster);
        for (resources, rules) in [(cluster, &mut everywhere), (inside, &mut here)] {
            if !resources.is_empty() {
                rules.push(PolicyRule {
                    resources: Some(resources),
                    ..rule.clone()
                });
            }
        }
    }
    let subjects = json!([{"kind": "ServiceAccount", "name": "keyward", "namespace": home}]);
    let binding = |kind: &str, role: &str| {
        json!({
            "kind": kind, "subjects": subjects,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": "narrow"},
        })
    };
    scene::apply(
        &roles,
        "narrow",
        json!({"kind": "ClusterRole", "rules": everywhere}),
    )
    .await?;
    scene::apply(&bindings, "narrow", binding("ClusterRoleBinding", "ClusterRole")).await?;
    scene::apply(
        &scene.api::<Role>(),
        "narrow",
        json!({"kind": "Role", "rules": here}),
    )
    .await?;
    scene::apply(
        &scene.api::<RoleBinding>(),
        "narrow",
        binding("RoleBinding", "Role"),
    )
    .await
}

/// Brings about everything that the operator ever does in a cluster.
async fn be_busy(scene: &Scene<'_>) -> Result<()> {
    scene.write("apps/db", &json!({"password": "first"})).await?;
    scene.write("apps/web", &json!({"password": "first"})).await?;
    scene
        .credential("reader-token", &json!({"token": "wrong"}))
        .await?;
    scene
        .config_map("trust", &json!({"ca.crt": scene.vault.ca()}))
        .await?;
    let mut by_token =
        scene.vault_with(&json!({"token": {"tokenRef": {"name": "reader-token", "key": "token"}}}));
    by_token["vault"]["ca"] = json!({"configMapRef": {"name": "trust", "key": "ca.crt"}});
    scene.store("by-token", &by_token).await?;
    let all = json!([{"name": "all", "selector": {}, "paths": ["**"]}]);
    scene.cluster_store("shared", &scene.cluster_spec(&all)).await?;
    scene.store_reason("by-token", "CredentialRejected").await?;
    scene.cluster_store_reason("shared", "StoreReady").await?;

    let workload = |kind: &str| {
        let labels = json!({"app": "web"});
        json!({"kind": kind, "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": "web"}]},
            },
        }})
    };
    scene::apply(&scene.api::<Deployment>(), "web", workload("Deployment")).await?;
    scene::apply(&scene.api::<DaemonSet>(), "web", workload("DaemonSet")).await?;
    let mut stateful = workload("StatefulSet");
    stateful["spec"]["serviceName"] = "web".into();
    scene::apply(&scene.api::<StatefulSet>(), "web", stateful).await?;
    let consumers: Vec<_> = ["Deployment", "DaemonSet", "StatefulSet"]
        .iter()
        .map(|kind| json!({"kind": kind, "name": "web"}))
        .collect();
    let source = |path: &str| json!({"storeRef": {"name": "vault"}, "path": path});
    scene
        .synced(
            "db",
            &json!({"sources": [source("apps/db")], "consumers": consumers}),
        )
        .await?;
    scene
        .synced(
            "web",
            &json!({"sources": [source("apps/web")], "whenGone": {"deleted": "DeleteSecret"}}),
        )
        .await?;
    scene.ready("db").await?;
    scene.ready("web").await?;
    // The same event twice is one event that is counted up.
    for _ in 0..2 {
        let by_hand = json!({"stringData": {"password": "by hand"}});
        scene.edit("db", &by_hand).await?;
        scene.holds("db", &[("password", "first")]).await?;
    }
    // One Secret goes with its value, one with its object.
    scene.vault.api().delete_secret(&scene.mount, "apps/web").await?;
    scene.refresh("web").await?;
    scene.reason("web", "SecretRemoved").await?;
    scene.delete("db").await?;
    poll::until("the Secret to go", SOON, || async {
        scene.values("db").await.is_ok_and(|values| values.is_none())
    })
    .await?;
    // A Secret of somebody else, whose owners must be known before keys are added.
    scene.credential("foreign", &json!({"other": "theirs"})).await?;
    let adopting = json!({
        "sources": [source("apps/db")],
        "target": {"name": "foreign", "adoption": {"policy": "AddKeys"}},
    });
    scene.synced("foreign", &adopting).await?;
    scene.ready("foreign").await?;
    Ok(())
}

/// The rights that a request needed: an apply that made its object needed two.
fn rights_of(request: &ApiRequest) -> Vec<Right> {
    let right = |verb: &str| (verb.to_owned(), request.resource.clone());
    if request.verb == "patch" && request.status == 201 {
        vec![right("patch"), right("create")]
    } else {
        vec![right(&request.verb)]
    }
}

/// What the chart's file grants.
fn granted() -> Result<BTreeSet<Right>> {
    let file = operator::workspace().join("charts/keyward/files/rbac.yaml");
    let text = std::fs::read_to_string(file)?;
    let mut granted = BTreeSet::new();
    for document in text.split("\n---\n") {
        let object: serde_json::Value = serde_saphyr::from_str(document)?;
        let rules: Vec<PolicyRule> = match object["kind"].as_str() {
            Some("ClusterRole") => serde_json::from_value::<ClusterRole>(object)?
                .rules
                .unwrap_or_default(),
            Some("Role") => serde_json::from_value::<Role>(object)?.rules.unwrap_or_default(),
            _ => continue,
        };
        for rule in rules {
            for resource in rule.resources.context("every rule names resources")? {
                granted.extend(rule.verbs.iter().map(|verb| (verb.clone(), resource.clone())));
            }
        }
    }
    ensure!(granted.len() > 20, "{granted:?}");
    Ok(granted)
}
