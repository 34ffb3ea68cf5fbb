//! Keyward, a Kubernetes operator that keeps Secrets in step with the stores that hold their values.
//!
//! The library holds everything; the binary only calls [`cli`].

pub mod cli;
pub mod cluster;
pub mod controllers;
pub mod runtime;
pub mod store;
pub mod stores;
pub mod sync;
