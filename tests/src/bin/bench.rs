//! The `bench` command: what Keyward costs, measured on real servers.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use keyward_tests::bench::options::Options;
use keyward_tests::bench::{self, compare, floor, table};
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
    let outcome = runtime.block_on(bench::run(options));
    // After an error nobody wants to wait for what is still under way.
    runtime.shutdown_background();
    let (report, done) = outcome?;
    let mut text = table::plain(&report);
    let mut failed = report.missed().next().is_some();
    if let Some(path) = &options.compare {
        let before = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let before =
            serde_json::from_slice(&before).with_context(|| format!("understand {}", path.display()))?;
        let changes = compare::compare(&report, &before, options.threshold);
        failed |= changes.iter().any(|change| change.worse);
        text = format!("{text}\n{}", compare::describe(&changes, options.threshold));
    }
    std::io::stdout().write_all(text.as_bytes())?;
    if let Some(path) = &options.json {
        save(path, &serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(path) = &options.markdown {
        save(path, &table::markdown(&report))?;
    }
    // What was measured before it broke off is told all the same.
    done?;
    Ok(if failed {
        ExitCode::from(MISSED)
    } else {
        ExitCode::SUCCESS
    })
}

fn save(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
