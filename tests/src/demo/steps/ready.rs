//! The first sync.

use std::time::Instant;

use anyhow::Result;
use futures::FutureExt as _;

use super::{Shown, Step, WITHIN};
use crate::demo::screen::seconds;
use crate::demo::seeds::Values;
use crate::demo::stage::Stage;

pub(super) const SECRETS_BECOME_READY: Step = Step {
    name: "Secrets become ready",
    says: "Each SyncedSecret names places in a store. Keyward reads them and writes one Secret each.",
    within: WITHIN,
    show: |stage| show(stage).boxed(),
};

async fn show(stage: &Stage) -> Result<Shown> {
    let began = Instant::now();
    for (&place, values) in &stage.seeds.expected {
        let (namespace, name) = place;
        stage
            .until(
                &format!("Secret {namespace}/{name} to hold what was seeded"),
                async || {
                    stage
                        .values(place)
                        .await
                        .is_ok_and(|held| held.as_ref() == Some(values))
                },
            )
            .await?;
        stage
            .until(
                &format!("SyncedSecret {namespace}/{name} to be ready"),
                async || {
                    let ready = stage.ready(place).await.ok().flatten();
                    ready.is_some_and(|ready| ready.status == "True")
                },
            )
            .await?;
    }
    stage.stores_ready().await?;
    let keys: usize = stage.seeds.expected.values().map(Values::len).sum();
    Ok(Shown {
        headline: format!(
            "{} Secrets with {keys} keys hold what was seeded, byte for byte, {} after the examples were applied",
            stage.seeds.expected.len(),
            seconds(began.elapsed())
        ),
        transcript: stage.overview().await?,
    })
}
