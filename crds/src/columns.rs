//! The columns that `kubectl get` prints: the same questions answered in the same order for every kind.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition,
};

/// A column: its name, its type, and where its value is.
pub(crate) type Column = (&'static str, &'static str, &'static str);

/// Gives every version of a definition the columns of every kind, with `own` between the reason and the age.
pub(crate) fn with_columns(
    mut definition: CustomResourceDefinition,
    own: &[Column],
) -> CustomResourceDefinition {
    let ready = |field: &str| format!(".status.conditions[?(@.type==\"Ready\")].{field}");
    let mut columns = vec![
        column("Ready", "string", ready("status")),
        column("Reason", "string", ready("reason")),
    ];
    columns.extend(
        own.iter()
            .map(|(name, type_, path)| column(name, type_, (*path).to_owned())),
    );
    columns.push(column("Age", "date", ".metadata.creationTimestamp".to_owned()));
    columns.push(CustomResourceColumnDefinition {
        // Only `-o wide` has room for it.
        priority: Some(1),
        ..column("Message", "string", ready("message"))
    });
    for version in &mut definition.spec.versions {
        version.additional_printer_columns = Some(columns.clone());
    }
    definition
}

fn column(name: &str, type_: &str, json_path: String) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: type_.to_owned(),
        json_path,
        ..CustomResourceColumnDefinition::default()
    }
}
