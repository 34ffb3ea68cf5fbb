//! What the steps play on: servers, seeded stores, the operator, and the examples in the cluster.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyward_crds::{ClusterSecretStore, SecretStore, SyncedSecret};
use kube::api::{Api, ListParams, ObjectMeta, PostParams};

use super::examples;
use super::kubectl::Kubectl;
use super::screen::Screen;
use super::seeds::{self, OPENSTACK, Place, Seeds, Values};
use crate::operator::{Operator, Program, Settings, WRITTEN_NAMESPACE, workspace};
use crate::rig::fleet::Fleet;
use crate::rig::run::Run;
use crate::rig::{Mark, poll};

/// The namespace of the operator, as the chart's file of rights has it.
pub const HOME: &str = WRITTEN_NAMESPACE;

/// How long anything may take that should happen at once.
const SOON: Duration = Duration::from_mins(1);

/// The Secret that the example of Barbican logs in with: name and key.
const BARBICAN_LOGIN: (&str, &str) = ("barbican-login", "secret");

/// Everything that runs.
pub struct Stage {
    /// The servers.
    pub fleet: Fleet,
    /// What the stores hold.
    pub seeds: Seeds,
    /// Keyward.
    pub operator: Operator,
    /// A person at a shell.
    pub kubectl: Kubectl,
    /// The end of Vault's audit log before the operator started.
    pub before_operator: Mark,
    up_after: Duration,
}

impl Stage {
    /// Starts and seeds everything, saying what it does. `lasting` says that it will be left running.
    pub(super) async fn set(screen: Screen, run: &Run, lasting: bool) -> Result<Self> {
        let began = Instant::now();
        screen.heading("Setting the stage");
        screen.say("The first run on a machine builds the servers; later runs take them from the cache.");

        let kinds = chart_kinds()?;
        let (fleet, took) = screen.during("servers", Fleet::start(run, kinds).boxed()).await?;
        fleet.save_access(run.folder())?;
        screen.done_after(
            "Kubernetes, Vault, Keystone and Barbican run on loopback; the chart's kinds are installed",
            took,
        );

        let kubectl = Kubectl::new(
            fleet.kubernetes.kubectl().to_path_buf(),
            run.folder().join("kubeconfig"),
        );
        let (seeds, took) = screen.during("seeding", seeds::sow(&fleet)).await?;
        screen.done_after(
            "both stores are seeded: passwords, a binary key, a certificate container, a TLS pair",
            took,
        );

        let before_operator = fleet.vault.audit().mark()?;
        let (operator, took) = screen
            .during("operator", start_operator(run, &fleet, lasting))
            .await?;
        screen.done_after(
            "Keyward runs as a process of its own, with the chart's rights and no others",
            took,
        );

        let (files, took) = screen
            .during("examples", apply_examples(&fleet, &kubectl, &seeds))
            .await?;
        screen.done_after(
            &format!("{files} files of docs/examples are applied, with this machine's addresses"),
            took,
        );
        Ok(Self {
            fleet,
            seeds,
            operator,
            kubectl,
            before_operator,
            up_after: began.elapsed(),
        })
    }

    /// How long it took until there was something to show.
    #[must_use]
    pub fn up_after(&self) -> Duration {
        self.up_after
    }

    /// Every object of Keyward as a person sees it.
    pub async fn overview(&self) -> Result<String> {
        self.kubectl.show(&["get", "keyward", "-A"]).await
    }

    /// The same with the message of each.
    pub async fn explained(&self) -> Result<String> {
        self.kubectl.show(&["get", "keyward", "-A", "-o", "wide"]).await
    }

    /// The values of a Secret, if it exists.
    pub async fn values(&self, (namespace, name): Place) -> Result<Option<Values>> {
        let secret = self.api::<Secret>(namespace).get_opt(name).await?;
        Ok(secret.map(|secret| {
            let data = secret.data.unwrap_or_default();
            data.into_iter().map(|(key, value)| (key, value.0)).collect()
        }))
    }

    /// Waits until a Secret holds a value under a key.
    pub async fn holds(&self, place: Place, key: &str, value: &[u8]) -> Result<Duration> {
        let what = format!("{} of {}/{} to be the new value", key, place.0, place.1);
        self.until(&what, async || {
            let values = self.values(place).await.ok().flatten();
            values.is_some_and(|values| values.get(key).is_some_and(|held| held == value))
        })
        .await
    }

    /// Waits until something holds, and says how long that took.
    pub async fn until<F: Future<Output = bool>>(
        &self,
        what: &str,
        probe: impl FnMut() -> F,
    ) -> Result<Duration> {
        let began = Instant::now();
        poll::until(what, SOON, probe).await?;
        Ok(began.elapsed())
    }

    /// Waits until every store of both kinds is usable.
    pub async fn stores_ready(&self) -> Result<()> {
        let client = self.fleet.kubernetes.client();
        let (own, shared) = (
            Api::<SecretStore>::all(client.clone()),
            Api::<ClusterSecretStore>::all(client),
        );
        let every = ListParams::default();
        self.until("every store to be ready", async || {
            let (Ok(own), Ok(shared)) = tokio::join!(own.list(&every), shared.list(&every)) else {
                return false;
            };
            let own = own.items.into_iter().map(|store| store.status);
            let shared = shared.items.into_iter().map(|store| store.status);
            own.chain(shared)
                .all(|status| status.is_some_and(|status| is_ready(&status.conditions)))
        })
        .await
        .map(drop)
    }

    /// The `Ready` condition of a synced secret, if it has one.
    pub async fn ready(&self, (namespace, name): Place) -> Result<Option<Condition>> {
        let object = self.api::<SyncedSecret>(namespace).get(name).await?;
        let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
        Ok(conditions
            .into_iter()
            .find(|condition| condition.type_ == "Ready"))
    }

    /// A typed API of a namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.fleet.kubernetes.client(), namespace)
    }
}

fn is_ready(conditions: &[Condition]) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The kinds as the chart installs them.
fn chart_kinds() -> Result<Vec<CustomResourceDefinition>> {
    let folder = workspace().join("charts/keyward/crds");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    entries
        .map(|entry| {
            let path = entry?.path();
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            serde_saphyr::from_str(&text).with_context(|| format!("parse {}", path.display()))
        })
        .collect()
}

async fn start_operator(run: &Run, fleet: &Fleet, lasting: bool) -> Result<Operator> {
    // Everything that anything logs fills a disk where it is left running.
    let log = if lasting { "info,keyward=trace" } else { "trace" };
    fleet.kubernetes.create_namespace(HOME).await?;
    let settings = Settings {
        home: HOME.to_owned(),
        scope: None,
        arguments: vec!["--allow-loopback-stores".to_owned()],
        log: log.to_owned(),
        program: Program::ThisOne,
    };
    Operator::start(run, &fleet.kubernetes, "keyward", &settings).await
}

/// What Git holds, and the one Secret that it does not.
async fn apply_examples(fleet: &Fleet, kubectl: &Kubectl, seeds: &Seeds) -> Result<usize> {
    examples::apply_namespaces(kubectl).await?;
    let (name, key) = BARBICAN_LOGIN;
    let login = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        string_data: Some([(key.to_owned(), seeds.credential.clone())].into()),
        ..Secret::default()
    };
    Api::namespaced(fleet.kubernetes.client(), OPENSTACK)
        .create(&PostParams::default(), &login)
        .await
        .context("create the Secret that Barbican's store logs in with")?;
    examples::apply(kubectl, &seeds.tokens).await
}
