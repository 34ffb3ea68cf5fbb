//! Where each program comes from: handed in by a variable, a fitting one on `PATH`, the cache, or a build from
//! the pinned Go modules in `tests/servers/`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::cache;
use super::gobuild::{self, GoModule};
use super::keeper::Badge;
use super::run::Run;

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
    /// The versions that the suites can use.
    fitting: Fitting,
    /// How to build it.
    source: Option<&'static GoModule>,
}

/// Major and minor.
type Version = (u64, u64);

/// Versions that fit.
#[derive(Clone, Copy)]
enum Fitting {
    /// This one and later ones.
    Since(Version),
    /// This one alone. The programs of a control plane have to be of one version, and those that are not found on `PATH`
    /// are built in this one.
    Only(Version),
}

impl Fitting {
    fn includes(self, version: Version) -> bool {
        match self {
            Self::Since(oldest) => version >= oldest,
            Self::Only(one) => version == one,
        }
    }
}

/// Refuses a variable that names no program, before minutes are spent on building other programs.
pub fn check_variables() -> Result<()> {
    Program::ALL
        .into_iter()
        .try_for_each(|program| program.facts().set_by(|name| std::env::var_os(name)).map(drop))
}

/// Looks for what is needed to build those of the programs that are not there yet, and says how to get it.
pub fn check_tools() -> Result<()> {
    for program in Program::ALL {
        if program.has_to_be_built()? {
            return gobuild::look_for_go()
                .with_context(|| format!("{} has to be built", program.facts().name));
        }
    }
    Ok(())
}

