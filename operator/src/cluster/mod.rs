//! The door to Kubernetes: the only place that watches, writes and classifies the API server's answers.
//!
//! It knows nothing of stores. No value of a Secret is kept here: watches of Secrets carry metadata alone.

mod api_server;
mod apply;
mod call;
pub mod conditions;
pub mod events;
mod kinds;
mod known;
pub mod lease;
mod listening;
mod object_key;
mod pairs;
mod pruned;
mod read;
pub(crate) mod resource_version;
mod rollout;
mod secret_index;
pub mod state;
mod status;
pub mod time;
mod tokens;
mod watch;
mod watch_health;

pub use api_server::own_addresses;
pub use apply::{Applied, FIELD_MANAGER, Mark, Precondition, SecretApply, SecretWriter};
pub use call::DEADLINE;
pub use kinds::missing_kinds;
pub use object_key::ObjectKey;
pub(crate) use pairs::Pairs;
pub use pruned::{Progress, Unreadable};
pub use read::{ClusterReader, ExistingSecret, Whole};
pub use rollout::RolloutWriter;
pub use secret_index::{SecretEntry, SecretIndex};
pub use status::{StatusWrite, StatusWriter};
pub use tokens::{ApiAudiences, ServiceAccountTokens};
pub use watch::{WatchEvent, Watches};
pub use watch_health::{WatchHealth, WatchSnapshot};
