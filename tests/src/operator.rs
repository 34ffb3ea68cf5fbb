//! The operator as a process of its own, with exactly the rights that the chart gives it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use chrono::{DateTime, Utc};
use keyward::runtime::clock;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::discovery;
use serde_json::Value;

use crate::rig::kubernetes::Kubernetes;
use crate::rig::process::{Launch, Server};
use crate::rig::run::Run;
use crate::rig::{http, poll, ports};

/// The namespace that the file of rights names.
pub const WRITTEN_NAMESPACE: &str = "keyward-system";

/// Name of the operator's ServiceAccount.
const ACCOUNT: &str = "keyward";

/// Set in the environment of a process that is to be the operator.
const AS_OPERATOR: &str = "KEYWARD_TESTS_AS_OPERATOR";

/// How long the operator may take to be ready.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// How long it may take to count what it has done.
const COUNTED_WITHIN: Duration = Duration::from_mins(1);

/// Becomes the operator where that was asked for, and then never returns. To be called first in every `main` that
/// starts an [`Operator`]: the operator is this same program, through the entry that the binary `keyward` has, so
/// that nothing has to be built twice.
pub fn serve_if_asked() {
    if std::env::var_os(AS_OPERATOR).is_some() {
        let code = keyward::cli::main();
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
}

/// How to run the operator.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The namespace of its ServiceAccount, lease and state.
    pub home: String,
    /// The namespace it works in; the whole cluster without it.
    pub scope: Option<String>,
    /// Further arguments of `keyward run`.
    pub arguments: Vec<String>,
    /// What it logs.
    pub log: String,
    /// Which program it is.
    pub program: Program,
}

/// Where the operator's program comes from.
#[derive(Debug, Clone, Default)]
pub enum Program {
    /// The running program itself, which calls [`serve_if_asked`].
    #[default]
    ThisOne,
    /// A binary `keyward` that was built before.
    Built(PathBuf),
}

impl Settings {
    /// An operator that lives and works in one namespace, may use stores on loopback, and logs everything.
    #[must_use]
    pub fn inside(namespace: &str) -> Self {
        Self {
            home: namespace.to_owned(),
            scope: Some(namespace.to_owned()),
            arguments: vec!["--allow-loopback-stores".to_owned()],
            log: "info,keyward=trace".to_owned(),
            program: Program::ThisOne,
        }
    }
}

/// A running operator.
pub struct Operator {
    server: Server,
    http: reqwest::Client,
    endpoint: String,
    started: DateTime<Utc>,
}

impl Operator {
    /// Gives the operator its rights, starts it and waits until it is ready.
    pub async fn start(run: &Run, kubernetes: &Kubernetes, name: &str, settings: &Settings) -> Result<Self> {
        let operator = Self::launch(run, kubernetes, name, settings).await?;
        operator.ready().await?;
        Ok(operator)
    }

    /// As [`Operator::start`], without waiting.
    pub async fn launch(run: &Run, kubernetes: &Kubernetes, name: &str, settings: &Settings) -> Result<Self> {
        grant_rights(kubernetes, &settings.home).await?;
        Self::launch_installed(run, kubernetes, name, settings).await
    }

    /// As [`Operator::launch`], with the `ServiceAccount` and the rights that are there already.
    pub async fn launch_installed(
        run: &Run,
        kubernetes: &Kubernetes,
        name: &str,
        settings: &Settings,
    ) -> Result<Self> {
        let program = match &settings.program {
            Program::ThisOne => std::env::current_exe().context("this program cannot be found")?,
            Program::Built(path) => path.clone(),
        };
        let token = kubernetes.token(&settings.home, ACCOUNT, &[]).await?;
        let kubeconfig = run.subfolder(name)?.join("kubeconfig");
        kubernetes.bearer(&token).save(&kubeconfig)?;
        let port = ports::free()?;
        let mut launch = Launch::new(name, program)
            .arg("run")
            .args(["--lease-namespace", &settings.home])
            .args(["--identity", name])
            .arg("--metrics-address")
            .arg(format!("127.0.0.1:{port}"))
            .args(["--log", &settings.log])
            .args(["--log-format", "json"])
            .args(settings.arguments.clone())
            .env(AS_OPERATOR, "1")
            .env("KUBECONFIG", &kubeconfig);
        if let Some(scope) = &settings.scope {
            launch = launch.args(["--namespace-scope", scope]);
        }
        let started = clock::now();
        Ok(Self {
            server: launch.start(run)?,
            http: http::plain_client()?,
            endpoint: format!("http://127.0.0.1:{port}"),
            started,
        })
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&self) -> Result<()> {
        let url = format!("{}/readyz", self.endpoint);
        self.server
            .ready(READY_WITHIN, || async {
                let answer = self.http.get(&url).send().await;
                answer.is_ok_and(|answer| answer.status().is_success())
            })
            .await
    }

