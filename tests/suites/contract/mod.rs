//! The contract: what Keyward relies on in each store, written once and run against the real servers and against the
//! stand-ins that the unit tests use.
//!
//! A case is a function of a `Server`, which is one or the other. It arranges what it needs through the server's own
//! API, uses Keyward's door (`keyward::stores`, `keyward::cluster`), and says what must come of it. A stand-in can answer
//! no more kindly than the real server, because the same case fails on it.
//!
//! It lives here because only here both sides and Keyward's own types are at hand: the stand-ins
//! (`tests/stand-ins`) know nothing of Keyward, or Keyward's unit tests could not use them. The cases named
//! `stand_in` start no server and take seconds: `cargo test -p keyward-tests --test suites -- stand_in::`.
//!
//! What only a stand-in can be made to show, such as cut bodies, redirects and status 429, is no part of the
//! contract: see the tests `faults` beside each door (`operator/src/stores/<store>/tests/faults.rs`).

mod barbican;
mod kubernetes;
mod vault;

use keyward_tests::harness::Suite;

pub(super) fn register(suite: &mut Suite) {
    vault::register(suite);
    barbican::register(suite);
    kubernetes::register(suite);
}
