//! Names a store object of either kind.

use std::fmt;

use keyward_crds::synced_secret::{StoreKind, StoreRef};

use crate::cluster::ObjectKey;

/// A store object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey {
    /// Which kind.
    pub kind: StoreKind,
    /// Its name, and its namespace where the kind has one.
    pub object: ObjectKey,
}

impl StoreKey {
    /// The store that an object of `namespace` refers to. A reference cannot leave its namespace but by a kind that
    /// has none.
    #[must_use]
    pub fn referred(namespace: &str, reference: &StoreRef) -> Self {
        let object = match reference.kind {
            StoreKind::SecretStore => ObjectKey::new(namespace, reference.name.as_str()),
            StoreKind::ClusterSecretStore => ObjectKey::of_cluster(reference.name.as_str()),
        };
        Self {
            kind: reference.kind,
            object,
        }
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.object)
    }
}
