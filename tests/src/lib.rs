//! What the tests, the demo and the `rig` command share: real servers on any machine, and a harness for suites.
//!
//! [`rig`] provides the programs and runs them on loopback; [`harness`] runs tests against them; [`demo`] shows on
//! them what Keyward does; [`bench`] measures what it costs.

pub mod bench;
pub mod demo;
pub mod harness;
pub mod operator;
pub mod rig;
