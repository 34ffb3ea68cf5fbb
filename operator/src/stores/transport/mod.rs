//! One HTTP transport below every store: TLS by the store's own CA, addresses checked at each connection,
//! deadlines, a cap on bodies, no redirects, no proxies, buffers of ours wiped.
//!
//! It knows HTTP and nothing of any store: a status code is handed on as a number, never judged here. The copies
//! that HTTP and TLS libraries make of what passes through them are beyond its reach.

mod addresses;
mod body;
mod dial;
mod failure;
#[cfg(test)]
mod tests;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use tokio::sync::Semaphore;
use url::Url;

use super::Outcome;
use super::pool::SessionKey;

pub use addresses::Addresses;

/// How to reach one server.
pub struct TransportOptions {
    /// PEM certificates of the only CAs to trust; `None` trusts the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// The DNS name to ask for and to expect in the certificate, in place of the URL's host. It is also what the
    /// `Host` header says.
    pub server_name: Option<String>,
    /// Whether the server's certificate is verified at all.
    pub verify: bool,
    /// What we show when the server asks who we are.
    pub identity: Option<Identity>,
    /// Whether an `http` URL is accepted.
    pub plain_http_allowed: bool,
    /// Which addresses the administrator lets stores be at.
    pub addresses: Arc<Addresses>,
    /// For the TCP connection and the TLS handshake together.
    pub connect_timeout: Duration,
    /// For a whole call, from the start of the request to the last byte of the body. Waiting for one of the
    /// `connections` does not count.
    pub deadline: Duration,
    /// The longest body taken, in bytes.
    pub max_body: usize,
    /// How many calls run at once, and so the most connections opened.
    pub connections: usize,
}

/// A client certificate.
pub struct Identity {
    /// PEM: the certificate and what leads up to its CA.
    pub certificate_pem: Vec<u8>,
    /// PEM: its private key.
    pub key_pem: SecretBytes,
}

/// A request relative to the transport's base.
pub struct Request {
    /// GET, POST, LIST and so on.
    pub method: Method,
    /// Starts with `/` and is already percent-encoded.
    pub path_and_query: String,
    /// Headers; those known to carry a credential are marked sensitive on the way out.
    pub headers: HeaderMap,
    /// The body; wiped once the HTTP library has let go of it.
    pub body: Option<SecretBytes>,
}

/// An answer, whatever its status.
pub struct Response {
    /// As the server sent it, redirects included.
    pub status: StatusCode,
    /// As the server sent them.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: SecretBytes,
}

/// A pool of connections to one server.
pub struct Transport {
    client: reqwest::Client,
    /// Without a trailing slash.
    base: String,
    /// Host and port as the user wrote them, for messages.
    peer: String,
    /// The host, where it is an address.
    literal: dial::Literal,
    deadline: Duration,
    max_body: usize,
    calls: Semaphore,
}

/// Headers whose values are credentials.
const CREDENTIAL_HEADERS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-vault-token"),
    HeaderName::from_static("x-auth-token"),
    HeaderName::from_static("x-subject-token"),
];

impl TransportOptions {
    /// System roots, verification on, `https` only, 5 s to connect, 10 s and 4 MiB per call, 32 connections.
    #[must_use]
    pub fn new(addresses: Arc<Addresses>) -> Self {
        Self {
            ca_pem: None,
            server_name: None,
            verify: true,
            identity: None,
            plain_http_allowed: false,
            addresses,
            connect_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(10),
            max_body: 4 << 20,
            connections: 32,
        }
    }

    /// Adds everything that decides whom is trusted and what is shown to him. The rules about addresses, deadlines
    /// and sizes are the same for every store of a process.
    pub(super) fn mark<'a>(&'a self, key: &mut SessionKey<'a>) {
        let Self {
            ca_pem,
            server_name,
            verify,
            identity,
            plain_http_allowed,
            addresses: _,
            connect_timeout: _,
            deadline: _,
            max_body: _,
            connections: _,
        } = self;
        key.may_be(ca_pem.as_deref());
        key.may_be(server_name.as_deref().map(str::as_bytes));
        key.flag(*verify);
        key.flag(*plain_http_allowed);
        let identity = identity.as_ref();
        key.may_be(identity.map(|identity| &*identity.certificate_pem));
        key.may_be(identity.map(|identity| identity.key_pem.expose()));
    }
}

