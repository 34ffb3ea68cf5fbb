//! What it means when the API server says no. Its sentences are never handed on, because they may quote values; from
//! those whose form is known, a name is taken.

use http::StatusCode;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use kube::core::Status;

use super::{Raw, Refusal, unknown_outcome};

pub(super) fn refused(what: &str, reads: bool, raw: &Raw) -> Refusal {
    let status = serde_json::from_slice::<Status>(&raw.body).ok().map(Box::new);
    let fault = match status.as_deref().and_then(Hurdle::of) {
        Some(hurdle) => hurdle.fault(what),
        None => plain(what, reads, raw.status, status.as_deref()),
    };
    let fault = fault
        .with_request_id(raw.request_id.clone())
        .with_retry_after(raw.retry_after);
    Refusal { fault, status }
}

/// What stands in the way of a request that the operator's rights allow.
#[derive(Debug, PartialEq, Eq)]
enum Hurdle {
    /// The namespace is being deleted: nothing new is made there, and soon there is nobody to tell.
    NamespaceEnds,
    /// What is counted in the namespace has reached its limit.
    Quota(String),
    /// A rule of the cluster's owner, with what it is called where that is known.
    Rule(&'static str, String),
}

impl Hurdle {
    fn of(status: &Status) -> Option<Self> {
        if !matches!(status.code, 400..500) {
            return None;
        }
        let causes = status.details.iter().flat_map(|details| &details.causes);
        if causes
            .into_iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
        {
            return Some(Self::NamespaceEnds);
        }
        let said = status.message.as_str();
        if let Some(rest) = said.strip_prefix("admission webhook \"") {
            return rest
                .split_once("\" denied the request")
                .map(|(name, _)| Self::Rule("admission webhook", quoted(name)));
        }
        // The form is: kind "name" is forbidden: why. A name cannot hold a space.
        let (_, why) = said.split_once(" is forbidden: ")?;
        if let Some(rest) = why
            .strip_prefix("exceeded quota: ")
            .or_else(|| why.strip_prefix("failed quota: "))
        {
            return Some(Self::Quota(quoted(
                rest.split([',', ':']).next().unwrap_or_default(),
            )));
        }
        if let Some(rest) = why.strip_prefix("ValidatingAdmissionPolicy '") {
            let name = rest.split('\'').next().unwrap_or_default();
            return Some(Self::Rule("admission policy", quoted(name)));
        }
        // Missing rights are told by this sentence, which every authorizer uses.
        let missing_rights = why.starts_with("User \"");
        (!missing_rights).then(|| Self::Rule("admission rule", String::new()))
    }

    fn fault(&self, what: &str) -> Fault {
        let refused = |words: String, advice: &'static str| {
            Fault::new(
                Class::Denied,
                Reason::AdmissionRefused,
                format!("{what}: {words}"),
            )
            .advise(advice)
        };
        match self {
            Self::NamespaceEnds => Fault::new(
                Class::Conflict,
                Reason::Conflict,
                format!("{what}: its namespace is being deleted"),
            ),
            Self::Quota(name) => refused(
                format!("the resource quota{name} leaves no room for it"),
                "raise the quota, or remove what fills it",
            ),
            Self::Rule(kind, name) => refused(
                format!("the cluster's {kind}{name} refuses it"),
                "change what it objects to, or have an exception made; its own log says why",
            ),
        }
    }
}

/// A name of the cluster's as it goes into a sentence; nothing where it is none.
fn quoted(name: &str) -> String {
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if is_name {
        format!(" `{name}`")
    } else {
        String::new()
    }
}

fn plain(what: &str, reads: bool, code: StatusCode, status: Option<&Status>) -> Fault {
    let named = status.map_or_else(String::new, fields_of);
    let reason = status
        .filter(|status| !status.reason.is_empty())
        .map_or_else(String::new, |status| format!(" {}", status.reason));
    let (class, reason_of, advice) = judge(code, reads);
    let code = code.as_u16();
    Fault::new(
        class,
        reason_of,
        format!("{what}: the API server answered {code}{reason}{named}"),
    )
    .advise(advice)
}

