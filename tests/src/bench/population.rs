//! Objects in a namespace of their own: declared, waited for, and taken away again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use keyward_crds::{SERVICE_ACCOUNT_CONSENT, SecretStore, SyncedSecret};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::ground::{Ground, READER, each};
use super::shape::Shape;
use super::stock::Stock;
use crate::rig::Mark;

/// The store of every population.
pub const STORE: &str = "store";

/// What the names of objects begin with.
const OURS: &str = "value-";

/// How often the API server's log is looked into while objects are waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Objects of one page of a listing.
const PAGE: u32 = 500;

/// Objects of one shape in a namespace that holds nothing else.
pub struct Population<'a> {
    /// What they stand on.
    pub ground: &'a Ground,
    /// What they look like.
    pub shape: Shape,
    /// Where they are.
    pub namespace: String,
    /// Where their values are.
    pub stock: Arc<Mutex<Stock>>,
    /// The address at which the store finds Vault.
    pub vault: String,
}

impl<'a> Population<'a> {
    /// Puts values into the store and makes a namespace with a store in it and no objects.
    pub async fn new(ground: &'a Ground, shape: Shape) -> Result<Self> {
        Self::behind(ground, shape, ground.vault.url()).await
    }

    /// The same with a store that finds Vault at this address.
    pub async fn behind(ground: &'a Ground, shape: Shape, vault: &str) -> Result<Self> {
        let stock = ground.stock(&shape).await?;
        let namespace = format!("bench-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        ground.kubernetes.create_namespace(&namespace).await?;
        ground.populated.lock().await.insert(namespace.clone());
        let population = Self {
            ground,
            shape,
            namespace,
            stock,
            vault: vault.to_owned(),
        };
        population.add_reader().await?;
        let (spec, login) = population.stock.lock().await.store(ground, vault);
        if let Some((name, texts)) = login {
            population.add_login(name, &texts).await?;
        }
        population.add_store(STORE, &spec).await?;
        Ok(population)
    }

    /// Makes the objects.
    pub async fn declare(&self) -> Result<()> {
        self.declare_beside(None).await
    }

    /// Makes the objects; with another store, one object of that store before each of ours.
    pub async fn declare_beside(&self, other: Option<&str>) -> Result<()> {
        let api: Api<SyncedSecret> = self.api();
        let stock = self.stock.lock().await;
        each(0..self.shape.objects, async |number| {
            let source = stock.source(self.shape.place_of(number));
            if let Some(store) = other {
                let object = self.object(&format!("{store}-{number}"), store, source.clone());
                api.create(&PostParams::default(), &serde_json::from_value(object)?)
                    .await?;
            }
            let object = self.object(&Self::name(number), STORE, source);
            api.create(&PostParams::default(), &serde_json::from_value(object)?)
                .await?;
            Ok(())
        })
        .await
        .with_context(|| format!("declare {}", self.shape))
    }

    /// Waits until every object is `Ready` by a status that `user` has written since `mark`. Returns when the last
    /// such status was written, by the clock of the API server.
    pub async fn ready(&self, user: &str, mut mark: Mark, within: Duration) -> Result<DateTime<Utc>> {
        let audit = self.ground.kubernetes.audit();
        let deadline = Instant::now() + within;
        let mut written = BTreeSet::new();
        let mut last = None;
        loop {
            let (requests, end) = audit.written_since(mark)?;
            mark = end;
            for request in requests {
                if request.user == user
                    && request.namespace == self.namespace
                    && request.resource == "syncedsecrets/status"
                    && request.status < 300
                    && is_ours(&request.name)
                {
                    last = last.max(Some(request.at));
                    written.insert(request.name);
                }
            }
            if written.len() >= self.shape.objects && self.count_ready().await? == self.shape.objects {
                return last.context("there are no objects");
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} of {} objects were ready after {} s",
                    self.count_ready().await?,
                    self.shape.objects,
                    within.as_secs()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Deletes the objects, their Secrets and their store: the next operator must not find them.
    pub async fn clear(&self) -> Result<()> {
        clear(self.ground, &self.namespace).await
    }

    /// The name of the object with this number, and of its Secret.
    #[must_use]
    pub fn name(number: usize) -> String {
        format!("{OURS}{number}")
    }

    /// A typed API of the namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.ground.kubernetes.client(), &self.namespace)
    }

    /// How many of the objects are ready now.
    pub async fn count_ready(&self) -> Result<usize> {
        let api: Api<SyncedSecret> = self.api();
        let mut page = ListParams::default().limit(PAGE);
        let mut ready = 0;
        loop {
            let list = api.list(&page).await?;
            let ours = list.items.iter().filter(|object| is_ours(&object.name_any()));
            ready += ours.filter(|object| is_ready(object)).count();
            match list.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => page = page.continue_token(&next),
                None => return Ok(ready),
            }
        }
    }

    /// Makes a store of this spec.
    pub async fn add_store(&self, name: &str, spec: &Value) -> Result<()> {
        let store = json!({
            "apiVersion": "keyward.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": name}, "spec": spec,
        });
        self.apply::<SecretStore>(name, &store).await
    }

    fn object(&self, name: &str, store: &str, mut source: Value) -> Value {
        source["storeRef"] = json!({"name": store});
        json!({
            "apiVersion": "keyward.dev/v1alpha1", "kind": "SyncedSecret", "metadata": {"name": name},
            "spec": {
                "sources": [source],
                "refresh": {"interval": format!("{}s", self.shape.interval.as_secs())},
            },
        })
    }

    async fn add_reader(&self) -> Result<()> {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": READER, "annotations": {SERVICE_ACCOUNT_CONSENT: "true"}},
        });
        self.apply::<ServiceAccount>(READER, &account).await
    }

    async fn add_login(&self, name: &str, texts: &Value) -> Result<()> {
        let login =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": texts});
        self.apply::<Secret>(name, &login).await
    }

    async fn apply<K>(&self, name: &str, object: &Value) -> Result<()>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        self.api::<K>()
            .patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(object))
            .await?;
        Ok(())
    }
}

/// Clears every namespace whose population was not, because something failed.
pub async fn clear_leftovers(ground: &Ground) -> Result<()> {
    let left = ground.populated.lock().await.clone();
    for namespace in left {
        clear(ground, &namespace).await?;
    }
    Ok(())
}

async fn clear(ground: &Ground, namespace: &str) -> Result<()> {
    let client = ground.kubernetes.client();
    empty::<SecretStore>(&Api::namespaced(client.clone(), namespace)).await?;
    empty::<SyncedSecret>(&Api::namespaced(client.clone(), namespace)).await?;
    empty::<Secret>(&Api::namespaced(client, namespace)).await?;
    ground.populated.lock().await.remove(namespace);
    Ok(())
}

/// Whether an object, or its Secret, is one of those that are waited for.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    name.starts_with(OURS)
}

fn is_ready(object: &SyncedSecret) -> bool {
    let Some(status) = &object.status else {
        return false;
    };
    status.observed_generation == object.metadata.generation
        && status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Deletes all objects of a namespace. One call may run into the API server's own deadline before it is through.
async fn empty<K>(api: &Api<K>) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let one = ListParams::default().limit(1);
    loop {
        let attempt = api
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await;
        if api.list_metadata(&one).await?.items.is_empty() {
            return Ok(());
        }
        // Whatever stopped it, the next call goes on from there, unless nothing was deleted at all.
        if let Err(kube::Error::Api(status)) = attempt
            && status.code != 504
        {
            return Err(kube::Error::Api(status)).context("delete all objects of a namespace");
        }
    }
}