impl Transport {
    /// Prepares the pool; nothing is sent yet.
    pub fn new(base: &Url, options: &TransportOptions) -> Outcome<Self> {
        let peer = peer_of(base)?;
        check_scheme(base, options)?;

        let mut target = base.clone();
        if let Some(name) = &options.server_name {
            use_server_name(&mut target, name)?;
        }
        let resolver = dial::Resolver::new(
            base,
            options.server_name.as_deref(),
            Arc::clone(&options.addresses),
        );
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(options)?)
            .dns_resolver(resolver)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(options.connect_timeout)
            .pool_max_idle_per_host(options.connections)
            .user_agent(concat!("keyward/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| {
                Fault::new(
                    Class::Permanent,
                    Reason::TlsFailed,
                    format!("no client could be made for `{peer}`"),
                )
            })?;
        Ok(Self {
            client,
            base: target.as_str().trim_end_matches('/').to_owned(),
            peer,
            literal: dial::Literal::of(base, &options.addresses),
            deadline: options.deadline,
            max_body: options.max_body,
            calls: Semaphore::new(options.connections.max(1)),
        })
    }

    /// Sends one request and reads the whole answer, within the deadline and the cap.
    pub async fn send(&self, request: Request) -> Outcome<Response> {
        // An error would mean a closed semaphore, which this one never is.
        let _slot = self.calls.acquire().await;
        match tokio::time::timeout(self.deadline, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failure::deadline(&self.peer, self.deadline)),
        }
    }

    /// Host and port, for messages.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    async fn exchange(&self, request: Request) -> Outcome<Response> {
        let Request {
            method,
            path_and_query,
            mut headers,
            body,
        } = request;
        self.literal
            .check()
            .map_err(|why| dial::refusal(why, &self.peer))?;
        let url = self.url(&path_and_query)?;
        mark_sensitive(&mut headers);
        let mut call = self.client.request(method, url).headers(headers);
        if let Some(body) = body {
            call = call.body(body::outgoing(body));
        }
        let answer = call
            .send()
            .await
            .map_err(|error| failure::classify(&error, &self.peer))?;
        let status = answer.status();
        let headers = answer.headers().clone();
        let body = body::incoming(answer, self.max_body, &self.peer).await?;
        Ok(Response {
            status,
            headers,
            body,
        })
    }

    fn url(&self, path_and_query: &str) -> Outcome<Url> {
        let wrong = || {
            Fault::new(
                Class::Permanent,
                Reason::SpecInvalid,
                "the request path is not a path",
            )
        };
        if !path_and_query.starts_with('/') {
            return Err(wrong());
        }
        Url::parse(&format!("{}{path_and_query}", self.base)).map_err(|_| wrong())
    }
}

/// A header value from a credential, marked so that it is neither printed nor kept in compression tables.
pub fn credential_header(value: &[u8]) -> Outcome<HeaderValue> {
    let mut value = HeaderValue::from_bytes(value).map_err(|_| {
        Fault::new(
            Class::Permanent,
            Reason::CredentialRejected,
            "the credential holds characters that cannot be sent in a header",
        )
        .advise("check it for line breaks and other control characters")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path_and_query", &self.path_and_query)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TransportOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportOptions")
            .field("server_name", &self.server_name)
            .field("verify", &self.verify)
            .field("own_ca", &self.ca_pem.is_some())
            .field("identity", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

fn peer_of(base: &Url) -> Outcome<String> {
    let invalid = |what: &'static str| {
        Err(Fault::new(Class::Permanent, Reason::SpecInvalid, what)
            .advise("give an address of the form https://host:port"))
    };
    if !base.username().is_empty() || base.password().is_some() {
        return invalid("the store's address carries a user name or a password");
    }
    if base.query().is_some() || base.fragment().is_some() {
        return invalid("the store's address carries a query or a fragment");
    }
    match (base.host_str(), base.port_or_known_default()) {
        (Some(host), Some(port)) => Ok(format!("{host}:{port}")),
        _ => invalid("the store's address names no host"),
    }
}

fn check_scheme(base: &Url, options: &TransportOptions) -> Outcome<()> {
    match base.scheme() {
        "https" => Ok(()),
        "http" if options.plain_http_allowed => Ok(()),
        "http" => Err(Fault::new(
            Class::Permanent,
            Reason::InsecureRefused,
            "the store's address is plain http, which is not allowed",
        )
        .advise("use https")),
        _ => Err(Fault::new(
            Class::Permanent,
            Reason::SpecInvalid,
            "the store's address is neither https nor http",
        )),
    }
}

/// Puts `name` where TLS takes the expected name from; the resolver leads it back to the real host.
fn use_server_name(target: &mut Url, name: &str) -> Outcome<()> {
    let invalid = || {
        Fault::new(
            Class::Permanent,
            Reason::SpecInvalid,
            format!("the server name `{name}` is not a DNS name"),
        )
    };
    target.set_host(Some(name)).map_err(|_| invalid())?;
    match target.host() {
        Some(url::Host::Domain(_)) => Ok(()),
        // An address would be dialled as it stands, past the resolver and its checks.
        _ => Err(invalid()),
    }
}

fn mark_sensitive(headers: &mut HeaderMap) {
    for name in &CREDENTIAL_HEADERS {
        if let Some(value) = headers.get_mut(name) {
            value.set_sensitive(true);
        }
    }
}
