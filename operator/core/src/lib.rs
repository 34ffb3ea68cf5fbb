//! Every decision Keyward takes, as pure functions over plain data.
//!
//! Nothing in this crate performs I/O, reads a clock, draws a random number or knows an HTTP status code of an
//! outside system: what a decision needs is passed in, and what should happen is returned. `tests/purity.rs`
//! reads the dependency tree and fails when a client or a runtime finds its way in.

pub mod address;
pub mod backoff;
pub mod breaker;
pub mod fault;
pub mod logins;
pub mod pace;
pub mod reason;
pub mod schedule;
pub mod secret;
pub mod shown;
pub mod sync;
