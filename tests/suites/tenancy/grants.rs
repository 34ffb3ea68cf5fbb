//! Cluster stores grant namespaces and paths; everything else is refused, by the name of the rule.

use anyhow::{Result, ensure};
use keyward_crds::ENVIRONMENT_LABEL;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::kubernetes::Parts;
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use crate::scene::Scene;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_namespace_reads_what_a_rule_grants_and_nothing_else,
        a_changed_label_or_rule_takes_effect_at_once,
        another_environment_is_refused,
    );
}

/// Rules by name and by label, as a platform team would write them.
fn access() -> Value {
    json!([
        {"name": "by-name", "namespaces": ["team-a"], "paths": ["shared/*"]},
        {
            "name": "own-folder", "selector": {"matchLabels": {"example.com/team": "yes"}},
            "paths": ["teams/{{namespace}}/**"],
        },
    ])
}

async fn a_namespace_reads_what_a_rule_grants_and_nothing_else(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    for path in [
        "shared/banner",
        "shared/deep/banner",
        "teams/team-a/db",
        "teams/team-b/db",
        "teams/team-b/deep/web",
        "admin/root",
    ] {
        scene.write(path, &json!({"value": path})).await?;
    }
    let team = json!({"example.com/team": "yes"});
    scene.another_namespace("team-a", &team).await?;
    scene.another_namespace("team-b", &team).await?;
    scene.another_namespace("stranger", &json!({})).await?;
    scene
        .cluster_store("shared", &scene.cluster_spec(&access()))
        .await?;
    let granted = [
        ("team-a", "banner", json!({"path": "shared/banner"})),
        ("team-a", "own", json!({"path": "teams/team-a/db"})),
        ("team-b", "own", json!({"path": "teams/team-b/db"})),
        ("team-b", "deep", json!({"path": "teams/team-b/deep/web"})),
        (
            "team-b",
            "found",
            json!({"find": {"prefix": "teams/team-b/deep"}}),
        ),
    ];
    // What is refused, the reason, and the rules that are named because they could have granted it.
    let refused = [
        (
            "team-a",
            "too-deep",
            json!({"path": "shared/deep/banner"}),
            "by-name",
        ),
        (
            "team-a",
            "neighbour",
            json!({"path": "teams/team-b/db"}),
            "own-folder",
        ),
        (
            "team-b",
            "by-name",
            json!({"path": "shared/banner"}),
            "own-folder",
        ),
        ("team-b", "admin", json!({"path": "admin/root"}), "own-folder"),
        (
            "team-b",
            "wide",
            json!({"find": {"prefix": "teams"}}),
            "own-folder",
        ),
        ("team-b", "all", json!({"find": {"pattern": ".*"}}), "own-folder"),
        (
            "team-b",
            "beside",
            json!({"find": {"prefix": "teams/team-a"}}),
            "own-folder",
        ),
    ];
    let mark = scene.vault.audit().mark()?;
    let operator = scene.operator_of_all().await?;
    for (namespace, name, wanted) in &granted {
        scene.synced_in(namespace, name, "shared", wanted).await?;
    }
    for (namespace, name, wanted, _) in &refused {
        scene.synced_in(namespace, name, "shared", wanted).await?;
    }
    scene
        .synced_in("stranger", "own", "shared", &json!({"path": "teams/stranger/db"}))
        .await?;

    for (namespace, name, _) in &granted {
        scene.reason_in(namespace, name, "Synced").await?;
    }
    for (namespace, name, _, rule) in &refused {
        let message = scene.reason_in(namespace, name, "PathRefused").await?;
        ensure!(message.contains(rule), "{namespace}/{name}: {message}");
        ensure!(message.contains(namespace), "{namespace}/{name}: {message}");
    }
    let message = scene.reason_in("stranger", "own", "NamespaceRefused").await?;
    ensure!(message.contains("stranger"), "{message}");
    ensure!(
        operator
            .metric("keyward_failures_total", "reason=\"PathRefused\"")
            .await?
            >= 1.0
    );
    // The store was never asked for what was refused.
    for request in scene.asked_of_vault(mark)? {
        let refused = ["admin", "shared/deep", "teams/stranger"];
        let astray = refused.iter().any(|path| request.path.contains(path));
        ensure!(!astray, "{request:?}");
    }
    Ok(())
}

