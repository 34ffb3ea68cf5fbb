//! What everything is measured on: servers of the benchmark's own, Secrets of strangers, and values in stores.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use super::shape::{Engine, Shape};
use super::stock::Stock;
use crate::operator::{Operator, Program, Settings, grant_rights};
use crate::rig::kubernetes::{Kubernetes, Options, Parts};
use crate::rig::openstack::{self, OpenStack};
use crate::rig::run::Run;
use crate::rig::vault::{Product, Vault};

/// The namespace of the operator, as the chart's file of rights has it.
pub const HOME: &str = "keyward-system";

/// The namespace of the floor's own account, which has the operator's rights.
pub const FLOOR_HOME: &str = "floor-system";

/// The audience of tokens for the store.
pub const AUDIENCE: &str = "vault.bench";

/// The ServiceAccount that logs in to the store, in each namespace that is measured.
pub const READER: &str = "reader";

/// Where the store knows ServiceAccounts.
pub const AUTH_MOUNT: &str = "kubernetes";

/// The role and the policy of every reader.
pub const ROLE: &str = "reader";

/// What every mount of values begins with.
pub const MOUNT: &str = "bench";

/// Requests that the benchmark sends at once to set the ground.
pub const AT_ONCE: usize = 16;

/// How many namespaces the Secrets of strangers lie in.
const FOREIGN_NAMESPACES: usize = 10;

/// Servers, and what is in them before anything is measured.
pub struct Ground {
    /// Everything belongs to it.
    pub run: Run,
    /// etcd and an API server, and no controller: what they would add to each write would hide what we add.
    pub kubernetes: Kubernetes,
    /// The store.
    pub vault: Vault,
    openstack: OnceCell<OpenStack>,
    program: PathBuf,
    stocks: Mutex<Stocks>,
    /// Namespaces that hold a population.
    pub populated: Mutex<BTreeSet<String>>,
}

/// By engine and number of keys.
type Stocks = BTreeMap<(Engine, usize), Arc<Mutex<Stock>>>;

impl Ground {
    /// Starts the servers. `program` is the binary to measure.
    pub async fn start(program: PathBuf) -> Result<Self> {
        let run = tokio::task::spawn_blocking(Run::start).await??;
        let kinds = keyward_crds::definitions()
            .into_iter()
            .map(|(_, kind)| kind)
            .collect();
        let options = Options {
            parts: Parts::ApiServer,
            kinds,
        };
        let (kubernetes, vault) = tokio::try_join!(
            Kubernetes::start(&run, "kubernetes", &options),
            Vault::start(&run, "vault", Product::Vault),
        )?;
        for home in [HOME, FLOOR_HOME] {
            kubernetes.create_namespace(home).await?;
            grant_rights(&kubernetes, home).await?;
        }
        vault.enable_kubernetes_auth(AUTH_MOUNT, &kubernetes).await?;
        let rules = format!("path \"{MOUNT}-*\" {{ capabilities = [\"read\", \"list\"] }}");
        vault.api().write_policy(ROLE, &rules).await?;
        let role = json!({
            "bound_service_account_names": [READER],
            "bound_service_account_namespaces": ["*"],
            "audience": AUDIENCE,
            "token_policies": [ROLE],
            "token_ttl": "1h",
        });
        vault.api().create_role(AUTH_MOUNT, ROLE, &role).await?;
        Ok(Self {
            run,
            kubernetes,
            vault,
            openstack: OnceCell::new(),
            program,
            stocks: Mutex::default(),
            populated: Mutex::default(),
        })
    }

    /// Makes Secrets that Keyward has nothing to do with, as charts leave them: 1 KiB, three labels, one annotation.
    pub async fn add_strangers(&self, count: usize) -> Result<()> {
        for number in 0..FOREIGN_NAMESPACES {
            self.kubernetes.create_namespace(&stranger(number)).await?;
        }
        each(0..count, async |number| {
            let api: Api<Secret> =
                Api::namespaced(self.kubernetes.client(), &stranger(number % FOREIGN_NAMESPACES));
            let secret = serde_json::from_value(strange_secret(number))?;
            api.create(&PostParams::default(), &secret).await?;
            Ok(())
        })
        .await
    }

    /// Values for every place that `shape` names, shared with other shapes of the same engine and keys.
    pub async fn stock(&self, shape: &Shape) -> Result<Arc<Mutex<Stock>>> {
        let mut stocks = self.stocks.lock().await;
        let stock = match stocks.entry((shape.engine, shape.keys)) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(vacant) => {
                let stock = Stock::new(self, shape).await?;
                Arc::clone(vacant.insert(Arc::new(Mutex::new(stock))))
            }
        };
        stock.lock().await.fill(self, shape.place_count()).await?;
        Ok(stock)
    }

    /// Keystone and Barbican, started when they are first needed.
    pub async fn openstack(&self) -> Result<&OpenStack> {
        let options = openstack::Options::default();
        self.openstack
            .get_or_try_init(|| OpenStack::start(&self.run, "openstack", &options))
            .await
    }

    /// Starts the operator for the whole cluster, as the chart would, and returns without waiting.
    pub async fn operator(&self) -> Result<Operator> {
        let settings = Settings {
            home: HOME.to_owned(),
            scope: None,
            arguments: vec!["--allow-loopback-stores".to_owned()],
            log: "info".to_owned(),
            program: Program::Built(self.program.clone()),
        };
        let name = format!("keyward-{}", uuid::Uuid::new_v4().simple());
        Operator::launch_installed(&self.run, &self.kubernetes, &name, &settings).await
    }
}

/// Does `job` for each number, several at once.
pub async fn each(numbers: Range<usize>, job: impl AsyncFn(usize) -> Result<()>) -> Result<()> {
    let job = &job;
    futures::stream::iter(numbers)
        .map(|number| job(number))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

fn stranger(number: usize) -> String {
    format!("stranger-{number}")
}

fn strange_secret(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": format!("release-{number}"),
            "labels": {
                "app.kubernetes.io/name": "shop",
                "app.kubernetes.io/instance": format!("shop-{number}"),
                "app.kubernetes.io/managed-by": "Helm",
            },
            "annotations": {"meta.helm.sh/release-name": format!("shop-{number}")},
        },
        "stringData": {"config": "x".repeat(1024)},
    })
}
