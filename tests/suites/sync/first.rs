//! The first sync, an unchanged refresh, a change: what each costs on both sides, counted from the audit logs.

use std::time::Instant;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::kubernetes::ApiRequest;
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::{Kv, StoreRequest};
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, often, path, turns_since};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_path_becomes_a_secret,
        a_change_arrives,
        a_first_sync_is_two_writes_and_no_read,
        an_unchanged_refresh_costs_one_metadata_read_and_nothing_else,
        objects_created_at_different_times_share_a_refresh,
        objects_share_the_looks_at_a_place_whatever_else_they_name,
        fifty_objects_of_one_path_cost_two_requests,
        a_refresh_of_kv_version_1_reads_the_value_once_for_everybody,
    );
}

async fn a_path_becomes_a_secret(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene
        .write("apps/db", &json!({"username": "keyward", "password": "first"}))
        .await?;
    let _operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.ready("db").await?;
    scene
        .holds("db", &[("username", "keyward"), ("password", "first")])
        .await
}

async fn a_change_arrives(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &often(&[path("apps/db")])).await?;
    scene.holds("db", &[("password", "first")]).await?;
    scene.ready("db").await?;

    let (store, cluster) = scene.marks().await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.event("db", "SecretUpdated").await?;
    scene.looked_again(&operator, "db").await?;
    let reads = scene.asked_of_vault(store)?;
    ensure!(
        value_reads(&scene, &reads) == 1,
        "one change is one value read: {reads:?}"
    );
    let requests = scene.asked_of_kubernetes(cluster).await?;
    ensure!(
        count(&requests, "patch", "secrets") == 1 && count(&requests, "patch", "syncedsecrets/status") == 1,
        "one change is one Secret and one status: {requests:?}"
    );
    Ok(())
}

async fn a_first_sync_is_two_writes_and_no_read(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    scene.store_reason("vault", "StoreReady").await?;

    let (store, cluster) = scene.marks().await?;
    scene.synced("db", &often(&[path("apps/db")])).await?;
    scene.ready("db").await?;
    // A late write would show by the time of the next look.
    scene.looked_again(&operator, "db").await?;
    let requests = scene.asked_of_kubernetes(cluster).await?;
    ensure!(
        count(&requests, "patch", "secrets") == 1
            && count(&requests, "patch", "syncedsecrets/status") == 1
            && requests.len() == 2,
        "a first sync is one Secret, one status and nothing else: {requests:?}"
    );
    let asked = scene.asked_of_vault(store)?;
    ensure!(
        value_reads(&scene, &asked) == 1 && !asked.iter().any(StoreRequest::is_login),
        "a first sync with a store in use is one value read: {asked:?}"
    );
    Ok(())
}

async fn an_unchanged_refresh_costs_one_metadata_read_and_nothing_else(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "same"})).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &often(&[path("apps/db")])).await?;
    scene.ready("db").await?;
    scene.store_reason("vault", "StoreReady").await?;

    let (began, (store, cluster)) = (Instant::now(), scene.marks().await?);
    for _ in 0..2 {
        scene.looked_again(&operator, "db").await?;
    }
    let asked = scene.asked_of_vault(store)?;
    ensure!(
        !asked.is_empty() && asked.len() <= turns_since(began),
        "at most one request a turn: {asked:?}"
    );
    ensure!(
        asked
            .iter()
            .all(|request| request.path == format!("{}/metadata/apps/db", scene.mount)),
        "only metadata is read: {asked:?}"
    );
    let requests = scene.asked_of_kubernetes(cluster).await?;
    ensure!(
        requests.is_empty(),
        "an unchanged refresh asks nothing of the API server: {requests:?}"
    );
    Ok(())
}

async fn objects_created_at_different_times_share_a_refresh(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "same"})).await?;
    let operator = scene.operator().await?;
    let names = ["first", "second", "third", "fourth"];
    for name in names {
        scene.synced(name, &often(&[path("apps/db")])).await?;
        scene.ready(name).await?;
    }
    scene.looked_again(&operator, "first").await?;

    let (began, store) = (Instant::now(), scene.vault.audit().mark()?);
    for _ in 0..2 {
        scene.looked_again(&operator, "first").await?;
    }
    try_join_all(names.map(|name| scene.looked_again(&operator, name))).await?;
    let asked = scene.asked_of_vault(store)?;
    // Two turns of the first object, and those in which all of them were waited for.
    ensure!(
        (2..=turns_since(began)).contains(&asked.len()),
        "four objects share their looks: {asked:?}"
    );
    Ok(())
}

