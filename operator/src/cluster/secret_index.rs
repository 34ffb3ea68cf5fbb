//! Every Secret of the cluster, as far as Keyward needs to know it: no value, no label, about 200 bytes each.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keyward_crds::OWNER_ANNOTATION;

use super::ObjectKey;
use super::watch::WatchEvent;

/// The Secrets that exist.
#[derive(Default)]
pub struct SecretIndex {
    secrets: RwLock<HashMap<ObjectKey, SecretEntry>>,
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
    /// Takes in what the watch of Secrets reports. Returns the key of a Secret that was changed or deleted.
    pub fn observe(&self, event: &WatchEvent<ObjectMeta>) -> Option<ObjectKey> {
        match event {
            WatchEvent::Applied(key, meta) => {
                let entry = SecretEntry::of(meta)?;
                self.put(key, entry).then(|| key.clone())
            }
            WatchEvent::Deleted(key) => self.write().remove(key).map(|_| key.clone()),
            WatchEvent::Restarted | WatchEvent::Synced => None,
        }
    }

    /// Takes in a write of our own before the watch reports it, so that the next plan rests on it.
    pub fn wrote(&self, key: &ObjectKey, entry: SecretEntry) {
        self.put(key, entry);
    }

    /// Takes in a deletion of our own before the watch reports it. A Secret made anew since is left alone.
    pub fn deleted(&self, key: &ObjectKey, uid: &str) {
        let mut secrets = self.write();
        if secrets.get(key).is_some_and(|entry| *entry.uid == *uid) {
            secrets.remove(key);
        }
    }

    /// The Secret of that name.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<SecretEntry> {
        self.read().get(key).cloned()
    }

    /// The Secrets that carry our annotation.
    #[must_use]
    pub fn owned(&self) -> Vec<ObjectKey> {
        let secrets = self.read();
        let owned = secrets.iter().filter(|(_, entry)| entry.owner.is_some());
        owned.map(|(key, _)| key.clone()).collect()
    }

    /// How many Secrets exist.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stores `entry` unless something newer is known. Returns whether it said anything new.
    fn put(&self, key: &ObjectKey, entry: SecretEntry) -> bool {
        let mut secrets = self.write();
        let stale = secrets.get(key).is_some_and(|known| {
            *known == entry
                || (known.uid == entry.uid && is_older(&entry.resource_version, &known.resource_version))
        });
        if !stale {
            secrets.insert(key.clone(), entry);
        }
        !stale
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<ObjectKey, SecretEntry>> {
        self.secrets.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<ObjectKey, SecretEntry>> {
        self.secrets.write().unwrap_or_else(PoisonError::into_inner)
    }
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

/// Whether version `a` comes before `b`. Kubernetes promises that resourceVersions are decimal numbers without
/// leading zeros that grow with each write (KEP-5504); of anything else no order is claimed.
fn is_older(a: &str, b: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number(a) && is_number(b) && (a.len(), a) < (b.len(), b)
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
        assert_eq!(index.observe(&applied(&key, "u1", "9")), Some(key.clone()));
        let ours = SecretEntry {
            uid: "u1".into(),
            resource_version: "12".into(),
            owner: Some("db".into()),
        };
        index.wrote(&key, ours.clone());
        assert_eq!(index.observe(&applied(&key, "u1", "10")), None);
        assert_eq!(index.get(&key), Some(ours));
        assert_eq!(index.observe(&applied(&key, "u1", "13")), Some(key.clone()));
        assert_eq!(index.observe(&applied(&key, "u1", "13")), None, "nothing new");
        assert_eq!(
            index.observe(&applied(&key, "u2", "3")),
            Some(key),
            "another object"
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
        assert_eq!(index.owned(), std::slice::from_ref(&key));
        assert_eq!(
            index.observe(&WatchEvent::Deleted(key.clone())),
            Some(key.clone())
        );
        index.deleted(&key.sibling("foreign"), "another");
        assert_eq!(index.len(), 1);
        index.deleted(&key.sibling("foreign"), "u2");
        assert!(index.is_empty());
    }
}
