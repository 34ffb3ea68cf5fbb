//! Every Secret of the cluster, as far as Keyward needs to know it: no value, no label, about 200 bytes each.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keyward_crds::OWNER_ANNOTATION;

use super::ObjectKey;
use super::pairs::Pairs;
use super::resource_version::is_older;
use super::watch::WatchEvent;

/// The Secrets that exist.
#[derive(Default)]
pub struct SecretIndex {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    secrets: HashMap<ObjectKey, SecretEntry>,
    /// Owner and Secret, where the Secret is not called as its owner.
    renamed: Pairs<ObjectKey>,
    under_way: HashMap<ObjectKey, UnderWay>,
    /// Secrets that we know from our own writes alone. The watch cannot report the end of what it has never seen.
    unseen: HashSet<ObjectKey>,
    /// Those of them, with their uids, that the listing which is under way names if they still exist.
    doubtful: Vec<(ObjectKey, Box<str>)>,
}

/// Writes of our own that are not answered yet, to one Secret.
#[derive(Default)]
struct UnderWay {
    writes: usize,
    /// The uids that were reported gone since the first of them began.
    gone: Vec<Box<str>>,
    /// Whether a listing has begun since then: it may have missed a Secret that was made and deleted before it.
    relisted: bool,
}

/// A write of our own. It is under way until this is dropped.
pub struct OwnWrite<'a> {
    index: &'a SecretIndex,
    key: &'a ObjectKey,
}

/// One Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretEntry {
    /// Its uid.
    pub uid: Box<str>,
    /// Its resourceVersion.
    pub resource_version: Box<str>,
    /// The `SyncedSecret` named by our annotation, where it carries one.
    pub owner: Option<Box<str>>,
}

impl SecretIndex {
    /// Takes in what the watch of Secrets reports. Returns the keys of Secrets that were changed or are gone.
    pub fn observe(&self, event: &WatchEvent<ObjectMeta>) -> Vec<ObjectKey> {
        let changed = |is_new: bool, key: &ObjectKey| is_new.then(|| key.clone()).into_iter().collect();
        match event {
            WatchEvent::Applied(key, meta) => match SecretEntry::of(meta) {
                Some(entry) => changed(self.write().seen(key, entry), key),
                None => Vec::new(),
            },
            WatchEvent::Deleted(key) => changed(self.write().vanished(key), key),
            WatchEvent::Restarted => {
                self.write().listing_begins();
                Vec::new()
            }
            WatchEvent::Synced => self.write().listing_ends(),
            WatchEvent::Unreadable(..) => Vec::new(),
        }
    }

    /// Announces a write of our own, before it is sent.
    #[must_use]
    pub fn writing<'a>(&'a self, key: &'a ObjectKey) -> OwnWrite<'a> {
        self.write().under_way.entry(key.clone()).or_default().writes += 1;
        OwnWrite { index: self, key }
    }

    /// Takes in a deletion of our own before the watch reports it. A Secret made anew since is left alone.
    pub fn deleted(&self, key: &ObjectKey, uid: &str) {
        let mut inner = self.write();
        if inner.secrets.get(key).is_some_and(|entry| *entry.uid == *uid) {
            inner.remove(key);
        }
    }

    /// The Secret of that name.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<SecretEntry> {
        self.read().secrets.get(key).cloned()
    }

    /// The Secrets that carry our annotation, each with the `SyncedSecret` that it names.
    #[must_use]
    pub fn owned(&self) -> Vec<(ObjectKey, ObjectKey)> {
        let inner = self.read();
        let owned = inner
            .secrets
            .iter()
            .filter_map(|(secret, entry)| Some((secret.sibling(entry.owner.as_deref()?), secret.clone())));
        owned.collect()
    }

    /// The Secrets whose annotation names this `SyncedSecret`.
    #[must_use]
    pub fn owned_by(&self, owner: &ObjectKey) -> Vec<ObjectKey> {
        let inner = self.read();
        let namesake = inner.secrets.get(owner);
        let namesake = namesake.filter(|entry| entry.owner.as_deref() == Some(&*owner.name));
        let namesake = namesake.map(|_| owner.clone());
        namesake.into_iter().chain(inner.renamed.of(owner)).collect()
    }

    /// How many Secrets exist.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().secrets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnWrite<'_> {
    /// Takes in how the write was answered before the watch reports it, so that the next plan rests on it. The watch may
    /// also have been faster, and have reported that somebody deleted what was written: then it stays gone.
    pub fn answered(&self, entry: SecretEntry) {
        let mut inner = self.index.write();
        let under_way = inner.under_way.get(self.key);
        let under_way = under_way.expect("a write stays under way until it is dropped");
        let unseen = !inner.has_seen(self.key, &entry.uid);
        // What was made while a listing went on is left to the watch, which reports it if it is still there.
        if under_way.gone.contains(&entry.uid) || (under_way.relisted && unseen) {
            return;
        }
        inner.put(self.key, entry);
        if unseen {
            inner.unseen.insert(self.key.clone());
        }
    }
}