async fn a_changed_label_or_rule_takes_effect_at_once(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    scene.write("teams/team-b/db", &json!({"value": "one"})).await?;
    scene.write("shared/banner", &json!({"value": "two"})).await?;
    scene.another_namespace("team-a", &json!({})).await?;
    scene.another_namespace("team-b", &json!({})).await?;
    scene
        .cluster_store("shared", &scene.cluster_spec(&access()))
        .await?;
    let _operator = scene.operator_of_all().await?;
    let (own, banner) = (
        json!({"path": "teams/team-b/db"}),
        json!({"path": "shared/banner"}),
    );
    scene.synced_in("team-b", "own", "shared", &own).await?;
    scene.synced_in("team-a", "banner", "shared", &banner).await?;
    scene.reason_in("team-a", "banner", "Synced").await?;
    scene.reason_in("team-b", "own", "NamespaceRefused").await?;

    // Nothing is due for an hour: only the change itself can bring these about.
    scene
        .label_namespace("team-b", &json!({"example.com/team": "yes"}))
        .await?;
    scene.reason_in("team-b", "own", "Synced").await?;
    scene
        .label_namespace("team-b", &json!({"example.com/team": null}))
        .await?;
    scene.reason_in("team-b", "own", "NamespaceRefused").await?;

    let narrowed = json!([{"name": "by-name", "namespaces": ["team-a"], "paths": ["other/*"]}]);
    scene
        .cluster_store("shared", &scene.cluster_spec(&narrowed))
        .await?;
    let message = scene.reason_in("team-a", "banner", "PathRefused").await?;
    ensure!(
        message.contains("by-name") && message.contains("shared/banner"),
        "{message}"
    );
    Ok(())
}

async fn another_environment_is_refused(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    scene.write("shared/banner", &json!({"value": "two"})).await?;
    let everybody = json!([{"name": "all", "selector": {}, "paths": ["**"]}]);
    let mut spec = scene.cluster_spec(&everybody);
    spec["environment"] = "production".into();
    scene.cluster_store("shared", &spec).await?;
    let label = |environment: &str| json!({ENVIRONMENT_LABEL: environment});
    scene.another_namespace("prod", &label("production")).await?;
    scene.another_namespace("stage", &label("staging")).await?;
    scene.another_namespace("plain", &json!({})).await?;
    let _operator = scene.operator_of_all().await?;
    for namespace in ["prod", "stage", "plain"] {
        let banner = json!({"path": "shared/banner"});
        scene.synced_in(namespace, "banner", "shared", &banner).await?;
    }
    scene.reason_in("prod", "banner", "Synced").await?;
    scene.reason_in("plain", "banner", "Synced").await?;
    let message = scene.reason_in("stage", "banner", "EnvironmentRefused").await?;
    ensure!(
        message.contains("staging") && message.contains("production"),
        "{message}"
    );
    scene.label_namespace("stage", &label("production")).await?;
    scene.reason_in("stage", "banner", "Synced").await?;
    scene.label_namespace("prod", &label("staging")).await?;
    scene.reason_in("prod", "banner", "EnvironmentRefused").await?;

    // A store of the namespace itself keeps the same rule.
    let mut own = scene.vault_spec();
    own["environment"] = "production".into();
    scene.store("vault", &own).await?;
    scene.label_namespace(&scene.namespace, &label("staging")).await?;
    scene.synced_path("banner", "shared/banner").await?;
    scene.reason("banner", "EnvironmentRefused").await?;
    Ok(())
}
