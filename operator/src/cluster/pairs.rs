//! Which objects belong to a thing, where most things have one object.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::ObjectKey;

/// Pairs of a thing and an object: one tree for all things, because a set for each would be mostly empty room.
pub(crate) struct Pairs<T>(BTreeSet<(T, ObjectKey)>);

impl<T: Clone + Ord> Pairs<T> {
    pub(crate) fn insert(&mut self, thing: T, object: ObjectKey) {
        self.0.insert((thing, object));
    }

    pub(crate) fn remove(&mut self, thing: T, object: ObjectKey) {
        self.0.remove(&(thing, object));
    }

    /// The objects of `thing`.
    pub(crate) fn of(&self, thing: &T) -> Vec<ObjectKey> {
        // No key comes before the empty one.
        let first = (thing.clone(), ObjectKey::new("", ""));
        let from = (Bound::Included(first), Bound::Unbounded);
        let pairs = self.0.range(from).take_while(|(other, _)| other == thing);
        pairs.map(|(_, object)| object.clone()).collect()
    }
}

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_has_its_own_objects_only() {
        let (a, b) = (ObjectKey::new("apps", "a"), ObjectKey::new("apps", "b"));
        let mut pairs = Pairs::default();
        pairs.insert(1, a.clone());
        pairs.insert(2, a.clone());
        pairs.insert(2, b.clone());
        pairs.insert(3, b.clone());
        assert_eq!(pairs.of(&2), [a.clone(), b.clone()]);
        pairs.remove(2, a);
        assert_eq!(pairs.of(&2), [b]);
        assert!(pairs.of(&4).is_empty());
    }
}
