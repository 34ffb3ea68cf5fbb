//! The doors to the stores, each against its real server and without Kubernetes in between.

mod vault;

use keyward_tests::harness::Suite;

pub(super) fn register(suite: &mut Suite) {
    vault::register(suite);
}
