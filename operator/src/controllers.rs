//! Brings watches, queues and controllers together: which event wakes which object.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keyward_core::address::DeniedAddress;
use keyward_core::sync::fingerprint::FingerprintKey;
use keyward_crds::synced_secret::{ConsumerKind, StoreKind};
use keyward_crds::{ClusterSecretStore, SecretStore, SyncedSecret};
use tokio::time::Instant;

use crate::cli::{Context, Controllers, InsecureFlag};
use crate::cluster::{
    ClusterReader, ObjectKey, Progress, SecretIndex, StatusWriter, WatchEvent, WatchHealth,
};
use crate::runtime::crew::Crew;
use crate::runtime::http::{ObjectState, ObjectStates};
use crate::runtime::queue::Queue;
use crate::runtime::supervisor::Supervisor;
use crate::store::{
    DoorBuilder, HealthListener, InsecureChoice, Pace, Referent, SlotIdentity, StoreController, StoreKey,
    StoreObject, StoreRegistry, login_gate,
};
use crate::stores::barbican::BarbicanSessions;
use crate::stores::transport::Addresses;
use crate::sync::{Change, SyncController, SyncIndex, SyncParts};

/// Stores that are tried at once: one that hangs must not keep the others from being tried.
const STORE_WORKERS: usize = 16;

/// The kinds that are watched: none may be missing when the work begins.
const WATCHES: usize = 11;

/// How often Secrets without an object are looked for.
const SWEEP: Duration = Duration::from_mins(10);

/// The controllers of every kind.
#[derive(Default)]
pub struct AllControllers {
    index: Arc<SyncIndex>,
}

impl ObjectStates for AllControllers {
    fn all(&self) -> Vec<ObjectState> {
        self.index.states()
    }

    fn one(&self, key: &ObjectKey) -> Option<ObjectState> {
        self.index.state(key)
    }
}

impl Controllers for AllControllers {
    fn start(self: Arc<Self>, context: Context, supervisor: &mut Supervisor) -> anyhow::Result<()> {
        let room = Arc::new(Room::new(&self.index, &context)?);
        room.spawn_watches(&context, supervisor);
        room.spawn_workers(&context, supervisor);
        room.count_before_scrapes(&context);
        let registry = Arc::clone(&room.registry);
        let stopped = supervisor.work_ended();
        supervisor.spawn_last("sessions", async move {
            stopped.cancelled().await;
            registry.close().await;
            Ok(())
        });
        Ok(())
    }
}

/// What the watches and workers share.
struct Room {
    secrets: Arc<SecretIndex>,
    registry: Arc<StoreRegistry>,
    sync: Arc<SyncController>,
    stores: Arc<StoreController>,
    store_queue: Queue<StoreKey>,
    addresses: Arc<Addresses>,
    health: Arc<WatchHealth>,
}

impl Room {
    fn new(index: &Arc<SyncIndex>, context: &Context) -> anyhow::Result<Self> {
        let queue = Queue::new(context.options.lane_limit);
        let store_queue: Queue<StoreKey> = Queue::new(STORE_WORKERS);
        let woken: Arc<OnceLock<Arc<SyncController>>> = Arc::default();
        let listener = listener(store_queue.clone(), Arc::clone(&woken));
        let builder = DoorBuilder {
            client: context.client.clone(),
            reader: ClusterReader::new(context.client.clone()),
            audiences: Arc::clone(&context.audiences),
            addresses: Arc::clone(&context.addresses),
            vaults: Arc::default(),
            barbicans: Arc::new(BarbicanSessions::new(login_gate(
                Arc::clone(&context.state),
                fingerprint_key(context)?,
            ))),
        };
        let allowed = context
            .options
            .allow_insecure
            .iter()
            .map(|flag| choice(*flag))
            .collect();
        let pace = Pace {
            per_second: context.options.store_rate,
            ..Pace::default()
        };
        let registry = Arc::new(StoreRegistry::new(
            builder,
            allowed,
            pace,
            listener,
            Arc::clone(&context.metrics),
        ));
        let secrets = Arc::new(SecretIndex::default());
        let sync = Arc::new(SyncController::new(SyncParts {
            client: context.client.clone(),
            index: Arc::clone(index),
            secrets: Arc::clone(&secrets),
            registry: Arc::clone(&registry),
            queue,
            events: context.events.clone(),
            metrics: Arc::clone(&context.metrics),
            fingerprints: fingerprint_key(context)?,
        }));
        let stores = StoreController::new(
            Arc::clone(&registry),
            StatusWriter::new(context.client.clone()),
            context.events.clone(),
            Arc::clone(&context.metrics),
        );
        // Nothing reads from a store before this: the workers start later.
        let _ = woken.set(Arc::clone(&sync));
        Ok(Self {
            secrets,
            registry,
            sync,
            stores: Arc::new(stores),
            store_queue,
            addresses: Arc::clone(&context.addresses),
            health: context.watches.health(),
        })
    }

