//! The `SyncedSecret`s that exist, what is remembered of each between two passes, and who depends on what.
//!
//! It holds no value of any secret. Decisions do not rest on what is remembered here alone: after a restart it is
//! empty, and the status says the rest.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use keyward_crds::SyncedSecret;
use keyward_crds::synced_secret::{ConsumerKind, SyncedSecretStatus};
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::controller::state_of;
use crate::cluster::ObjectKey;
use crate::runtime::http::ObjectState;
use crate::store::StoreKey;

/// What is remembered of an object besides what its status says.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// When its places were last looked at with success.
    pub looked_at: Option<Instant>,
    /// The newest of the doors that they were looked at through: one that is built later has a higher number.
    pub looked_through: u64,
    /// The same, for people.
    pub last_check: Option<DateTime<Utc>>,
    /// When it is looked at next, for people.
    pub next_check: Option<DateTime<Utc>>,
    /// Failed passes in a row.
    pub failures: u32,
    /// When the present run of failures began.
    pub failing_since: Option<DateTime<Utc>>,
    /// uid and resourceVersion of the Secret that was last seen to hold what we wrote.
    pub intact: Option<(Box<str>, Box<str>)>,
}

/// The objects and their reverse indexes.
#[derive(Default)]
pub struct SyncIndex {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    objects: HashMap<ObjectKey, Entry>,
    by_store: HashMap<StoreKey, BTreeSet<ObjectKey>>,
    by_target: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    by_consumer: HashMap<(ConsumerKind, ObjectKey), BTreeSet<ObjectKey>>,
}

struct Entry {
    object: Arc<SyncedSecret>,
    memory: Memory,
}

/// What an event means for the work to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only what we wrote ourselves, or nothing of interest.
    Echo,
    /// Spec, annotations or existence changed.
    Work,
}

impl SyncIndex {
    /// Takes in an object as the watch reports it.
    pub fn put(&self, key: &ObjectKey, object: SyncedSecret) -> Change {
        let mut inner = self.lock();
        let change = match inner.objects.get(key) {
            None => Change::Work,
            Some(known) if known.object.uid() != object.uid() => Change::Work,
            Some(known) if is_work(&known.object, &object) => Change::Work,
            Some(_) => Change::Echo,
        };
        let memory = match inner.objects.get(key) {
            Some(known) if known.object.uid() == object.uid() => known.memory.clone(),
            _ => Memory::default(),
        };
        inner.unlink(key);
        inner.link(key, &object);
        inner.objects.insert(
            key.clone(),
            Entry {
                object: Arc::new(object),
                memory,
            },
        );
        change
    }

    /// Takes in that an object is gone.
    pub fn remove(&self, key: &ObjectKey) {
        let mut inner = self.lock();
        inner.unlink(key);
        inner.objects.remove(key);
    }

