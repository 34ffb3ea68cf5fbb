//! Cluster stores grant namespaces and paths; everything else is refused, by the name of the rule.

use anyhow::{Result, ensure};
use keyward_crds::ENVIRONMENT_LABEL;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::kubernetes::Parts;
use keyward_tests::rig::tls::Authority;
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use crate::scene::{Scene, message_of};
use crate::told::{Failure, Kind};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_namespace_reads_what_a_rule_grants_and_nothing_else,
        a_changed_label_or_rule_takes_effect_at_once,
        another_environment_is_refused,
        a_cluster_store_that_fails_is_told_and_keeps_what_it_gave,
    );
}

async fn a_cluster_store_that_fails_is_told_and_keeps_what_it_gave(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    scene.write("shared/banner", &json!({"value": "two"})).await?;
    let everybody = json!([{"name": "all", "selector": {}, "paths": ["**"]}]);
    let spec = scene.cluster_spec(&everybody);
    scene.cluster_store("shared", &spec).await?;
    scene.another_namespace("team-a", &json!({})).await?;
    let operator = scene.operator_of_all().await?;
    let banner = json!({"path": "shared/banner"});
    scene.synced_in("team-a", "banner", "shared", &banner).await?;
    let team_a = scene.seen_from("team-a");
    team_a.holds("banner", &[("value", "two")]).await?;

    let mut distrustful = spec.clone();
    distrustful["vault"]["ca"] = json!({"inline": Authority::new("stranger")?.certificate()});
    scene.cluster_store("shared", &distrustful).await?;
    let failed = Failure::new("banner", "TlsFailed", "trusted CA").keeps(&[("value", "two")]);
    team_a
        .survives(&operator, &failed, async || {
            scene.cluster_store_reason("shared", "TlsFailed").await?;
            scene
                .passed_on(&operator, Kind::ClusterSecretStore, "shared", "TlsFailed")
                .await?;
            scene.cluster_store("shared", &spec).await
        })
        .await?;
    scene.cluster_store_reason("shared", "StoreReady").await.map(drop)
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
        let there = scene.seen_from(namespace);
        let failure = Failure::new(name, "PathRefused", rule);
        let object = there.suffers(&operator, &failure).await?;
        let message = message_of(&object)?;
        ensure!(message.contains(namespace), "{namespace}/{name}: {message}");
    }
    let there = scene.seen_from("stranger");
    let failure = Failure::new("own", "NamespaceRefused", "stranger");
    there.suffers(&operator, &failure).await?;
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
    let operator = scene.operator_of_all().await?;
    let (own, banner) = (
        json!({"path": "teams/team-b/db"}),
        json!({"path": "shared/banner"}),
    );
    scene.synced_in("team-b", "own", "shared", &own).await?;
    scene.synced_in("team-a", "banner", "shared", &banner).await?;
    let (team_a, team_b) = (scene.seen_from("team-a"), scene.seen_from("team-b"));
    team_a.ready("banner").await?;

    let never = Failure::new("own", "NamespaceRefused", "team-b").ends_at_once();
    let label = async |value: Value| {
        let labels = json!({"example.com/team": value});
        scene.label_namespace("team-b", &labels).await
    };
    team_b
        .survives(&operator, &never, async || label(json!("yes")).await)
        .await?;
    team_b.holds("own", &[("value", "one")]).await?;
    label(Value::Null).await?;
    let no_longer = Failure::new("own", "NamespaceRefused", "team-b").keeps(&[("value", "one")]);
    team_b
        .survives(&operator, &no_longer, async || label(json!("yes")).await)
        .await?;

    let narrowed = json!([{"name": "by-name", "namespaces": ["team-a"], "paths": ["other/*"]}]);
    scene
        .cluster_store("shared", &scene.cluster_spec(&narrowed))
        .await?;
    let withdrawn = Failure::new("banner", "PathRefused", "by-name")
        .keeps(&[("value", "two")])
        .ends_at_once();
    let object = team_a.suffers(&operator, &withdrawn).await?;
    ensure!(message_of(&object)?.contains("shared/banner"));
    // A new value does not arrive until the right is back.
    scene.write("shared/banner", &json!({"value": "three"})).await?;
    team_a.refreshed(&operator, "banner").await?;
    team_a
        .survives(&operator, &withdrawn, async || {
            scene
                .cluster_store("shared", &scene.cluster_spec(&access()))
                .await
        })
        .await?;
    team_a.holds("banner", &[("value", "three")]).await
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
    let operator = scene.operator_of_all().await?;
    for namespace in ["prod", "stage", "plain"] {
        let banner = json!({"path": "shared/banner"});
        scene.synced_in(namespace, "banner", "shared", &banner).await?;
    }
    let (prod, stage) = (scene.seen_from("prod"), scene.seen_from("stage"));
    prod.ready("banner").await?;
    scene.seen_from("plain").ready("banner").await?;
    let other = Failure::new("banner", "EnvironmentRefused", "staging").ends_at_once();
    let object = stage.suffers(&operator, &other).await?;
    ensure!(message_of(&object)?.contains("production"));
    stage
        .survives(&operator, &other, async || {
            scene.label_namespace("stage", &label("production")).await
        })
        .await?;
    scene.label_namespace("prod", &label("staging")).await?;
    let moved = Failure::new("banner", "EnvironmentRefused", "staging").keeps(&[("value", "two")]);
    prod.survives(&operator, &moved, async || {
        scene.label_namespace("prod", &label("production")).await
    })
    .await?;

    // A store of the namespace itself keeps the same rule.
    let mut own = scene.vault_spec();
    own["environment"] = "production".into();
    scene.store("vault", &own).await?;
    scene.label_namespace(&scene.namespace, &label("staging")).await?;
    scene.synced_path("banner", "shared/banner").await?;
    scene.reason("banner", "EnvironmentRefused").await?;
    Ok(())
}
