//! The rig: real servers, on loopback, with free ports and throw-away state.
//!
//! It finds or builds each program ([`assets`], [`cache`]), starts and stops it ([`process`]) inside a run
//! that leaves nothing behind ([`run`], [`keeper`]), and knows nothing of Keyward itself: whatever is said
//! about the operator is said in the suites.

pub mod assets;
pub mod cache;
mod gobuild;
pub mod http;
pub mod keeper;
pub mod kubernetes;
pub mod poll;
pub mod ports;
pub mod process;
pub mod progress;
pub mod run;
pub mod tls;
