//! Where programs come from, how they are built, and what becomes of servers that are left running, as somebody at a
//! shell sees it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::{openstack, poll};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use super::home::{Home, success};

/// How a variable begins by which a program is handed in.
const HANDED_IN: [&str; 2] = ["TEST_ASSET_", "KUBEBUILDER_ASSETS"];

/// Longer than a start of servers takes beside other tests.
const STARTED_WITHIN: Duration = Duration::from_mins(5);

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        each_missing_tool_is_named_with_the_way_to_get_it,
        a_variable_that_names_no_program_is_refused,
        an_interrupted_build_leaves_nothing_and_is_made_up_for,
        a_python_environment_that_is_interrupted_leaves_nothing,
        servers_that_are_left_running_serve_others_until_they_are_ended,
    );
}

async fn each_missing_tool_is_named_with_the_way_to_get_it(case: Case) -> Result<()> {
    let home = Home::empty(&case).await?;
    let tools = case.run().await?.subfolder(&case.unique())?;
    script(&tools.join("go"), "exit 0")?;
    let python = script(&tools.join("a-python"), "echo 3.12.0 /usr/bin/python3.12")?;
    for (path, python, names_go, names_python) in [
        (Path::new("/nowhere"), None, true, true),
        (Path::new("/nowhere"), Some(&python), true, false),
        (&tools, None, false, true),
    ] {
        let mut rig = unaided(home.rig("up"));
        rig.env("PATH", path);
        if let Some(python) = python {
            rig.env("TEST_ASSET_PYTHON", python);
        }
        let output = rig.output().await?;
        ensure!(!output.status.success(), "the servers started without tools");
        let said = String::from_utf8(output.stderr)?;
        ensure!(
            said.contains("go is missing: install Go 1.26 or newer from https://go.dev/dl/") == names_go,
            "{said}"
        );
        ensure!(
            (said.contains("no fitting Python") && said.contains("apt install python3 python3-venv"))
                == names_python,
            "{said}"
        );
        home.expect_nothing_left()?;
    }
    Ok(())
}

async fn a_variable_that_names_no_program_is_refused(case: Case) -> Result<()> {
    let home = Home::empty(&case).await?;
    let output = home
        .rig("up")
        .env("TEST_ASSET_VAULT", "/nowhere/vault")
        .output()
        .await?;
    ensure!(!output.status.success());
    let said = String::from_utf8(output.stderr)?;
    ensure!(
        said.contains("TEST_ASSET_VAULT names no program: /nowhere/vault"),
        "{said}"
    );
    home.expect_nothing_left()
}

/// By Ctrl-C and by `kill -9`. `go` is played by a script, so that it is interrupted in the middle.
async fn an_interrupted_build_leaves_nothing_and_is_made_up_for(case: Case) -> Result<()> {
    let home = Home::built_without(&case, &["etcd"]).await?;
    let tools = case.run().await?.subfolder(&case.unique())?;
    let hang = tools.join("hang");
    std::fs::write(&hang, "")?;
    let go = format!(
        "case $1 in\n\
         list) echo one; echo two;;\n\
         build) echo one >&2\n\
           while [ -e '{hang}' ]; do /bin/sleep 600; done\n\
           for argument; do [ \"$last\" = -o ] && out=$argument; last=$argument; done\n\
           printf '#!/bin/sh\\necho etcd Version: 3.6.0\\n' >\"$out\"; /bin/chmod +x \"$out\";;\n\
         esac",
        hang = hang.display()
    );
    script(&tools.join("go"), &go)?;
    let python = openstack::look_for_python()?;
    let up = || {
        let mut rig = interruptible(&home);
        rig.env("PATH", &tools).env("TEST_ASSET_PYTHON", &python);
        rig.env_remove("TEST_ASSET_ETCD").env_remove("KUBEBUILDER_ASSETS");
        rig
    };
    for signal in [Signal::INT, Signal::KILL] {
        interrupt(&home, up().spawn()?, "/bin/sleep", signal).await?;
        ensure!(!is_built(&home, "etcd"), "half a program is in the cache");
    }

    std::fs::remove_file(&hang)?;
    let output = up().output().await?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(
        said.contains("etcd: fetching modules") && said.contains("etcd: done, "),
        "{said}"
    );
    ensure!(is_built(&home, "etcd"), "{said}");
    ensure!(
        home.built_here().len() == 1,
        "what was interrupted is still there: {:?}",
        home.built_here()
    );
    // It is no server, and the start ends as soon as that shows.
    ensure!(
        said.contains("kubernetes-etcd ended (exit status: 0)") && said.contains("etcd Version: 3.6.0"),
        "{said}"
    );
    home.expect_nothing_left()
}

