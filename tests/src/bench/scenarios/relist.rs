//! The API server goes away and comes back without the history that watches would go on from: everything is listed
//! anew. What is left of that in memory?

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bench::report::Measure;
use crate::bench::trial::{Marks, Trial, memory_measures};
use crate::rig::poll;

/// How long after the relist memory is looked at.
const LATER: Duration = Duration::from_secs(30);

/// How long the operator may take to list everything again, with the API server's own start before.
const WITHIN: Duration = Duration::from_mins(3);

/// The kinds that are large. That they were listed is read from the API server's log.
const LARGE: [&str; 2] = ["secrets", "syncedsecrets"];

/// Makes the operator list everything anew, and looks at its memory half a minute later.
pub(super) async fn measure(trial: &Trial<'_>) -> Result<Vec<Measure>> {
    let population = trial.population;
    let kubernetes = &population.ground.kubernetes;
    let marks = Marks::now(population).await?;
    kubernetes.stop_api_server()?;
    kubernetes.start_api_server().await?;
    poll::until("everything to be listed anew", WITHIN, async || {
        let asked = marks.asked_of_api(population).await.unwrap_or_default();
        // One that has lost its lease meanwhile lists nothing any more; that is found out below.
        trial.has_ended()
            || LARGE.iter().all(|kind| {
                asked.iter().any(|request| {
                    request.verb == "list" && request.resource == *kind && request.status == 200
                })
            })
    })
    .await?;
    ensure!(
        !trial.has_ended(),
        "the API server was away for so long that the operator lost its lease and ended: the machine is too busy"
    );
    tokio::time::sleep(LATER).await;
    Ok(memory_measures(
        "after-relist",
        &population.shape,
        trial.memory()?,
    ))
}
