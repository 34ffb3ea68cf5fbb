//! Somebody lays hands on a Secret.

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Secret;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::{Shown, Step, WITHIN};
use crate::demo::screen::seconds;
use crate::demo::seeds::{OPENSTACK, Place};
use crate::demo::stage::Stage;

pub(super) const A_DELETED_SECRET_COMES_BACK: Step = Step {
    name: "A deleted Secret is repaired",
    says: "Somebody deletes a Secret that the cluster needs.",
    within: WITHIN,
    show: |stage| deletion(stage).boxed(),
};

pub(super) const A_HAND_EDIT_IS_REVERTED: Step = Step {
    name: "A hand edit is reverted",
    says: "Somebody changes a value in the cluster instead of in the store.",
    within: WITHIN,
    show: |stage| edit(stage).boxed(),
};

const VICTIM: Place = (OPENSTACK, "service-passwords");

/// What somebody types into the Secret.
const BY_HAND: &[u8] = b"made up by hand";

const OF_THE_VICTIM: &str = "involvedObject.kind=SyncedSecret,involvedObject.name=service-passwords";

async fn deletion(stage: &Stage) -> Result<Shown> {
    let before = uid(stage).await?.context("there is no Secret to delete")?;
    let values = stage.values(VICTIM).await?;
    let secrets = stage.api::<Secret>(VICTIM.0);
    secrets.delete(VICTIM.1, &DeleteParams::default()).await?;
    let took = stage
        .until("another Secret with the same values", async || {
            let another = uid(stage)
                .await
                .is_ok_and(|now| now.is_some_and(|now| now != before));
            another && stage.values(VICTIM).await.is_ok_and(|now| now == values)
        })
        .await?;
    Ok(Shown {
        headline: format!(
            "the Secret was back after {}, with the same values",
            seconds(took)
        ),
        transcript: stage
            .kubectl
            .show(&["-n", "openstack", "get", "secret", "service-passwords"])
            .await?,
    })
}

async fn edit(stage: &Stage) -> Result<Shown> {
    let values = stage.values(VICTIM).await?;
    let edit = Patch::Merge(json!({"stringData": {"nova": String::from_utf8_lossy(BY_HAND)}}));
    let edited = stage
        .api::<Secret>(VICTIM.0)
        .patch(VICTIM.1, &PatchParams::default(), &edit)
        .await?;
    let edited = edited.data.unwrap_or_default();
    ensure!(
        edited.get("nova").is_some_and(|value| value.0 == BY_HAND),
        "the edit was not taken"
    );
    let took = stage
        .until("the values from the store", async || {
            stage.values(VICTIM).await.is_ok_and(|now| now == values)
        })
        .await?;
    Ok(Shown {
        headline: format!("the value of the store was back after {}", seconds(took)),
        transcript: stage
            .kubectl
            .show(&[
                "-n",
                "openstack",
                "get",
                "events",
                "--field-selector",
                OF_THE_VICTIM,
            ])
            .await?,
    })
}

async fn uid(stage: &Stage) -> Result<Option<String>> {
    let secret = stage.api::<Secret>(VICTIM.0).get_opt(VICTIM.1).await?;
    Ok(secret.and_then(|secret| secret.metadata.uid))
}
