//! The limits of a shared store.

use anyhow::{Result, ensure};
use futures::FutureExt as _;

use super::{Shown, Step, WITHIN};
use crate::demo::seeds::{Place, TEAM};
use crate::demo::stage::Stage;

pub(super) const A_PATH_OUTSIDE_THE_GRANT_IS_REFUSED: Step = Step {
    name: "A path outside the grant is refused",
    says: "The shared store lets team-a read teams/team-a/** and nothing else. team-a asks for teams/team-b/mail, which\n\
           Vault itself would give.",
    within: WITHIN,
    show: |stage| show(stage).boxed(),
};

const REFUSED: Place = (TEAM, "mail-of-team-b");
const REASON: &str = "PathRefused";

async fn show(stage: &Stage) -> Result<Shown> {
    stage
        .until("the condition to say PathRefused", async || {
            let ready = stage.ready(REFUSED).await.ok().flatten();
            ready.is_some_and(|ready| ready.reason == REASON && ready.status == "False")
        })
        .await?;
    ensure!(
        stage.values(REFUSED).await?.is_none(),
        "the refused Secret was written"
    );
    let asked = stage.fleet.vault.audit().since(stage.before_operator)?;
    ensure!(
        !asked.iter().any(|request| request.path.contains("team-b")),
        "Vault was asked for the refused path"
    );
    Ok(Shown {
        headline: format!("{REASON}: no Secret, and no question to Vault"),
        transcript: stage
            .kubectl
            .show(&[
                "-n",
                TEAM,
                "get",
                "kwss",
                REFUSED.1,
                "-o",
                "jsonpath={.status.conditions[*].message}",
            ])
            .await?,
    })
}
