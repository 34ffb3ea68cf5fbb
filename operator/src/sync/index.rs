//! The `SyncedSecret`s that exist, what is remembered of each between two passes, and who depends on what.
//!
//! It holds no value of any secret. Decisions do not rest on what is remembered here alone: after a restart it is
//! empty, and the status says the rest.

mod entry;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use keyward_core::fault::Fault;
use keyward_core::sync::lineage::Accepted;
use keyward_crds::SyncedSecret;
use keyward_crds::synced_secret::{ConsumerKind, SyncedSecretStatus};
use tokio::time::Instant;

use self::entry::Entry;
use crate::cluster::{ObjectKey, Pairs};
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
    /// The last failure, where it came after the values were had and rests on them.
    pub stuck: Option<Arc<Stuck>>,
    /// uid and resourceVersion of the Secret that was last seen to hold what we wrote.
    pub intact: Option<(Box<str>, Box<str>)>,
}

/// A failure that the same values, object and Secret would bring about again.
#[derive(Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The failure.
    pub fault: Fault,
    /// The object's generation.
    pub generation: Option<i64>,
    /// Its annotations: some of them give consent.
    pub annotations: Option<BTreeMap<String, String>>,
    /// The versions of the values.
    pub versions: Vec<Accepted>,
    /// uid and resourceVersion of the Secret, where there was one.
    pub secret: Option<(String, String)>,
}

/// The objects and their reverse indexes.
#[derive(Default)]
pub struct SyncIndex {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    objects: HashMap<ObjectKey, Entry>,
    by_store: HashMap<StoreKey, Users>,
    by_target: Pairs<ObjectKey>,
    by_consumer: Pairs<(ConsumerKind, ObjectKey)>,
    hasher: RandomState,
}

/// The objects that read from one store.
struct Users {
    lane: Arc<str>,
    objects: BTreeSet<ObjectKey>,
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
    pub fn put(&self, key: &ObjectKey, object: &SyncedSecret) -> Change {
        let mut inner = self.lock();
        // Most events are echoes of our own writes: they are told before anything is made of them.
        if inner
            .objects
            .get(key)
            .is_some_and(|known| known.has_seen(&object.metadata))
        {
            return Change::Echo;
        }
        let lane = inner.lane_of(key, object);
        let mut entry = Entry::new(object, lane, &inner.hasher);
        let Some(known) = inner.objects.get_mut(key) else {
            inner.link(key, object);
            inner.objects.insert(key.clone(), entry);
            return Change::Work;
        };
        let change = if known.is_work(&entry) {
            Change::Work
        } else {
            Change::Echo
        };
        if known.uid == entry.uid {
            entry.memory = std::mem::take(&mut known.memory);
        }
        if known.uid == entry.uid && known.generation == entry.generation {
            *known = entry;
        } else {
            inner.unlink(key);
            inner.link(key, object);
            inner.objects.insert(key.clone(), entry);
        }
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
        let (json, memory) = {
            let inner = self.lock();
            let entry = inner.objects.get(key)?;
            (entry.json(), entry.memory.clone())
        };
        Some((Arc::new(entry::from_json(&json)), memory))
    }

    /// The queue's lane of an object: that of the first of its stores.
    #[must_use]
    pub fn lane(&self, key: &ObjectKey) -> Option<Arc<str>> {
        let inner = self.lock();
        inner.objects.get(key).map(|entry| Arc::clone(&entry.lane))
    }

    /// Remembers something of the object with this uid.
    pub fn remember(&self, key: &ObjectKey, uid: &str, change: impl FnOnce(&mut Memory)) {
        if let Some(entry) = self.lock().objects.get_mut(key)
            && *entry.uid == *uid
        {
            change(&mut entry.memory);
        }
    }

    /// Remembers when an object is looked at next, for people.
    pub fn plan_next(&self, key: &ObjectKey, next: Option<DateTime<Utc>>) {
        if let Some(entry) = self.lock().objects.get_mut(key) {
            entry.memory.next_check = next;
        }
    }

    /// Takes in a status of our own before the watch reports it.
    pub fn wrote_status(
        &self,
        key: &ObjectKey,
        uid: &str,
        resource_version: &str,
        status: SyncedSecretStatus,
    ) {
        if let Some(entry) = self.lock().objects.get_mut(key)
            && *entry.uid == *uid
        {
            entry.wrote_status(resource_version, status);
        }
    }

    /// The objects that read from a store.
    #[must_use]
    pub fn of_store(&self, store: &StoreKey) -> Vec<ObjectKey> {
        let inner = self.lock();
        let users = inner.by_store.get(store).into_iter();
        users.flat_map(|users| &users.objects).cloned().collect()
    }

    /// The objects that write a Secret: one, unless two contend for it.
    #[must_use]
    pub fn of_target(&self, secret: &ObjectKey) -> Vec<ObjectKey> {
        self.lock().by_target.of(secret)
    }

