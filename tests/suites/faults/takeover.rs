//! Two replicas: one works, the other stands by, and whoever has lost the lease lands nothing any more.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use tokio::sync::Mutex;

use super::gate::Gate;
use super::process::holder;
use crate::scene::{SOON, Scene};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_standby_is_ready_and_takes_over_at_once_when_the_holder_stops,
        a_lost_lease_ends_the_operator,
        a_paused_holder_never_lands_the_old_value,
    );
}

async fn a_standby_is_ready_and_takes_over_at_once_when_the_holder_stops(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let holder = scene.operator().await?;
    let standby = scene.standby().await?;
    assert_eq!(holder.get("/readyz").await?, "leading");
    assert_eq!(standby.get("/readyz").await?, "standby");
    assert_eq!(standby.get("/livez").await?, "ok");
    scene.synced_path("db", "apps/db").await?;
    scene.holds("db", &[("password", "first")]).await?;
    let idle: f64 = standby.metric("keyward_reconciles_total", "").await?;
    assert!(idle.abs() < 0.5, "a standby does not work");
    assert!(standby.metric("keyward_leader", "").await?.abs() < 0.5);
    assert!(holder.metric("keyward_leader", "").await? > 0.5);

    holder.stop().await?;
    standby.leads().await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.refresh("db").await?;
    scene.holds("db", &[("password", "second")]).await
}

async fn a_lost_lease_ends_the_operator(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.holds("db", &[("password", "first")]).await?;
    let taken = json!({"spec": {"holderIdentity": "somebody-else", "leaseDurationSeconds": 1}});
    scene
        .api::<Lease>()
        .patch("keyward", &PatchParams::default(), &Patch::Merge(&taken))
        .await?;
    let ended = poll::some("the end of the operator", SOON, async || {
        operator.process().ended().ok()?
    })
    .await?;
    assert!(!ended.success(), "it says that this was not asked for: {ended}");
    let log = operator.process().read_log()?;
    assert!(
        log.contains("the lease was taken by `somebody-else`"),
        "the reason is not logged"
    );
    assert_eq!(
        holder(&scene).await?,
        "somebody-else",
        "another's lease is left alone"
    );

    // Started again, it waits for the lease of a holder who never renews, and goes on.
    operator.process().start()?;
    operator.leads().await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.refresh("db").await?;
    scene.holds("db", &[("password", "second")]).await
}

async fn a_paused_holder_never_lands_the_old_value(case: Case) -> Result<()> {
    // Version 1 of the engine, so that the hanging request is the one for the value itself.
    let scene = Scene::new(&case, Kv::V1).await?;
    let gate = Gate::before_vault(&scene).await?;
    scene.write("apps/db", &json!({"password": "zero"})).await?;
    let history = History::of(&scene, "db");
    let paused = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.holds("db", &[("password", "zero")]).await?;
    scene.write("apps/db", &json!({"password": "one"})).await?;

    // The first operator asks for the value, and stops before the answer, given by now, has arrived.
    gate.close();
    scene.refresh("db").await?;
    gate.until_something_is_kept_back().await?;
    paused.process().pause()?;
    gate.open_to_new();

    let successor = scene.operator().await?;
    scene.holds("db", &[("password", "one")]).await?;
    scene.write("apps/db", &json!({"password": "two"})).await?;
    scene.refresh("db").await?;
    scene.holds("db", &[("password", "two")]).await?;
    gate.open();
    paused.process().resume()?;
    let ended = poll::some("the end of the first operator", SOON, async || {
        paused.process().ended().ok()?
    })
    .await?;
    ensure!(!ended.success(), "it ended as if it had been asked to: {ended}");
    scene.write("apps/db", &json!({"password": "three"})).await?;
    scene.refresh("db").await?;
    scene.holds("db", &[("password", "three")]).await?;
    history.until("three").await?;
    assert_eq!(
        history.values().await,
        ["zero", "one", "two", "three"],
        "each value was there once, in order"
    );
    assert!(successor.process().ended()?.is_none());
    Ok(())
}

/// Every password that a Secret has held, in order, without repetitions in a row.
struct History {
    values: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl History {
    fn of(scene: &Scene<'_>, name: &str) -> Self {
        let values: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&values);
        let api: Api<Secret> = scene.api();
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, only).applied_objects());
            while let Some(event) = events.next().await {
                let Ok(secret) = event else { continue };
                let value = secret
                    .data
                    .unwrap_or_default()
                    .remove("password")
                    .unwrap_or_default();
                let value = String::from_utf8_lossy(&value.0).into_owned();
                let mut seen = seen.lock().await;
                if seen.last() != Some(&value) {
                    seen.push(value);
                }
            }
        });
        Self { values, task }
    }

    async fn until(&self, last: &str) -> Result<()> {
        poll::until("the watch of the Secret", SOON, async || {
            self.values.lock().await.last().is_some_and(|value| value == last)
        })
        .await
        .context("the watch is behind")
    }

    async fn values(&self) -> Vec<String> {
        self.values.lock().await.clone()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}
