//! The demo as a person runs it: what it says, how it ends, and that nothing is left of it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_tests::demo::seeds::MARK;
use keyward_tests::demo::steps;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::poll;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use crate::rig::home::{Home, success};
use crate::rig::runs::processes_with;

/// What a step waits for on a machine that runs other tests as well.
const UNDER_LOAD: Duration = Duration::from_mins(5);

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        every_step_comes_true_and_nothing_is_left,
        a_kept_demo_runs_until_it_is_stopped,
        an_interrupted_demo_leaves_nothing,
        a_demo_without_its_operator_fails,
        a_demo_that_cannot_start_says_why,
    );
}

async fn every_step_comes_true_and_nothing_is_left(case: Case) -> Result<()> {
    let home = Home::built(&case).await?;
    let said = success(home.demo(&[]).output().await?)?;
    let mut rest = said.as_str();
    for (number, step) in steps::ALL.iter().enumerate() {
        let heading = format!("\n{}. {}\n", number + 1, step.name);
        let (_, behind) = rest
            .split_once(&heading)
            .with_context(|| format!("{} is not shown in its place:\n{said}", step.name))?;
        rest = behind;
    }
    for wanted in [
        "syncedsecret.keyward.dev/volume-key",
        "PathRefused",
        "Up after ",
        "What to try next",
    ] {
        assert!(said.contains(wanted), "{wanted} is not in:\n{said}");
    }
    assert!(
        !said.contains('\x1b'),
        "control characters where there is no terminal"
    );
    expect_no_value(&said);
    home.expect_nothing_left()
}

async fn a_kept_demo_runs_until_it_is_stopped(case: Case) -> Result<()> {
    let home = Home::built(&case).await?;
    let said = success(home.demo(&["--keep"]).output().await?)?;
    expect_no_value(&said);
    assert!(!said.contains("hvs."), "a token of Vault is shown");

    let folder = home.runs().join("demo");
    let environment = folder.join("environment");
    assert!(said.contains(&format!(". {}", environment.display())), "{said}");
    let list = format!(
        ". '{}' && kubectl get kwss -n openstack -o name",
        environment.display()
    );
    let listed = success(Command::new("sh").args(["-c", &list]).output().await?)?;
    assert!(
        listed.contains("syncedsecret.keyward.dev/service-passwords"),
        "{listed}"
    );

    let again = home.demo(&["--keep"]).output().await?;
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr)?.contains("`cargo demo --stop` ends it"));

    success(home.demo(&["--stop"]).output().await?)?;
    home.expect_nothing_left()
}

async fn an_interrupted_demo_leaves_nothing(case: Case) -> Result<()> {
    let home = Home::built(&case).await?;
    let demo = home.demo(&[]).spawn()?;
    poll::until("a server of the demo", UNDER_LOAD, async || {
        !home.processes().is_empty()
    })
    .await?;
    signal(&demo, Signal::INT)?;
    let output = demo.wait_with_output().await?;
    assert_eq!(output.status.code(), Some(130));
    home.expect_nothing_left()
}

async fn a_demo_without_its_operator_fails(case: Case) -> Result<()> {
    let home = Home::built(&case).await?;
    let demo = home.demo(&[]).spawn()?;
    let operator = poll::some("the operator of the demo", UNDER_LOAD, async || {
        let operators = processes_with("KEYWARD_TESTS_AS_OPERATOR=1");
        let ours = home.processes();
        operators.into_iter().find(|operator| ours.contains(operator))
    })
    .await?;
    rustix::process::kill_process(operator, Signal::KILL)?;
    let output = demo.wait_with_output().await?;
    assert_eq!(output.status.code(), Some(1));
    home.expect_nothing_left()
}

async fn a_demo_that_cannot_start_says_why(case: Case) -> Result<()> {
    let home = Home::empty(&case).await?;
    let variables = [("PATH", "/nowhere"), ("TEST_ASSET_VAULT", "/nowhere/vault")];
    let output = home.demo(&[]).envs(variables).output().await?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("TEST_ASSET_VAULT names no program"), "{said}");
    home.expect_nothing_left()
}

/// Neither a password nor a key, as text or as base64 at any of its three offsets.
fn expect_no_value(said: &str) {
    assert!(
        !said.contains(MARK) && !said.contains("PRIVATE KEY"),
        "a value is shown"
    );
    for offset in 0..3 {
        let encoded = STANDARD.encode([" ".repeat(offset), MARK.to_owned()].concat());
        let whole = &encoded[offset.div_ceil(3) * 4..];
        assert!(!said.contains(&whole[..8]), "the base64 of a value is shown");
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    Ok(rustix::process::kill_process(
        id.context("the demo has ended")?,
        signal,
    )?)
}
