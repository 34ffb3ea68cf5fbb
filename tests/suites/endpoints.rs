//! What the operator's own endpoint answers, as the reference says it.

use std::collections::BTreeSet;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use k8s_openapi::api::apps::v1::Deployment;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::workspace;
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use crate::scene::{self, SOON, Scene, path};

pub fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(suite, the_endpoint_answers_as_the_reference_says);
    keyward_tests::tests!(suite, what_was_done_and_how_stores_are_is_counted);
}

async fn the_endpoint_answers_as_the_reference_says(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let operator = scene.operator().await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    scene.synced_path("db", "apps/db").await?;
    scene.synced_path("lost", "apps/lost").await?;
    scene.ready("db").await?;
    scene.reason("lost", "RemoteNotFound").await?;

    assert_eq!(operator.get("/livez").await?, "ok");
    assert_eq!(operator.get("/readyz").await?, "leading");

    let all: Value = serde_json::from_str(&operator.get("/state/syncedsecrets").await?)?;
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    let db = operator.state(&scene.namespace, "db").await?;
    assert_eq!((&db["ready"], &db["reason"]), (&json!(true), &json!("Synced")));
    let (last, next) = (instant(&db["lastCheck"])?, instant(&db["nextRefresh"])?);
    ensure!(
        last <= DateTime::<Utc>::from(SystemTime::now()) && next > last,
        "{db}"
    );
    ensure!(
        next - last <= chrono::TimeDelta::hours(1),
        "at the latest after one interval: {db}"
    );
    ensure!(db["failingSince"].is_null(), "{db}");
    let absent = operator.state(&scene.namespace, "lost").await?;
    assert_eq!(
        (&absent["ready"], &absent["reason"]),
        (&json!(false), &json!("RemoteNotFound"))
    );
    instant(&absent["failingSince"])?;
    instant(&absent["nextRefresh"])?;
    ensure!(
        operator.state(&scene.namespace, "nobody").await.is_err(),
        "there is no such object"
    );

    let metrics = operator.get("/metrics").await?;
    ensure!(metrics.ends_with("# EOF\n"), "OpenMetrics has an end");
    ensure!(
        !metrics.contains(&scene.namespace) && !metrics.contains("apps/"),
        "no name and no path is a label"
    );
    let served: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let page = page()?;
    let known = documented(&page);
    // A metric without a series yet, such as of rollouts, is not served.
    let unknown: Vec<_> = served.difference(&known).collect();
    ensure!(
        served.len() > 10 && unknown.is_empty(),
        "not on the page: {unknown:?}"
    );
    for (name, labels, least) in [
        ("keyward_objects", "readiness=\"Ready\"", 1.0),
        ("keyward_objects", "readiness=\"NotReady\"", 1.0),
        ("keyward_failures_total", "RemoteNotFound", 1.0),
        ("keyward_secret_writes_total", "Create", 1.0),
        ("keyward_status_writes_total", "SyncedSecret", 2.0),
        ("keyward_store_requests_total", "", 2.0),
        ("keyward_leader", "", 1.0),
    ] {
        operator.counted(name, labels, least).await?;
    }
    Ok(())
}

async fn what_was_done_and_how_stores_are_is_counted(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let operator = scene.operator().await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let mut broken = scene.vault_spec();
    broken["vault"]["mount"] = "nowhere".into();
    scene.store("broken", &broken).await?;
    let labels = json!({"app": "web"});
    let deployment = json!({"kind": "Deployment", "spec": {
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web"}]},
        },
    }});
    scene::apply(&scene.api::<Deployment>(), "web", deployment).await?;
    scene
        .synced(
            "db",
            &json!({
                "sources": [path("apps/db")], "consumers": [{"kind": "Deployment", "name": "web"}],
            }),
        )
        .await?;
    scene.credential("shared", &json!({"theirs": "x"})).await?;
    scene
        .synced(
            "guest",
            &json!({
                "sources": [path("apps/db")], "target": {"name": "shared", "adoption": {"policy": "AddKeys"}},
            }),
        )
        .await?;
    scene.ready("db").await?;
    scene.ready("guest").await?;
    scene.delete("db").await?;
    scene.delete("guest").await?;
    scene.holds("shared", &[("theirs", "x")]).await?;
    for (name, labels, wanted) in [
        ("keyward_rollouts_total", "kind=\"Deployment\"", 1.0),
        ("keyward_secret_writes_total", "operation=\"Create\"", 1.0),
        ("keyward_secret_writes_total", "operation=\"Update\"", 1.0),
        ("keyward_secret_writes_total", "operation=\"Release\"", 1.0),
        ("keyward_secret_writes_total", "operation=\"Delete\"", 1.0),
        ("keyward_objects", "kind=\"SecretStore\",readiness=\"Ready\"", 1.0),
        (
            "keyward_objects",
            "kind=\"SecretStore\",readiness=\"NotReady\"",
            1.0,
        ),
        (
            "keyward_objects",
            "kind=\"SecretStore\",readiness=\"Unknown\"",
            0.0,
        ),
        ("keyward_objects", "kind=\"SyncedSecret\"", 0.0),
        ("keyward_oldest_refresh_age_seconds", "", 0.0),
    ] {
        let what = format!("{name} {labels} to be {wanted}");
        poll::until(&what, SOON, async || {
            let value = operator.metric(name, labels).await;
            value.is_ok_and(|value| (value - wanted).abs() < 0.5)
        })
        .await?;
    }
    Ok(())
}

fn instant(value: &Value) -> Result<DateTime<Utc>> {
    let text = value.as_str().with_context(|| format!("{value} is no time"))?;
    Ok(DateTime::parse_from_rfc3339(text)?.with_timezone(&Utc))
}

fn page() -> Result<String> {
    Ok(std::fs::read_to_string(
        workspace().join("docs/reference/metrics.md"),
    )?)
}

/// The names in the table of metrics.
fn documented(page: &str) -> BTreeSet<&str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next())
        .filter(|name| name.starts_with("keyward_"))
        .collect()
}
