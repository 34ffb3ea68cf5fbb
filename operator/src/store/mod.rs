//! The store kinds: from a `SecretStore` or `ClusterSecretStore` to a door in use.

mod live;

pub use live::{HealthChange, LiveStore, Pace};