async fn a_python_environment_that_is_interrupted_leaves_nothing(case: Case) -> Result<()> {
    let home = Home::built_without(&case, &["openstack"]).await?;
    let tools = case.run().await?.subfolder(&case.unique())?;
    let answer = "case $1 in -c) echo 3.12.0 /usr/bin/python3.12;; *) exec /bin/sleep 600;; esac";
    let python = script(&tools.join("python"), answer)?;
    let mut rig = interruptible(&home);
    rig.env("TEST_ASSET_PYTHON", &python);
    interrupt(&home, rig.spawn()?, "/bin/sleep", Signal::KILL).await?;
    ensure!(!is_built(&home, "openstack"));
    Ok(())
}

async fn servers_that_are_left_running_serve_others_until_they_are_ended(case: Case) -> Result<()> {
    let home = Home::built(&case).await?;
    let status = home.rig("status").output().await?;
    ensure!(status.status.code() == Some(1));
    ensure!(String::from_utf8(status.stdout)?.starts_with("nothing is running"));

    // No proxy of the user is in the way of what is on loopback.
    let said = success(
        home.rig("up")
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .output()
            .await?,
    )?;
    ensure!(said.starts_with("up after "), "{said}");
    let built = home.built_here();
    ensure!(built.is_empty(), "a second clone built {built:?}");
    let again = home.rig("up").output().await?;
    ensure!(!again.status.success());
    ensure!(String::from_utf8(again.stderr)?.contains("servers are running already"));
    let said = success(home.rig("status").output().await?)?;
    for server in ["Kubernetes", "Vault", "Keystone", "Barbican"] {
        ensure!(said.contains(server), "{said}");
    }

    // Single tests of this very program, from another process.
    let tests = [
        "rig::kubernetes::those_without_rights_are_refused",
        "rig::openstack::projects_are_apart",
        "rig::vault::deletions_can_be_told_apart",
    ];
    for test in tests {
        let mut suites = home.command(std::env::current_exe()?);
        let said = success(suites.args(["--exact", test]).output().await?)?;
        ensure!(said.contains("1 passed"), "{said}");
    }
    let environment = home.runs().join("up/environment");
    let list = format!(". '{}' && kubectl get namespaces -o name", environment.display());
    let listed = success(Command::new("sh").args(["-c", &list]).output().await?)?;
    ensure!(
        listed.contains("namespace/those-without-rights-are-refused"),
        "they had servers of their own: {listed}"
    );

    let said = success(home.rig("down").output().await?)?;
    ensure!(said == "stopped\n", "{said}");
    home.expect_nothing_left()?;
    let said = success(home.rig("down").output().await?)?;
    ensure!(said == "nothing was running\n", "{said}");
    Ok(())
}

/// `rig up` that a signal to its group ends as a Ctrl-C at a terminal does, also where this program was started in the
/// background and ignores SIGINT from birth.
fn interruptible(home: &Home) -> Command {
    let rig = home.rig("up");
    let mut command = home.command("/usr/bin/env");
    command
        .arg("--default-signal=INT")
        .arg(rig.as_std().get_program())
        .args(rig.as_std().get_args())
        .process_group(0);
    command
}

/// Ends a runner, with all that shares its terminal, while `program` runs for it, and expects that nothing is left.
async fn interrupt(home: &Home, mut runner: Child, program: &str, signal: Signal) -> Result<()> {
    let works = async || {
        let mut processes = home.processes().into_iter();
        processes.any(|process| is_running(process, program))
    };
    let worked = poll::until("the build", STARTED_WITHIN, works).await;
    let group = runner.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let group = group.context("the runner has ended")?;
    if worked.is_err() {
        rustix::process::kill_process_group(group, Signal::KILL)?;
        let output = runner.wait_with_output().await?;
        bail!("it built nothing: {}", String::from_utf8_lossy(&output.stderr));
    }
    match signal {
        // Only the runner: the rest is the keeper's to end.
        Signal::KILL => rustix::process::kill_process(group, signal)?,
        _ => rustix::process::kill_process_group(group, signal)?,
    }
    runner.wait().await?;
    poll::until("nothing to be left", Duration::from_mins(1), async || {
        home.expect_nothing_left().is_ok()
    })
    .await
    .with_context(|| format!("{:?}", home.expect_nothing_left()))
}

fn is_running(process: Pid, program: &str) -> bool {
    let words = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).next() == Some(program.as_bytes())
}

fn is_built(home: &Home, program: &str) -> bool {
    let beginning = format!("{program}-");
    let mut built = home.built_here().into_iter();
    built.any(|folder| {
        folder
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&beginning))
    })
}

/// A command to which nothing is handed in.
fn unaided(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if HANDED_IN.iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command.stdout(Stdio::null());
    command
}

fn script(path: &Path, text: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    std::fs::write(path, format!("#!/bin/sh\n{text}\n"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path.to_owned())
}
