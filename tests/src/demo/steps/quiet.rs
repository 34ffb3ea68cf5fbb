//! What it costs when nothing changes, counted by the servers themselves.

use anyhow::{Result, ensure};
use futures::FutureExt as _;

use super::{Shown, Step, WITHIN};
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

/// How many refreshes of each are watched.
const ROUNDS: usize = 2;

async fn show(stage: &Stage) -> Result<Shown> {
    let (vault, api) = (stage.fleet.vault.audit(), stage.fleet.kubernetes.audit());
    // What the last change still has to do is over with the next look at the stores.
    next_refresh(stage).await?;
    let (vault_mark, api_mark) = (vault.mark()?, api.mark().await?);
    for _ in 0..ROUNDS {
        next_refresh(stage).await?;
    }

    let asked = vault.since(vault_mark)?;
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
    // A further round may have begun between two looks.
    ensure!(
        (ROUNDS * PATHS..=(ROUNDS + 1) * PATHS).contains(&metadata),
        "{ROUNDS} rounds over {PATHS} paths are {metadata} requests in Vault's audit log"
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
            "{ROUNDS} rounds over {PATHS} paths: {metadata} reads of metadata in Vault, 0 values, 0 logins; in the API \
             server 0 requests beside the lease"
        ),
        transcript: String::new(),
    })
}

/// Waits until each watched object has been looked at again.
async fn next_refresh(stage: &Stage) -> Result<()> {
    for (namespace, name) in WATCHED {
        let before = stage.operator.state(namespace, name).await?["lastCheck"].take();
        stage
            .until(&format!("a refresh of {namespace}/{name}"), async || {
                let now = stage.operator.state(namespace, name).await;
                now.is_ok_and(|state| state["lastCheck"] != before)
            })
            .await?;
    }
    Ok(())
}
