//! Stand-ins for the stores: servers on loopback, in the process of the test, that answer as the real ones do.
//!
//! They serve unit tests that must be fast, and faults that a real server cannot be made to show. What they answer
//! without a fault is held to by the contract suite (`tests/suites/contract`), which runs the same cases against
//! them and against the real servers: a test that leans on a stand-in leans on what the real one was seen to do.
//!
//! This crate knows nothing of Keyward, so that Keyward's own unit tests can use it: it is a dependency of tests
//! alone and never part of the program.

#![expect(
    clippy::missing_panics_doc,
    reason = "a stand-in that is misused fails the test that misuses it"
)]

pub mod http;
pub mod kubernetes;
pub mod openstack;
pub mod vault;
