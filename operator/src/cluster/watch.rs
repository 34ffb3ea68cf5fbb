//! Supervised watches, one function for each kind.
//!
//! A watch lists in pages, follows, and lists again when it has to, with a growing delay after failures; it never
//! ends by itself. It keeps the keys it has reported and nothing else, so that a new listing reports what changed and
//! what vanished, and no more. An object that cannot be parsed exists all the same: it is logged, counted and reported.

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keyward_core::address::DeniedAddress;
use keyward_crds::synced_secret::ConsumerKind;
use keyward_crds::{ClusterSecretStore, SecretStore, SyncedSecret};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::ObjectKey;
use super::api_server::addresses_of;
use super::known::Known;
use super::listening::listening;
use super::pruned::{Metadata, Parsed, Progress, Unreadable, Workload};
use super::watch_health::{WatchHealth, WatchState};

/// Objects of one page of a listing. A page is in memory as a whole, twice: as JSON and parsed.
const PAGE: u32 = 250;

/// Seconds after which the server ends a watch and it is taken up again: below the 240 s after which some load
/// balancers drop an idle connection without a word.
const TIMEOUT_SECONDS: u32 = 200;

/// What a watch reports.
#[derive(Debug, Clone)]
pub enum WatchEvent<T> {
    /// The object exists and looks like this.
    Applied(ObjectKey, T),
    /// The object exists, and nobody can tell what it asks for.
    Unreadable(ObjectKey, Box<Unreadable>),
    /// The object is gone. Reported also for what vanished while the watch was away.
    Deleted(ObjectKey),
    /// A new listing begins. Objects that have not changed since they were reported are not reported again.
    Restarted,
    /// The listing is complete and what it did not name was reported as deleted.
    Synced,
}

/// What the watches of one operator share.
#[derive(Clone)]
pub struct Watches {
    client: Client,
    namespace: Option<Arc<str>>,
    health: Arc<WatchHealth>,
}

impl Watches {
    /// Watches of the whole cluster, or of one namespace. Kinds without a namespace are always watched whole.
    #[must_use]
    pub fn new(client: Client, namespace: Option<Arc<str>>, health: Arc<WatchHealth>) -> Self {
        Self {
            client,
            namespace,
            health,
        }
    }

    /// How the watches are doing.
    #[must_use]
    pub fn health(&self) -> Arc<WatchHealth> {
        Arc::clone(&self.health)
    }

    /// Watches `SyncedSecret`s.
    pub fn synced_secrets(
        &self,
        handler: impl FnMut(WatchEvent<SyncedSecret>) + Send,
    ) -> impl Future<Output = ()> + Send {
        self.parsed(|client| self.scoped(client), handler)
    }

    /// Watches `SecretStore`s.
    pub fn secret_stores(
        &self,
        handler: impl FnMut(WatchEvent<SecretStore>) + Send,
    ) -> impl Future<Output = ()> + Send {
        self.parsed(|client| self.scoped(client), handler)
    }

    /// Watches `ClusterSecretStore`s.
    pub fn cluster_secret_stores(
        &self,
        handler: impl FnMut(WatchEvent<ClusterSecretStore>) + Send,
    ) -> impl Future<Output = ()> + Send {
        self.parsed(Api::all, handler)
    }

    /// Watches the metadata of Secrets. Their values never reach this process.
    pub fn secrets(
        &self,
        handler: impl FnMut(WatchEvent<ObjectMeta>) + Send,
    ) -> impl Future<Output = ()> + Send {
        self.metadata::<Secret>(|client| self.scoped(client), handler)
    }

    /// Watches the metadata of `ConfigMap`s.
    pub fn config_maps(
        &self,
        handler: impl FnMut(WatchEvent<ObjectMeta>) + Send,
    ) -> impl Future<Output = ()> + Send {
        self.metadata::<ConfigMap>(|client| self.scoped(client), handler)
    }

