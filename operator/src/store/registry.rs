//! The stores that exist, and their doors in use: one for each credential home.
//!
//! A door is built when it is first needed, once, whoever needs it first. A change of the store object or of
//! anything it refers to puts its doors out of use; what reads through them then finds a new one.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::sync::grant::selector::Labels;
use keyward_core::sync::grant::{self, Reader, Wanted};
use keyward_core::sync::path::RemotePath;

use keyward_crds::ENVIRONMENT_LABEL;

use super::StoreKey;
use super::fetch::{self, DoorBuilder, References};
use super::live::{HealthChange, LiveStore, Pace, StoreObserver};
use super::plan::{CredentialHome, InsecureChoice, StoreObject};
use crate::cluster::ObjectKey;
use crate::runtime::clock;
use crate::runtime::metrics::{Metrics, Outcome as Counted};
use crate::stores::Outcome;

/// Hears of a store whose health changed, for the readers of one namespace or for all.
pub type HealthListener = Arc<dyn Fn(&StoreKey, Option<&str>, HealthChange) + Send + Sync>;

/// The stores that exist.
pub struct StoreRegistry {
    builder: DoorBuilder,
    allowed: Vec<InsecureChoice>,
    pace: Pace,
    stores: RwLock<HashMap<StoreKey, Arc<Slot>>>,
    namespaces: RwLock<HashMap<Arc<str>, Arc<Labels>>>,
    listener: HealthListener,
    metrics: Arc<Metrics>,
}

/// One store object with its doors.
pub struct Slot {
    /// The object, or why it cannot be used.
    pub object: Outcome<StoreObject>,
    /// Its generation, also where it cannot be used.
    pub identity: SlotIdentity,
    doors: tokio::sync::Mutex<Doors>,
}

/// What can be said of a store object that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotIdentity {
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
}

/// What somebody asks of a store, as its access rules see it.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// One place.
    Place(Wanted<'a>),
    /// Whatever begins so: below a path (Vault), or with these letters (Barbican).
    Search {
        /// The beginning as it was written.
        prefix: &'a str,
        /// The same as a path, where it is one.
        path: Option<&'a RemotePath>,
    },
}

type Built = Outcome<Arc<LiveStore>>;
/// By credential home.
type Doors = HashMap<Arc<str>, Built>;

/// The kinds of object that a store refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Referent {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A ServiceAccount.
    ServiceAccount,
}

