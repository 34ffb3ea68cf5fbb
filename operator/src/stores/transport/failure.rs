//! What a failed call becomes. The words are ours: texts of libraries may hold more than we want to show.

use std::error::Error;
use std::io;
use std::time::Duration;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use rustls::{AlertDescription, CertificateError};

use super::dial::{Refused, refusal};

/// Classifies an error of the HTTP library by its innermost cause.
pub(super) fn classify(error: &reqwest::Error, peer: &str) -> Fault {
    for cause in causes(error) {
        if let Some(Refused(why)) = cause.downcast_ref() {
            return refusal(*why, peer);
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return tls_failure(tls, peer);
        }
    }
    let what = if error.is_dns() {
        "its name does not resolve"
    } else if error.is_timeout() {
        "no connection was made in time"
    } else {
        io_words(error).unwrap_or(if error.is_connect() {
            "no connection could be made"
        } else {
            "the connection broke before the whole answer was there"
        })
    };
    unavailable(format!("`{peer}` cannot be reached: {what}"))
}

/// The fault of a call that took too long.
pub(super) fn deadline(peer: &str, limit: Duration) -> Fault {
    unavailable(format!(
        "`{peer}` did not answer within {} s",
        limit.as_secs_f32()
    ))
}

fn unavailable(message: String) -> Fault {
    Fault::new(Class::Transient, Reason::StoreUnavailable, message)
}

fn tls_failure(error: &rustls::Error, peer: &str) -> Fault {
    use CertificateError as Cert;
    let (what, advice) = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            Cert::UnknownIssuer => (
                "is not issued by a trusted CA",
                "set the store's CA to the one that issued it",
            ),
            Cert::NotValidForName | Cert::NotValidForNameContext { .. } => (
                "is for another name",
                "set the store's server name to one that the certificate holds",
            ),
            Cert::Expired | Cert::ExpiredContext { .. } => ("has expired", "renew it at the server"),
            Cert::NotValidYet | Cert::NotValidYetContext { .. } => ("is not valid yet", "compare the clocks"),
            Cert::Revoked => ("is revoked", "replace it at the server"),
            Cert::BadSignature => (
                "is not signed by the CA it names",
                "set the store's CA to the one that issued it",
            ),
            _ => ("is not acceptable", "check it with the server's administrator"),
        },
        rustls::Error::AlertReceived(alert) => return refused_by_peer(*alert, peer),
        rustls::Error::InvalidMessage(_) => {
            return tls_fault(
                format!("`{peer}` does not speak TLS"),
                "check scheme and port of the store's address",
            );
        }
        _ => return tls_fault(format!("the TLS handshake with `{peer}` failed"), ""),
    };
    tls_fault(format!("the certificate of `{peer}` {what}"), advice)
}

fn refused_by_peer(alert: AlertDescription, peer: &str) -> Fault {
    use AlertDescription as Alert;
    let advice = match alert {
        Alert::CertificateRequired => "the server wants a client certificate",
        Alert::BadCertificate
        | Alert::UnknownCA
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::UnsupportedCertificate => "the server does not accept the client certificate",
        Alert::UnrecognisedName => "the server does not know the server name",
        _ => "",
    };
    tls_fault(format!("`{peer}` ended the TLS handshake"), advice)
}

/// Not [`Class::Permanent`]: a certificate is often put right at the server.
fn tls_fault(message: String, advice: &'static str) -> Fault {
    Fault::new(Class::Denied, Reason::TlsFailed, message).advise(advice)
}

fn io_words(error: &reqwest::Error) -> Option<&'static str> {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .find_map(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Some("the connection was refused"),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Some("the connection was reset")
            }
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Some("there is no route to it")
            }
            _ => None,
        })
}

/// The chain of causes, looking also inside I/O errors that merely carry another one.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause: &&'a (dyn Error + 'static)| {
        let cause: &'a (dyn Error + 'static) = *cause;
        match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => cause.source(),
        }
    })
}
