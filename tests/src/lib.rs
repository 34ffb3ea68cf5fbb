//! What the tests, the demo and the `rig` command share: real servers on any machine.
//!
//! [`rig`] provides the programs and runs them on loopback.

pub mod rig;