impl Drop for OwnWrite<'_> {
    fn drop(&mut self) {
        let mut inner = self.index.write();
        let under_way = inner.under_way.get_mut(self.key);
        let under_way = under_way.expect("a write stays under way until it is dropped");
        under_way.writes -= 1;
        if under_way.writes == 0 {
            inner.under_way.remove(self.key);
        }
    }
}

impl Inner {
    /// Takes in what the watch reports. Returns whether it said anything new.
    fn seen(&mut self, key: &ObjectKey, entry: SecretEntry) -> bool {
        if self.secrets.get(key).is_some_and(|known| known.uid == entry.uid) {
            self.unseen.remove(key);
        }
        self.put(key, entry)
    }

    fn has_seen(&self, key: &ObjectKey, uid: &str) -> bool {
        let known = self.secrets.get(key);
        known.is_some_and(|known| *known.uid == *uid) && !self.unseen.contains(key)
    }

    fn listing_begins(&mut self) {
        for under_way in self.under_way.values_mut() {
            under_way.relisted = true;
        }
        let uid = |key: &ObjectKey| self.secrets.get(key).map(|entry| entry.uid.clone());
        let unseen = self.unseen.iter();
        self.doubtful = unseen.filter_map(|key| Some((key.clone(), uid(key)?))).collect();
    }

    /// Takes out what the listing should have named and did not.
    fn listing_ends(&mut self) -> Vec<ObjectKey> {
        let mut vanished = Vec::new();
        for (key, uid) in std::mem::take(&mut self.doubtful) {
            let known = self.secrets.get(&key).is_some_and(|entry| entry.uid == uid);
            if known && self.unseen.contains(&key) {
                self.vanished(&key);
                vanished.push(key);
            }
        }
        vanished
    }

    /// Stores `entry` unless something newer is known. Returns whether it said anything new.
    fn put(&mut self, key: &ObjectKey, entry: SecretEntry) -> bool {
        if let Some(known) = self.secrets.get(key) {
            let same = known.uid == entry.uid;
            if *known == entry || (same && is_older(&entry.resource_version, &known.resource_version)) {
                return false;
            }
            if !same {
                self.vanished(key);
            }
        }
        self.insert(key, entry);
        true
    }

    fn insert(&mut self, key: &ObjectKey, entry: SecretEntry) {
        self.remove(key);
        if let Some(owner) = renamed(key, &entry) {
            self.renamed.insert(owner, key.clone());
        }
        self.secrets.insert(key.clone(), entry);
    }

    /// Takes in that the watch reported a Secret gone, or another in its place. Returns whether it was known.
    fn vanished(&mut self, key: &ObjectKey) -> bool {
        if let Some(under_way) = self.under_way.get_mut(key)
            && let Some(entry) = self.secrets.get(key)
        {
            under_way.gone.push(entry.uid.clone());
        }
        self.remove(key)
    }

    /// Returns whether it was there.
    fn remove(&mut self, key: &ObjectKey) -> bool {
        let Some(entry) = self.secrets.remove(key) else {
            return false;
        };
        self.unseen.remove(key);
        if let Some(owner) = renamed(key, &entry) {
            self.renamed.remove(owner, key.clone());
        }
        true
    }
}

/// The owner of a Secret that has another name than it.
fn renamed(key: &ObjectKey, entry: &SecretEntry) -> Option<ObjectKey> {
    let owner = entry.owner.as_deref().filter(|owner| **owner != *key.name)?;
    Some(key.sibling(owner))
}