async fn objects_share_the_looks_at_a_place_whatever_else_they_name(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    for place in ["one", "two", "shared"] {
        scene
            .write(&format!("apps/{place}"), &json!({place: "same"}))
            .await?;
    }
    let operator = scene.operator().await?;
    for name in ["one", "two"] {
        let own = path(&format!("apps/{name}"));
        scene.synced(name, &often(&[own, path("apps/shared")])).await?;
        scene.ready(name).await?;
    }
    let store = scene.vault.audit().mark()?;
    let looks = |place: &str| -> Result<usize> {
        let at = format!("{}/metadata/apps/{place}", scene.mount);
        let asked = scene.asked_of_vault(store)?;
        Ok(asked.iter().filter(|request| request.path == at).count())
    };
    poll::until("three turns", SOON, || async {
        looks("one").is_ok_and(|looks| looks >= 3)
    })
    .await?;
    // Each place has its own turns of one length, so that their numbers differ by one at most.
    let (one, two, shared) = (looks("one")?, looks("two")?, looks("shared")?);
    ensure!(
        one.abs_diff(shared) <= 1 && two.abs_diff(shared) <= 1,
        "one look in each turn, whoever names the place: {one}, {two}, {shared}"
    );
    let asked = scene.asked_of_vault(store)?;
    ensure!(
        asked.iter().all(|request| request.path.contains("/metadata/")),
        "only metadata is read: {asked:?}"
    );
    // What only the second place shows arrives by its own turn.
    scene.write("apps/shared", &json!({"shared": "new"})).await?;
    scene.holds("two", &[("two", "same"), ("shared", "new")]).await?;
    drop(operator);
    Ok(())
}

async fn fifty_objects_of_one_path_cost_two_requests(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let value: Value = (0..10)
        .map(|key| (format!("key-{key}"), Value::from("v")))
        .collect();
    scene.write("apps/shared", &value).await?;
    let names: Vec<String> = (0..50).map(|number| format!("object-{number}")).collect();
    for name in &names {
        scene.synced_path(name, "apps/shared").await?;
    }
    let (store, cluster) = scene.marks().await?;
    let _operator = scene.operator().await?;
    for name in &names {
        let object = scene.ready(name).await?;
        let keys = object
            .status
            .and_then(|status| status.secret)
            .map(|secret| secret.keys);
        ensure!(keys == Some(10), "{name} has {keys:?} keys");
    }
    let asked = scene.asked_of_vault(store)?;
    let counted: Vec<_> = asked
        .iter()
        .filter(|request| !request.is_login() && !request.path.starts_with("sys/internal/ui/mounts/"))
        .collect();
    ensure!(
        counted.len() <= 2,
        "at most two requests for fifty objects: {counted:?}"
    );
    let overhead = asked.len() - counted.len();
    ensure!(overhead <= 2, "one login and one look at the mount: {asked:?}");
    let mut requests = scene.asked_of_kubernetes(cluster).await?;
    requests.retain(|request| names.contains(&request.name));
    ensure!(
        count(&requests, "patch", "secrets") == 50
            && count(&requests, "patch", "syncedsecrets/status") == 50
            && requests.len() == 100,
        "fifty objects are a hundred writes and no read: {requests:?}"
    );
    Ok(())
}

async fn a_refresh_of_kv_version_1_reads_the_value_once_for_everybody(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V1).await?;
    scene.write("apps/db", &json!({"password": "same"})).await?;
    let operator = scene.operator().await?;
    for name in ["first", "second"] {
        scene.synced(name, &often(&[path("apps/db")])).await?;
        scene.ready(name).await?;
    }
    scene.store_reason("vault", "StoreReady").await?;
    let (began, (store, cluster)) = (Instant::now(), scene.marks().await?);
    for _ in 0..2 {
        scene.looked_again(&operator, "first").await?;
    }
    let asked = scene.asked_of_vault(store)?;
    ensure!(
        !asked.is_empty() && asked.len() <= turns_since(began),
        "one read a turn for both objects: {asked:?}"
    );
    ensure!(
        asked
            .iter()
            .all(|request| request.path == format!("{}/apps/db", scene.mount)),
        "only the value is read: {asked:?}"
    );
    let requests = scene.asked_of_kubernetes(cluster).await?;
    ensure!(requests.is_empty(), "nothing is written: {requests:?}");
    scene.write("apps/db", &json!({"password": "new"})).await?;
    scene.holds("first", &[("password", "new")]).await?;
    scene.holds("second", &[("password", "new")]).await?;

    // Two places have two turns: each is read in its own alone.
    scene.write("apps/mail", &json!({"token": "t"})).await?;
    let both = [path("apps/db"), path("apps/mail")];
    scene.synced("both", &often(&both)).await?;
    scene.ready("both").await?;
    let mark = scene.vault.audit().mark()?;
    let reads = |place: &str| -> Result<usize> {
        let at = format!("{}/apps/{place}", scene.mount);
        let asked = scene.asked_of_vault(mark)?;
        Ok(asked.iter().filter(|request| request.path == at).count())
    };
    poll::until("three turns", SOON, || async {
        reads("mail").is_ok_and(|reads| reads >= 3)
    })
    .await?;
    let (db, mail) = (reads("db")?, reads("mail")?);
    ensure!(db.abs_diff(mail) <= 1, "one read in each turn: {db}, {mail}");
    Ok(())
}

fn count(requests: &[ApiRequest], verb: &str, resource: &str) -> usize {
    requests
        .iter()
        .filter(|request| request.verb == verb && request.resource == resource)
        .count()
}

fn value_reads(scene: &Scene<'_>, requests: &[StoreRequest]) -> usize {
    requests
        .iter()
        .filter(|request| request.is_value_read(&scene.mount))
        .count()
}
