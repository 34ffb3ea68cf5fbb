//! What it costs when nothing changes, counted by the servers themselves.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::FutureExt as _;
use futures::future::try_join_all;

use super::{Shown, Step, WITHIN};
use crate::demo::screen::seconds;
use crate::demo::seeds::{OPENSTACK, Place};
use crate::demo::stage::{HOME, Stage};

pub(super) const AN_UNCHANGED_REFRESH_COSTS_NOTHING: Step = Step {
    name: "An unchanged refresh costs nothing",
    says: "Nothing changes any more. The audit logs of Vault and of the API server say what Keyward still asks.",
    within: WITHIN,
    show: |stage| show(stage).boxed(),
};

/// The examples that look every few seconds.
const WATCHED: [Place; 2] = [(OPENSTACK, "service-passwords"), (OPENSTACK, "keystone-database")];

/// How many paths of Vault those name.
const PATHS: usize = 4;

/// Their refresh interval.
const INTERVAL: Duration = Duration::from_secs(5);

/// How many refreshes of each are watched at least.
const ROUNDS: usize = 2;

async fn show(stage: &Stage) -> Result<Shown> {
    let (vault, api) = (stage.fleet.vault.audit(), stage.fleet.kubernetes.audit());
    // What the last change still has to do is over with the next look at the stores.
    next_refresh(stage).await?;
    let api_mark = api.mark().await?;
    let (began, vault_mark) = (Instant::now(), vault.mark()?);
    for _ in 0..ROUNDS {
        next_refresh(stage).await?;
    }
    let asked = vault.since(vault_mark)?;
    let took = began.elapsed();
    let asked: Vec<_> = asked
        .iter()
        .filter(|request| request.display_name != "root")
        .collect();
    let logins = asked.iter().filter(|request| request.is_login()).count();
    let values = asked
        .iter()
        .filter(|request| request.is_value_read(OPENSTACK))
        .count();
    let metadata = asked
        .iter()
        .filter(|request| request.path.starts_with("openstack/metadata/"))
        .count();
    // Each path has a turn of its own, one may come at either end, and one that was due before may have been late.
    let turns = usize::try_from(took.as_secs() / INTERVAL.as_secs())? + 2;
    ensure!(
        (PATHS..=PATHS * turns).contains(&metadata),
        "{PATHS} paths were asked for {metadata} times in {}",
        seconds(took)
    );
    ensure!(
        logins == 0 && values == 0 && metadata == asked.len(),
        "Vault was asked for {logins} logins, {values} values and {} things in all",
        asked.len()
    );

    let operator = format!("system:serviceaccount:{HOME}:keyward");
    let requests = api.since(api_mark).await?;
    let requests = requests
        .iter()
        .filter(|request| request.user == operator && request.verb != "watch" && request.resource != "leases")
        .count();
    ensure!(requests == 0, "the API server was asked {requests} times");
    Ok(Shown {
        headline: format!(
            "{PATHS} paths, looked at every {} s, for {}: {metadata} reads of metadata in Vault, 0 values, 0 logins; in \
             the API server 0 requests beside the lease",
            INTERVAL.as_secs(),
            seconds(took)
        ),
        transcript: String::new(),
    })
}

/// Waits until each watched object has been looked at again.
async fn next_refresh(stage: &Stage) -> Result<()> {
    try_join_all(WATCHED.map(async |(namespace, name)| {
        let before = stage.operator.state(namespace, name).await?["lastCheck"].take();
        stage
            .until(&format!("a refresh of {namespace}/{name}"), async || {
                let now = stage.operator.state(namespace, name).await;
                now.is_ok_and(|state| state["lastCheck"] != before)
            })
            .await
    }))
    .await
    .map(drop)
}
