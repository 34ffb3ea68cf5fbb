//! What each status of Vault and OpenBao means to us. Bodies are looked at for a few known phrases and never
//! passed on.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::StatusCode;
use http::header::{DATE, RETRY_AFTER};
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
    let mentions = |phrase: &str| error.errors().any(|text| text.contains(phrase));
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
        404 if error.warns() => fault(
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
        500 => error.errors().any(|text| text.starts_with("invalid ")),
        _ => false,
    };
    if !is_rejection {
        return refused(answer, &what);
    }
    rejected(format!("{what} was rejected (status {status})")).with_request_id(error.request_id)
}

/// A login that fails as it is, until something changes at either side.
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

/// What a 403 says about the token that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenWord {
    /// It is dead.
    Dead,
    /// No more than that it may not, without a word of a policy: so some servers answer a token that they do not know.
    Doubtful,
    /// A policy denies. Servers say so of tokens that they know.
    Policy,
    /// Nothing that we know.
    Other,
}

/// Reads what a 403 says about the token. Versions differ in how much they say.
pub(super) fn token_word(denial: &Response) -> TokenWord {
    let error = envelope(denial);
    let says = |phrase: &str| error.errors().any(|text| text.contains(phrase));
    if says("invalid token") || says("bad token") {
        TokenWord::Dead
    } else if error.errors().eq(["permission denied"]) {
        TokenWord::Doubtful
    } else if says("1 error occurred") && says("permission denied") {
        TokenWord::Policy
    } else {
        TokenWord::Other
    }
}

/// Whether the server has no such endpoint, as opposed to nothing at the path.
pub(super) fn is_unsupported(answer: &Response) -> bool {
    let error = envelope(answer);
    let complains = error.errors().next().is_some() || error.warns();
    answer.status == StatusCode::METHOD_NOT_ALLOWED || (answer.status == StatusCode::NOT_FOUND && complains)
}

/// Whether the server itself says that there is nothing at the path. A 404 of something between us and the server
/// comes with a page or a JSON of its own and is a fault.
pub(super) fn is_nothing_there(answer: &Response, what: &str) -> Outcome<bool> {
    if answer.status != StatusCode::NOT_FOUND || is_unsupported(answer) {
        return Ok(false);
    }
    let error: ErrorEnvelope = decode(answer, what)?;
    if error.errors.is_none() && error.request_id.is_none() {
        return Err(not_understood(what));
    }
    Ok(true)
}

/// The server's time of day when it answered, to the second.
pub(super) fn time_of(answer: &Response) -> Option<DateTime<Utc>> {
    let date = answer.headers.get(DATE)?.to_str().ok()?;
    Some(DateTime::parse_from_rfc2822(date).ok()?.to_utc())
}

impl ErrorEnvelope {
    fn errors(&self) -> impl Iterator<Item = &str> {
        self.errors.iter().flatten().map(String::as_str)
    }

    fn warns(&self) -> bool {
        self.warnings
            .as_ref()
            .is_some_and(|warnings| !warnings.is_empty())
    }
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
    fn a_403_says_more_or_less_about_the_token() {
        for (body, word) in [
            (
                r#"{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}"#,
                TokenWord::Dead,
            ),
            (r#"{"errors":["permission denied"]}"#, TokenWord::Doubtful),
            (
                r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#,
                TokenWord::Policy,
            ),
            (
                r#"{"errors":["preflight capability check returned 403"]}"#,
                TokenWord::Other,
            ),
            ("<html>", TokenWord::Other),
        ] {
            assert_eq!(token_word(&answer(403, body)), word, "{body}");
        }
    }

    #[test]
    fn a_404_is_the_servers_only_in_its_own_shape() {
        for (body, there) in [
            (r#"{"errors":[]}"#, true),
            (r#"{"request_id":"r-1","data":{"data":null}}"#, true),
            (r#"{"message":"no Route matched with those values"}"#, false),
            ("{}", false),
            ("[]", false),
            ("<html>", false),
        ] {
            let told = is_nothing_there(&answer(404, body), "reading `x`");
            match told {
                Ok(nothing) => assert!(nothing && there, "{body}"),
                Err(fault) => assert!(!there && fault.reason == Reason::StoreProtocol, "{body}"),
            }
        }
    }

    #[test]
    fn a_server_tells_its_time() {
        let mut dated = answer(200, "");
        assert_eq!(time_of(&dated), None);
        let date = "Sun, 29 Nov 2026 18:28:45 GMT";
        dated.headers.insert(DATE, date.parse().unwrap());
        assert_eq!(time_of(&dated), Some("2026-11-29T18:28:45Z".parse().unwrap()));
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
