//! What an answer that is not the wanted one means.
//!
//! Three shapes of error bodies exist and any of them may repeat the caller's input, so no body is ever looked at:
//! the status and our own words must do, and the request id leads to the other side's log.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;

use crate::stores::transport::Response;

/// Longer waits than this are not believed.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// An answer, with what it answers.
pub(super) struct Answered<'a> {
    /// Who answered.
    pub(super) server: &'a str,
    /// What was tried.
    pub(super) tried: &'a str,
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
}

impl<'a> Answered<'a> {
    pub(super) fn by(server: &'a str, tried: &'a str, answer: &'a Response) -> Self {
        Self {
            server,
            tried,
            status: answer.status,
            headers: &answer.headers,
        }
    }

    /// The fault that this status stands for.
    pub(super) fn fault(&self) -> Fault {
        let (class, reason, advice) = judge(self.status);
        let fault = Fault::new(
            class,
            reason,
            format!(
                "{}: {} answered {}",
                self.tried,
                self.server,
                self.status.as_u16()
            ),
        );
        fault
            .advise(advice)
            .with_request_id(request_id(self.headers))
            .with_retry_after(retry_after(self.headers))
    }
}

fn judge(status: StatusCode) -> (Class, Reason, &'static str) {
    match status.as_u16() {
        401 => (
            Class::Denied,
            Reason::RemoteDenied,
            "a new token is refused as well: check the user's role in the project, and that the access rules of the \
             application credential cover this call and the key manager has its service type set",
        ),
        403 => (
            Class::Denied,
            Reason::RemoteDenied,
            "the user needs a role that may read secrets (`reader` may not), or a read entry in the secret's ACL",
        ),
        404 => (Class::Absent, Reason::RemoteNotFound, ""),
        406 => (
            Class::Permanent,
            Reason::StoreProtocol,
            "the server does not speak the version or the content type that Keyward asks for",
        ),
        413 => (Class::Permanent, Reason::RemoteTooLarge, ""),
        429 => (Class::Throttled, Reason::StoreThrottled, ""),
        300..=399 => (
            Class::Permanent,
            Reason::StoreProtocol,
            "redirects are never followed with a token: give the final address",
        ),
        408 | 425 | 500..=599 => (Class::Transient, Reason::StoreUnavailable, ""),
        _ => (
            Class::Permanent,
            Reason::StoreProtocol,
            "check that the address is the right one and look the request up in the server's log",
        ),
    }
}

/// The id under which the server has logged the request, where it looks like one.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-openstack-request-id")?.to_str().ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (id.len() <= 64 && !id.is_empty() && id.chars().all(plain)).then(|| id.to_owned())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, headers: &[(&'static str, &str)]) -> Fault {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        Answered {
            server: "Barbican",
            tried: "listing secrets",
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
        }
        .fault()
    }

    #[test]
    fn each_status_has_its_class() {
        for (status, class, reason) in [
            (302, Class::Permanent, Reason::StoreProtocol),
            (400, Class::Permanent, Reason::StoreProtocol),
            (401, Class::Denied, Reason::RemoteDenied),
            (403, Class::Denied, Reason::RemoteDenied),
            (404, Class::Absent, Reason::RemoteNotFound),
            (406, Class::Permanent, Reason::StoreProtocol),
            (413, Class::Permanent, Reason::RemoteTooLarge),
            (429, Class::Throttled, Reason::StoreThrottled),
            (500, Class::Transient, Reason::StoreUnavailable),
            (503, Class::Transient, Reason::StoreUnavailable),
        ] {
            let fault = fault(status, &[]);
            assert_eq!((fault.class, fault.reason), (class, reason), "{status}");
            assert!(fault.message.contains(&status.to_string()));
        }
    }

    #[test]
    fn the_request_id_and_the_wait_are_kept_where_they_are_believable() {
        let told = fault(
            429,
            &[("x-openstack-request-id", "req-1-a"), ("retry-after", "7")],
        );
        assert_eq!(told.request_id.as_deref(), Some("req-1-a"));
        assert_eq!(told.retry_after, Some(Duration::from_secs(7)));

        let odd = fault(
            429,
            &[
                ("x-openstack-request-id", "<b>x</b>"),
                ("retry-after", "99999999"),
            ],
        );
        assert_eq!(odd.request_id, None);
        assert_eq!(odd.retry_after, Some(LONGEST_WAIT));
    }
}