    fn spawn_watches(self: &Arc<Self>, context: &Context, supervisor: &mut Supervisor) {
        let parts = || (Arc::clone(self), context.watches.clone());
        let (room, watches) = parts();
        supervisor.spawn("watch of SyncedSecrets", async move {
            watches
                .synced_secrets(move |event| room.on_synced_secret(event))
                .await;
        });
        let (room, watches) = parts();
        supervisor.spawn("watch of SecretStores", async move {
            watches
                .secret_stores(move |event| room.on_secret_store(event))
                .await;
        });
        let (room, watches) = parts();
        supervisor.spawn("watch of ClusterSecretStores", async move {
            watches
                .cluster_secret_stores(move |event| room.on_cluster_store(event))
                .await;
        });
        let (room, watches) = parts();
        supervisor.spawn("watch of Secrets", async move {
            watches.secrets(move |event| room.on_secret(&event)).await;
        });
        let (room, watches) = parts();
        supervisor.spawn("watch of ConfigMaps", async move {
            watches
                .config_maps(move |event| room.on_referent(Referent::ConfigMap, &event))
                .await;
        });
        let (room, watches) = parts();
        supervisor.spawn("watch of ServiceAccounts", async move {
            watches
                .service_accounts(move |event| room.on_referent(Referent::ServiceAccount, &event))
                .await;
        });
        let (room, watches) = parts();
        supervisor.spawn("watch of Namespaces", async move {
            watches.namespaces(move |event| room.on_namespace(event)).await;
        });
        let (room, watches) = parts();
        supervisor.spawn("watch of the API server's addresses", async move {
            watches.api_server(move |event| room.on_api_server(event)).await;
        });
        for (name, kind) in [
            ("watch of Deployments", ConsumerKind::Deployment),
            ("watch of StatefulSets", ConsumerKind::StatefulSet),
            ("watch of DaemonSets", ConsumerKind::DaemonSet),
        ] {
            let (room, watches) = parts();
            supervisor.spawn(name, async move {
                watches
                    .workloads(kind, move |event| room.on_workload(kind, event))
                    .await;
            });
        }
    }

    /// Workers start once every watch has been listed: before that, "not found" means nothing.
    fn spawn_workers(self: &Arc<Self>, context: &Context, supervisor: &mut Supervisor) {
        let crew = |count| Crew {
            count,
            shutdown: supervisor.shutdown(),
        };
        let (syncs, stores) = (crew(context.options.max_concurrent), crew(STORE_WORKERS));
        let room = Arc::clone(self);
        supervisor.spawn_draining("sync workers", async move {
            let listed = room.health.until_listed(WATCHES);
            let work = || Arc::clone(&room.sync).work();
            syncs.work(&room.sync.queue, listed, work).await
        });
        let room = Arc::clone(self);
        supervisor.spawn_draining("store workers", async move {
            let listed = room.health.until_listed(WATCHES);
            let work = || Arc::clone(&room).work_on_stores();
            stores.work(&room.store_queue, listed, work).await
        });
        supervisor.spawn("end of waves", Arc::clone(&self.sync).end_waves());
        supervisor.spawn("end of places", Arc::clone(&self.sync).forget_places());
        let room = Arc::clone(self);
        supervisor.spawn("sweep", async move {
            room.health.until_listed(WATCHES).await;
            // Objects that were deleted while nobody looked have left their Secrets behind.
            let mut every = tokio::time::interval(SWEEP);
            loop {
                every.tick().await;
                room.sync.sweep();
            }
        });
    }

