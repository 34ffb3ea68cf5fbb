//! The keys that a watch has reported, so that what vanished while it was away can be told after a new listing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ObjectKey;

/// Keys with the round of listing in which each was last seen. About 60 bytes for each key; its text is shared
/// with whoever keeps the key that [`Known::seen`] hands out.
#[derive(Default)]
pub(super) struct Known {
    round: u32,
    keys: HashMap<ObjectKey, u32>,
    namespaces: HashSet<Arc<str>>,
}

impl Known {
    /// Notes that the object exists and gives the one shared key for it.
    pub(super) fn seen(&mut self, namespace: &str, name: &str) -> ObjectKey {
        let namespace = if let Some(shared) = self.namespaces.get(namespace) {
            Arc::clone(shared)
        } else {
            let shared: Arc<str> = Arc::from(namespace);
            self.namespaces.insert(Arc::clone(&shared));
            shared
        };
        let key = ObjectKey::new(namespace, name);
        if let Some((known, _)) = self.keys.get_key_value(&key) {
            let known = known.clone();
            self.keys.insert(key, self.round);
            return known;
        }
        self.keys.insert(key.clone(), self.round);
        key
    }

    /// Notes that the object is gone.
    pub(super) fn gone(&mut self, key: &ObjectKey) {
        self.keys.remove(key);
    }

    /// A new listing begins.
    pub(super) fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// The listing is complete: takes out and returns what it did not name.
    pub(super) fn complete(&mut self) -> Vec<ObjectKey> {
        let round = self.round;
        let mut vanished: Vec<_> = self
            .keys
            .extract_if(|_, seen| *seen != round)
            .map(|(key, _)| key)
            .collect();
        vanished.sort_unstable();
        vanished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_listing_does_not_name_has_vanished() {
        let mut known = Known::default();
        known.begin();
        known.seen("apps", "a");
        known.seen("apps", "b");
        assert!(known.complete().is_empty());
        known.seen("apps", "c");
        known.gone(&ObjectKey::new("apps", "a"));
        known.begin();
        known.seen("apps", "c");
        assert_eq!(known.complete(), [ObjectKey::new("apps", "b")]);
        known.begin();
        assert_eq!(known.complete(), [ObjectKey::new("apps", "c")]);
    }

    #[test]
    fn a_listing_that_breaks_off_forgets_nothing() {
        let mut known = Known::default();
        known.begin();
        known.seen("apps", "a");
        known.complete();
        known.begin();
        known.begin();
        known.seen("apps", "a");
        assert!(known.complete().is_empty());
    }

    #[test]
    fn keys_share_their_text() {
        let mut known = Known::default();
        let first = known.seen("apps", "a");
        let second = known.seen("apps", "a");
        let other = known.seen("apps", "b");
        assert!(Arc::ptr_eq(&first.name, &second.name));
        assert!(Arc::ptr_eq(&first.namespace, &other.namespace));
    }
}
