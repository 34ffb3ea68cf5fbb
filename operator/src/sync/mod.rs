//! The `SyncedSecret` kind: from remote places to one Kubernetes Secret.

mod reader;

pub use reader::Reader;