    /// Waits until it holds the lease and works. One that is ready may still stand by, and then has neither made its own
    /// state nor looked at anything.
    pub async fn leads(&self) -> Result<()> {
        self.server
            .ready(READY_WITHIN, || async {
                self.get("/readyz").await.is_ok_and(|phase| phase == "leading")
            })
            .await
    }

    /// The instant before its process was made.
    #[must_use]
    pub fn started(&self) -> DateTime<Utc> {
        self.started
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Server {
        &self.server
    }

    /// The text of an endpoint such as `/metrics`.
    pub async fn get(&self, path: &str) -> Result<String> {
        let answer = self.http.get(format!("{}{path}", self.endpoint)).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// The value of a metric, summed over the series whose labels contain `labels`; 0 where there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let text = self.get("/metrics").await?;
        let series = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && line.contains(labels)
        });
        Ok(series
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// Waits until a metric, summed in the same way, has come to `least`: a status may be seen before it is counted.
    pub async fn counted(&self, name: &str, labels: &str, least: f64) -> Result<()> {
        let counted = poll::until(name, COUNTED_WITHIN, || async {
            self.metric(name, labels).await.is_ok_and(|value| value >= least)
        });
        if counted.await.is_err() {
            bail!(
                "{name} {labels} is {}, less than {least}",
                self.metric(name, labels).await?
            );
        }
        Ok(())
    }

    /// What the operator knows of an object beyond its status.
    pub async fn state(&self, namespace: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self
                .get(&format!("/state/syncedsecrets/{namespace}/{name}"))
                .await?,
        )?)
    }

    /// Stops it as Kubernetes would, and expects that it ends in good order.
    pub async fn stop(&self) -> Result<()> {
        let status = self.server.stop().await?;
        ensure!(
            status.success(),
            "{} did not end in good order ({status}); its log ends with:\n{}",
            self.server.name(),
            self.server.log_tail()
        );
        Ok(())
    }
}

/// Applies the chart's own file of rights, for an operator in `home`.
pub async fn grant_rights(kubernetes: &Kubernetes, home: &str) -> Result<()> {
    let file = workspace().join("charts/keyward/files/rbac.yaml");
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let client = kubernetes.client();
    for document in text.replace(WRITTEN_NAMESPACE, home).split("\n---\n") {
        let Some(mut object) = serde_saphyr::from_str::<Option<DynamicObject>>(document)? else {
            continue;
        };
        let kind = object.types.clone().context("an object without a kind")?;
        let gvk = kube::core::GroupVersionKind::try_from(&kind)?;
        let (resource, capabilities) = discovery::pinned_kind(&client, &gvk).await?;
        let name = object.metadata.name.clone().context("an object without a name")?;
        let cluster = capabilities.scope == discovery::Scope::Cluster;
        let place = object.metadata.namespace.clone();
        // Bindings outside its home would otherwise be taken from one test's operator by the next.
        let name = if place.as_deref() != Some(home) && kind.kind.ends_with("Binding") {
            format!("{name}-{home}")
        } else {
            name
        };
        object.metadata.name = Some(name.clone());
        let api: Api<DynamicObject> = if cluster {
            Api::all_with(client.clone(), &resource)
        } else {
            Api::namespaced_with(client.clone(), place.as_deref().unwrap_or(home), &resource)
        };
        api.patch(
            &name,
            &PatchParams::apply("tests").force(),
            &Patch::Apply(&object),
        )
        .await?;
    }
    Ok(())
}

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
