//! What each status of Vault and OpenBao means to us. Bodies are looked at for a few known phrases and never
//! passed on.

use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;

use super::endpoints::ErrorEnvelope;
use super::wire::decode;
use crate::stores::Outcome;
use crate::stores::transport::Response;

/// Longer waits than this are the server's business, not ours.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// The fault that an unsuccessful answer becomes. `what` says what was tried: "reading `secret/apps/db`".
pub(super) fn refused(answer: &Response, what: &str) -> Fault {
    let error = envelope(answer);
    let mentions = |phrase: &str| error.errors.iter().any(|text| text.contains(phrase));
    let fault = |class, reason, outcome: &str| Fault::new(class, reason, format!("{what} {outcome}"));
    let status = answer.status.as_u16();
    let fault = match status {
        300..=399 => fault(
            Class::Transient,
            Reason::StoreProtocol,
            "was answered with a redirect, which is never followed",
        )
        .advise("set the address to the server that answers itself"),
        400 if mentions("Upgrading from non-versioned") => fault(
            Class::Transient,
            Reason::StoreUnavailable,
            "must wait until the mount is upgraded",
        ),
        400 => fault(
            Class::Permanent,
            Reason::StoreProtocol,
            "was refused as malformed (status 400)",
        ),
        401 | 403 => fault(
            Class::Denied,
            Reason::RemoteDenied,
            "was denied by the store's policy",
        )
        .advise("grant the right to the role that Keyward logs in with"),
        404 if mentions("no handler for route") => fault(
            Class::Absent,
            Reason::RemoteNotFound,
            "failed: nothing is mounted there",
        )
        .advise("check the mount and the namespace"),
        // The only 404 with a warning: a path that a mount of this KV version does not have.
        404 if error.warnings.is_some_and(|warnings| !warnings.is_empty()) => fault(
            Class::Permanent,
            Reason::SpecInvalid,
            "failed: the mount is of another KV version",
        )
        .advise("set the KV version to the other one, or to auto"),
        404 => fault(Class::Absent, Reason::RemoteNotFound, "found nothing"),
        405 => fault(
            Class::Permanent,
            Reason::StoreProtocol,
            "is not supported there (status 405)",
        )
        .advise("check the kind and the version of the mount"),
        413 => fault(
            Class::Permanent,
            Reason::StoreProtocol,
            "was refused as too large (status 413)",
        ),
        429 => fault(
            Class::Throttled,
            Reason::StoreThrottled,
            "was put off: too many calls",
        ),
        501 => fault(
            Class::Sealed,
            Reason::StoreSealed,
            "failed: the server is not initialised",
        ),
        503 if mentions("sealed") => {
            fault(Class::Sealed, Reason::StoreSealed, "failed: the server is sealed")
                .advise("unseal it; everything resumes by itself")
        }
        // 412: a replica that is behind. 472, 473: a replica that does not serve.
        412 | 472 | 473 | 500..=599 => fault(
            Class::Transient,
            Reason::StoreUnavailable,
            &format!("failed with status {status}"),
        ),
        _ => fault(
            Class::Permanent,
            Reason::StoreProtocol,
            &format!("was answered with the unexpected status {status}"),
        ),
    };
    fault
        .with_request_id(error.request_id.filter(|id| !id.is_empty()))
        .with_retry_after(retry_after(answer))
}

/// The fault that an unsuccessful login becomes: what another call is denied for, here rejects the credential.
pub(super) fn login_refused(answer: &Response, method: &str) -> Fault {
    let (what, error, status) = (
        format!("the {method} login"),
        envelope(answer),
        answer.status.as_u16(),
    );
    let is_rejection = match status {
        400 | 401 | 403 | 404 | 405 => true,
        // Vault 1.13.0 answers a wrong secret id or password like this.
        500 => error.errors.iter().any(|text| text.starts_with("invalid ")),
        _ => false,
    };
    if !is_rejection {
        return refused(answer, &what);
    }
    rejected(format!("{what} was rejected (status {status})")).with_request_id(error.request_id)
}

/// A login that must not be repeated as it is.
pub(super) fn rejected(message: String) -> Fault {
    Fault::new(Class::Denied, Reason::CredentialRejected, message)
        .advise("check the credential, the role and where the auth method is mounted")
}

