//! What the operator's own endpoint answers, as the reference says it.

use std::collections::BTreeSet;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::workspace;
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use crate::scene::Scene;

pub fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(suite, the_endpoint_answers_as_the_reference_says);
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
