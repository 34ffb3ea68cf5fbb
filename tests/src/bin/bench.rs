//! The `bench` command: what Keyward costs, measured on real servers.

use std::fs;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use keyward_tests::bench::options::Options;
use keyward_tests::bench::{self, floor, table};
use keyward_tests::rig::keeper;

/// Something was missed or became worse.
const MISSED: u8 = 1;

/// Nothing is known.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    keeper::serve_if_asked();
    floor::serve_if_asked();
    let options = Options::parse();
    measure(&options).unwrap_or_else(|error| {
        // Nobody reads any more if this fails, and the exit code still tells.
        let _ = writeln!(std::io::stderr(), "bench: {error:#}");
        ExitCode::from(FAILED)
    })
}

fn measure(options: &Options) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(bench::run(options));
    // After an error nobody wants to wait for what is still under way.
    runtime.shutdown_background();
    let report = report?;
    std::io::stdout().write_all(table::plain(&report).as_bytes())?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    let missed = report.missed().next().is_some();
    Ok(if missed {
        ExitCode::from(MISSED)
    } else {
        ExitCode::SUCCESS
    })
}
