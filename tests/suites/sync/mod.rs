//! From remote values to Secrets, and what keeps them right.

mod first;

use keyward_tests::harness::Suite;

pub fn register(suite: &mut Suite) {
    first::register(suite);
}
