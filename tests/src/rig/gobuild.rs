//! Builds a server from a Go module whose `go.mod` and `go.sum` are part of this program.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::keeper::Badge;
use super::progress::Progress;

/// A Go module of ours that pins programs of others.
pub(super) struct GoModule {
    /// The module's files, by name.
    files: &'static [(&'static str, &'static str)],
    /// The package of each program.
    packages: &'static [(&'static str, &'static str)],
    /// Values for the linker, each a variable and what to set it to.
    variables: &'static [(&'static str, &'static str)],
}

macro_rules! module_file {
    ($module:literal, $name:literal) => {
        (
            $name,
            include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/servers/",
                $module,
                "/",
                $name
            )),
        )
    };
}

pub(super) static ETCD: GoModule = GoModule {
    files: &[module_file!("etcd", "go.mod"), module_file!("etcd", "go.sum")],
    packages: &[("etcd", "go.etcd.io/etcd/server/v3")],
    variables: &[],
};

pub(super) static HELM: GoModule = GoModule {
    files: &[module_file!("helm", "go.mod"), module_file!("helm", "go.sum")],
    packages: &[("helm", "helm.sh/helm/v4/cmd/helm")],
    variables: &[],
};

pub(super) static KWOK: GoModule = GoModule {
    files: &[module_file!("kwok", "go.mod"), module_file!("kwok", "go.sum")],
    packages: &[("kwok", "sigs.k8s.io/kwok/cmd/kwok")],
    variables: &[],
};

pub(super) static VAULT: GoModule = GoModule {
    files: &[
        module_file!("vault", "go.mod"),
        module_file!("vault", "go.sum"),
        module_file!("vault", "main.go"),
    ],
    packages: &[("vault", ".")],
    variables: &[],
};

/// Without the variables every program says a template's version, and clients misjudge what the server can do.
pub(super) static KUBERNETES: GoModule = GoModule {
    files: &[
        module_file!("kubernetes", "go.mod"),
        module_file!("kubernetes", "go.sum"),
    ],
    packages: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        (
            "kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
        ),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
    variables: &[
        ("k8s.io/component-base/version.gitVersion", "v1.36.3"),
        ("k8s.io/component-base/version.gitMajor", "1"),
        ("k8s.io/component-base/version.gitMinor", "36"),
        ("k8s.io/component-base/version.gitTreeState", "clean"),
        ("k8s.io/client-go/pkg/version.gitVersion", "v1.36.3"),
        ("k8s.io/client-go/pkg/version.gitMajor", "1"),
        ("k8s.io/client-go/pkg/version.gitMinor", "36"),
        ("k8s.io/client-go/pkg/version.gitTreeState", "clean"),
    ],
};

impl GoModule {
    /// All that a built program depends on.
    pub(super) fn inputs(&self, program: &str) -> Vec<(&'static str, Vec<u8>)> {
        let mut inputs: Vec<(&str, Vec<u8>)> = self
            .files
            .iter()
            .map(|(name, text)| (*name, text.as_bytes().to_vec()))
            .collect();
        inputs.push(("arguments", self.arguments(program).join("\n").into_bytes()));
        inputs
    }

    /// The arguments of `go`, up to the output. The same for every build, so that Go's own cache is shared.
    fn arguments(&self, program: &str) -> Vec<String> {
        let mut linker = String::from("-s -w");
        for (variable, value) in self.variables {
            linker.push_str(" -X ");
            linker.push_str(variable);
            linker.push('=');
            linker.push_str(value);
        }
        let package = self.package(program).to_owned();
        [
            "build",
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            "-v",
            "-ldflags",
            &linker,
        ]
        .map(ToOwned::to_owned)
        .into_iter()
        .chain([package])
        .collect()
    }

    fn package(&self, program: &str) -> &'static str {
        let found = self.packages.iter().find(|(name, _)| *name == program);
        found
            .map(|(_, package)| *package)
            .expect("each program is listed in the module that it names")
    }
}

const HOW_TO_GET_GO: &str =
    "go is missing: install Go 1.26 or newer from https://go.dev/dl/ and put it on PATH";

/// Looks for Go, and says how to get it.
pub(super) fn look_for_go() -> Result<()> {
    let asked = Command::new("go").arg("version").output();
    match asked {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("{HOW_TO_GET_GO}"),
        asked => asked.map(drop).context("start go"),
    }
}

/// Builds `program` into `staging`, by processes that wear `badge`.
pub(super) fn build(
    module: &GoModule,
    program: &str,
    staging: &Path,
    progress: &Progress,
    badge: &Badge,
) -> Result<()> {
    let source = staging.join("source");
    fs::create_dir(&source).with_context(|| format!("create {}", source.display()))?;
    for (name, text) in module.files {
        fs::write(source.join(name), text).with_context(|| format!("write {name}"))?;
    }

    progress.say("fetching modules that are not in Go's cache");
    let total = count_packages(&source, module.package(program), badge)?;
    progress.say("compiling and linking");
    let mut arguments = module.arguments(program);
    let package = arguments.pop().expect("the package is the last argument");
    let output = staging.join(program);
    let mut child = go(&source, badge)
        .args(&arguments)
        .arg("-o")
        .arg(&output)
        .arg(package)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start go")?;
    let mut compiled = 0;
    let mut complaints = Vec::new();
    for line in BufReader::new(child.stderr.take().expect("stderr was piped"))
        .lines()
        .map_while(Result::ok)
    {
        // `-v` prints the import path of each package that has to be compiled, and nothing for cached ones.
        if line.contains([' ', '\t']) || line.starts_with('#') {
            complaints.push(line);
        } else {
            compiled += 1;
            progress.step(compiled, total.max(compiled), "packages");
        }
    }
    let status = child.wait().context("wait for go")?;
    if !status.success() {
        bail!("go build failed ({status}):\n{}", last_lines(&complaints));
    }
    fs::remove_dir_all(&source).with_context(|| format!("remove {}", source.display()))
}

/// How many packages the program is made of. Downloads what is not there yet.
fn count_packages(source: &Path, package: &str, badge: &Badge) -> Result<usize> {
    let listed = go(source, badge)
        .args(["list", "-mod=readonly", "-deps", package])
        .output();
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("{HOW_TO_GET_GO}"),
        Err(error) => return Err(error).context("start go"),
    };
    if !listed.status.success() {
        let complaints: Vec<String> = String::from_utf8_lossy(&listed.stderr)
            .lines()
            .map(ToOwned::to_owned)
            .collect();
        bail!("go list failed ({}):\n{}", listed.status, last_lines(&complaints));
    }
    Ok(String::from_utf8_lossy(&listed.stdout).lines().count())
}

/// `go` for this machine, from the modules in `source` and no others, whatever the user has set for other work by
/// variables or by `go env -w`. Where modules come from, which Go it is and how it compiles stays as the user has set it.
fn go(source: &Path, badge: &Badge) -> Command {
    let mut command = badge.command("go");
    command
        .current_dir(source)
        .env("CGO_ENABLED", "0")
        .env("GO111MODULE", "on")
        .env("GOOS", std::env::consts::OS)
        .env("GOARCH", architecture())
        .env("GOWORK", "off")
        // An empty value would let the one of `go env -w` through.
        .env("GOFLAGS", "-mod=readonly");
    command
}

/// This machine, as Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        other => other,
    }
}

fn last_lines(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(20)..].join("\n")
}
