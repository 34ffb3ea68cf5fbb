//! What it means when the API server refuses to write a Secret. It names fields; it never hands on a sentence of
//! the server's, because those may quote values.

use std::collections::BTreeSet;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use kube::core::Status;
use kube::core::response::StatusCause;

use super::super::call::Refusal;

/// The fault that a refusal stands for.
pub(super) fn meaning(what: &str, refusal: Refusal) -> Fault {
    let Refusal { fault, status } = refusal;
    let causes: &[StatusCause] = status
        .as_deref()
        .and_then(|status: &Status| status.details.as_ref())
        .map_or(&[], |details| &details.causes);
    let meant = match fault.class {
        Class::Conflict => owned_by_others(what, causes),
        Class::Permanent => causes.iter().find_map(|cause| invalid(what, cause)),
        _ => None,
    };
    match meant {
        Some(meant) => meant.with_request_id(fault.request_id),
        None => fault,
    }
}

/// A conflict between field managers; one about what the plan rested on names no fields.
fn owned_by_others(what: &str, causes: &[StatusCause]) -> Option<Fault> {
    let conflicts: Vec<_> = causes
        .iter()
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .collect();
    if conflicts.is_empty() {
        return None;
    }
    let fields: BTreeSet<_> = conflicts
        .iter()
        .map(|cause| {
            let field = cause.field.trim_start_matches('.');
            match field.strip_prefix("data.") {
                Some(key) => format!("key `{key}`"),
                None => format!("`{field}`"),
            }
        })
        .collect();
    // The message is: conflict with "manager" using v1.
    let managers: BTreeSet<_> = conflicts
        .iter()
        .filter_map(|cause| cause.message.split('"').nth(1))
        .map(|name| format!("field manager `{name}`"))
        .collect();
    let fault = Fault::new(
        Class::Permanent,
        Reason::KeyOwnedByOther,
        format!("{what}: {} owned by {}", list(fields), list(managers)),
    );
    Some(fault.advise("let go of them there, or take keys over by `adoption` with policy `TakeKeys`"))
}

/// What the server found invalid, where we have a reason of our own for it.
fn invalid(what: &str, cause: &StatusCause) -> Option<Fault> {
    let fault = |class, reason, message: &str| Fault::new(class, reason, format!("{what}: {message}"));
    let field = cause.field.as_str();
    let permanent = |reason, message: &str| Some(fault(Class::Permanent, reason, message));
    match (field, cause.reason.as_str()) {
        // The plan rested on a Secret that was deleted and made anew since.
        ("metadata.uid", _) => Some(fault(
            Class::Conflict,
            Reason::Conflict,
            "another Secret has its name now",
        )),
        ("type", _) => permanent(
            Reason::TypeConflict,
            "it has another type, which cannot be changed",
        )
        .map(|fault| fault.advise("declare the type that it has, or delete it")),
        ("data", "FieldValueTooLong") => permanent(Reason::SecretTooLarge, "it would be larger than 1 MiB"),
        ("data", "FieldValueForbidden") => permanent(Reason::SecretImmutable, "it is marked immutable"),
        (key, "FieldValueInvalid") if key.starts_with("data[") => {
            let name = key.trim_start_matches("data[").trim_end_matches(']');
            permanent(
                Reason::KeyInvalid,
                &format!("Kubernetes refuses the key `{name}`"),
            )
        }
        _ => None,
    }
}

fn list(names: BTreeSet<String>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meant(field: &str, reason: &str) -> Fault {
        let status: Status = serde_json::from_value(json!({
            "code": 422, "reason": "Invalid",
            "details": {"causes": [{"field": field, "reason": reason, "message": "Invalid value: hunter2"}]},
        }))
        .unwrap();
        let fault =
            Fault::new(Class::Permanent, Reason::SpecInvalid, "as it was").with_request_id(Some("r1".into()));
        let refusal = Refusal {
            fault,
            status: Some(Box::new(status)),
        };
        meaning("writing", refusal)
    }

    #[test]
    fn invalid_secrets_have_reasons_of_ours() {
        let cases = [
            ("type", "FieldValueInvalid", Reason::TypeConflict),
            ("data", "FieldValueTooLong", Reason::SecretTooLarge),
            ("data", "FieldValueForbidden", Reason::SecretImmutable),
            ("data[a b]", "FieldValueInvalid", Reason::KeyInvalid),
            ("data[tls.crt]", "FieldValueRequired", Reason::SpecInvalid),
        ];
        for (field, reason, expected) in cases {
            let fault = meant(field, reason);
            assert_eq!(fault.reason, expected, "{field} {reason}");
            assert_eq!(fault.class, Class::Permanent);
            assert_eq!(fault.request_id.as_deref(), Some("r1"));
            assert!(!fault.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_secret_made_anew_is_planned_anew() {
        assert_eq!(meant("metadata.uid", "FieldValueInvalid").class, Class::Conflict);
    }
}
