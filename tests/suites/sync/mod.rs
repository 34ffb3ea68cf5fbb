//! From remote values to Secrets, and what keeps them right.

mod find;
mod first;
mod gone;
mod modes;
mod ownership;
mod rollout;
mod templates;
mod values;
mod versions;

use keyward_tests::harness::Suite;
use serde_json::{Value, json};

pub fn register(suite: &mut Suite) {
    first::register(suite);
    values::register(suite);
    find::register(suite);
    templates::register(suite);
    gone::register(suite);
    ownership::register(suite);
    versions::register(suite);
    modes::register(suite);
    rollout::register(suite);
}

/// All of one path of store `vault`.
fn path(path: &str) -> Value {
    json!({"storeRef": {"name": "vault"}, "path": path})
}

/// The spec of an object with these sources that is looked at as often as is allowed.
fn often(sources: &[Value]) -> Value {
    json!({"sources": sources, "refresh": {"interval": "5s"}})
}

/// The same with further fields of the spec.
fn often_with(sources: &[Value], more: &Value) -> Value {
    let mut spec = often(sources);
    let fields = spec.as_object_mut().expect("a spec is an object");
    fields.extend(more.as_object().expect("fields are an object").clone());
    spec
}
