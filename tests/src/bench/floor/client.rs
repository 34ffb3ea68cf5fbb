//! The order of the floor's requests.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _};
use keyward::runtime::clock;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::barbican::Project;
use super::kubernetes::{Cluster, Object, Source};
use super::vault::Session;
use super::{Answer, Task};
use crate::bench::gauge;
use crate::bench::stock::StoreTask;

/// So many objects show a rate.
const RATED: usize = 2_000;

/// Does the work and says how long it took.
pub(super) async fn work(task: &Task) -> Result<Answer> {
    let cluster = Cluster::connect(&task.kubeconfig, &task.namespace).await?;
    let objects = cluster.list_and_watch_everything().await?;
    let store = Store::open(&task.store, &cluster).await?;
    // A place that several objects name is read once.
    let values: HashMap<&Source, OnceCell<Arc<Value>>> = objects
        .iter()
        .map(|object| (&object.source, OnceCell::new()))
        .collect();
    each(task.workers, &objects, async |object| {
        let read = async || store.read(&object.source).await.map(Arc::new);
        let value = values[&object.source].get_or_try_init(read).await?;
        let uid = cluster.apply_secret(&object.name, value).await?;
        cluster.patch_status(object, &uid, "synced").await
    })
    .await?;
    let finished = clock::now();
    let cpu_seconds = gauge::cpu(std::process::id())?;
    let connections = gauge::connections(std::process::id())?;

    let some = &objects[..objects.len().min(RATED)];
    let status_writes_per_second = rate(task.workers, some, async |object| {
        cluster.patch_status(object, "none", "written once more").await
    })
    .await?;
    let recoveries_per_second = rate(task.workers, some, async |object| {
        store.read(&object.source).await?;
        cluster.patch_status(object, "none", "works again").await
    })
    .await?;
    Ok(Answer {
        finished,
        cpu_seconds,
        connections,
        status_writes_per_second,
        recoveries_per_second,
    })
}

/// How often in a second `job` is done where it is done for each object.
async fn rate(workers: usize, objects: &[Object], job: impl AsyncFn(&Object) -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    each(workers, objects, job).await?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "there are fewer objects than a mantissa counts"
    )]
    let objects = objects.len() as f64;
    Ok(objects / began.elapsed().as_secs_f64())
}

enum Store {
    Vault(Session),
    Barbican(Project),
}

impl Store {
    async fn open(task: &StoreTask, cluster: &Cluster) -> Result<Self> {
        Ok(match task {
            StoreTask::Vault(task) => {
                let jwt = cluster.token(&task.account, &task.audience).await?;
                Self::Vault(Session::log_in(task, &jwt).await?)
            }
            StoreTask::Barbican(task) => Self::Barbican(Project::open(task).await?),
        })
    }

    async fn read(&self, source: &Source) -> Result<Value> {
        match self {
            Self::Vault(session) => session.read(&source.path).await,
            Self::Barbican(project) => project.read(&source.name, source.key.as_deref()).await,
        }
    }
}

async fn each(workers: usize, objects: &[Object], job: impl AsyncFn(&Object) -> Result<()>) -> Result<()> {
    let job = &job;
    futures::stream::iter(objects)
        .map(|object| job(object))
        .buffer_unordered(workers)
        .try_collect()
        .await
}