/// An answer in a shape we do not know.
pub(super) fn not_understood(what: &str) -> Fault {
    Fault::new(
        Class::Transient,
        Reason::StoreProtocol,
        format!("{what} was answered with something Keyward does not understand"),
    )
    .advise("check that the address is that of a Vault or OpenBao server")
}

/// Whether a 403 itself says that the token is dead. Not every server does.
pub(super) fn says_token_is_dead(answer: &Response) -> bool {
    envelope(answer)
        .errors
        .iter()
        .any(|text| text.contains("invalid token") || text.contains("bad token"))
}

/// Whether the server has no such endpoint, as opposed to nothing at the path.
pub(super) fn is_unsupported(answer: &Response) -> bool {
    let error = envelope(answer);
    let complains = !error.errors.is_empty() || error.warnings.is_some_and(|warnings| !warnings.is_empty());
    answer.status == StatusCode::METHOD_NOT_ALLOWED || (answer.status == StatusCode::NOT_FOUND && complains)
}

/// Whether the server itself says that there is nothing at the path. A 404 of something between us and the server
/// comes with a page of its own and is a fault.
pub(super) fn is_nothing_there(answer: &Response, what: &str) -> Outcome<bool> {
    if answer.status != StatusCode::NOT_FOUND || is_unsupported(answer) {
        return Ok(false);
    }
    decode::<ErrorEnvelope>(answer, what).map(|_| true)
}

fn envelope(answer: &Response) -> ErrorEnvelope {
    serde_json::from_slice(answer.body.expose()).unwrap_or_default()
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer
        .headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn answer(status: u16, body: &str) -> Response {
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }

    #[test]
    fn each_status_has_its_class_and_reason() {
        let sealed = r#"{"errors":["Vault is sealed"]}"#;
        let upgrading = r#"{"errors":["Upgrading from non-versioned to versioned data. Try again."]}"#;
        for (status, body, class, reason) in [
            (307, "", Class::Transient, Reason::StoreProtocol),
            (400, "", Class::Permanent, Reason::StoreProtocol),
            (400, upgrading, Class::Transient, Reason::StoreUnavailable),
            (403, "", Class::Denied, Reason::RemoteDenied),
            (404, "", Class::Absent, Reason::RemoteNotFound),
            (405, "", Class::Permanent, Reason::StoreProtocol),
            (412, "", Class::Transient, Reason::StoreUnavailable),
            (413, "", Class::Permanent, Reason::StoreProtocol),
            (418, "", Class::Permanent, Reason::StoreProtocol),
            (429, "", Class::Throttled, Reason::StoreThrottled),
            (472, "", Class::Transient, Reason::StoreUnavailable),
            (473, "", Class::Transient, Reason::StoreUnavailable),
            (500, "", Class::Transient, Reason::StoreUnavailable),
            (501, "", Class::Sealed, Reason::StoreSealed),
            (502, "", Class::Transient, Reason::StoreUnavailable),
            (503, "", Class::Transient, Reason::StoreUnavailable),
            (503, sealed, Class::Sealed, Reason::StoreSealed),
            (530, "", Class::Transient, Reason::StoreUnavailable),
        ] {
            let fault = refused(&answer(status, body), "reading `x`");
            assert_eq!((fault.class, fault.reason), (class, reason), "{status} {body}");
        }
    }

    #[test]
    fn a_login_is_rejected_or_merely_failed() {
        for status in [400, 401, 403, 404, 405] {
            assert_eq!(
                login_refused(&answer(status, ""), "jwt").reason,
                Reason::CredentialRejected
            );
        }
        let old = answer(500, r#"{"errors":["invalid secret id"]}"#);
        assert_eq!(login_refused(&old, "appRole").reason, Reason::CredentialRejected);
        for status in [429, 500, 503] {
            assert!(login_refused(&answer(status, ""), "jwt").may_pass(), "{status}");
        }
    }

    #[test]
    fn the_wait_asked_for_is_kept_within_reason() {
        let mut throttled = answer(429, "");
        throttled.headers.insert(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(refused(&throttled, "x").retry_after, Some(Duration::from_secs(7)));
        throttled.headers.insert(RETRY_AFTER, "86400".parse().unwrap());
        assert_eq!(refused(&throttled, "x").retry_after, Some(LONGEST_WAIT));
        throttled.headers.insert(RETRY_AFTER, "soon".parse().unwrap());
        assert_eq!(refused(&throttled, "x").retry_after, None);
    }
}
