//! What an object that fails asks of its store, counted by the store: while nothing has changed, no value is read again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::Operator;
use keyward_tests::rig::vault::Kv;
use keyward_tests::rig::{Mark, poll};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::scene::{FIRST, SOON, Scene, path};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        an_object_that_fails_on_its_value_reads_it_once_until_something_changes,
        an_object_that_may_not_write_reads_its_value_once_until_something_changes,
        a_deleted_or_regressed_version_is_told_without_a_read,
        an_object_that_fails_is_tried_ever_more_rarely,
    );
}

async fn an_object_that_fails_is_tried_ever_more_rarely(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let operator = scene.operator().await?;
    // A store that becomes ready wakes what waits for it, which would be a try out of turn.
    scene.store_reason("vault", "StoreReady").await?;
    scene.synced_path("absent", "apps/absent").await?;
    // Each try plans the next one, never sooner than it has to wait.
    let seen: Mutex<BTreeSet<DateTime<Utc>>> = Mutex::default();
    poll::until("four tries", Duration::from_mins(2), async || {
        let next = scene.state(&operator, "absent", "nextRefresh").await;
        let mut seen = seen.lock().await;
        seen.extend(next.as_str().and_then(|next| next.parse::<DateTime<Utc>>().ok()));
        seen.len() >= 4
    })
    .await?;
    let planned: Vec<_> = seen.into_inner().into_iter().collect();
    let waits: Vec<_> = planned
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_seconds_f64())
        .collect();
    // A delay is spread over the upper half of its length: of 5 s at first, and of 10, 20 and 40 s then.
    for (wait, shortest) in waits.iter().zip([5.0, 10.0, 20.0]) {
        ensure!(*wait > shortest - 0.2, "too soon: {waits:?}");
    }
    ensure!(waits[2] > waits[0], "no more rarely than at first: {waits:?}");
    Ok(())
}

async fn an_object_that_fails_on_its_value_reads_it_once_until_something_changes(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let mark = scene.vault.audit().mark()?;
    let operator = scene.operator().await?;
    let mut source = path("apps/db");
    source["fields"] = json!([{"field": "absent", "key": "password"}]);
    scene.synced("db", &json!({"sources": [source]})).await?;
    scene.reason("db", "FieldNotFound").await?;
    for _ in 0..3 {
        tried_again(&scene, &operator, "db").await?;
    }
    assert_eq!(value_reads(&scene, mark)?, 1);

    // A new version is read, and an edit is not answered with the old failure.
    scene.write("apps/db", &json!({"password": "second"})).await?;
    tried_again(&scene, &operator, "db").await?;
    poll::until("a read of the new version", SOON, || async {
        value_reads(&scene, mark).is_ok_and(|reads| reads == 2)
    })
    .await?;
    source = path("apps/db");
    scene.synced("db", &json!({"sources": [source]})).await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.ready("db").await?;
    Ok(())
}

async fn an_object_that_may_not_write_reads_its_value_once_until_something_changes(case: Case) -> Result<()> {
    let vault = case.private_vault().await?;
    let scene = Scene::with(&case, &vault, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    scene.credential("db", &json!({"of": "somebody else"})).await?;
    let mark = scene.vault.audit().mark()?;
    let operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.reason("db", "SecretNotOwned").await?;
    for _ in 0..3 {
        tried_again(&scene, &operator, "db").await?;
    }
    // Nor does an absence of the store make the value news.
    vault.seal().await?;
    tried_again(&scene, &operator, "db").await?;
    scene.reason("db", "StoreSealed").await?;
    vault.unseal().await?;
    scene.reason("db", "SecretNotOwned").await?;
    assert_eq!(value_reads(&scene, mark)?, 1);

    scene
        .api::<Secret>()
        .delete("db", &DeleteParams::default())
        .await?;
    scene.holds("db", &FIRST).await?;
    scene.ready("db").await?;
    ensure!(value_reads(&scene, mark)? <= 2);
    Ok(())
}

async fn a_deleted_or_regressed_version_is_told_without_a_read(case: Case) -> Result<()> {
    let (scene, operator) = Scene::with_db(&case, Kv::V2, &json!({})).await?;
    scene.vault.api().delete_secret(&scene.mount, "apps/db").await?;
    scene.reason("db", "RemoteDeleted").await?;
    // Right after it, when clocks could be in doubt, the store is asked for the value that it does not give any more.
    poll::until("a try that reads nothing", SOON, || async {
        let Ok(mark) = scene.vault.audit().mark() else {
            return false;
        };
        tried_again(&scene, &operator, "db").await.is_ok()
            && value_reads(&scene, mark).is_ok_and(|reads| reads == 0)
    })
    .await?;
    let mark = scene.vault.audit().mark()?;
    for _ in 0..2 {
        tried_again(&scene, &operator, "db").await?;
    }
    assert_eq!(value_reads(&scene, mark)?, 0);
    scene
        .vault
        .api()
        .undelete_secret(&scene.mount, "apps/db", &[1])
        .await?;
    tried_again(&scene, &operator, "db").await?;
    scene.ready("db").await?;
    assert_eq!(value_reads(&scene, mark)?, 0, "what came back is what is held");

    scene.accepted("db", 0, 9).await?;
    scene.reason("db", "VersionRegressed").await?;
    for _ in 0..2 {
        tried_again(&scene, &operator, "db").await?;
    }
    assert_eq!(value_reads(&scene, mark)?, 0);
    Ok(())
}

/// Wakes what reads from the scene's store, as a changed credential does, and waits until the object was tried.
async fn tried_again(scene: &Scene<'_>, operator: &Operator, name: &str) -> Result<()> {
    let next = || async {
        let state = operator.state(&scene.namespace, name).await;
        state.map_or(Value::Null, |mut state| state["nextRefresh"].take())
    };
    let before = next().await;
    let touched = json!({"metadata": {"annotations": {"touched": scene.case.unique()}}});
    scene
        .api::<ServiceAccount>()
        .patch("reader", &PatchParams::default(), &Patch::Merge(&touched))
        .await?;
    poll::until(&format!("another attempt for {name}"), SOON, || async {
        let now = next().await;
        !now.is_null() && now != before
    })
    .await
}

fn value_reads(scene: &Scene<'_>, mark: Mark) -> Result<usize> {
    let requests = scene.asked_of_vault(mark)?;
    Ok(requests
        .iter()
        .filter(|request| request.is_value_read(&scene.mount))
        .count())
}
