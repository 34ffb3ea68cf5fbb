//! The chart, by real helm: what it renders, what it refuses, and an operator that runs with what it installed.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use keyward_crds::SyncedSecret;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::{Operator, Settings, WRITTEN_NAMESPACE, workspace};
use keyward_tests::rig::assets::{self, Program};
use keyward_tests::rig::kubernetes::{Kubernetes, Options, Parts};
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::scene::{AUTHOR, SOON, Scene};

const RELEASE: &str = "keyward";

pub fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        helm_lints_and_renders_what_the_values_say,
        values_outside_the_schema_are_refused,
        the_operator_runs_with_what_helm_installed_and_secrets_outlive_it,
    );
}

async fn helm_lints_and_renders_what_the_values_say(case: Case) -> Result<()> {
    let helm = Helm::new(&case, None).await?;
    helm.done(&["lint", &chart(), "--strict"]).await?;

    let objects = helm.render("somewhere", &[]).await?;
    let kinds: Vec<_> = objects
        .iter()
        .filter_map(|object| object["kind"].as_str())
        .collect();
    assert!(
        !kinds.contains(&"NetworkPolicy") && !kinds.contains(&"PodDisruptionBudget"),
        "{kinds:?}"
    );
    // The rights are the file's, but for the namespace.
    let file = std::fs::read_to_string(workspace().join("charts/keyward/files/rbac.yaml"))?;
    for right in documents(&file.replace(WRITTEN_NAMESPACE, "somewhere"))? {
        ensure!(
            objects.contains(&right),
            "{} {} differs",
            right["kind"],
            right["metadata"]["name"]
        );
    }
    let rights = [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
    ];
    assert_eq!(
        kinds.iter().filter(|kind| rights.contains(kind)).count(),
        7,
        "and no others: {kinds:?}"
    );
    let container = container_of(&objects)?;
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    ensure!(arguments(&container).contains(&"--log-format=json".to_owned()));

    let digest = format!("sha256:{}", "0".repeat(64));
    let values = [
        format!("image.digest={digest}"),
        "replicas=3".to_owned(),
        "namespaceScope=team-a".to_owned(),
        "stores.allowLoopback=true".to_owned(),
        "stores.denyNetworks={10.0.0.0/8,192.168.0.0/16}".to_owned(),
        "stores.allowInsecure={plain-http}".to_owned(),
        "networkPolicy.enabled=true".to_owned(),
        "podDisruptionBudget.enabled=true".to_owned(),
        "podLabels.team=platform".to_owned(),
        "drainSeconds=40".to_owned(),
    ];
    let objects = helm.render("somewhere", &values).await?;
    let container = container_of(&objects)?;
    ensure!(
        container["image"]
            .as_str()
            .is_some_and(|image| image.ends_with(&format!("@{digest}")))
    );
    let arguments = arguments(&container);
    for argument in [
        "--namespace-scope=team-a",
        "--allow-loopback-stores",
        "--deny-network=10.0.0.0/8",
        "--deny-network=192.168.0.0/16",
        "--allow-insecure=plain-http",
        "--drain-seconds=40",
    ] {
        ensure!(
            arguments.iter().any(|given| given == argument),
            "{argument} is not in {arguments:?}"
        );
    }
    let deployment = one(&objects, "Deployment")?;
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(
        deployment["spec"]["template"]["metadata"]["labels"]["team"],
        "platform"
    );
    assert_eq!(
        deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"],
        50
    );
    one(&objects, "NetworkPolicy")?;
    one(&objects, "PodDisruptionBudget")?;
    Ok(())
}

