//! The operator is restarted, killed at any point, or shares a cluster: nothing is read, written or restarted
//! without need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use keyward::runtime::clock;
use keyward_crds::SyncedSecret;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::Settings;
use keyward_tests::rig::kubernetes::ApiRequest;
use keyward_tests::rig::vault::Kv;
use keyward_tests::rig::{Mark, poll};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::gate::Gate;
use super::many::Many;
use crate::scene::{AUTHOR, SOON, Scene};

/// Deployments that are restarted for each new value of an object.
const CONSUMERS: usize = 6;

/// How often the operator is killed.
const KILLS: usize = 6;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_restart_reads_no_value_and_writes_nothing,
        a_pass_that_is_under_way_at_the_end_is_finished_and_recorded,
        a_killed_operator_restarts_each_consumer_once_for_each_value,
        two_operators_leave_each_other_alone,
    );
}

async fn a_restart_reads_no_value_and_writes_nothing(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let operator = scene.operator().await?;
    let many = Many::new(&scene, "kept", 10);
    many.write("first").await?;
    deployment(&scene, "consumer").await?;
    many.declare_each("vault", |number| match number {
        0 => json!({"consumers": [{"kind": "Deployment", "name": "consumer"}]}),
        _ => json!({}),
    })
    .await?;
    many.hold("first").await?;
    many.reason("Synced").await?;
    scene.until(&many.object(0), "rolled out", rolled_out).await?;
    scene.store_reason("vault", "StoreReady").await?;
    let before = generation(&scene, "consumer").await?;

    let store_mark = scene.vault.audit().mark()?;
    operator.stop().await?;
    assert_eq!(holder(&scene).await?, "", "the lease is given up in good order");
    let revoked = scene.vault.audit().since(store_mark)?;
    assert_eq!(
        revoked
            .iter()
            .filter(|request| request.path == "auth/token/revoke-self")
            .filter(|request| request.display_name.contains(&scene.namespace))
            .count(),
        1,
        "the token is given back: {revoked:?}"
    );

    let (store_mark, api_mark) = scene.marks().await?;
    let restarted = clock::now();
    operator.process().start()?;
    operator.ready().await?;
    many.looked_since(&operator, restarted).await?;

    let asked = scene.vault.audit().since(store_mark)?;
    let asked: Vec<_> = asked
        .iter()
        .filter(|request| request.path.contains(&scene.mount))
        .collect();
    assert!(
        asked.iter().all(|request| !request.is_value_read(&scene.mount)),
        "{asked:?}"
    );
    assert_eq!(
        asked.iter().filter(|request| request.is_login()).count(),
        1,
        "{asked:?}"
    );
    assert_eq!(writes(&scene, api_mark).await?, [], "the cluster is as it was");
    assert_eq!(
        generation(&scene, "consumer").await?,
        before,
        "nothing was restarted"
    );
    Ok(())
}

async fn a_pass_that_is_under_way_at_the_end_is_finished_and_recorded(case: Case) -> Result<()> {
    // Version 1 of the engine, so that the request that is held up is the one for the value itself.
    let scene = Scene::new(&case, Kv::V1).await?;
    let gate = Gate::before_vault(&scene).await?;
    scene.write("apps/db", &json!({"password": "zero"})).await?;
    let operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.holds("db", &[("password", "zero")]).await?;
    scene.ready("db").await?;
    scene.write("apps/db", &json!({"password": "one"})).await?;
    gate.close();
    scene.refresh("db").await?;
    gate.until_something_is_kept_back().await?;

    let held_up = async {
        poll::until("the end to be asked for", SOON, async || {
            let log = operator.process().read_log();
            log.is_ok_and(|log| log.contains("shutting down"))
        })
        .await?;
        ensure!(operator.process().ended()?.is_none(), "it waits for the pass");
        ensure!(
            !holder(&scene).await?.is_empty(),
            "it holds the lease while it works"
        );
        gate.open();
        anyhow::Ok(())
    };
    let (stopped, held_up) = tokio::join!(operator.stop(), held_up);
    held_up?;
    stopped?;
    assert_eq!(holder(&scene).await?, "", "the lease is given up in good order");
    let values = scene.values("db").await?.context("there is a Secret")?;
    assert_eq!(values.get("password").map(Vec::as_slice), Some(&b"one"[..]));
    let object = scene.api::<SyncedSecret>().get("db").await?;
    let asked = object
        .annotations()
        .get(keyward_crds::REFRESH_ANNOTATION)
        .cloned();
    let status = object.status.context("there is a status")?;
    assert_eq!(status.handled_refresh, asked, "what was done is recorded");
    let secret = scene.api::<Secret>().get("db").await?;
    assert_eq!(
        status.secret.map(|written| written.resource_version),
        secret.metadata.resource_version
    );
    Ok(())
}

