//! Where programs come from, as somebody at a shell sees it.

use std::path::Path;
use std::process::Output;

use anyhow::Result;
use keyward_tests::harness::{Case, Suite};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        a_missing_tool_is_named_with_the_way_to_get_it,
        a_variable_that_names_no_program_is_refused,
        status_tells_a_script_that_nothing_runs,
    );
}

async fn a_missing_tool_is_named_with_the_way_to_get_it(_: Case) -> Result<()> {
    let cache = tempfile::tempdir()?;
    let output = rig("up", cache.path(), &[("PATH", "/nowhere")]).await?;
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr)?;
    // Go and Python are looked for at the same time, and the first that is missing ends the start.
    let names_go = said.contains(" is missing: install ");
    let names_python = said.contains("no fitting Python") && said.contains("Install it (on ");
    assert!(names_go || names_python, "{said}");
    assert_eq!(
        std::fs::read_dir(cache.path().join("runs"))?.count(),
        1,
        "only the lock file is left"
    );
    Ok(())
}

async fn a_variable_that_names_no_program_is_refused(_: Case) -> Result<()> {
    let cache = tempfile::tempdir()?;
    let variables = [("PATH", "/nowhere"), ("TEST_ASSET_VAULT", "/nowhere/vault")];
    let output = rig("up", cache.path(), &variables).await?;
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr)?;
    assert!(
        said.contains("TEST_ASSET_VAULT names no program: /nowhere/vault"),
        "{said}"
    );
    Ok(())
}

async fn status_tells_a_script_that_nothing_runs(_: Case) -> Result<()> {
    let cache = tempfile::tempdir()?;
    let output = rig("status", cache.path(), &[]).await?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout)?.starts_with("nothing is running"));
    Ok(())
}

async fn rig(command: &str, cache: &Path, variables: &[(&str, &str)]) -> Result<Output> {
    Ok(tokio::process::Command::new(env!("CARGO_BIN_EXE_rig"))
        .arg(command)
        .env("KEYWARD_CACHE", cache)
        .envs(variables.iter().copied())
        .output()
        .await?)
}
