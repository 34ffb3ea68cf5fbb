//! The lineage of versions: what is made anew is taken and told, what goes backwards waits for a human.

use anyhow::{Result, ensure};
use keyward_crds::{ACKNOWLEDGE_ANNOTATION, SyncedSecret};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::vault::Kv;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::scene::{FIRST, Scene, acknowledgement_in, message_of, often, path};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_new_lineage_is_taken_and_told,
        a_version_that_goes_back_keeps_the_last_value_until_acknowledged,
        an_edit_of_the_spec_lets_a_version_go_back,
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

    accepted_later(&scene, "db").await?;
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

async fn an_edit_of_the_spec_lets_a_version_go_back(case: Case) -> Result<()> {
    let (scene, operator) = Scene::with_db(&case, Kv::V2, &json!({})).await?;
    accepted_later(&scene, "db").await?;
    scene.write("apps/db", &json!({"password": "restored"})).await?;
    scene
        .told(&operator, "db", "VersionRegressed", "after version 9")
        .await?;
    let mut fixed = path("apps/db");
    fixed["version"] = 2.into();
    scene.synced("db", &often(&[fixed])).await?;
    scene.holds("db", &[("password", "restored")]).await?;
    scene.ready("db").await.map(drop)
}

/// Makes the status say that a higher version of a later time was accepted, as it does where the store was put
/// back to an older state.
async fn accepted_later(scene: &Scene<'_>, name: &str) -> Result<()> {
    let versions = json!([{"source": 0, "number": 9, "created": "2099-01-01T00:00:00Z"}]);
    scene
        .api::<SyncedSecret>()
        .patch_status(
            name,
            &PatchParams::default(),
            &Patch::Merge(&json!({"status": {"versions": versions}})),
        )
        .await?;
    Ok(())
}