async fn a_killed_operator_restarts_each_consumer_once_for_each_value(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    for number in 0..CONSUMERS {
        deployment(&scene, &format!("consumer-{number}")).await?;
    }
    let history = History::of_deployments(&scene).await?;
    let mut settings = Settings::inside(&scene.namespace);
    // A killed holder would keep its successor waiting for the lease each time.
    settings.arguments.push("--leader-elect=false".to_owned());
    let operator = scene.operator_with(&settings).await?;
    let many = Many::new(&scene, "killed", 30);
    many.write("value-0").await?;
    // Each consumer restarts for five of the objects.
    many.declare_each("vault", |number| {
        let name = format!("consumer-{}", number % CONSUMERS);
        json!({
            "refresh": {"interval": "5s"},
            "consumers": [{"kind": "Deployment", "name": name}],
        })
    })
    .await?;

    let mut asked = String::new();
    for kill in 0..KILLS {
        // Somewhere between the first and the last write of a round: no two rounds end at the same point.
        let enough = (kill + 1) * 30 / (KILLS + 1);
        let value = format!("value-{kill}");
        poll::until("part of the objects", SOON, async || {
            many.count_holding(&value)
                .await
                .is_ok_and(|count| count >= enough)
        })
        .await?;
        operator.process().kill()?;
        many.write(&format!("value-{}", kill + 1)).await?;
        operator.process().start()?;
        asked = many.refresh().await?;
    }
    let last = format!("value-{KILLS}");
    many.hold(&last).await?;
    // A rollout that is told together with the last request is one of the last value.
    many.until("rolled out", |object| {
        let status = object.status.as_ref();
        status.is_some_and(|status| status.handled_refresh.as_deref() == Some(&asked)) && rolled_out(object)
    })
    .await?;
    many.reason("Synced").await?;

    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    for object in many.objects().await? {
        let status = object.status.clone().context("there is a status")?;
        let rollout = status.rollout.context("there is a rollout")?;
        wanted.insert(object.name_any(), rollout.hash);
    }
    for number in 0..CONSUMERS {
        let name = format!("consumer-{number}");
        let deployment = scene.api::<Deployment>().get(&name).await?;
        let hashes = hashes(&deployment);
        assert_eq!(hashes.len(), 5, "{hashes:?}");
        for (annotation, hash) in &hashes {
            let object = annotation
                .rsplit_once("secret-hash.")
                .map_or("", |(_, object)| object);
            assert_eq!(wanted.get(object), Some(hash), "{name}: {annotation}");
        }
        // The pod template changed once for each hash that any object ever asked for, and never went back.
        let generation = generation(&scene, &name).await?;
        let distinct = history.until(&name, generation).await?;
        assert_eq!(generation, 1 + i64::try_from(distinct)?, "{name}");
    }
    Ok(())
}

async fn two_operators_leave_each_other_alone(case: Case) -> Result<()> {
    let one = Scene::new(&case, Kv::V2).await?;
    let other = Scene::new(&case, Kv::V2).await?;
    let mark = one.kubernetes.audit().mark().await?;
    let store_mark = one.vault.audit().mark()?;
    let first = one.operator().await?;
    let second = other.operator().await?;
    for (scene, value) in [(&one, "one"), (&other, "other")] {
        scene.write("shared/name", &json!({"value": value})).await?;
        scene.synced_path("same", "shared/name").await?;
    }
    one.holds("same", &[("value", "one")]).await?;
    other.holds("same", &[("value", "other")]).await?;
    for operator in [&first, &second] {
        assert_eq!(
            operator.get("/readyz").await?,
            "leading",
            "each has a lease of its own"
        );
        let all: Value = serde_json::from_str(&operator.get("/state/syncedsecrets").await?)?;
        assert_eq!(
            all.as_array().map(Vec::len),
            Some(1),
            "each knows its own object alone: {all}"
        );
    }
    first.stop().await?;
    other.write("shared/name", &json!({"value": "another"})).await?;
    other.refresh("same").await?;
    other.holds("same", &[("value", "another")]).await?;
    one.holds("same", &[("value", "one")]).await?;

    for (scene, stranger) in [(&one, &other), (&other, &one)] {
        let user = format!("system:serviceaccount:{}:keyward", scene.namespace);
        let requests = one.kubernetes.audit().since(mark).await?;
        let abroad: Vec<_> = requests
            .iter()
            .filter(|request| request.user == user && request.namespace == stranger.namespace)
            .collect();
        assert!(abroad.is_empty(), "{abroad:?}");
    }
    let reads = one.vault.audit().since(store_mark)?;
    let own = |scene: &Scene<'_>| {
        reads
            .iter()
            .filter(|read| read.is_value_read(&scene.mount))
            .count()
    };
    assert_eq!(
        (own(&one), own(&other)),
        (1, 2),
        "each value was read by its own operator"
    );
    Ok(())
}