impl StoreRegistry {
    /// An empty registry.
    #[must_use]
    pub fn new(
        builder: DoorBuilder,
        allowed: Vec<InsecureChoice>,
        pace: Pace,
        listener: HealthListener,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            builder,
            allowed,
            pace,
            stores: RwLock::default(),
            namespaces: RwLock::default(),
            listener,
            metrics,
        }
    }

    /// Takes in a store object. Returns whether its spec is new.
    pub fn put(&self, key: &StoreKey, identity: SlotIdentity, object: Outcome<StoreObject>) -> bool {
        let old = {
            let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
            if stores.get(key).is_some_and(|slot| slot.identity == identity) {
                return false;
            }
            let slot = Slot {
                object,
                identity,
                doors: tokio::sync::Mutex::default(),
            };
            stores.insert(key.clone(), Arc::new(slot))
        };
        close_doors(old);
        true
    }

    /// Takes in that a store object is gone.
    pub fn remove(&self, key: &StoreKey) {
        let old = self
            .stores
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
        close_doors(old);
    }

    /// Takes in the labels of a namespace. Returns whether they are new.
    pub fn put_namespace(&self, name: Arc<str>, labels: Labels) -> bool {
        let mut namespaces = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
        let new = namespaces.get(&name).is_none_or(|known| **known != labels);
        namespaces.insert(name, Arc::new(labels));
        new
    }

    /// Takes in that a namespace is gone.
    pub fn remove_namespace(&self, name: &str) {
        self.namespaces
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }

    /// Whether any store refers to an object.
    #[must_use]
    pub fn refers_to(&self, what: Referent, object: &ObjectKey) -> bool {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores.values().any(|slot| {
            slot.object
                .as_ref()
                .is_ok_and(|store| refers_to(store, what, object))
        })
    }

    /// Takes in that an object changed. Returns the stores that refer to it, whose doors are out of use now.
    pub async fn referent_changed(&self, what: Referent, object: &ObjectKey) -> Vec<StoreKey> {
        let mut changed = Vec::new();
        for (key, slot) in self.all() {
            let Ok(store) = &slot.object else { continue };
            if !refers_to(store, what, object) {
                continue;
            }
            let mut doors = slot.doors.lock().await;
            if let Some(Ok(door)) = doors.remove(&object.namespace) {
                tokio::spawn(door.close());
            }
            changed.push(key);
        }
        changed
    }

    /// The store through which `namespace` may read what is asked.
    ///
    /// # Errors
    /// `StoreNotFound`; a refusal that names the rule; or why the store does not work.
    pub async fn resolve(
        &self,
        namespace: &str,
        key: &StoreKey,
        asked: Asked<'_>,
    ) -> Outcome<Arc<LiveStore>> {
        let Some(slot) = self.slot(key) else {
            return Err(Fault::new(
                Class::Absent,
                Reason::StoreNotFound,
                format!("{key} does not exist"),
            ));
        };
        let store = slot.object.as_ref().map_err(|fault| not_ready(key, fault))?;
        self.check_access(store, namespace, asked)?;
        self.door(&slot, store, &store.home_for(namespace))
            .await
            .map_err(|fault| not_ready(key, &fault))
    }

    fn check_access(&self, store: &StoreObject, namespace: &str, asked: Asked<'_>) -> Outcome<()> {
        if store.access.is_none() && store.environment.is_none() {
            return Ok(());
        }
        let labels = self.labels(namespace)?;
        let reader = Reader {
            namespace,
            labels: &labels,
            environment: labels.get(ENVIRONMENT_LABEL).map(String::as_str),
        };
        let environment = store.environment.as_deref();
        match &store.access {
            Some(access) => drop(grant::decide(
                access,
                environment,
                reader,
                &[wanted(store, asked)],
            )?),
            None => grant::check_environment(environment, reader)?,
        }
        Ok(())
    }

    /// The door of a store with the credentials of `home`, built if need be.
    ///
    /// # Errors
    /// Why it cannot be built. Where that is the cluster's doing, the next caller tries again; else the answer stands
    /// until the store or what it refers to changes.
    pub async fn door(&self, slot: &Slot, store: &StoreObject, home: &ObjectKey) -> Built {
        self.check_insecure(store)?;
        let mut doors = slot.doors.lock().await;
        if let Some(built) = doors.get(&home.namespace) {
            return built.clone();
        }
        let observer = self.observer(store, home);
        let built = match self.builder.build(store, home).await {
            Ok(door) => Ok(Arc::new(LiveStore::new(door, self.pace, Box::new(observer)))),
            Err(fault) if fault.may_pass() || fault.reason.is_of_the_cluster() => return Err(fault),
            Err(fault) => {
                if observer.readers.is_some() {
                    // Else it is the store's own controller that asks.
                    observer.changed(HealthChange::Failed);
                }
                Err(fault)
            }
        };
        doors.insert(Arc::clone(&home.namespace), built.clone());
        built
    }

    fn observer(&self, store: &StoreObject, home: &ObjectKey) -> Observer {
        let of_consumer = store.credentials == CredentialHome::Consumer;
        Observer {
            key: store.key.clone(),
            readers: of_consumer.then(|| Arc::clone(&home.namespace)),
            kind: if store.barbican.is_some() {
                "barbican"
            } else {
                "vault"
            },
            listener: Arc::clone(&self.listener),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Refuses the insecure choices of a store that are not allowed or have ended.
    ///
    /// # Errors
    /// `InsecureRefused` or `InsecureExpired`.
    pub fn check_insecure(&self, store: &StoreObject) -> Outcome<()> {
        store.check_insecure(&self.allowed, clock::now())
    }

    /// How many stores make use of an insecure choice.
    #[must_use]
    pub fn insecure_stores(&self, choice: InsecureChoice) -> usize {
        let uses = |slot: &Slot| {
            slot.object
                .as_ref()
                .is_ok_and(|store| store.allows(choice) && self.check_insecure(store).is_ok())
        };
        self.all().iter().filter(|(_, slot)| uses(slot)).count()
    }

    /// Puts the doors of a store out of use that may not be used any more, and wakes who reads through them. Once there
    /// are none, nobody is woken again.
    pub async fn end(&self, key: &StoreKey) {
        let Some(slot) = self.slot(key) else { return };
        let doors = std::mem::take(&mut *slot.doors.lock().await);
        if doors.values().any(Result::is_ok) {
            close(doors).await;
            (self.listener)(key, None, HealthChange::Ended);
        }
    }

    /// The store object of that name with its doors.
    #[must_use]
    pub fn slot(&self, key: &StoreKey) -> Option<Arc<Slot>> {
        self.stores
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// The doors of a store that were asked for, and why those that could not be built were not.
    pub async fn doors_of(&self, slot: &Slot) -> Vec<Outcome<Arc<LiveStore>>> {
        slot.doors.lock().await.values().cloned().collect()
    }

    /// The doors in use.
    pub async fn live(&self) -> HashSet<u64> {
        let mut live = HashSet::new();
        for (_, slot) in self.all() {
            live.extend(self.doors_of(&slot).await.iter().flatten().map(|door| door.id));
        }
        live
    }

    /// Ends every session.
    pub async fn close(&self) {
        let slots = self.all();
        let farewells = slots.iter().map(async |(_, slot)| {
            close(std::mem::take(&mut *slot.doors.lock().await)).await;
        });
        futures::future::join_all(farewells).await;
    }

    /// Every store.
    #[must_use]
    pub fn all(&self) -> Vec<(StoreKey, Arc<Slot>)> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores
            .iter()
            .map(|(key, slot)| (key.clone(), Arc::clone(slot)))
            .collect()
    }

    /// The labels of a namespace. One that the watch has not told of yet has not none: rules that exclude would let it in.
    fn labels(&self, namespace: &str) -> Outcome<Arc<Labels>> {
        let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        namespaces.get(namespace).cloned().ok_or_else(|| {
            let message = format!("the labels of namespace {namespace} are not known yet");
            Fault::new(Class::Conflict, Reason::Conflict, message)
        })
    }
}

/// Passes on what a store does.
struct Observer {
    key: StoreKey,
    /// The namespace whose objects alone read through the door; `None` where all do.
    readers: Option<Arc<str>>,
    kind: &'static str,
    listener: HealthListener,
    metrics: Arc<Metrics>,
}

impl StoreObserver for Observer {
    fn asked(&self, operation: &'static str, well: bool) {
        let outcome = if well { Counted::Success } else { Counted::Failure };
        self.metrics.store_request(self.kind, operation, outcome);
    }

    fn changed(&self, change: HealthChange) {
        (self.listener)(&self.key, self.readers.as_deref(), change);
    }
}

fn wanted<'a>(store: &StoreObject, asked: Asked<'a>) -> Wanted<'a> {
    match asked {
        Asked::Place(place) => place,
        Asked::Search { prefix, .. } if store.barbican.is_some() => Wanted::Beginning(prefix),
        Asked::Search { path, .. } => Wanted::Below(path),
    }
}

