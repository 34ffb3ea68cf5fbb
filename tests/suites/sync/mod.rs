//! From remote values to Secrets, and what keeps them right.

mod find;
mod first;
mod gone;
mod modes;
mod ownership;
mod retries;
mod rollout;
mod templates;
mod values;
mod versions;

use keyward_tests::harness::Suite;

pub fn register(suite: &mut Suite) {
    first::register(suite);
    values::register(suite);
    find::register(suite);
    templates::register(suite);
    gone::register(suite);
    ownership::register(suite);
    versions::register(suite);
    retries::register(suite);
    modes::register(suite);
    rollout::register(suite);
}
