//! The rig itself: what the other suites take for granted of their servers.

pub(super) mod home;
mod kubernetes;
mod openstack;
mod provide;
pub(super) mod runs;
mod vault;

use keyward_tests::harness::Suite;

pub(super) fn register(suite: &mut Suite) {
    kubernetes::register(suite);
    openstack::register(suite);
    provide::register(suite);
    runs::register(suite);
    vault::register(suite);
}
