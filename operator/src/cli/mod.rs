//! The command line: one file for each subcommand.

mod run;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

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

/// Runs what the command line asks for. `controllers` do the work of `keyward run`.
#[must_use]
pub fn execute<C: Controllers>(controllers: Arc<C>) -> ExitCode {
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
