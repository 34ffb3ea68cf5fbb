//! The store is sealed, stopped or frozen, or forgets our token: nothing is lost, nothing is hammered, and all comes
//! back by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use keyward::runtime::clock;
use keyward_crds::SyncedSecret;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::{Operator, Settings};
use keyward_tests::rig::vault::{Kv, StoreRequest};
use keyward_tests::rig::{Mark, poll};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::net::TcpListener;

use super::many::{Many, reason_of};
use crate::scene::{AUDIENCE, SOON, Scene};

/// Connections to a dead store that are waited for: after so many the pace is clear.
const CONNECTIONS: usize = 20;

/// How often a healthy store may be served too late to tell whether it had to wait: on a machine that is busy with other
/// work, serving it can take longer than the deadline at a frozen one.
const ROUNDS: usize = 4;

/// How often a ServiceAccount is changed while its sessions are in use: some times in a row, fewer than count as a state
/// that goes on, and so again once everybody has got through.
const TOUCHES: (usize, usize) = (10, 3);

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_sealed_store_keeps_fifty_secrets_and_gives_them_back,
        a_stopped_store_is_asked_ever_more_slowly_however_many_wait,
        a_frozen_store_delays_no_other,
        a_dead_token_costs_one_login_for_all,
        a_token_that_cannot_be_renewed_is_replaced_unnoticed,
        a_service_account_that_changes_while_it_is_used_fails_nobody,
    );
}

async fn a_sealed_store_keeps_fifty_secrets_and_gives_them_back(case: Case) -> Result<()> {
    let vault = case.private_vault().await?;
    let scene = Scene::with(&case, &vault, Kv::V2).await?;
    let operator = scene.operator().await?;
    let often = json!({"refresh": {"interval": "5s"}});
    let many = Many::new(&scene, "sealed", 50);
    many.write("first").await?;
    many.declare("vault", &often).await?;
    many.hold("first").await?;
    many.reason("Synced").await?;

    vault.seal().await?;
    many.refresh().await?;
    many.told(&operator, "StoreSealed", "sealed").await?;
    scene
        .store_told(&operator, "vault", "StoreSealed", "sealed")
        .await?;
    assert_eq!(
        many.count_holding("first").await?,
        50,
        "the last good values stay"
    );
    assert_eq!(
        operator.get("/readyz").await?,
        "leading",
        "the health of stores is no part of it"
    );
    // A Secret that is lost meanwhile comes back with the store.
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = scene.api();
    secrets
        .delete(&many.object(7), &kube::api::DeleteParams::default())
        .await?;

    let planned = many.waiting_long(&operator).await?;
    vault.unseal().await?;
    many.reason("Synced").await?;
    many.woken_before(&operator, &planned).await?;
    many.hold("first").await?;
    scene.store_reason("vault", "StoreReady").await?;
    many.write("second").await?;
    many.hold("second").await
}

async fn a_stopped_store_is_asked_ever_more_slowly_however_many_wait(case: Case) -> Result<()> {
    let vault = case.private_vault().await?;
    let scene = Scene::with(&case, &vault, Kv::V2).await?;
    let operator = scene.operator().await?;
    let often = json!({"refresh": {"interval": "5s"}});
    let many = Many::new(&scene, "stopped", 50);
    many.write("first").await?;
    many.declare("vault", &often).await?;
    many.hold("first").await?;

    vault.stop().await?;
    let address = vault
        .url()
        .strip_prefix("https://")
        .context("the store speaks TLS")?;
    let attempts = Attempts::count_at(address).await?;
    many.refresh().await?;
    many.told(&operator, "StoreUnavailable", "cannot be reached")
        .await?;
    scene
        .store_told(&operator, "vault", "StoreUnavailable", "cannot be reached")
        .await?;
    let (from, counted) = (Instant::now(), attempts.so_far());
    poll::until(
        "more attempts at the dead store",
        Duration::from_mins(2),
        async || attempts.so_far() >= counted + CONNECTIONS,
    )
    .await?;
    // One try each by those who wait, at most two in a second, and by the store's own check, which is slower.
    ensure!(
        from.elapsed() > Duration::from_secs(5),
        "{CONNECTIONS} connections came within {:?}",
        from.elapsed()
    );
    assert_eq!(many.count_holding("first").await?, 50);
    attempts.end().await;

    let planned = many.waiting_long(&operator).await?;
    vault.start_sealed().await?;
    vault.unseal().await?;
    many.reason("Synced").await?;
    many.woken_before(&operator, &planned).await?;
    assert!(operator.process().ended()?.is_none());
    Ok(())
}

async fn a_frozen_store_delays_no_other(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let frozen = case.private_vault().await?;
    frozen.api().mount_kv("kv", Kv::V2).await?;
    let token = frozen.api().create_token(&["root"], &json!({})).await?;
    scene
        .credential("frozen-token", &json!({"token": token.token}))
        .await?;
    let spec = json!({"vault": {
        "address": frozen.url(), "mount": "kv", "ca": {"inline": frozen.ca()},
        "auth": {"token": {"tokenRef": {"name": "frozen-token", "key": "token"}}},
    }});
    scene.store("frozen", &spec).await?;
    // More objects than workers: without lanes they would all wait for the frozen store.
    let mut settings = Settings::inside(&scene.namespace);
    let few = ["--max-concurrent=8", "--lane-limit=4"];
    settings.arguments.extend(few.map(ToOwned::to_owned));
    let _operator = scene.operator_with(&settings).await?;
    let hung = Many::new(&scene, "hung", 12);
    hung.write_to(&frozen, "kv", "first").await?;
    hung.declare("frozen", &json!({})).await?;
    let healthy = Many::new(&scene, "healthy", 4);
    healthy.write("first").await?;
    healthy.declare("vault", &json!({})).await?;
    hung.hold("first").await?;
    healthy.hold("first").await?;
    hung.reason("Synced").await?;

    for round in 1..=ROUNDS {
        let value = format!("of round {round}");
        healthy.write(&value).await?;
        frozen.pause()?;
        let asked = hung.refresh().await?;
        healthy.refresh().await?;
        let served = healthy.hold(&value).await;
        let hung_meanwhile = hung.objects().await?;
        frozen.resume()?;
        served?;
        let handled = |object: &SyncedSecret| {
            let status = object.status.as_ref();
            status.is_some_and(|status| status.handled_refresh.as_deref() == Some(&asked))
        };
        ensure!(
            !hung_meanwhile.iter().any(handled),
            "the healthy store is served while the other hangs"
        );
        let in_time = hung_meanwhile.iter().all(|object| reason_of(object) == "Synced");
        hung.until("refreshed once the store goes on", handled).await?;
        hung.reason("Synced").await?;
        if in_time {
            return Ok(());
        }
    }
    bail!("in {ROUNDS} rounds, the healthy store was never served before the first deadline at the other")
}