    /// Sets what is cheaper to read at a scrape than to follow.
    fn count_before_scrapes(self: &Arc<Self>, context: &Context) {
        let room = Arc::clone(self);
        context.metrics.before_scrape(move |metrics| {
            metrics.set_queued("SyncedSecret", room.sync.queue.len());
            metrics.set_queued("stores", room.store_queue.len());
            room.stores.measure(metrics);
        });
    }

    async fn work_on_stores(self: Arc<Self>) {
        while let Some(work) = self.store_queue.next().await {
            if let Some(next) = self.stores.reconcile(work.key()).await {
                self.enqueue_store(work.key(), next);
            }
        }
    }

    fn on_synced_secret(&self, event: WatchEvent<SyncedSecret>) {
        match event {
            WatchEvent::Applied(key, object) => {
                if self.sync.index.put(&key, &object) == Change::Work {
                    self.sync.enqueue(&key, Instant::now());
                }
            }
            WatchEvent::Unreadable(key, object) => {
                if self.sync.index.put_unreadable(&key, *object) == Change::Work {
                    self.sync.enqueue(&key, Instant::now());
                }
            }
            WatchEvent::Deleted(key) => {
                self.sync.index.remove(&key);
                self.sync.enqueue(&key, Instant::now());
            }
            WatchEvent::Restarted | WatchEvent::Synced => {}
        }
    }

    fn on_secret_store(&self, event: WatchEvent<SecretStore>) {
        let named = |object| StoreKey {
            kind: StoreKind::SecretStore,
            object,
        };
        match event {
            WatchEvent::Applied(key, store) => {
                let (key, identity) = (named(key), identity(&store.metadata));
                self.put_store(&key, identity, Ok(StoreObject::of_namespace(key.clone(), store)));
            }
            WatchEvent::Unreadable(key, object) => {
                self.put_store(&named(key), identity(&object.metadata), Err(object.fault()));
            }
            WatchEvent::Deleted(key) => self.remove_store(&named(key)),
            WatchEvent::Restarted | WatchEvent::Synced => {}
        }
    }

    fn on_cluster_store(&self, event: WatchEvent<ClusterSecretStore>) {
        let named = |object| StoreKey {
            kind: StoreKind::ClusterSecretStore,
            object,
        };
        match event {
            WatchEvent::Applied(key, store) => {
                let (key, identity) = (named(key), identity(&store.metadata));
                self.put_store(&key, identity, StoreObject::of_cluster(key.clone(), store));
            }
            WatchEvent::Unreadable(key, object) => {
                self.put_store(&named(key), identity(&object.metadata), Err(object.fault()));
            }
            WatchEvent::Deleted(key) => self.remove_store(&named(key)),
            WatchEvent::Restarted | WatchEvent::Synced => {}
        }
    }

    fn put_store(&self, key: &StoreKey, identity: SlotIdentity, object: crate::stores::Outcome<StoreObject>) {
        if self.registry.put(key, identity, object) {
            self.enqueue_store(key, Instant::now());
            self.sync.wake(key);
        }
    }

    fn remove_store(&self, key: &StoreKey) {
        self.registry.remove(key);
        // What is remembered of it goes as well.
        self.enqueue_store(key, Instant::now());
        self.sync.wake(key);
    }

    fn on_secret(self: &Arc<Self>, event: &WatchEvent<ObjectMeta>) {
        let mut changed = self.secrets.observe(event);
        if let WatchEvent::Deleted(key) = event
            && !changed.contains(key)
        {
            // Our own deletion is known already; another object may have waited for the name.
            changed.push(key.clone());
        }
        for secret in &changed {
            for object in self.sync.index.of_target(secret) {
                self.sync.enqueue(&object, Instant::now());
            }
        }
        // What an object of ours writes, a store may log in with: our own writes are news here.
        match event {
            WatchEvent::Applied(key, _) => self.refresh_referrers(Referent::Secret, key.clone()),
            _ => changed
                .into_iter()
                .for_each(|gone| self.refresh_referrers(Referent::Secret, gone)),
        }
    }

