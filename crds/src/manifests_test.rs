//! The checked-in definitions are the generated ones, and small enough for a client-side apply.

use std::path::Path;

use crate::{definitions, manifest};

#[test]
fn manifests_are_current() {
    for (file, definition) in definitions() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests").join(file);
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let generated = manifest(&definition).expect("a definition is valid YAML");
        assert!(
            written == generated,
            "crds/manifests/{file} is stale: run `cargo crdgen`"
        );
    }
}

#[test]
fn each_is_under_50_kilobytes() {
    for (file, definition) in definitions() {
        let size = manifest(&definition).expect("a definition is valid YAML").len();
        assert!(size < 50 * 1024, "{file} has {size} bytes");
    }
}

#[test]
fn every_kind_is_in_the_category_and_has_a_short_name_of_its_own() {
    let mut seen = std::collections::BTreeSet::new();
    for (file, definition) in definitions() {
        let names = definition.spec.names;
        assert_eq!(
            names.categories.as_deref(),
            Some(&["keyward".to_owned()][..]),
            "{file}"
        );
        for short in names.short_names.unwrap_or_default() {
            assert!(
                short.starts_with("kw"),
                "{file}: {short} may collide with another operator's"
            );
            assert!(seen.insert(short), "{file}");
        }
    }
    assert_eq!(seen.len(), 3);
}
