//! The command line: one file for each subcommand.

mod run;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::controllers::AllControllers;

pub use run::{Context, Controllers, InsecureFlag, RunOptions};

/// Keeps Kubernetes Secrets in step with Vault, OpenBao and Barbican.
#[derive(Parser)]
#[command(name = "keyward", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    Run(Box<RunOptions>),
    /// Print the version.
    Version,
}

/// The whole program: what the binary does, and nothing else.
#[must_use]
pub fn main() -> ExitCode {
    // Two providers in one process make rustls panic, so the choice is made before anything can make another.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return ExitCode::FAILURE;
    }
    execute(Arc::new(AllControllers::default()))
}

/// Runs what the command line asks for. `controllers` do the work of `keyward run`.
fn execute<C: Controllers>(controllers: Arc<C>) -> ExitCode {
    match Cli::parse().command {
        Command::Run(options) => run::execute(*options, controllers),
        Command::Version => {
            print_line(env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the answer of a command belongs on standard output"
)]
fn print_line(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
