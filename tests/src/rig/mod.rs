//! The rig: real servers, on loopback, with free ports and throw-away state.
//!
//! It finds or builds each program ([`assets`], [`cache`]), starts and stops it ([`process`]) inside a run
//! that leaves nothing behind ([`run`], [`keeper`]), and knows nothing of Keyward itself: whatever is said
//! about the operator is said in the suites.

pub mod assets;
pub mod cache;
pub mod fleet;
mod gobuild;
pub mod http;
mod journal;
pub mod keeper;
pub mod kubernetes;
pub mod lasting;
pub mod openstack;
pub mod poll;
pub mod ports;
pub mod process;
pub mod progress;
pub mod run;
pub mod tls;
pub mod vault;

pub use self::journal::Mark;
