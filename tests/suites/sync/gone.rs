//! What a store no longer has: the last value stays unless the store itself says deleted or destroyed *and* the
//! object asks for a removal. Whatever was kept or removed comes back by itself with the value.

use anyhow::{Result, ensure};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::Operator;
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use serde_json::json;

use crate::scene::{FIRST, SOON, Scene, often, often_with, path, strictest};
use crate::told::Failure;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_soft_deleted_value_is_kept_and_its_restoration_is_noticed,
        a_destroyed_value_is_kept_until_a_new_one_is_written,
        removed_metadata_removes_nothing_whatever_the_policy,
        a_path_missing_from_kv_version_1_removes_nothing_whatever_the_policy,
        remove_keys_takes_the_keys_of_the_deleted_source_alone,
        delete_secret_deletes_it_and_brings_it_back,
        what_was_removed_does_not_come_back_older,
        one_source_that_is_kept_keeps_the_whole_secret,
        a_path_that_never_was_is_told_and_arrives_later,
    );
}

async fn a_soft_deleted_value_is_kept_and_its_restoration_is_noticed(case: Case) -> Result<()> {
    let (scene, operator) = Scene::with_db(&case, Kv::V2, &json!({})).await?;
    scene.vault.api().delete_secret(&scene.mount, "apps/db").await?;
    let words = "path `apps/db` is deleted in the store; restore it, or set `whenGone.deleted`; the last value is kept";
    let deleted = Failure::new("db", "RemoteDeleted", words).keeps(&FIRST);
    scene
        .survives(&operator, &deleted, async || {
            let api = scene.vault.api();
            api.undelete_secret(&scene.mount, "apps/db", &[1]).await
        })
        .await?;
    scene.event("db", "Synced").await?;
    scene.holds("db", &FIRST).await
}

async fn a_destroyed_value_is_kept_until_a_new_one_is_written(case: Case) -> Result<()> {
    let (scene, operator) = Scene::with_db(&case, Kv::V2, &json!({})).await?;
    scene
        .vault
        .api()
        .destroy_secret(&scene.mount, "apps/db", &[1])
        .await?;
    let words = "path `apps/db` is destroyed in the store";
    let destroyed = Failure::new("db", "RemoteDestroyed", words).keeps(&FIRST);
    ended_by_a_value(&scene, &operator, &destroyed, "apps/db", "second").await?;
    scene.holds("db", &[("password", "second")]).await
}

async fn removed_metadata_removes_nothing_whatever_the_policy(case: Case) -> Result<()> {
    let (scene, operator) = Scene::with_db(&case, Kv::V2, &strictest()).await?;
    scene.vault.api().delete_metadata(&scene.mount, "apps/db").await?;
    written_anew(&scene, &operator).await?;
    scene.event("db", "NewLineage").await.map(drop)
}

async fn a_path_missing_from_kv_version_1_removes_nothing_whatever_the_policy(case: Case) -> Result<()> {
    let (scene, operator) = Scene::with_db(&case, Kv::V1, &strictest()).await?;
    scene
        .vault
        .api()
        .delete(&format!("{}/apps/db", scene.mount))
        .await?;
    written_anew(&scene, &operator).await
}

async fn remove_keys_takes_the_keys_of_the_deleted_source_alone(case: Case) -> Result<()> {
    let (scene, operator) = two_sources(&case, "RemoveKeys").await?;
    scene
        .vault
        .api()
        .delete_secret(&scene.mount, "apps/cache")
        .await?;
    scene.holds("both", &FIRST).await?;
    removed(&scene, "both", "path `apps/cache` is deleted in the store").await?;
    // It stays so, whoever wakes the object, and a look is all that it costs.
    let store = scene.vault.audit().mark()?;
    scene.annotate("both", "example.com/note", "unrelated").await?;
    scene.looked_again(&operator, "both").await?;
    scene.reason("both", "SecretRemoved").await?;
    ensure!(
        scene.events("both", "SecretRemoved").await?.len() == 1
            && scene.events("both", "Synced").await?.is_empty(),
        "a removal is told once"
    );
    let asked = scene.asked_of_vault(store)?;
    ensure!(
        !asked.iter().any(|request| request.is_value_read(&scene.mount)),
        "no value is read again: {asked:?}"
    );
    // The other source is followed all the same.
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.holds("both", &[("password", "second")]).await?;
    scene.reason("both", "SecretRemoved").await?;
    scene
        .vault
        .api()
        .undelete_secret(&scene.mount, "apps/cache", &[1])
        .await?;
    scene
        .holds("both", &[("password", "second"), ("token", "t")])
        .await?;
    scene.ready("both").await?;
    // Each of the three changes is counted.
    operator
        .counted("keyward_secret_writes_total", "operation=\"Update\"", 3.0)
        .await
}