    /// The object of that name.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<(Arc<SyncedSecret>, Memory)> {
        self.lock()
            .objects
            .get(key)
            .map(|entry| (Arc::clone(&entry.object), entry.memory.clone()))
    }

    /// Remembers something of the object with this uid.
    pub fn remember(&self, key: &ObjectKey, uid: &str, change: impl FnOnce(&mut Memory)) {
        if let Some(entry) = self.lock().objects.get_mut(key)
            && entry.object.metadata.uid.as_deref() == Some(uid)
        {
            change(&mut entry.memory);
        }
    }

    /// Takes in a status of our own before the watch reports it.
    pub fn wrote_status(
        &self,
        key: &ObjectKey,
        uid: &str,
        resource_version: String,
        status: SyncedSecretStatus,
    ) {
        if let Some(entry) = self.lock().objects.get_mut(key)
            && entry.object.metadata.uid.as_deref() == Some(uid)
        {
            let object = Arc::make_mut(&mut entry.object);
            object.status = Some(status);
            object.metadata.resource_version = Some(resource_version);
        }
    }

    /// The objects that read from a store.
    #[must_use]
    pub fn of_store(&self, store: &StoreKey) -> Vec<ObjectKey> {
        self.lock()
            .by_store
            .get(store)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// The objects that write a Secret: one, unless two contend for it.
    #[must_use]
    pub fn of_target(&self, secret: &ObjectKey) -> Vec<ObjectKey> {
        self.lock()
            .by_target
            .get(secret)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// The objects that restart a consumer.
    #[must_use]
    pub fn of_consumer(&self, kind: ConsumerKind, consumer: &ObjectKey) -> Vec<ObjectKey> {
        self.lock()
            .by_consumer
            .get(&(kind, consumer.clone()))
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// The objects of a namespace.
    #[must_use]
    pub fn of_namespace(&self, namespace: &str) -> Vec<ObjectKey> {
        self.lock()
            .objects
            .keys()
            .filter(|key| &*key.namespace == namespace)
            .cloned()
            .collect()
    }

    /// Every object, for the operator's own endpoint.
    #[must_use]
    pub fn states(&self) -> Vec<ObjectState> {
        let inner = self.lock();
        inner
            .objects
            .iter()
            .map(|(key, entry)| state_of(key, &entry.object, &entry.memory))
            .collect()
    }

    /// One object, for the operator's own endpoint.
    #[must_use]
    pub fn state(&self, key: &ObjectKey) -> Option<ObjectState> {
        let inner = self.lock();
        let entry = inner.objects.get(key)?;
        Some(state_of(key, &entry.object, &entry.memory))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics between two changes that belong together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn link(&mut self, key: &ObjectKey, object: &SyncedSecret) {
        for store in stores_of(key, object) {
            self.by_store.entry(store).or_default().insert(key.clone());
        }
        self.by_target
            .entry(target_of(key, object))
            .or_default()
            .insert(key.clone());
        for consumer in &object.spec.consumers {
            let workload = (consumer.kind, key.sibling(consumer.name.as_str()));
            self.by_consumer.entry(workload).or_default().insert(key.clone());
        }
    }

    fn unlink(&mut self, key: &ObjectKey) {
        let Some(object) = self.objects.get(key).map(|entry| Arc::clone(&entry.object)) else {
            return;
        };
        for store in stores_of(key, &object) {
            drop_from(&mut self.by_store, &store, key);
        }
        drop_from(&mut self.by_target, &target_of(key, &object), key);
        for consumer in &object.spec.consumers {
            let workload = (consumer.kind, key.sibling(consumer.name.as_str()));
            drop_from(&mut self.by_consumer, &workload, key);
        }
    }
}

/// The Secret that an object writes.
#[must_use]
pub fn target_of(key: &ObjectKey, object: &SyncedSecret) -> ObjectKey {
    match &object.spec.target.name {
        Some(name) => key.sibling(name.as_str()),
        None => key.clone(),
    }
}

/// The stores that an object reads from, each once.
#[must_use]
pub fn stores_of(key: &ObjectKey, object: &SyncedSecret) -> BTreeSet<StoreKey> {
    let sources = object.spec.sources.iter();
    sources
        .map(|source| StoreKey::referred(&key.namespace, &source.store_ref))
        .collect()
}

fn is_work(known: &SyncedSecret, now: &SyncedSecret) -> bool {
    known.metadata.generation != now.metadata.generation
        || known.metadata.annotations != now.metadata.annotations
        || known.metadata.deletion_timestamp != now.metadata.deletion_timestamp
}

fn drop_from<K: Eq + std::hash::Hash>(map: &mut HashMap<K, BTreeSet<ObjectKey>>, at: &K, key: &ObjectKey) {
    if let Some(set) = map.get_mut(at) {
        set.remove(key);
        if set.is_empty() {
            map.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(generation: i64, store: &str, target: &str) -> SyncedSecret {
        serde_json::from_value(json!({
            "apiVersion": "keyward.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": {"name": "db", "namespace": "apps", "uid": "u1", "generation": generation},
            "spec": {
                "sources": [{"storeRef": {"name": store}, "path": "db"}],
                "target": {"name": target},
                "consumers": [{"kind": "Deployment", "name": "web"}],
            }
        }))
        .expect("a valid object")
    }

    #[test]
    fn reverse_indexes_follow_the_spec() {
        let index = SyncIndex::default();
        let key = ObjectKey::new("apps", "db");
        assert_eq!(index.put(&key, object(1, "a", "one")), Change::Work);
        assert_eq!(index.put(&key, object(1, "a", "one")), Change::Echo);
        assert_eq!(index.put(&key, object(2, "b", "two")), Change::Work);
        let store = |name: &str| StoreKey {
            kind: keyward_crds::synced_secret::StoreKind::SecretStore,
            object: key.sibling(name),
        };
        assert!(index.of_store(&store("a")).is_empty());
        assert_eq!(index.of_store(&store("b")), std::slice::from_ref(&key));
        assert!(index.of_target(&key.sibling("one")).is_empty());
        assert_eq!(index.of_target(&key.sibling("two")), std::slice::from_ref(&key));
        assert_eq!(
            index.of_consumer(ConsumerKind::Deployment, &key.sibling("web")),
            std::slice::from_ref(&key)
        );
        index.remove(&key);
        assert!(index.of_target(&key.sibling("two")).is_empty());
        assert!(index.get(&key).is_none());
    }
}
