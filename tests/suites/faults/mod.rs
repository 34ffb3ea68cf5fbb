//! What must hold while servers are away and processes die: the last good Secret stays, the cause is said, and
//! everything recovers without a human.

mod admission;
mod cluster;
mod definitions;
mod denied;
mod gate;
mod many;
mod openstack;
mod outage;
mod process;
mod takeover;
mod throttled;

use keyward_tests::harness::Suite;

pub fn register(suite: &mut Suite) {
    admission::register(suite);
    cluster::register(suite);
    definitions::register(suite);
    denied::register(suite);
    openstack::register(suite);
    outage::register(suite);
    process::register(suite);
    takeover::register(suite);
    throttled::register(suite);
}
