//! Versions of a name that go backwards: an older secret that comes to light again.

use anyhow::{Result, ensure};
use keyward_crds::ACKNOWLEDGE_ANNOTATION;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::openstack::NewSecret;
use serde_json::json;

use super::{Cloud, next_second};
use crate::scene::{acknowledgement_in, message_of};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        an_older_secret_of_a_name_is_not_taken_until_acknowledged,
        an_older_match_of_a_search_is_not_taken_until_acknowledged,
    );
}

/// Each generation is a secret of its own, so deleting the newest one shows the one before.
async fn an_older_secret_of_a_name_is_not_taken_until_acknowledged(case: Case) -> Result<()> {
    goes_back(&case, &json!({"name": "db", "key": "db"})).await
}

async fn an_older_match_of_a_search_is_not_taken_until_acknowledged(case: Case) -> Result<()> {
    goes_back(&case, &json!({"find": {"prefix": "db"}})).await
}

async fn goes_back(case: &Case, source: &serde_json::Value) -> Result<()> {
    let cloud = Cloud::working(case).await?;
    let (scene, keys) = (&cloud.scene, cloud.tenant.key_manager());
    let old = keys.store(&NewSecret::named("db"), b"old").await?;
    next_second(&old, &cloud).await?;
    let new = keys.store(&NewSecret::named("db"), b"new").await?;
    let operator = scene.operator().await?;
    cloud.synced("db", source).await?;
    scene.holds("db", &[("db", "new")]).await?;
    scene.ready("db").await?;

    keys.delete(&new).await?;
    scene.refresh("db").await?;
    let object = scene
        .told(&operator, "db", "VersionRegressed", "the last value is kept")
        .await?;
    scene.holds("db", &[("db", "new")]).await?;
    // An acknowledgement of something else does not fit.
    scene.annotate("db", ACKNOWLEDGE_ANNOTATION, &old).await?;
    scene.refreshed(&operator, "db").await?;
    scene.holds("db", &[("db", "new")]).await?;

    let words = acknowledgement_in(message_of(&object)?)?;
    ensure!(words.contains(&old) && words.contains(&new), "{words}");
    scene.annotate("db", ACKNOWLEDGE_ANNOTATION, words).await?;
    scene.holds("db", &[("db", "old")]).await?;
    scene.ready("db").await.map(drop)
}
