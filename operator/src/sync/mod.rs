//! The `SyncedSecret` kind: from remote places to one Kubernetes Secret.

mod controller;
mod gather;
mod index;
mod pass;
mod plan;
mod reader;
mod render;
mod rollout;
mod translate;
mod turn;
mod write;

pub use controller::{SyncController, SyncParts};
pub use index::{Change, SyncIndex};
pub use rollout::WorkloadIndex;