    /// Watches the metadata of `ServiceAccount`s.
    pub fn service_accounts(
        &self,
        handler: impl FnMut(WatchEvent<ObjectMeta>) + Send,
    ) -> impl Future<Output = ()> + Send {
        self.metadata::<ServiceAccount>(|client| self.scoped(client), handler)
    }

    /// Watches the metadata of Namespaces.
    pub fn namespaces(
        &self,
        handler: impl FnMut(WatchEvent<ObjectMeta>) + Send,
    ) -> impl Future<Output = ()> + Send {
        self.metadata::<Namespace>(Api::all, handler)
    }

    /// Watches where the API server is, by the Service that leads to it.
    pub fn api_server(
        &self,
        handler: impl FnMut(WatchEvent<Vec<DeniedAddress>>) + Send,
    ) -> impl Future<Output = ()> + Send {
        let (client, state) = self.listening::<EndpointSlice>();
        let api: Api<EndpointSlice> = Api::namespaced(client, "default");
        let only = watcher::Config::default().fields("metadata.name=kubernetes");
        follow(api, only, state, |slice| Ok(addresses_of(&slice)), handler)
    }

    /// Watches the rollout of the workloads of one kind.
    pub async fn workloads(&self, kind: ConsumerKind, handler: impl FnMut(WatchEvent<Progress>) + Send) {
        match kind {
            ConsumerKind::Deployment => self.progress::<Deployment>(handler).await,
            ConsumerKind::StatefulSet => self.progress::<StatefulSet>(handler).await,
            ConsumerKind::DaemonSet => self.progress::<DaemonSet>(handler).await,
        }
    }

    fn progress<K>(&self, handler: impl FnMut(WatchEvent<Progress>) + Send) -> impl Future<Output = ()> + Send
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + 'static,
    {
        let (client, state) = self.listening::<K>();
        follow(
            self.scoped::<Workload<K>>(client),
            watcher::Config::default(),
            state,
            |workload| Ok(workload.into_progress()),
            handler,
        )
    }

    fn metadata<K>(
        &self,
        api: impl FnOnce(Client) -> Api<Metadata<K>>,
        handler: impl FnMut(WatchEvent<ObjectMeta>) + Send,
    ) -> impl Future<Output = ()> + Send
    where
        K: Resource<DynamicType = ()> + Clone + Debug + 'static,
    {
        let (client, state) = self.listening::<K>();
        let all = watcher::Config::default();
        follow(api(client), all, state, |object| Ok(object.into_inner()), handler)
    }

    fn parsed<K>(
        &self,
        api: impl FnOnce(Client) -> Api<Parsed<K>>,
        handler: impl FnMut(WatchEvent<K>) + Send,
    ) -> impl Future<Output = ()> + Send
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    {
        let (client, state) = self.listening::<K>();
        let all = watcher::Config::default();
        follow(api(client), all, state, Parsed::into_result, handler)
    }

    /// A new watch, and a client by which it hears of the API server.
    fn listening<K: Resource<DynamicType = ()>>(&self) -> (Client, Arc<WatchState>) {
        let state = self.health.register(&K::kind(&()));
        (listening(self.client.clone(), &state), state)
    }

    fn scoped<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }
}

/// Follows one kind for ever.
async fn follow<W, T>(
    api: Api<W>,
    config: watcher::Config,
    state: Arc<WatchState>,
    open: impl Fn(W) -> Result<T, Box<Unreadable>> + Send,
    handler: impl FnMut(WatchEvent<T>) + Send,
) where
    W: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = config.page_size(PAGE).timeout(TIMEOUT_SECONDS);
    let mut stream = pin!(watcher(api, config).default_backoff());
    let mut reporter = Reporter {
        known: Known::default(),
        state,
        open,
        handler,
    };
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => reporter.report(event),
            Err(error) => reporter.fail(&error),
        }
    }
}

/// Turns the watcher's events into ours.
struct Reporter<O, H> {
    known: Known,
    state: Arc<WatchState>,
    open: O,
    handler: H,
}

