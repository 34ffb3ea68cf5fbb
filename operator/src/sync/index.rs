//! The `SyncedSecret`s that exist, what is remembered of each between two passes, and who depends on what.
//!
//! It holds no value of any secret. Decisions do not rest on what is remembered here alone: after a restart it is
//! empty, and the status says the rest.

mod entry;
mod outside;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use keyward_core::fault::Fault;
use keyward_core::sync::lineage::Accepted;
use keyward_core::sync::told::State;
use keyward_crds::SyncedSecret;
use keyward_crds::synced_secret::{ConsumerKind, SyncedSecretStatus};
use tokio::time::Instant;

use self::entry::Entry;
use self::outside::Outside;
pub use self::outside::{Departed, Unread};
use super::write::Identity;
use crate::cluster::{ObjectKey, Pairs, Unreadable};
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
    /// What the last pass came to, where it rests on the values that it had.
    pub conclusion: Option<Arc<Conclusion>>,
    /// uid and resourceVersion of the Secret that was last seen to hold what we wrote.
    pub intact: Option<(Box<str>, Box<str>)>,
    /// The generation whose pass has given up what the object had in other Secrets.
    pub tidied: Option<i64>,
    /// Refused restarts of consumers in a row.
    pub refused_restarts: u32,
}

/// What the same values, object and Secret would bring about again: a failure, or something else than a Secret that
/// holds the values.
#[derive(Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// It.
    pub result: Result<State, Fault>,
    /// The object's generation.
    pub generation: Option<i64>,
    /// Its annotations: some of them give consent.
    pub annotations: Option<BTreeMap<String, String>>,
    /// The versions of the values.
    pub versions: Vec<Accepted>,
    /// The Secret, where there was one.
    pub secret: Option<Identity>,
}

/// The objects and their reverse indexes.
#[derive(Default)]
pub struct SyncIndex {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Apart from their keys, because a table is up to half empty.
    objects: HashMap<ObjectKey, Box<Entry>>,
    outside: Outside,
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
        inner.outside.is_back(key);
        // Most events are echoes of our own writes: they are told before anything is made of them.
        if inner
            .objects
            .get(key)
            .is_some_and(|known| known.has_seen(&object.metadata))
        {
            return Change::Echo;
        }
        let lane = inner.lane_of(key, object);
        let mut entry = Box::new(Entry::new(object, lane, &inner.hasher));
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
            entry.seen = known.seen;
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

    /// Takes in an object that cannot be parsed: it is not worked on, and what it left behind stays.
    pub fn put_unreadable(&self, key: &ObjectKey, object: Unreadable) -> Change {
        let mut inner = self.lock();
        inner.take(key);
        inner.outside.put(key, object)
    }

    /// Takes in that an object is gone.
    pub fn remove(&self, key: &ObjectKey) {
        let mut inner = self.lock();
        let made = inner.take(key).map(|entry| entry.made);
        inner.outside.went(key, made);
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

    /// The object of that name, where it cannot be parsed.
    #[must_use]
    pub fn unread(&self, key: &ObjectKey) -> Option<Unread> {
        self.lock().outside.unread(key).cloned()
    }

    /// Remembers something of an object that cannot be parsed.
    pub fn remember_unread(&self, key: &ObjectKey, change: impl FnOnce(&mut Unread)) {
        if let Some(unread) = self.lock().outside.unread_mut(key) {
            change(unread);
        }
    }

    /// What is known of an object that is gone.
    #[must_use]
    pub fn departed(&self, key: &ObjectKey) -> Option<Departed> {
        self.lock().outside.departed(key)
    }

    /// Remembers that the Secrets of an object that is gone stay.
    pub fn leave_in_place(&self, key: &ObjectKey) {
        self.lock().outside.leave_in_place(key);
    }

    /// Forgets an object that is gone and has left nothing behind.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().outside.forget(key);
    }

    /// Whether the Secret, which carries the mark of `owner`, has lost its object without a word.
    #[must_use]
    pub fn is_abandoned(&self, secret: &ObjectKey, owner: &ObjectKey) -> bool {
        let inner = self.lock();
        let stays = inner.outside.unread(owner).is_some()
            || inner.outside.departed(owner) == Some(Departed::LeftInPlace);
        !stays && !inner.by_target.of(secret).contains(owner)
    }

    /// The queue's lane of an object: that of its store. One with several stores has a lane in common with those that
    /// have the same ones, so that a slow one of them holds up nobody who does without it.
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

    /// Has the next pass over an object look for what it has in other Secrets.
    pub fn untidy(&self, key: &ObjectKey) {
        if let Some(entry) = self.lock().objects.get_mut(key) {
            entry.memory.tidied = None;
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
        let objects = inner.objects.iter();
        let known = objects.map(|(key, entry)| entry.state(key));
        known.chain(inner.outside.states()).collect()
    }

    /// One object, for the operator's own endpoint.
    #[must_use]
    pub fn state(&self, key: &ObjectKey) -> Option<ObjectState> {
        let inner = self.lock();
        let known = inner.objects.get(key).map(|entry| entry.state(key));
        known.or_else(|| inner.outside.unread(key).map(|unread| unread.state(key)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics between two changes that belong together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn lane_of(&self, key: &ObjectKey, object: &SyncedSecret) -> Arc<str> {
        let stores: Vec<StoreKey> = stores_of(key, object).into_iter().collect();
        match stores.as_slice() {
            // One text for all objects of a store.
            [store] => match self.by_store.get(store) {
                Some(users) => Arc::clone(&users.lane),
                None => lane(store),
            },
            stores => {
                let names: Vec<String> = stores.iter().map(StoreKey::to_string).collect();
                Arc::from(names.join(" and "))
            }
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

    /// Takes an object out.
    fn take(&mut self, key: &ObjectKey) -> Option<Box<Entry>> {
        self.unlink(key);
        self.objects.remove(key)
    }

    fn unlink(&mut self, key: &ObjectKey) {
        let Some(json) = self.objects.get(key).map(|entry| entry.json()) else {
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