/// The paths of programs, in their order. What has to be built is built as part of `run`.
pub async fn provide_all(run: &Run, programs: Vec<Program>) -> Result<Vec<PathBuf>> {
    let badge = run.badge();
    let provide = move || {
        programs
            .into_iter()
            .map(|program| program.provide(&badge))
            .collect()
    };
    tokio::task::spawn_blocking(provide).await?
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

    /// The path of the program, built now, by processes that wear `badge`, if there is no other way. Blocks, for minutes
    /// if it must build.
    fn provide(self, badge: &Badge) -> Result<PathBuf> {
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
        let entry = cache::provide(facts.name, &by_reference(&inputs), |staging, progress| {
            gobuild::build(source, facts.name, staging, progress, badge)?;
            let built = staging.join(facts.name);
            ensure!(
                is_fitting(&built, &facts),
                "what was built does not run, or not as the version that is wanted: try {} {}",
                built.display(),
                facts.version_arguments.join(" ")
            );
            Ok(())
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
        self.handed_in_by(|variable| std::env::var_os(variable))
    }

    fn handed_in_by(self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<PathBuf>> {
        let facts = self.facts();
        if let Some(path) = facts.set_by(&variable)? {
            return Ok(Some(path));
        }
        if let Some(folder) = variable("KUBEBUILDER_ASSETS") {
            let path = Path::new(&folder).join(facts.name);
            if is_executable(&path) {
                return Ok(Some(path));
            }
        }
        let path = variable("PATH").unwrap_or_default();
        Ok(std::env::split_paths(&path)
            .map(|folder| folder.join(facts.name))
            .find(|program| is_executable(program) && is_fitting(program, &facts)))
    }

    fn has_to_be_built(self) -> Result<bool> {
        let facts = self.facts();
        let Some(source) = facts.source else {
            return Ok(false);
        };
        Ok(
            self.handed_in()?.is_none()
                && !cache::has(facts.name, &by_reference(&source.inputs(facts.name)))?,
        )
    }

    fn facts(self) -> Facts {
        let of_control_plane = |name, variable| Facts {
            name,
            variable,
            version_arguments: &["--version"],
            fitting: Fitting::Only((1, 36)),
            source: Some(&gobuild::KUBERNETES),
        };
        match self {
            Self::Etcd => Facts {
                name: "etcd",
                variable: "TEST_ASSET_ETCD",
                version_arguments: &["--version"],
                fitting: Fitting::Since((3, 5)),
                source: Some(&gobuild::ETCD),
            },
            Self::KubeApiserver => of_control_plane("kube-apiserver", "TEST_ASSET_KUBE_APISERVER"),
            Self::KubeControllerManager => {
                of_control_plane("kube-controller-manager", "TEST_ASSET_KUBE_CONTROLLER_MANAGER")
            }
            Self::KubeScheduler => of_control_plane("kube-scheduler", "TEST_ASSET_KUBE_SCHEDULER"),
            Self::Kubectl => Facts {
                name: "kubectl",
                variable: "TEST_ASSET_KUBECTL",
                version_arguments: &["version", "--client"],
                fitting: Fitting::Since((1, 33)),
                source: Some(&gobuild::KUBERNETES),
            },
            Self::Kwok => Facts {
                name: "kwok",
                variable: "TEST_ASSET_KWOK",
                version_arguments: &["--version"],
                fitting: Fitting::Since((0, 7)),
                source: Some(&gobuild::KWOK),
            },
            Self::Vault => Facts {
                name: "vault",
                variable: "TEST_ASSET_VAULT",
                version_arguments: &["version"],
                fitting: Fitting::Since((1, 13)),
                source: Some(&gobuild::VAULT),
            },
            Self::OpenBao => Facts {
                name: "bao",
                variable: "TEST_ASSET_OPENBAO",
                version_arguments: &["version"],
                fitting: Fitting::Since((2, 3)),
                source: None,
            },
            Self::Helm => Facts {
                name: "helm",
                variable: "TEST_ASSET_HELM",
                version_arguments: &["version", "--short"],
                fitting: Fitting::Since((3, 14)),
                source: Some(&gobuild::HELM),
            },
        }
    }
}

impl Facts {
    fn set_by(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<PathBuf>> {
        let path = variable(self.variable).filter(|value| !value.is_empty());
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
        .is_some_and(|version| facts.fitting.includes(version))
}

/// The first `major.minor.patch` or `vmajor.minor` in what a program says of itself.
fn version_in(text: &str) -> Option<Version> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
        .find_map(|word| {
            let numbers = word.trim_start_matches('v');
            let mut parts = numbers.split('.');
            let version = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let is_one = match parts.next() {
                Some(patch) => patch.starts_with(|c: char| c.is_ascii_digit()),
                None => numbers != word,
            };
            is_one.then_some(version)
        })
}

fn by_reference<'a>(inputs: &'a [(&'a str, Vec<u8>)]) -> Vec<(&'a str, &'a [u8])> {
    inputs.iter().map(|(label, bytes)| (*label, &**bytes)).collect()
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
            ("v4.3\n", Some((4, 3))),
            ("about 4.3 of them\n", None),
            ("no version here\n", None),
        ] {
            assert_eq!(version_in(text), version, "{text}");
        }
    }

    #[test]
    fn a_program_is_taken_from_its_variable_then_the_assets_then_the_path() {
        let place = tempfile::tempdir().unwrap();
        let program = |folder: &str, says: &str| {
            let path = place.path().join(folder).join("etcd");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/sh\necho etcd Version: {says}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        // What is handed in by name is taken as it is.
        let by_variable = program("variable", "1.0.0");
        let asset = program("assets", "1.0.0");
        program("old", "3.4.0");
        let fitting = program("fitting", "3.6.0");
        program("later", "3.6.1");
        let folder = |name: &str| place.path().join(name).into_os_string();
        let path = |folders: &[&str]| std::env::join_paths(folders.iter().map(|name| folder(name))).unwrap();

        let mut variables = vec![
            ("TEST_ASSET_ETCD", by_variable.clone().into_os_string()),
            ("KUBEBUILDER_ASSETS", folder("assets")),
            ("PATH", path(&["old", "fitting", "later"])),
        ];
        let found = |variables: &[(&str, OsString)]| {
            let look_up = |name: &str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| value.clone())
            };
            Program::Etcd.handed_in_by(look_up).unwrap()
        };
        assert_eq!(found(&variables), Some(by_variable));
        variables[0].1 = OsString::new();
        assert_eq!(found(&variables), Some(asset));
        // Assets need not hold everything.
        variables[1].1 = folder("empty");
        assert_eq!(found(&variables), Some(fitting));
        variables[2].1 = path(&["old"]);
        assert_eq!(
            found(&variables),
            None,
            "then it comes from the cache, or is built"
        );
    }

    #[test]
    fn a_control_plane_from_the_path_is_of_the_version_that_is_built() {
        let fits = |program: Program, version| program.facts().fitting.includes(version);
        for program in [
            Program::KubeApiserver,
            Program::KubeControllerManager,
            Program::KubeScheduler,
        ] {
            assert!(fits(program, (1, 36)) && !fits(program, (1, 35)) && !fits(program, (1, 37)));
        }
        assert!(fits(Program::Kubectl, (1, 33)) && fits(Program::Kubectl, (1, 37)));
        let built = gobuild::KUBERNETES.inputs("kube-apiserver");
        let (_, go_mod) = built.iter().find(|(name, _)| *name == "go.mod").unwrap();
        assert!(String::from_utf8_lossy(go_mod).contains("k8s.io/kubernetes v1.36."));
    }
}
