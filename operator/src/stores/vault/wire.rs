//! Carries the client library's typed requests over our own transport. The library's executor is never used: its
//! errors keep bodies and its settings print tokens.

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use rustify::endpoint::Endpoint;
use serde::Deserialize;

use super::classify::not_understood;
use super::endpoints::DataEnvelope;
use crate::stores::Outcome;
use crate::stores::transport::{Request, Response, Transport, credential_header};

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// Only path and query of what the request builder makes are used.
const ANY_BASE: &str = "http://vault/v1";

/// A server, without a session.
#[derive(Debug)]
pub(super) struct Wire {
    transport: Transport,
}

/// A request ready to be sent. Making it apart from sending it lets credentials be wiped from the library's
/// structs before anything is awaited.
pub(super) struct Prepared {
    method: Method,
    path_and_query: String,
    body: Option<SecretBytes>,
}

/// In whose name and where a call is made.
#[derive(Clone, Copy, Default)]
pub(super) struct Caller<'a> {
    pub(super) token: Option<&'a SecretBytes>,
    pub(super) namespace: Option<&'a HeaderValue>,
}

impl Wire {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport }
    }

    /// Sends one request and gives the answer, whatever its status.
    pub(super) async fn call<E: Endpoint>(&self, endpoint: &E, caller: Caller<'_>) -> Outcome<Response> {
        self.send(Prepared::new(endpoint)?, caller).await
    }

    /// As [`Wire::call`], for a request made before.
    pub(super) async fn send(&self, prepared: Prepared, caller: Caller<'_>) -> Outcome<Response> {
        let Prepared {
            method,
            path_and_query,
            body,
        } = prepared;
        let headers = headers(caller)?;
        self.transport
            .send(Request {
                method,
                path_and_query,
                headers,
                body,
            })
            .await
    }

    /// Host and port, for messages.
    pub(super) fn peer(&self) -> &str {
        self.transport.peer()
    }
}

impl Prepared {
    /// Takes method, path and body from one of the library's requests.
    pub(super) fn new<E: Endpoint>(endpoint: &E) -> Outcome<Self> {
        let body = endpoint.body().map_err(|_| malformed())?.map(SecretBytes::new);
        Ok(Self {
            method: endpoint.method().into(),
            path_and_query: path_and_query(endpoint)?,
            body: body.filter(|body| !body.is_empty()),
        })
    }
}

/// Decodes `data` of an answer.
pub(super) fn data_of<T: for<'de> Deserialize<'de>>(answer: &Response, what: &str) -> Outcome<T> {
    decode::<DataEnvelope<T>>(answer, what)?
        .data
        .ok_or_else(|| not_understood(what))
}

/// Decodes a whole answer. The parser's own error may quote the body and is dropped.
pub(super) fn decode<'a, T: Deserialize<'a>>(answer: &'a Response, what: &str) -> Outcome<T> {
    serde_json::from_slice(answer.body.expose()).map_err(|_| not_understood(what))
}

/// A namespace as a header value.
pub(super) fn namespace_header(name: &str) -> Outcome<HeaderValue> {
    HeaderValue::from_str(name).map_err(|_| {
        Fault::new(
            Class::Permanent,
            Reason::SpecInvalid,
            "the namespace cannot be sent in a header",
        )
    })
}

fn headers(caller: Caller<'_>) -> Outcome<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(3);
    // The server refuses calls without it where it guards against forged requests.
    headers.insert(REQUEST, HeaderValue::from_static("true"));
    if let Some(token) = caller.token {
        headers.insert(TOKEN, credential_header(token.expose())?);
    }
    if let Some(namespace) = caller.namespace {
        headers.insert(NAMESPACE, namespace.clone());
    }
    Ok(headers)
}

/// Some of the library's paths begin with a slash, or with a tab.
fn path_and_query<E: Endpoint>(endpoint: &E) -> Outcome<String> {
    let path = endpoint.path();
    let query = endpoint.query().map_err(|_| malformed())?;
    let path = path.trim_start_matches(['/', '\t']);
    let url = rustify::http::build_url(ANY_BASE, path, query).map_err(|_| malformed())?;
    url.path_and_query()
        .map(ToString::to_string)
        .ok_or_else(malformed)
}

fn malformed() -> Fault {
    Fault::new(
        Class::Permanent,
        Reason::SpecInvalid,
        "the request could not be put together",
    )
}

#[cfg(test)]
mod tests {
    use vaultrs::api::kv2::requests::ReadSecretRequest;
    use vaultrs::api::token::requests::RevokeTokenSelfRequest;

    use super::*;

    #[test]
    fn paths_are_encoded_piece_by_piece() {
        let read = ReadSecretRequest {
            mount: "team a/kv".into(),
            path: "x?y/ü%2f#".into(),
            version: Some(3),
        };
        assert_eq!(
            path_and_query(&read).unwrap(),
            "/v1/team%20a/kv/data/x%3Fy/%C3%BC%252f%23?version=3"
        );
        assert_eq!(
            path_and_query(&RevokeTokenSelfRequest {}).unwrap(),
            "/v1/auth/token/revoke-self"
        );
    }
}