async fn values_outside_the_schema_are_refused(case: Case) -> Result<()> {
    let helm = Helm::new(&case, None).await?;
    for (value, named) in [
        ("replicas=9", "replicas"),
        ("replicas=one", "replicas"),
        ("replica=1", "replica"),
        ("image.digest=sha256:abc", "digest"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("namespaceScope=Team_A", "namespaceScope"),
        ("stores.allowInsecure={everything}", "allowInsecure"),
        ("stores.denyNetworks={somewhere}", "denyNetworks"),
        ("log.format=xml", "format"),
        ("maxConcurrent=0", "maxConcurrent"),
        ("drainSeconds=-1", "drainSeconds"),
    ] {
        let output = helm.run(&["template", RELEASE, &chart(), "--set", value]).await?;
        ensure!(!output.status.success(), "{value} was accepted");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(told.contains("schema") && told.contains(named), "{value}: {told}");
    }
    Ok(())
}

async fn the_operator_runs_with_what_helm_installed_and_secrets_outlive_it(case: Case) -> Result<()> {
    // The chart brings the kinds itself.
    let options = Options {
        parts: Parts::Whole,
        kinds: Vec::new(),
    };
    let kubernetes = Kubernetes::start(case.run().await?, &case.unique(), &options).await?;
    let helm = Helm::new(&case, Some(&kubernetes)).await?;
    let home = case.unique();
    restricted_namespace(&kubernetes, &home).await?;
    let install = [
        "install",
        RELEASE,
        &chart(),
        "--namespace",
        &home,
        "--set",
        "stores.allowLoopback=true,networkPolicy.enabled=true,podDisruptionBudget.enabled=true",
    ];
    helm.done(&install).await?;

    let deployments: Api<Deployment> = Api::namespaced(kubernetes.client(), &home);
    let deployment = poll::some("the operator's pod to be available", SOON, async || {
        let deployment = deployments.get(RELEASE).await.ok()?;
        let available = deployment.status.as_ref()?.available_replicas?;
        (available == 1).then_some(deployment)
    })
    .await
    .context("the pod is admitted under the restricted profile")?;
    compare_rights(&kubernetes, &home).await?;
    Api::<NetworkPolicy>::namespaced(kubernetes.client(), &home)
        .get(RELEASE)
        .await?;
    Api::<PodDisruptionBudget>::namespaced(kubernetes.client(), &home)
        .get(RELEASE)
        .await?;

    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    let settings = Settings {
        home: home.clone(),
        scope: None,
        arguments: arguments_of(&deployment)?,
        ..Settings::inside(&home)
    };
    ensure!(
        settings
            .arguments
            .iter()
            .any(|argument| argument == "--allow-loopback-stores")
    );
    let run = case.run().await?;
    let operator = Operator::launch_installed(run, &kubernetes, &case.unique(), &settings).await?;
    operator.ready().await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    scene.synced_path("db", "apps/db").await?;
    scene.holds("db", &[("password", "first")]).await?;
    scene.ready("db").await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.refresh("db").await?;
    scene.holds("db", &[("password", "second")]).await?;
    let denied = operator
        .metric("keyward_failures_total", "reason=\"ClusterDenied\"")
        .await?;
    assert!(denied.abs() < 0.5, "every right is there");
    let before = scene.api::<Secret>().get("db").await?.metadata.resource_version;

    helm.done(&["uninstall", RELEASE, "--namespace", &home, "--wait"])
        .await?;
    operator.stop().await?;
    ensure!(deployments.get_opt(RELEASE).await?.is_none());
    let roles: Api<ClusterRole> = Api::all(kubernetes.client());
    ensure!(roles.get_opt(RELEASE).await?.is_none(), "the rights are gone");
    scene.holds("db", &[("password", "second")]).await?;
    let kinds: Api<CustomResourceDefinition> = Api::all(kubernetes.client());
    for (_, kind) in keyward_crds::definitions() {
        let name = kind.metadata.name.context("a kind has a name")?;
        ensure!(
            kinds.get_opt(&name).await?.is_some(),
            "{name} went with the release"
        );
    }
    assert_eq!(
        scene
            .api::<SyncedSecret>()
            .list(&ListParams::default())
            .await?
            .items
            .len(),
        1
    );

    // Installed anew, it goes on where it was.
    helm.done(&install).await?;
    let operator = Operator::launch_installed(run, &kubernetes, &case.unique(), &settings).await?;
    operator.ready().await?;
    scene.looked_since(&operator, "db", operator.started()).await?;
    let after = scene.api::<Secret>().get("db").await?.metadata.resource_version;
    assert_eq!(before, after, "the Secret was never touched");
    Ok(())
}

/// A namespace that admits only pods of the restricted profile, which is seen to work.
async fn restricted_namespace(kubernetes: &Kubernetes, name: &str) -> Result<()> {
    kubernetes.create_namespace(name).await?;
    let labels = json!({"metadata": {"labels": {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }}});
    Api::<Namespace>::all(kubernetes.client())
        .patch(name, &PatchParams::default(), &Patch::Merge(&labels))
        .await?;
    let careless = serde_json::from_value(json!({
        "metadata": {"name": "careless"},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    }))?;
    let pods: Api<Pod> = Api::namespaced(kubernetes.client(), name);
    poll::until("careless pods to be refused", SOON, async || {
        let dry = PostParams {
            dry_run: true,
            field_manager: Some(AUTHOR.to_owned()),
        };
        match pods.create(&dry, &careless).await {
            Err(kube::Error::Api(status)) => status.code == 403 && status.message.contains("PodSecurity"),
            _ => false,
        }
    })
    .await
}

/// What was installed is the file, rule for rule.
async fn compare_rights(kubernetes: &Kubernetes, home: &str) -> Result<()> {
    let file = std::fs::read_to_string(workspace().join("charts/keyward/files/rbac.yaml"))?;
    let written = documents(&file.replace(WRITTEN_NAMESPACE, home))?;
    let role = Api::<ClusterRole>::all(kubernetes.client()).get(RELEASE).await?;
    assert_eq!(json!(role.rules), one(&written, "ClusterRole")?["rules"]);
    for wanted in written.iter().filter(|right| right["kind"] == "Role") {
        let text = |name: &str| wanted["metadata"][name].as_str().context("a Role has a place");
        let roles: Api<Role> = Api::namespaced(kubernetes.client(), text("namespace")?);
        assert_eq!(json!(roles.get(text("name")?).await?.rules), wanted["rules"]);
    }
    let binding = Api::<ClusterRoleBinding>::all(kubernetes.client())
        .get(RELEASE)
        .await?;
    assert_eq!(
        json!(binding.subjects),
        one(&written, "ClusterRoleBinding")?["subjects"]
    );
    Ok(())
}

/// The arguments of the installed container, but for those that a test sets itself.
fn arguments_of(deployment: &Deployment) -> Result<Vec<String>> {
    let template = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let arguments = template
        .and_then(|pod| pod.containers.first()?.args.clone())
        .context("the container has arguments")?;
    let ours = ["--log-format=", "--log=", "--metrics-address="];
    Ok(arguments
        .into_iter()
        .filter(|argument| argument != "run" && !ours.iter().any(|start| argument.starts_with(start)))
        .collect())
}

fn chart() -> String {
    workspace().join("charts/keyward").display().to_string()
}

fn container_of(objects: &[Value]) -> Result<Value> {
    Ok(one(objects, "Deployment")?["spec"]["template"]["spec"]["containers"][0].clone())
}

fn arguments(container: &Value) -> Vec<String> {
    let arguments = container["args"].as_array().into_iter().flatten();
    arguments
        .filter_map(|argument| argument.as_str().map(ToOwned::to_owned))
        .collect()
}

fn one<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut of_kind = objects.iter().filter(|object| object["kind"] == kind);
    match (of_kind.next(), of_kind.next()) {
        (Some(object), None) => Ok(object),
        _ => bail!("there is not exactly one {kind}"),
    }
}