async fn delete_secret_deletes_it_and_brings_it_back(case: Case) -> Result<()> {
    let policy = json!({"whenGone": {"deleted": "DeleteSecret"}});
    let (scene, operator) = Scene::with_db(&case, Kv::V2, &policy).await?;
    scene.vault.api().delete_secret(&scene.mount, "apps/db").await?;
    poll::until("the Secret to be gone", SOON, || async {
        matches!(scene.values("db").await, Ok(None))
    })
    .await?;
    removed(&scene, "db", "path `apps/db` is deleted in the store").await?;
    operator
        .counted("keyward_secret_writes_total", "operation=\"Delete\"", 1.0)
        .await?;
    scene
        .vault
        .api()
        .undelete_secret(&scene.mount, "apps/db", &[1])
        .await?;
    scene.holds("db", &FIRST).await?;
    scene.ready("db").await.map(drop)
}

async fn what_was_removed_does_not_come_back_older(case: Case) -> Result<()> {
    for policy in ["RemoveKeys", "DeleteSecret"] {
        let (scene, operator) = two_sources(&case, policy).await?;
        scene.ready("both").await?;
        scene
            .vault
            .api()
            .delete_secret(&scene.mount, "apps/cache")
            .await?;
        scene.reason("both", "SecretRemoved").await?;
        let before = scene.values("both").await?;
        scene.accepted("both", 1, 9).await?;
        scene
            .vault
            .api()
            .undelete_secret(&scene.mount, "apps/cache", &[1])
            .await?;
        scene
            .told(
                &operator,
                "both",
                "VersionRegressed",
                "path `apps/cache`: the store shows",
            )
            .await?;
        ensure!(
            scene.values("both").await? == before,
            "an older value came back after {policy}"
        );
    }
    Ok(())
}

async fn one_source_that_is_kept_keeps_the_whole_secret(case: Case) -> Result<()> {
    let (scene, operator) = two_sources(&case, "DeleteSecret").await?;
    scene
        .vault
        .api()
        .destroy_secret(&scene.mount, "apps/db", &[1])
        .await?;
    let destroyed = Failure::new("both", "RemoteDestroyed", "apps/db").keeps(&BOTH);
    scene.suffers(&operator, &destroyed).await?;
    scene
        .vault
        .api()
        .delete_secret(&scene.mount, "apps/cache")
        .await?;
    scene.refreshed(&operator, "both").await?;
    scene.holds("both", &BOTH).await
}

async fn a_path_that_never_was_is_told_and_arrives_later(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let operator = scene.operator().await?;
    scene.synced("later", &often(&[path("apps/later")])).await?;
    let words = "path `apps/later` is not there; check the name and the policy";
    let absent = Failure::new("later", "RemoteNotFound", words);
    ended_by_a_value(&scene, &operator, &absent, "apps/later", "first").await?;
    scene.holds("later", &FIRST).await
}

/// Expects that a failure is told, and that a value at `path` ends it.
async fn ended_by_a_value(
    scene: &Scene<'_>,
    operator: &Operator,
    failure: &Failure<'_>,
    path: &str,
    password: &str,
) -> Result<()> {
    let mend = async || {
        let value = json!({"password": password});
        scene.write(path, &value).await.map(drop)
    };
    scene.survives(operator, failure, mend).await.map(drop)
}

/// Expects that the path of object `db`, which held [`FIRST`], is told as missing, and that a new value there is taken.
async fn written_anew(scene: &Scene<'_>, operator: &Operator) -> Result<()> {
    let lost = Failure::new("db", "RemoteNotFound", "path `apps/db` is not there").keeps(&FIRST);
    ended_by_a_value(scene, operator, &lost, "apps/db", "anew").await?;
    scene.holds("db", &[("password", "anew")]).await
}

/// What [`two_sources`] begins with.
const BOTH: [(&str, &str); 2] = [("password", "first"), ("token", "t")];

/// A scene whose object `both` holds [`BOTH`], with this policy for what is deleted.
async fn two_sources<'a>(case: &'a Case, when_deleted: &str) -> Result<(Scene<'a>, Operator)> {
    let scene = Scene::new(case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    scene.write("apps/cache", &json!({"token": "t"})).await?;
    let operator = scene.operator().await?;
    let sources = [path("apps/db"), path("apps/cache")];
    let policy = json!({"whenGone": {"deleted": when_deleted}});
    scene.synced("both", &often_with(&sources, &policy)).await?;
    scene.holds("both", &BOTH).await?;
    Ok((scene, operator))
}

/// Waits until a removal is told by the condition and by an event.
async fn removed(scene: &Scene<'_>, name: &str, words: &str) -> Result<()> {
    let object = scene.reason(name, "SecretRemoved").await?;
    let message = crate::scene::message_of(&object)?;
    ensure!(
        message.contains(words) && message.contains("its keys were removed as asked"),
        "the condition says: {message}"
    );
    scene.event(name, "SecretRemoved").await.map(drop)
}
