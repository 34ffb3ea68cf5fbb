//! A workload gets the value that it reads at its start.

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use keyward_crds::SyncedSecret;
use kube::api::ListParams;

use super::{Shown, Step, WITHIN};
use crate::demo::screen::seconds;
use crate::demo::seeds::{self, OPENSTACK, Place};
use crate::demo::stage::Stage;

pub(super) const A_CONSUMER_IS_ROLLED_OUT: Step = Step {
    name: "A consumer is rolled out",
    says: "Keystone's database password changes in Vault. The Deployment keystone-api reads it at its start only.",
    within: WITHIN,
    show: |stage| show(stage).boxed(),
};

const DATABASE: Place = (OPENSTACK, "keystone-database");
const CONSUMER: &str = "keystone-api";

async fn show(stage: &Stage) -> Result<Shown> {
    stage
        .until("the Deployment to run", async || {
            settled(stage).await.unwrap_or(false)
        })
        .await?;
    let (hash, revisions) = (rolled_out(stage).await?, revisions(stage).await?);
    let connection = seeds::set_database_password(&stage.fleet.vault, &seeds::password()).await?;
    let arrived = stage.holds(DATABASE, "connection", connection.as_bytes()).await?;
    let rolled = stage
        .until("the Deployment to run with the new password", async || {
            let another = rolled_out(stage)
                .await
                .is_ok_and(|now| now.is_some() && now != hash);
            another && settled(stage).await.unwrap_or(false)
        })
        .await?;
    let restarts = self::revisions(stage).await?.saturating_sub(revisions);
    ensure!(restarts == 1, "the Deployment was restarted {restarts} times");
    let progress = progress(stage).await?;
    let table = stage
        .kubectl
        .show(&["-n", "openstack", "get", "kwss", "keystone-database"])
        .await?;
    let pods = stage
        .kubectl
        .show(&["-n", "openstack", "get", "deployment,replicaset"])
        .await?;
    Ok(Shown {
        headline: format!(
            "restarted once, {progress} consumers ready: {} for the new password, {} for the rollout",
            seconds(arrived),
            seconds(rolled)
        ),
        transcript: format!("{table}\n{pods}"),
    })
}

/// The hash of the values that every consumer runs with, once all do.
async fn rolled_out(stage: &Stage) -> Result<Option<String>> {
    let object = stage.api::<SyncedSecret>(DATABASE.0).get(DATABASE.1).await?;
    let rollout = object.status.and_then(|status| status.rollout);
    Ok(rollout
        .filter(|rollout| rollout.ready == rollout.total)
        .map(|rollout| rollout.hash))
}

async fn progress(stage: &Stage) -> Result<String> {
    let object = stage.api::<SyncedSecret>(DATABASE.0).get(DATABASE.1).await?;
    let rollout = object.status.and_then(|status| status.rollout);
    Ok(rollout.context("the status has no rollout")?.progress)
}

/// Whether the Deployment itself says that all its pods are of its present template.
async fn settled(stage: &Stage) -> Result<bool> {
    let deployment = stage.api::<Deployment>(OPENSTACK).get(CONSUMER).await?;
    let wanted = deployment.spec.and_then(|spec| spec.replicas);
    let status = deployment.status.context("the Deployment has no status")?;
    Ok(status.observed_generation == deployment.metadata.generation
        && status.updated_replicas == wanted
        && status.available_replicas == wanted
        && status.replicas == wanted)
}

/// How many templates the Deployment has had.
async fn revisions(stage: &Stage) -> Result<usize> {
    let sets = stage
        .api::<ReplicaSet>(OPENSTACK)
        .list(&ListParams::default())
        .await?;
    Ok(sets.items.len())
}