impl SecretEntry {
    fn of(meta: &ObjectMeta) -> Option<Self> {
        Some(Self {
            uid: meta.uid.as_deref()?.into(),
            resource_version: meta.resource_version.as_deref()?.into(),
            owner: meta
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(OWNER_ANNOTATION))
                .map(|owner| owner.as_str().into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str, version: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        }
    }

    fn applied(key: &ObjectKey, uid: &str, version: &str) -> WatchEvent<ObjectMeta> {
        WatchEvent::Applied(key.clone(), meta(uid, version))
    }

    #[test]
    fn a_late_event_does_not_undo_our_own_write() {
        let index = SecretIndex::default();
        let key = ObjectKey::new("apps", "db");
        assert_eq!(
            index.observe(&applied(&key, "u1", "9")),
            std::slice::from_ref(&key)
        );
        let ours = SecretEntry {
            uid: "u1".into(),
            resource_version: "12".into(),
            owner: Some("db".into()),
        };
        index.writing(&key).answered(ours.clone());
        assert!(index.observe(&applied(&key, "u1", "10")).is_empty());
        assert_eq!(index.get(&key), Some(ours));
        assert_eq!(
            index.observe(&applied(&key, "u1", "13")),
            std::slice::from_ref(&key)
        );
        assert!(
            index.observe(&applied(&key, "u1", "13")).is_empty(),
            "nothing new"
        );
        assert_eq!(index.observe(&applied(&key, "u2", "3")), [key], "another object");
    }

    #[test]
    fn a_late_answer_does_not_bring_a_deleted_secret_back() {
        let index = SecretIndex::default();
        let key = ObjectKey::new("apps", "db");
        let entry = |uid: &str, version: &str| SecretEntry {
            uid: uid.into(),
            resource_version: version.into(),
            owner: None,
        };
        let write = index.writing(&key);
        index.observe(&applied(&key, "u1", "5"));
        index.observe(&WatchEvent::Deleted(key.clone()));
        write.answered(entry("u1", "5"));
        assert_eq!(
            index.get(&key),
            None,
            "it was deleted before we heard that it exists"
        );
        drop(write);

        let write = index.writing(&key);
        index.observe(&applied(&key, "u2", "7"));
        index.observe(&applied(&key, "u3", "9"));
        write.answered(entry("u2", "7"));
        assert_eq!(
            index.get(&key),
            Some(entry("u3", "9")),
            "another one took its place"
        );
        drop(write);

        // What vanished before a write began says nothing of its answer.
        index.observe(&WatchEvent::Deleted(key.clone()));
        index.writing(&key).answered(entry("u3", "11"));
        assert_eq!(index.get(&key), Some(entry("u3", "11")));
        assert!(index.read().under_way.is_empty());
    }

    #[test]
    fn a_listing_ends_what_only_our_own_writes_told_of() {
        let index = SecretIndex::default();
        let key = |name: &str| ObjectKey::new("apps", name);
        let entry = |uid: &str| SecretEntry {
            uid: uid.into(),
            resource_version: "5".into(),
            owner: None,
        };
        let (deleted, kept, seen, later, late) = (
            key("deleted"),
            key("kept"),
            key("seen"),
            key("later"),
            key("late"),
        );
        for written in [&deleted, &kept, &seen] {
            index.writing(written).answered(entry("u1"));
        }
        // A second write of ours says no more of what the watch has seen than the first.
        index.writing(&deleted).answered(SecretEntry {
            resource_version: "6".into(),
            ..entry("u1")
        });
        index.observe(&applied(&seen, "u1", "5"));
        let slow = index.writing(&late);

        index.observe(&WatchEvent::Restarted);
        index.writing(&later).answered(entry("u1"));
        index.observe(&applied(&kept, "u1", "5"));
        assert_eq!(index.observe(&WatchEvent::Synced), std::slice::from_ref(&deleted));
        assert_eq!(index.get(&deleted), None);
        for existing in [&kept, &seen, &later] {
            assert!(index.get(existing).is_some(), "{existing}");
        }
        // The listing may have begun after this one was made and deleted again.
        slow.answered(entry("u1"));
        assert_eq!(index.get(&late), None, "the watch will tell");

        index.observe(&WatchEvent::Restarted);
        let vanished = index.observe(&WatchEvent::Synced);
        assert_eq!(
            vanished,
            [later],
            "what the watch has seen is for the watch to end"
        );
    }

    #[test]
    fn owners_are_known_by_our_annotation() {
        let index = SecretIndex::default();
        let mut ours = meta("u1", "1");
        ours.annotations = Some([(OWNER_ANNOTATION.to_owned(), "db".to_owned())].into());
        let key = ObjectKey::new("apps", "db");
        index.observe(&WatchEvent::Applied(key.clone(), ours));
        index.observe(&applied(&key.sibling("foreign"), "u2", "1"));
        assert_eq!(index.owned(), [(key.clone(), key.clone())]);
        assert_eq!(
            index.observe(&WatchEvent::Deleted(key.clone())),
            std::slice::from_ref(&key)
        );
        index.deleted(&key.sibling("foreign"), "another");
        assert_eq!(index.len(), 1);
        index.deleted(&key.sibling("foreign"), "u2");
        assert!(index.is_empty());
    }

    #[test]
    fn an_owner_finds_its_secrets_whatever_they_are_called() {
        let index = SecretIndex::default();
        let owner = ObjectKey::new("apps", "db");
        let marked = |uid: &str, owner: Option<&str>| SecretEntry {
            uid: uid.into(),
            resource_version: "1".into(),
            owner: owner.map(Into::into),
        };
        let (other, elsewhere) = (owner.sibling("other"), ObjectKey::new("web", "db"));
        index.writing(&other).answered(marked("u1", Some("db")));
        index
            .writing(&owner.sibling("foreign"))
            .answered(marked("u2", None));
        index
            .writing(&owner.sibling("next"))
            .answered(marked("u3", Some("db2")));
        index.writing(&elsewhere).answered(marked("u4", Some("db")));
        assert_eq!(index.owned_by(&owner), std::slice::from_ref(&other));
        index.writing(&owner).answered(marked("u5", Some("db")));
        assert_eq!(index.owned_by(&owner), [owner.clone(), other.clone()]);
        index.writing(&owner).answered(marked("u6", Some("somebody")));
        assert_eq!(index.owned_by(&owner), std::slice::from_ref(&other));
        assert_eq!(
            index.owned_by(&owner.sibling("somebody")),
            std::slice::from_ref(&owner)
        );
        index.deleted(&other, "u1");
        assert!(index.owned_by(&owner).is_empty());
        assert_eq!(index.owned().len(), 3);
    }
}