/// A store's own fault as those who wait for it see it.
fn not_ready(key: &StoreKey, fault: &Fault) -> Fault {
    let reason = if fault.reason.is_of_the_whole_store() || fault.reason.is_of_the_cluster() {
        fault.reason
    } else {
        Reason::StoreNotReady
    };
    Fault {
        reason,
        message: format!("{key}: {}", fault.message).into(),
        ..fault.clone()
    }
}

fn refers_to(store: &StoreObject, what: Referent, object: &ObjectKey) -> bool {
    match &store.credentials {
        CredentialHome::Namespace(home) if **home != *object.namespace => return false,
        _ => {}
    }
    let References {
        secrets,
        config_maps,
        service_accounts,
    } = fetch::references(store);
    let names = match what {
        Referent::Secret => secrets,
        Referent::ConfigMap => config_maps,
        Referent::ServiceAccount => service_accounts,
    };
    names.iter().any(|name| **name == *object.name)
}

fn close_doors(slot: Option<Arc<Slot>>) {
    let Some(slot) = slot else { return };
    // At once if possible: what is built next must not meet a session that only this store still holds.
    let doors = slot.doors.try_lock().map(|mut doors| std::mem::take(&mut *doors));
    match doors {
        Ok(doors) => drop(tokio::spawn(close(doors))),
        Err(_) => drop(tokio::spawn(async move {
            let doors = std::mem::take(&mut *slot.doors.lock().await);
            close(doors).await;
        })),
    }
}

/// Puts doors out of use at once; the future ends the sessions that nobody else uses.
fn close(doors: Doors) -> impl Future<Output = ()> + Send + 'static {
    let farewells: Vec<_> = doors.into_values().flatten().map(|door| door.close()).collect();
    async move { drop(futures::future::join_all(farewells).await) }
}
