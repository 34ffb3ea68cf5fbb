//! The `rig` command: real servers for the suites, started by hand and left running.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use keyward_tests::rig::fleet::{self, Fleet};
use keyward_tests::rig::run::{self, Lasting, Run};
use keyward_tests::rig::{keeper, lasting};

/// Real servers on loopback, for the suites and for hands.
#[derive(Parser)]
#[command(name = "rig")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the servers and leave them running; suites then use them instead of their own.
    Up,
    /// Stop the servers that `rig up` left running, and forget their state.
    Down,
    /// Say what runs, and how to reach it.
    Status,
}

fn main() -> ExitCode {
    keeper::serve_if_asked();
    let done = match Arguments::parse().command {
        Command::Up => up(),
        Command::Down => down(),
        Command::Status => status(),
    };
    done.unwrap_or_else(|error| {
        // Nobody reads any more if this fails, and the exit code still tells.
        let _ = writeln!(std::io::stderr(), "rig: {error:#}");
        ExitCode::FAILURE
    })
}

fn up() -> Result<ExitCode> {
    ensure!(
        lasting::find()?.is_none(),
        "servers are running already: `rig status` shows them, `rig down` ends them"
    );
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let run = Run::start_lasting(Lasting::Rig)?;
    let kinds = keyward_crds::definitions()
        .into_iter()
        .map(|(_, kind)| kind)
        .collect();
    let fleet = runtime.block_on(Fleet::start(&run, kinds));
    // After an error nobody wants to wait for the builds that are still under way.
    runtime.shutdown_background();
    let fleet = fleet?;
    fleet.save_access(run.folder())?;
    // Up to here a Ctrl-C ends everything; from here on `rig down` does.
    lasting::leave(&run, &fleet.connections())?;
    say(&format!("up after {:.1} s\n", began.elapsed().as_secs_f64()))?;
    say(&fleet::usage(run.folder(), &fleet.connections())?)?;
    Ok(ExitCode::SUCCESS)
}

fn down() -> Result<ExitCode> {
    say(if run::end_lasting(Lasting::Rig)? {
        "stopped\n"
    } else {
        "nothing was running\n"
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The exit code tells a script whether servers run.
fn status() -> Result<ExitCode> {
    let Some((folder, connections)) = run::lasting(Lasting::Rig)?.zip(lasting::find()?) else {
        say("nothing is running: `rig up` starts the servers\n")?;
        return Ok(ExitCode::FAILURE);
    };
    say(&fleet::usage(&folder, &connections)?)?;
    Ok(ExitCode::SUCCESS)
}

fn say(text: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