/// Writes of the scene's operator since `mark`, but for its lease and the tokens that it asks for.
async fn writes(scene: &Scene<'_>, mark: Mark) -> Result<Vec<ApiRequest>> {
    let user = format!("system:serviceaccount:{}:keyward", scene.namespace);
    let requests = scene.kubernetes.audit().since(mark).await?;
    Ok(requests
        .into_iter()
        .filter(|request| request.user == user)
        .filter(|request| !["get", "list", "watch"].contains(&request.verb.as_str()))
        .filter(|request| !["leases", "serviceaccounts/token"].contains(&request.resource.as_str()))
        .collect())
}

/// Who holds the lease of the scene's operator.
pub(super) async fn holder(scene: &Scene<'_>) -> Result<String> {
    let lease = scene.api::<Lease>().get("keyward").await?;
    Ok(lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .unwrap_or_default())
}

fn rolled_out(object: &keyward_crds::SyncedSecret) -> bool {
    object.status.as_ref().is_some_and(|status| {
        status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "RolledOut" && condition.status == "True")
    })
}

async fn deployment(scene: &Scene<'_>, name: &str) -> Result<()> {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        },
    });
    scene
        .api::<Deployment>()
        .patch(name, &PatchParams::apply(AUTHOR), &Patch::Apply(&deployment))
        .await?;
    Ok(())
}

async fn generation(scene: &Scene<'_>, name: &str) -> Result<i64> {
    let deployment = scene.api::<Deployment>().get(name).await?;
    deployment
        .metadata
        .generation
        .context("a Deployment has a generation")
}

/// The hashes in a pod template, by annotation.
fn hashes(deployment: &Deployment) -> BTreeMap<String, String> {
    let template = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.metadata.as_ref());
    let annotations = template
        .and_then(|meta| meta.annotations.clone())
        .unwrap_or_default();
    annotations
        .into_iter()
        .filter(|(key, _)| key.starts_with(keyward_crds::DESIRED_HASH_ANNOTATION))
        .collect()
}

/// Every hash that was ever seen in a pod template.
struct History {
    seen: Arc<Mutex<BTreeMap<String, Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    generation: i64,
    hashes: BTreeSet<(String, String)>,
}

impl History {
    async fn of_deployments(scene: &Scene<'_>) -> Result<Self> {
        let seen: Arc<Mutex<BTreeMap<String, Seen>>> = Arc::default();
        let api: Api<Deployment> = scene.api();
        let known = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).applied_objects());
            while let Some(event) = events.next().await {
                let Ok(deployment) = event else { continue };
                let mut known = known.lock().await;
                let seen = known.entry(deployment.name_any()).or_default();
                seen.generation = deployment.metadata.generation.unwrap_or_default();
                seen.hashes.extend(hashes(&deployment));
            }
        });
        let history = Self { seen, task };
        poll::until("the watch of Deployments", SOON, async || {
            history.seen.lock().await.len() == CONSUMERS
        })
        .await?;
        Ok(history)
    }

    /// How many hashes a Deployment has had up to a generation.
    async fn until(&self, name: &str, generation: i64) -> Result<usize> {
        poll::some("the watch of Deployments", SOON, async || {
            let seen = self.seen.lock().await;
            let seen = seen.get(name).filter(|seen| seen.generation >= generation)?;
            Some(seen.hashes.len())
        })
        .await
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}