fn documents(text: &str) -> Result<Vec<Value>> {
    let all = text.split("\n---\n").map(serde_saphyr::from_str::<Value>);
    let all: Vec<Value> = all.collect::<Result<_, _>>()?;
    Ok(all.into_iter().filter(|document| !document.is_null()).collect())
}

/// Real helm, with a home of its own.
struct Helm {
    program: PathBuf,
    home: PathBuf,
    kubeconfig: Option<PathBuf>,
}

impl Helm {
    async fn new(case: &Case, kubernetes: Option<&Kubernetes>) -> Result<Self> {
        let [program] = assets::provide_all(case.run().await?, vec![Program::Helm])
            .await?
            .try_into()
            .expect("one path for one program");
        let home = case.run().await?.subfolder(&case.unique())?;
        let kubeconfig = match kubernetes {
            Some(kubernetes) => {
                let path = home.join("kubeconfig");
                kubernetes.admin().save(&path)?;
                Some(path)
            }
            None => None,
        };
        Ok(Self {
            program,
            home,
            kubeconfig,
        })
    }

    async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = std::process::Command::new(&self.program);
        command.args(arguments);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, &self.home);
        }
        match &self.kubeconfig {
            Some(path) => command.env("KUBECONFIG", path),
            None => command.env_remove("KUBECONFIG"),
        };
        Ok(tokio::task::spawn_blocking(move || command.output()).await??)
    }

    /// Runs it and expects success. Returns what it printed.
    async fn done(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        ensure!(
            output.status.success(),
            "helm {} failed: {}{}",
            arguments[0],
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn render(&self, namespace: &str, values: &[String]) -> Result<Vec<Value>> {
        let chart = chart();
        let mut arguments = vec!["template", RELEASE, &chart, "--namespace", namespace];
        for value in values {
            arguments.extend(["--set", value]);
        }
        documents(&self.done(&arguments).await?)
    }
}