impl<O, H> Reporter<O, H> {
    fn report<W, T>(&mut self, event: Event<W>)
    where
        W: Resource,
        O: Fn(W) -> Result<T, Box<Unreadable>>,
        H: FnMut(WatchEvent<T>),
    {
        match event {
            Event::Init => {
                self.known.begin();
                (self.handler)(WatchEvent::Restarted);
            }
            Event::Apply(object) | Event::InitApply(object) => self.apply(object),
            Event::Delete(object) => {
                let key = ObjectKey::of(&object);
                self.known.gone(&key);
                (self.handler)(WatchEvent::Deleted(key));
            }
            Event::InitDone => {
                for key in self.known.complete() {
                    (self.handler)(WatchEvent::Deleted(key));
                }
                self.state.synced();
                (self.handler)(WatchEvent::Synced);
            }
        }
    }

    fn apply<W, T>(&mut self, object: W)
    where
        W: Resource,
        O: Fn(W) -> Result<T, Box<Unreadable>>,
        H: FnMut(WatchEvent<T>),
    {
        let meta = object.meta();
        let (key, is_new) = self.known.seen(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
            meta.resource_version.as_deref().unwrap_or_default(),
        );
        if !is_new {
            return;
        }
        match (self.open)(object) {
            Ok(object) => (self.handler)(WatchEvent::Applied(key, object)),
            Err(unreadable) => {
                self.state.broken();
                tracing::warn!(kind = %self.state.kind(), object = %key, field = unreadable.field, "an object cannot be parsed");
                (self.handler)(WatchEvent::Unreadable(key, unreadable));
            }
        }
    }

    fn fail(&self, error: &watcher::Error) {
        self.state.failed();
        tracing::warn!(kind = %self.state.kind(), error = %super::call::describe_watch(error), "a watch failed and is taken up again");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, version: &str, spec: &serde_json::Value) -> Parsed<SyncedSecret> {
        let metadata = json!({"namespace": "apps", "name": name, "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn vanished_and_unreadable_objects_are_told_apart() {
        let health = WatchHealth::default();
        let sound = json!({"sources": [{"storeRef": {"name": "vault"}, "path": "db"}]});
        let mut seen = Vec::new();
        let mut reporter = Reporter {
            known: Known::default(),
            state: health.register("SyncedSecret"),
            open: Parsed::<SyncedSecret>::into_result,
            handler: |event: WatchEvent<SyncedSecret>| {
                seen.push(match event {
                    WatchEvent::Applied(key, _) => format!("+{key}"),
                    WatchEvent::Unreadable(key, _) => format!("?{key}"),
                    WatchEvent::Deleted(key) => format!("-{key}"),
                    WatchEvent::Restarted => "restarted".into(),
                    WatchEvent::Synced => "synced".into(),
                });
            },
        };
        reporter.report(Event::Init);
        reporter.report(Event::InitApply(object("a", "1", &sound)));
        reporter.report(Event::InitApply(object("b", "2", &sound)));
        reporter.report(Event::InitApply(object("broken", "3", &json!({"sources": 7}))));
        reporter.report(Event::InitDone);
        reporter.report(Event::Apply(object("c", "4", &sound)));
        reporter.report(Event::Apply(object("d", "5", &sound)));
        reporter.report(Event::Delete(object("b", "2", &sound)));
        reporter.report(Event::Init);
        reporter.report(Event::InitApply(object("c", "6", &sound)));
        reporter.report(Event::InitApply(object("d", "5", &sound)));
        reporter.report(Event::InitDone);
        assert_eq!(
            seen,
            [
                "restarted",
                "+apps/a",
                "+apps/b",
                "?apps/broken",
                "synced",
                "+apps/c",
                "+apps/d",
                "-apps/b",
                "restarted",
                "+apps/c",
                "-apps/a",
                "-apps/broken",
                "synced",
            ]
        );
        assert!(health.all_synced());
        assert_eq!(health.snapshot()[0].broken, 1);
    }
}
