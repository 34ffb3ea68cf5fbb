//! The `demo` command: Keyward on real servers, shown step by step.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use keyward_tests::demo::{self, Screen};
use keyward_tests::operator;
use keyward_tests::rig::keeper;
use keyward_tests::rig::run::{self, Lasting, Run};
use tokio::signal::unix::{SignalKind, signal};

/// Keyward on real servers, shown step by step: secrets become ready, a change arrives, damage is repaired, a
/// consumer is rolled out, a path outside the grant is refused.
///
/// Needs no cluster and no Docker. The first run on a machine builds the servers and says how far it is.
#[derive(Parser)]
#[command(name = "demo", bin_name = "cargo demo")]
struct Arguments {
    /// Leave everything running at the end, and say how to use and how to stop it.
    #[arg(long, conflicts_with = "stop")]
    keep: bool,
    /// Stop what --keep left running.
    #[arg(long)]
    stop: bool,
}

/// What shells expect of a command that was interrupted.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    keeper::serve_if_asked();
    operator::serve_if_asked();
    let arguments = Arguments::parse();
    let done = if arguments.stop {
        stop()
    } else {
        show(arguments.keep)
    };
    done.unwrap_or_else(|error| {
        // Nobody reads any more if this fails, and the exit code still tells.
        let _ = writeln!(std::io::stderr(), "demo: {error:#}");
        ExitCode::FAILURE
    })
}

fn show(keep: bool) -> Result<ExitCode> {
    ensure!(
        !keep || run::lasting(Lasting::Demo)?.is_none(),
        "a demo is running already: `cargo demo --stop` ends it"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let run = if keep {
        Run::start_lasting(Lasting::Demo)?
    } else {
        Run::start()?
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = play(&run, keep) => outcome.map(|()| ExitCode::SUCCESS),
            interrupted = interrupted() => interrupted.map(|()| ExitCode::from(INTERRUPTED)),
        }
    });
    // After an error nobody wants to wait for the builds that are still under way.
    runtime.shutdown_background();
    outcome
}

async fn play(run: &Run, keep: bool) -> Result<()> {
    let began = Instant::now();
    let screen = Screen::stdout();
    let (stage, summary) = demo::play(screen, run, keep).await?;
    if keep {
        run.detach()?;
    }
    demo::close(screen, &stage, &summary, began.elapsed());
    screen.heading("What to try next");
    if keep {
        screen.block(&demo::try_here(run.folder(), &stage)?);
    } else {
        screen.block(demo::TRY_NEXT);
    }
    Ok(())
}

/// Ends when the person at the terminal, or whoever started this, wants it to end.
async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for the end")?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.context("listen for Ctrl-C")?,
        _ = terminate.recv() => {}
    }
    Screen::stdout().heading("Interrupted: everything that was started is stopped.");
    Ok(())
}

fn stop() -> Result<ExitCode> {
    let ended = run::end_lasting(Lasting::Demo)?;
    Screen::stdout().say(if ended { "stopped" } else { "nothing was running" });
    Ok(ExitCode::SUCCESS)
}