    fn on_referent(self: &Arc<Self>, what: Referent, event: &WatchEvent<ObjectMeta>) {
        if let WatchEvent::Applied(key, _) | WatchEvent::Deleted(key) = event {
            self.refresh_referrers(what, key.clone());
        }
    }

    /// A changed credential, CA or ServiceAccount puts doors out of use and wakes who reads through them. The first
    /// listing changes nothing: no door is built before its end, and this would close those that come right after.
    fn refresh_referrers(self: &Arc<Self>, what: Referent, changed: ObjectKey) {
        if !self.health.all_listed(WATCHES) || !self.registry.refers_to(what, &changed) {
            return;
        }
        let room = Arc::clone(self);
        tokio::spawn(async move {
            for store in room.registry.referent_changed(what, &changed).await {
                room.enqueue_store(&store, Instant::now());
                room.sync.wake(&store);
            }
        });
    }

    fn on_namespace(&self, event: WatchEvent<ObjectMeta>) {
        match event {
            WatchEvent::Applied(key, meta) => {
                let labels = meta.labels.unwrap_or_default();
                if self.registry.put_namespace(Arc::clone(&key.name), labels) {
                    for object in self.sync.index.of_namespace(&key.name) {
                        self.sync.enqueue(&object, Instant::now());
                    }
                }
            }
            WatchEvent::Deleted(key) => self.registry.remove_namespace(&key.name),
            WatchEvent::Unreadable(..) | WatchEvent::Restarted | WatchEvent::Synced => {}
        }
    }

    /// Addresses that are gone stay denied until there are others: nothing is gained by a store that is there.
    fn on_api_server(&self, event: WatchEvent<Vec<DeniedAddress>>) {
        if let WatchEvent::Applied(_, denied) = event {
            self.addresses.learn(&denied);
        }
    }

    fn on_workload(&self, kind: ConsumerKind, event: WatchEvent<Progress>) {
        let key = match event {
            WatchEvent::Applied(key, progress) => {
                self.sync.workloads.put(kind, key.clone(), progress);
                key
            }
            WatchEvent::Deleted(key) => {
                self.sync.workloads.remove(kind, &key);
                key
            }
            WatchEvent::Unreadable(..) | WatchEvent::Restarted | WatchEvent::Synced => return,
        };
        for object in self.sync.index.of_consumer(kind, &key) {
            self.sync.enqueue(&object, Instant::now());
        }
    }

    fn enqueue_store(&self, key: &StoreKey, due: Instant) {
        self.store_queue.add(key.clone(), Arc::from(key.to_string()), due);
    }
}

/// A store whose health changed is looked at; one that works again, or may not be used any more, wakes its readers.
fn listener(queue: Queue<StoreKey>, woken: Arc<OnceLock<Arc<SyncController>>>) -> HealthListener {
    Arc::new(move |key, readers, change| {
        queue.add(key.clone(), Arc::from(key.to_string()), Instant::now());
        if change.wakes_readers()
            && let Some(sync) = woken.get()
        {
            match readers {
                Some(namespace) => sync.wake_in(key, namespace),
                None => sync.wake(key),
            }
        }
    })
}

fn fingerprint_key(context: &Context) -> anyhow::Result<FingerprintKey> {
    FingerprintKey::from_bytes(context.state.fingerprint_key())
        .ok_or_else(|| anyhow::anyhow!("the fingerprint key has the wrong length"))
}

fn identity(meta: &ObjectMeta) -> SlotIdentity {
    SlotIdentity {
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
    }
}

fn choice(flag: InsecureFlag) -> InsecureChoice {
    match flag {
        InsecureFlag::PlainHttp => InsecureChoice::PlainHttp,
        InsecureFlag::SkipTlsVerify => InsecureChoice::SkipTlsVerify,
        InsecureFlag::ApiServerAudience => InsecureChoice::ApiServerAudience,
    }
}
