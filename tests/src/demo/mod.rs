//! The demo: real servers, the examples applied, and what Keyward does with them, each step read from the real
//! cluster.
//!
//! [`stage`] sets everything up, [`steps`] says what is shown and when it holds, [`screen`] how it looks. It decides
//! nothing about Keyward: what is shown is what the servers say.

mod examples;
mod kubectl;
mod screen;
pub mod seeds;
mod stage;
pub mod steps;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::FutureExt as _;

pub use self::screen::Screen;
pub use self::stage::Stage;

use self::screen::seconds;
use self::steps::{Shown, Step};
use crate::rig::run::Run;
use crate::rig::{fleet, poll};

/// What was shown: the name of each step and what came of it.
pub type Summary = Vec<(&'static str, String)>;

/// Sets the stage and shows every step on it. Ends at the first that does not come true. `lasting` says that the
/// stage will be left running.
pub async fn play(screen: Screen, run: &Run, lasting: bool) -> Result<(Stage, Summary)> {
    let stage = Stage::set(screen, run, lasting).boxed().await?;
    let mut summary = Summary::new();
    for (number, step) in steps::ALL.iter().enumerate() {
        screen.heading(&format!("{}. {}", number + 1, step.name));
        screen.say(step.says);
        let shown = match screen.during(step.name, perform(step, &stage)).await {
            Ok((shown, _)) => {
                screen.done(&shown.headline);
                shown
            }
            Err(error) => {
                screen.failed(&format!("{error:#}"));
                screen.block(&stage.explained().await?);
                bail!("step {} did not come true: {}", number + 1, step.name);
            }
        };
        screen.block(&shown.transcript);
        summary.push((step.name, shown.headline));
    }
    Ok((stage, summary))
}

/// Says what was shown, in how much time, and what to try next.
pub fn close(screen: Screen, stage: &Stage, summary: &Summary, took: Duration) {
    screen.heading("What you saw");
    for (name, headline) in summary {
        screen.entry(name, headline);
    }
    screen.say(&format!(
        "Up after {}; all of it took {}.",
        seconds(stage.up_after()),
        seconds(took)
    ));
}

/// What to try next when everything has been stopped.
pub const TRY_NEXT: &str = "\
cargo demo --keep              the same, left running, with a kubeconfig for your own hands
docs/tutorial/first-secret.md  declare a secret of your own, and break it
docs/examples                  what was applied just now
cargo test                     every promise, against the same servers";

/// What to try next when everything goes on running in `folder`.
pub fn try_here(folder: &Path, stage: &Stage) -> Result<String> {
    Ok(format!(
        "{}Keyward     log in {}\n\n{TRY_HERE}",
        fleet::usage(folder, &stage.fleet.connections())?,
        stage.operator.process().log().display()
    ))
}

const TRY_HERE: &str = "\
kubectl get keyward -A         every object, in a shell with those variables
docs/tutorial/first-secret.md  declare a secret of your own, and break it
cargo demo --stop              end it";

/// A step, until it has come true, its time is over, or there is nothing left that could make it true.
async fn perform(step: &Step, stage: &Stage) -> Result<Shown> {
    let operator = stage.operator.process();
    let ended = poll::some("the end", step.within, async || operator.ended().ok().flatten());
    tokio::select! {
        shown = (step.show)(stage) => shown,
        ended = ended => match ended {
            Ok(status) => bail!("Keyward ended ({status}); its log ends with:\n{}", operator.log_tail()),
            Err(_) => bail!("it did not come true within {} s", step.within.as_secs()),
        },
    }
}
