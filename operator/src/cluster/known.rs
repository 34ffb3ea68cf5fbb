//! The objects that a watch has reported, so that after a new listing it can be told what vanished while it was away
//! and what did not change.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use super::ObjectKey;

/// Keys with what was last seen of each. About 70 bytes for each key; its text is shared with whoever keeps the key
/// that [`Known::seen`] hands out.
#[derive(Default)]
pub(super) struct Known {
    round: u32,
    objects: HashMap<ObjectKey, Sighting>,
    namespaces: HashSet<Arc<str>>,
    hasher: RandomState,
}

struct Sighting {
    /// The listing in which it was last seen.
    round: u32,
    /// A digest of its resourceVersion: the text itself would double what a key costs.
    version: u64,
}

impl Known {
    /// Notes that the object exists in this version. Gives the one shared key for it, and whether the version is new.
    pub(super) fn seen(&mut self, namespace: &str, name: &str, version: &str) -> (ObjectKey, bool) {
        let key = ObjectKey::new(self.shared(namespace), name);
        let sighting = Sighting {
            round: self.round,
            version: self.hasher.hash_one(version),
        };
        if let Some((known, before)) = self.objects.get_key_value(&key) {
            let (known, is_new) = (known.clone(), before.version != sighting.version);
            self.objects.insert(key, sighting);
            return (known, is_new);
        }
        self.objects.insert(key.clone(), sighting);
        (key, true)
    }

    /// Notes that the object is gone.
    pub(super) fn gone(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
    }

    /// A new listing begins.
    pub(super) fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// The listing is complete: takes out and returns what it did not name.
    pub(super) fn complete(&mut self) -> Vec<ObjectKey> {
        let round = self.round;
        let mut vanished: Vec<_> = self
            .objects
            .extract_if(|_, sighting| sighting.round != round)
            .map(|(key, _)| key)
            .collect();
        vanished.sort_unstable();
        vanished
    }

    fn shared(&mut self, namespace: &str) -> Arc<str> {
        if let Some(shared) = self.namespaces.get(namespace) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = Arc::from(namespace);
        self.namespaces.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_listing_does_not_name_has_vanished() {
        let mut known = Known::default();
        known.begin();
        known.seen("apps", "a", "1");
        known.seen("apps", "b", "1");
        assert!(known.complete().is_empty());
        known.seen("apps", "c", "1");
        known.gone(&ObjectKey::new("apps", "a"));
        known.begin();
        known.seen("apps", "c", "1");
        assert_eq!(known.complete(), [ObjectKey::new("apps", "b")]);
        known.begin();
        assert_eq!(known.complete(), [ObjectKey::new("apps", "c")]);
    }

    #[test]
    fn a_listing_that_breaks_off_forgets_nothing() {
        let mut known = Known::default();
        known.begin();
        known.seen("apps", "a", "1");
        known.complete();
        known.begin();
        known.begin();
        known.seen("apps", "a", "1");
        assert!(known.complete().is_empty());
    }

    #[test]
    fn keys_share_their_text() {
        let mut known = Known::default();
        let (first, _) = known.seen("apps", "a", "1");
        let (second, _) = known.seen("apps", "a", "2");
        let (other, _) = known.seen("apps", "b", "1");
        assert!(Arc::ptr_eq(&first.name, &second.name));
        assert!(Arc::ptr_eq(&first.namespace, &other.namespace));
    }

    #[test]
    fn a_listing_tells_what_changed() {
        let mut known = Known::default();
        assert!(known.seen("apps", "a", "1").1);
        known.begin();
        assert!(!known.seen("apps", "a", "1").1);
        assert!(known.seen("apps", "a", "2").1);
        known.gone(&ObjectKey::new("apps", "a"));
        assert!(known.seen("apps", "a", "2").1, "it was made anew");
    }
}