    /// The objects that restart a consumer.
    #[must_use]
    pub fn of_consumer(&self, kind: ConsumerKind, consumer: &ObjectKey) -> Vec<ObjectKey> {
        self.lock().by_consumer.of(&(kind, consumer.clone()))
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
            .map(|(key, entry)| entry.state(key))
            .collect()
    }

    /// One object, for the operator's own endpoint.
    #[must_use]
    pub fn state(&self, key: &ObjectKey) -> Option<ObjectState> {
        self.lock().objects.get(key).map(|entry| entry.state(key))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics between two changes that belong together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// One text for all objects of a store.
    fn lane_of(&self, key: &ObjectKey, object: &SyncedSecret) -> Arc<str> {
        let Some(store) = stores_of(key, object).into_iter().next() else {
            return Arc::from("");
        };
        match self.by_store.get(&store) {
            Some(users) => Arc::clone(&users.lane),
            None => lane(&store),
        }
    }

    fn link(&mut self, key: &ObjectKey, object: &SyncedSecret) {
        for store in stores_of(key, object) {
            let users = self.by_store.entry(store).or_insert_with_key(|store| Users {
                lane: lane(store),
                objects: BTreeSet::new(),
            });
            users.objects.insert(key.clone());
        }
        self.by_target.insert(target_of(key, object), key.clone());
        for consumer in &object.spec.consumers {
            let workload = (consumer.kind, key.sibling(consumer.name.as_str()));
            self.by_consumer.insert(workload, key.clone());
        }
    }

    fn unlink(&mut self, key: &ObjectKey) {
        let Some(json) = self.objects.get(key).map(Entry::json) else {
            return;
        };
        let object = entry::from_json(&json);
        for store in stores_of(key, &object) {
            if let Some(users) = self.by_store.get_mut(&store) {
                users.objects.remove(key);
                if users.objects.is_empty() {
                    self.by_store.remove(&store);
                }
            }
        }
        self.by_target.remove(target_of(key, &object), key.clone());
        for consumer in &object.spec.consumers {
            let workload = (consumer.kind, key.sibling(consumer.name.as_str()));
            self.by_consumer.remove(workload, key.clone());
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

fn lane(store: &StoreKey) -> Arc<str> {
    Arc::from(store.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(generation: i64, store: &str, target: &str) -> SyncedSecret {
        serde_json::from_value(json!({
            "apiVersion": "keyward.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": {"name": "db", "namespace": "apps", "uid": "u1", "generation": generation,
                "resourceVersion": generation.to_string()},
            "spec": {
                "sources": [{"storeRef": {"name": store}, "path": "db"}],
                "target": {"name": target},
                "consumers": [{"kind": "Deployment", "name": "web"}],
            }
        }))
        .expect("a valid object")
    }

    #[test]
    fn a_late_echo_does_not_undo_our_own_status() {
        let index = SyncIndex::default();
        let key = ObjectKey::new("apps", "db");
        let at = |version: &str| {
            let mut object = object(1, "a", "one");
            object.metadata.resource_version = Some(version.to_owned());
            object
        };
        index.put(&key, &at("9"));
        let status = SyncedSecretStatus {
            observed_generation: Some(1),
            ..SyncedSecretStatus::default()
        };
        index.wrote_status(&key, "u1", "12", status.clone());
        let known = || index.get(&key).expect("it exists").0;
        assert_eq!(index.put(&key, &at("10")), Change::Echo);
        assert_eq!(known().status, Some(status));
        assert_eq!(known().metadata.resource_version.as_deref(), Some("12"));
        assert_eq!(index.put(&key, &at("13")), Change::Echo, "no other work");
        assert_eq!(known().status, None, "somebody took it away");
    }

    #[test]
    fn memory_ends_with_the_object() {
        let index = SyncIndex::default();
        let key = ObjectKey::new("apps", "db");
        index.put(&key, &object(1, "a", "one"));
        index.remember(&key, "u1", |memory| memory.failures = 3);
        index.put(&key, &object(2, "a", "one"));
        let failures = || index.get(&key).expect("it exists").1.failures;
        assert_eq!(failures(), 3);
        let mut another = object(1, "a", "one");
        another.metadata.uid = Some("u2".to_owned());
        assert_eq!(index.put(&key, &another), Change::Work);
        assert_eq!(failures(), 0);
    }

    #[test]
    fn reverse_indexes_follow_the_spec() {
        let index = SyncIndex::default();
        let key = ObjectKey::new("apps", "db");
        assert_eq!(index.put(&key, &object(1, "a", "one")), Change::Work);
        assert_eq!(index.put(&key, &object(1, "a", "one")), Change::Echo);
        assert_eq!(index.put(&key, &object(2, "b", "two")), Change::Work);
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
