//! The lineage of versions: what is made anew is taken and told, what goes backwards waits for a human.

use anyhow::{Result, ensure};
use keyward_crds::ACKNOWLEDGE_ANNOTATION;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::vault::Kv;
use serde_json::json;

use crate::scene::{FIRST, Scene, acknowledgement_in, message_of, often, often_with, path};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_new_lineage_is_taken_and_told,
        a_version_that_goes_back_keeps_the_last_value_until_acknowledged,
        an_edit_of_a_source_lets_its_version_go_back_and_no_other_edit_does,
    );
}

async fn a_new_lineage_is_taken_and_told(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    for password in ["first", "second", "third"] {
        scene.write("apps/db", &json!({"password": password})).await?;
    }
    let operator = scene.operator().await?;
    scene.synced("db", &often(&[path("apps/db")])).await?;
    scene.holds("db", &[("password", "third")]).await?;
    ensure!(
        scene.events("db", "NewLineage").await?.is_empty(),
        "a first sync is no new lineage"
    );
    scene.vault.api().delete_metadata(&scene.mount, "apps/db").await?;
    scene.write("apps/db", &json!({"password": "anew"})).await?;
    scene.holds("db", &[("password", "anew")]).await?;
    let note = scene.event("db", "NewLineage").await?;
    ensure!(
        note.contains("path `apps/db` was deleted and made anew"),
        "the event says: {note}"
    );
    scene.looked_again(&operator, "db").await?;
    scene.ready("db").await.map(drop)
}

async fn a_version_that_goes_back_keeps_the_last_value_until_acknowledged(case: Case) -> Result<()> {
    let (scene, operator) = Scene::with_db(&case, Kv::V2, &json!({})).await?;

    scene.accepted("db", 0, 9).await?;
    scene.write("apps/db", &json!({"password": "restored"})).await?;
    let object = scene
        .told(&operator, "db", "VersionRegressed", "the last value is kept")
        .await?;
    scene.holds("db", &FIRST).await?;
    // An acknowledgement of something else does not fit.
    scene.annotate("db", ACKNOWLEDGE_ANNOTATION, "8->1").await?;
    scene.refreshed(&operator, "db").await?;
    scene.holds("db", &FIRST).await?;

    let id = acknowledgement_in(message_of(&object)?)?;
    scene.annotate("db", ACKNOWLEDGE_ANNOTATION, id).await?;
    scene.holds("db", &[("password", "restored")]).await?;
    scene.ready("db").await.map(drop)
}

async fn an_edit_of_a_source_lets_its_version_go_back_and_no_other_edit_does(case: Case) -> Result<()> {
    let (scene, operator) = Scene::with_db(&case, Kv::V2, &json!({})).await?;
    scene.accepted("db", 0, 9).await?;
    scene.write("apps/db", &json!({"password": "restored"})).await?;
    scene
        .told(&operator, "db", "VersionRegressed", "after version 9")
        .await?;
    // Whoever suspends an object while a store is repaired has not said that the store may go back.
    let suspended = json!({"suspend": true});
    scene
        .synced("db", &often_with(&[path("apps/db")], &suspended))
        .await?;
    scene.reason("db", "Suspended").await?;
    let another = json!({"refresh": {"interval": "6s"}});
    scene
        .synced("db", &often_with(&[path("apps/db")], &another))
        .await?;
    scene
        .told(&operator, "db", "VersionRegressed", "after version 9")
        .await?;
    scene.holds("db", &FIRST).await?;
    let mut fixed = path("apps/db");
    fixed["version"] = 2.into();
    scene.synced("db", &often(&[fixed])).await?;
    scene.holds("db", &[("password", "restored")]).await?;
    scene.ready("db").await.map(drop)
}