async fn a_dead_token_costs_one_login_for_all(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let operator = scene.operator().await?;
    let many = Many::new(&scene, "revoked", 20);
    many.write("first").await?;
    // A request for a refresh must cross no pass that is under way: that would be a conflict. So there are no turns of
    // the clock, and the first sync has been told.
    let on_request = json!({"refresh": {"policy": "Once"}});
    many.declare("vault", &on_request).await?;
    many.hold("first").await?;
    many.reason("Synced").await?;
    many.write("second").await?;

    let from = scene.vault.audit().mark()?;
    scene.revoke_logins().await?;
    many.refresh().await?;
    many.hold("second").await?;
    many.reason("Synced").await?;
    let logins = logins(&scene, from)?;
    assert_eq!(logins.len(), 1, "one login for twenty objects: {logins:?}");
    assert!(logins.iter().all(|login| !login.failed));
    nobody_noticed(&operator).await
}

async fn a_token_that_cannot_be_renewed_is_replaced_unnoticed(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let role = json!({
        "bound_service_account_names": ["reader"],
        "bound_service_account_namespaces": [scene.namespace],
        "audience": AUDIENCE,
        "token_policies": [format!("{}-reader", scene.mount)],
        "token_ttl": "6s",
        "token_max_ttl": "6s",
    });
    scene
        .vault
        .api()
        .create_role(&scene.auth_mount(), "reader", &role)
        .await?;
    let operator = scene.operator().await?;
    let from = scene.vault.audit().mark()?;
    let often = json!({"refresh": {"interval": "5s"}});
    let many = Many::new(&scene, "expiring", 5);
    many.write("first").await?;
    many.declare("vault", &often).await?;
    many.hold("first").await?;
    poll::until("the third login", SOON, async || {
        logins(&scene, from).is_ok_and(|logins| logins.len() >= 3)
    })
    .await?;
    many.write("second").await?;
    many.hold("second").await?;

    nobody_noticed(&operator).await
}

/// Each change puts the session out of use, with reads under way.
async fn a_service_account_that_changes_while_it_is_used_fails_nobody(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let operator = scene.operator().await?;
    let many = Many::new(&scene, "touched", 20);
    many.write("first").await?;
    many.declare("vault", &json!({})).await?;
    many.hold("first").await?;
    many.reason("Synced").await?;
    scene.store_reason("vault", "StoreReady").await?;

    let (from, api_from) = scene.marks().await?;
    let accounts: Api<ServiceAccount> = scene.api();
    for round in 0..TOUCHES.0 {
        let mut last = clock::now();
        for touch in 0..TOUCHES.1 {
            let change = json!({"metadata": {"labels": {"touched": format!("{round}-{touch}")}}});
            last = clock::now();
            accounts
                .patch("reader", &PatchParams::default(), &Patch::Merge(&change))
                .await?;
        }
        many.looked_since(&operator, last).await?;
    }
    ensure!(
        logins(&scene, from)?.len() > 1,
        "no session was put out of use: nothing was tried"
    );
    let asked = scene.asked_of_kubernetes(api_from).await?;
    let told: Vec<_> = asked
        .iter()
        .filter(|request| {
            request.resource != "serviceaccounts" && request.resource != "serviceaccounts/token"
        })
        .collect();
    ensure!(told.is_empty(), "somebody noticed: {told:?}");
    many.write("second").await?;
    many.refresh().await?;
    many.hold("second").await
}

/// No pass has failed.
async fn nobody_noticed(operator: &Operator) -> Result<()> {
    let metrics = operator.get("/metrics").await?;
    let failures: Vec<_> = metrics
        .lines()
        .filter(|line| line.starts_with("keyward_failures_total"))
        .filter(|line| !line.ends_with(" 0"))
        .collect();
    ensure!(failures.is_empty(), "passes failed: {failures:?}");
    Ok(())
}

/// The logins at the scene's own method since `from`.
fn logins(scene: &Scene<'_>, from: Mark) -> Result<Vec<StoreRequest>> {
    let method = format!("auth/{}/", scene.auth_mount());
    let requests = scene.vault.audit().since(from)?;
    Ok(requests
        .into_iter()
        .filter(|request| request.is_login() && request.path.starts_with(&method))
        .collect())
}

/// Counts connections in place of a server that is away, and closes each.
struct Attempts {
    count: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Attempts {
    async fn count_at(address: &str) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                drop(connection);
            }
        });
        Ok(Self { count, task })
    }

    fn so_far(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Gives the port back.
    async fn end(self) {
        self.task.abort();
        // It ends by being cancelled.
        let _ = self.task.await;
    }
}