/// How each status of the API server is to be treated.
fn judge(status: StatusCode, reads: bool) -> (Class, Reason, &'static str) {
    match status.as_u16() {
        401 | 403 => (
            Class::Denied,
            Reason::ClusterDenied,
            "install the operator's RBAC as its chart ships it",
        ),
        404 => (Class::Absent, Reason::Conflict, ""),
        409 => (Class::Conflict, Reason::Conflict, ""),
        413 => (
            Class::Permanent,
            Reason::SecretTooLarge,
            "make the Secret smaller",
        ),
        400 | 405 | 406 | 415 | 422 => (Class::Permanent, Reason::SpecInvalid, ""),
        429 => (Class::Throttled, Reason::ClusterUnavailable, ""),
        // The server says that it did nothing.
        503 => (Class::Transient, Reason::ClusterUnavailable, ""),
        _ => (unknown_outcome(reads), Reason::ClusterUnavailable, ""),
    }
}

/// The fields that the API server objects to. Its sentences are left out, because they may quote values.
fn fields_of(status: &Status) -> String {
    let Some(details) = &status.details else {
        return String::new();
    };
    let mut fields: Vec<_> = details
        .causes
        .iter()
        .map(|cause| cause.field.trim_start_matches('.'))
        .filter(|field| !field.is_empty())
        .collect();
    fields.sort_unstable();
    fields.dedup();
    fields.truncate(8);
    if fields.is_empty() {
        String::new()
    } else {
        format!(" for {}", fields.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault(code: u16, message: &str, cause: &str) -> Fault {
        let body = json!({
            "kind": "Status", "code": code, "reason": "Forbidden", "message": message,
            "details": {"causes": [{"reason": cause}]},
        });
        let raw = Raw {
            status: StatusCode::from_u16(code).unwrap(),
            request_id: Some("audit-1".into()),
            retry_after: None,
            body: body.to_string().into_bytes().into(),
        };
        let fault = refused("writing Secret apps/db", false, &raw).fault;
        assert_eq!(fault.request_id.as_deref(), Some("audit-1"));
        assert!(!fault.to_string().contains("hunter2"), "{fault}");
        fault
    }

    #[test]
    fn what_stands_in_the_way_is_told_by_its_name() {
        for (code, message, told) in [
            (
                403,
                "secrets \"db\" is forbidden: exceeded quota: small, requested: secrets=1, used: secrets=5",
                "the resource quota `small` leaves no room for it",
            ),
            (
                403,
                "secrets \"db\" is forbidden: failed quota: small: must specify hunter2",
                "the resource quota `small` leaves no room for it",
            ),
            (
                400,
                "admission webhook \"check.example.com\" denied the request: hunter2 is too short",
                "the cluster's admission webhook `check.example.com` refuses it",
            ),
            (
                422,
                "secrets \"db\" is forbidden: ValidatingAdmissionPolicy 'long' with binding 'all' denied request: hunter2",
                "the cluster's admission policy `long` refuses it",
            ),
            (
                403,
                "secrets \"db\" is forbidden: hunter2",
                "the cluster's admission rule refuses it",
            ),
            (
                403,
                "admission webhook \"hunter2 hunter2\" denied the request",
                "the cluster's admission webhook refuses it",
            ),
        ] {
            let fault = fault(code, message, "");
            assert_eq!(
                (fault.class, fault.reason),
                (Class::Denied, Reason::AdmissionRefused)
            );
            assert_eq!(fault.message, format!("writing Secret apps/db: {told}"));
        }
    }

    #[test]
    fn a_right_that_is_missing_is_another_matter() {
        let fault = fault(
            403,
            "secrets \"db\" is forbidden: User \"system:serviceaccount:k:k\" cannot patch resource \"secrets\"",
            "",
        );
        assert_eq!(fault.reason, Reason::ClusterDenied);
        let unknown = super::plain("writing", false, StatusCode::FORBIDDEN, None);
        assert_eq!(unknown.reason, Reason::ClusterDenied, "a proxy, perhaps");
    }

    #[test]
    fn the_end_of_a_namespace_is_no_alarm() {
        let fault = fault(
            403,
            "secrets \"db\" is forbidden: unable to create new content in namespace apps",
            "NamespaceTerminating",
        );
        assert!(!fault.is_worth_telling(1), "{fault}");
    }
}
