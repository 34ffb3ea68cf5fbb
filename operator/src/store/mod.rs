//! The store kinds: from a `SecretStore` or `ClusterSecretStore` to a door in use.

mod controller;
mod fetch;
mod key;
mod live;
mod lockout;
mod plan;
mod registry;

pub use controller::{SECURE_SETTINGS, StoreController};
pub use fetch::DoorBuilder;
pub use key::StoreKey;
pub use live::{LiveStore, Pace};
pub use lockout::login_gate;
pub use plan::{InsecureChoice, StoreObject};
pub use registry::{Asked, HealthListener, Referent, SlotIdentity, StoreRegistry};
