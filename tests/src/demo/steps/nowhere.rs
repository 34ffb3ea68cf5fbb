//! Where values must not be.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;

use super::{Shown, Step, WITHIN};
use crate::demo::seeds::MARK;
use crate::demo::stage::Stage;

pub(super) const NO_VALUE_IS_ANYWHERE_ELSE: Step = Step {
    name: "No value is anywhere else",
    says: "Passwords, keys and certificates are looked for in Keyward's log at trace level, in events, in statuses and in\n\
           metrics, as text and as base64.",
    within: WITHIN,
    show: |stage| show(stage).boxed(),
};

async fn show(stage: &Stage) -> Result<Shown> {
    let mut needles = vec![
        MARK.to_owned(),
        "PRIVATE KEY".to_owned(),
        stage.seeds.credential.clone(),
    ];
    for &place in stage.seeds.expected.keys() {
        let values = stage.values(place).await?.unwrap_or_default();
        needles.extend(values.values().map(|value| encoded(value)));
    }
    let secrets = stage
        .kubectl
        .show(&["get", "secrets", "-A", "-o", "json"])
        .await?;
    let known = found(&needles, &secrets);
    ensure!(known > 0, "the search finds nothing even in the Secrets");

    let log = stage.operator.process().read_log()?;
    let places = [
        ("its log", log.clone()),
        ("its metrics", stage.operator.get("/metrics").await?),
        ("its state", stage.operator.get("/state/syncedsecrets").await?),
        (
            "events",
            stage.kubectl.show(&["get", "events", "-A", "-o", "json"]).await?,
        ),
        (
            "statuses",
            stage
                .kubectl
                .show(&["get", "keyward", "-A", "-o", "json"])
                .await?,
        ),
    ];
    for (place, text) in &places {
        ensure!(found(&needles, text) == 0, "a value was found in {place}");
    }
    Ok(Shown {
        headline: format!(
            "{} values looked for: none in {} lines of log, nor in events, statuses and metrics",
            needles.len(),
            log.lines().count()
        ),
        transcript: String::new(),
    })
}

fn found(needles: &[String], text: &str) -> usize {
    needles.iter().filter(|needle| text.contains(*needle)).count()
}

/// The base64 of a value, without its end: that is another one where more follows.
fn encoded(value: &[u8]) -> String {
    STANDARD.encode(&value[..value.len() - value.len() % 3])
}
