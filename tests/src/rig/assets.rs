//! Where each program comes from: handed in by a variable, a fitting one on `PATH`, the cache, or a build from
//! the pinned Go modules in `tests/servers/`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::cache;
use super::gobuild::{self, GoModule};

/// A program that the rig can provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// The store behind the API server.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// The controllers: deployments, garbage collection, service accounts and more.
    KubeControllerManager,
    /// The scheduler.
    KubeScheduler,
    /// The command line of Kubernetes.
    Kubectl,
    /// Plays the kubelet.
    Kwok,
    /// The Vault server.
    Vault,
    /// The `OpenBao` server. It is never built: it runs only when handed in.
    OpenBao,
    /// Installs charts.
    Helm,
}

/// What is known of a program.
struct Facts {
    /// Its file name.
    name: &'static str,
    /// The variable by which a user hands it in.
    variable: &'static str,
    /// How to ask for its version.
    version_arguments: &'static [&'static str],
    /// The first version (major, minor) that the suites can use.
    oldest: (u64, u64),
    /// How to build it.
    source: Option<&'static GoModule>,
}

/// Refuses a variable that names no program, before minutes are spent on building other programs.
pub fn check_variables() -> Result<()> {
    Program::ALL
        .into_iter()
        .try_for_each(|program| program.facts().set_by_variable().map(drop))
}

/// The paths of programs, in their order.
pub async fn provide_all(programs: Vec<Program>) -> Result<Vec<PathBuf>> {
    tokio::task::spawn_blocking(move || programs.into_iter().map(Program::provide).collect()).await?
}

impl Program {
    const ALL: [Self; 9] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubectl,
        Self::Kwok,
        Self::Vault,
        Self::OpenBao,
        Self::Helm,
    ];

    /// The path of the program, built now if there is no other way. Blocks, for minutes if it must build.
    pub fn provide(self) -> Result<PathBuf> {
        if let Some(path) = self.handed_in()? {
            return Ok(path);
        }
        let facts = self.facts();
        let Some(source) = facts.source else {
            bail!(
                "{} is not built here: set {} to its path",
                facts.name,
                facts.variable
            );
        };
        let inputs = source.inputs(facts.name);
        let inputs: Vec<(&str, &[u8])> = inputs.iter().map(|(label, bytes)| (*label, &**bytes)).collect();
        let entry = cache::provide(facts.name, &inputs, |staging, progress| {
            gobuild::build(source, facts.name, staging, progress)
        });
        let entry = entry.with_context(|| {
            format!(
                "{} was not built (you can set {} to its path instead)",
                facts.name, facts.variable
            )
        })?;
        Ok(entry.join(facts.name))
    }

    /// The path of a program that the user set by variable or has on `PATH` in a fitting version.
    pub fn handed_in(self) -> Result<Option<PathBuf>> {
        let facts = self.facts();
        if let Some(path) = facts.set_by_variable()? {
            return Ok(Some(path));
        }
        if let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS") {
            let path = Path::new(&folder).join(facts.name);
            if is_executable(&path) {
                return Ok(Some(path));
            }
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(std::env::split_paths(&path)
            .map(|folder| folder.join(facts.name))
            .find(|program| is_executable(program) && is_fitting(program, &facts)))
    }

    fn facts(self) -> Facts {
        let kubernetes = |name, variable, version_arguments| Facts {
            name,
            variable,
            version_arguments,
            oldest: (1, 33),
            source: Some(&gobuild::KUBERNETES),
        };
        match self {
            Self::Etcd => Facts {
                name: "etcd",
                variable: "TEST_ASSET_ETCD",
                version_arguments: &["--version"],
                oldest: (3, 5),
                source: Some(&gobuild::ETCD),
            },
            Self::KubeApiserver => kubernetes("kube-apiserver", "TEST_ASSET_KUBE_APISERVER", &["--version"]),
            Self::KubeControllerManager => kubernetes(
                "kube-controller-manager",
                "TEST_ASSET_KUBE_CONTROLLER_MANAGER",
                &["--version"],
            ),
            Self::KubeScheduler => kubernetes("kube-scheduler", "TEST_ASSET_KUBE_SCHEDULER", &["--version"]),
            Self::Kubectl => kubernetes("kubectl", "TEST_ASSET_KUBECTL", &["version", "--client"]),
            Self::Kwok => Facts {
                name: "kwok",
                variable: "TEST_ASSET_KWOK",
                version_arguments: &["--version"],
                oldest: (0, 7),
                source: Some(&gobuild::KWOK),
            },
            Self::Vault => Facts {
                name: "vault",
                variable: "TEST_ASSET_VAULT",
                version_arguments: &["version"],
                oldest: (1, 13),
                source: Some(&gobuild::VAULT),
            },
            Self::OpenBao => Facts {
                name: "bao",
                variable: "TEST_ASSET_OPENBAO",
                version_arguments: &["version"],
                oldest: (2, 3),
                source: None,
            },
            Self::Helm => Facts {
                name: "helm",
                variable: "TEST_ASSET_HELM",
                version_arguments: &["version", "--short"],
                oldest: (3, 14),
                source: Some(&gobuild::HELM),
            },
        }
    }
}

impl Facts {
    fn set_by_variable(&self) -> Result<Option<PathBuf>> {
        let path = std::env::var_os(self.variable).filter(|value| !value.is_empty());
        let Some(path) = path.map(PathBuf::from) else {
            return Ok(None);
        };
        ensure!(
            is_executable(&path),
            "{} names no program: {}",
            self.variable,
            path.display()
        );
        Ok(Some(path))
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn is_fitting(program: &Path, facts: &Facts) -> bool {
    Command::new(program)
        .args(facts.version_arguments)
        .output()
        .ok()
        .and_then(|output| version_in(&String::from_utf8_lossy(&output.stdout)))
        .is_some_and(|version| version >= facts.oldest)
}

/// The first `major.minor.patch` in what a program says of itself.
fn version_in(text: &str) -> Option<(u64, u64)> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
        .find_map(|word| {
            let mut parts = word.trim_start_matches('v').split('.');
            let version = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let patch = parts.next()?;
            patch.starts_with(|c: char| c.is_ascii_digit()).then_some(version)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        for (text, version) in [
            ("Kubernetes v1.36.3\n", Some((1, 36))),
            (
                "Client Version: v1.33.0-rc.1\nKustomize Version: v5.7.1\n",
                Some((1, 33)),
            ),
            ("etcd Version: 3.6.16\nGit SHA: Not provided\n", Some((3, 6))),
            ("kwok version v0.8.0 go1.26.8 (linux/amd64)\n", Some((0, 8))),
            (
                "Vault v1.13.0 ('abc'), built 2023-03-01T00:00:00Z\n",
                Some((1, 13)),
            ),
            ("v4.3.1+g0123456\n", Some((4, 3))),
            ("no version here\n", None),
        ] {
            assert_eq!(version_in(text), version, "{text}");
        }
    }
}
