//! A small HTTP/1.1 server for faults that a real server cannot be made to show: hung calls, cut bodies, odd
//! statuses. For tests of the transport and of the stores above it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use url::Url;

/// A listening server; it ends when dropped.
pub(crate) struct StandIn {
    address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// One request as it arrived.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What to answer.
pub(crate) enum Answer {
    /// A whole answer.
    Whole(u16, Vec<(String, String)>, Vec<u8>),
    /// Announces the body's length and ends after half of it.
    Cut(Vec<u8>),
    /// Never answers.
    Hang,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::Whole(
            status,
            vec![("content-type".into(), "application/json".into())],
            body.into(),
        )
    }

    pub(crate) fn with_header(self, name: &str, value: &str) -> Self {
        match self {
            Self::Whole(status, mut headers, body) => {
                headers.push((name.into(), value.into()));
                Self::Whole(status, headers, body)
            }
            other => other,
        }
    }
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

type Handler = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

impl StandIn {
    /// Serves plain HTTP.
    pub(crate) async fn plain(handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(handler)).await
    }

    /// Serves TLS with a certificate for `name`; gives the PEM of its CA as well.
    pub(crate) async fn tls(
        name: &str,
        handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> (Self, Vec<u8>) {
        let (acceptor, ca) = acceptor(name);
        (Self::start(Some(acceptor), Arc::new(handler)).await, ca)
    }

    pub(crate) fn url(&self) -> Url {
        Url::parse(&format!("{}://{}", self.scheme, self.address)).expect("an address makes a URL")
    }

    /// The same server by a host name instead of an address.
    pub(crate) fn url_by_name(&self, host: &str) -> Url {
        Url::parse(&format!("{}://{host}:{}", self.scheme, self.address.port())).expect("a name makes a URL")
    }

    /// Every request so far, in order of arrival.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .expect("no test panics while it holds the lock")
            .clone()
    }

    /// How many requests of this method and path (without the query) arrived.
    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        let matches = |seen: &&Seen| seen.method == method && seen.target.split('?').next() == Some(path);
        self.seen().iter().filter(matches).count()
    }

    async fn start(tls: Option<TlsAcceptor>, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, handler, log) = (tls.clone(), Arc::clone(&handler), Arc::clone(&log));
                connections.spawn(async move {
                    match tls {
                        None => serve(socket, handler, log).await,
                        Some(tls) => {
                            // A failed handshake is what some tests are about.
                            if let Ok(stream) = tls.accept(socket).await {
                                serve(stream, handler, log).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            scheme,
            seen,
            task,
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves one connection until either side ends it.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, handler: Handler, log: Arc<Mutex<Vec<Seen>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        log.lock()
            .expect("no test panics while it holds the lock")
            .push(request.clone());
        match handler(&request) {
            Answer::Whole(status, headers, body) => {
                let mut answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    let _ = write!(answer, "{name}: {value}\r\n");
                }
                answer.push_str("\r\n");
                // In one piece: two small ones would wait for each other's acknowledgement.
                let answer = [answer.as_bytes(), &body].concat();
                if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            Answer::Cut(body) => {
                let head = format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&body[..body.len() / 2]).await;
                let _ = stream.shutdown().await;
                return;
            }
            Answer::Hang => std::future::pending().await,
        }
    }
    // Like a real server, also to somebody who speaks TLS to it.
    let _ = stream
        .write_all(b"HTTP/1.1 400 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .await;
}

async fn read_request(stream: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Seen> {
    let first = read_line(stream).await?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream).await?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ")?;
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut seen = Seen {
        method,
        target,
        headers,
        body: Vec::new(),
    };
    let length = seen.header("content-length").map_or(Ok(0), str::parse).ok()?;
    seen.body = vec![0; length];
    stream.read_exact(&mut seen.body).await.ok()?;
    Some(seen)
}

async fn read_line(stream: &mut (impl AsyncBufReadExt + Unpin)) -> Option<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await.ok()?;
    (read > 0).then(|| line.trim_end().to_owned())
}

/// CAs of one name would be taken for one another.
static MADE: AtomicUsize = AtomicUsize::new(0);

fn acceptor(name: &str) -> (TlsAcceptor, Vec<u8>) {
    let mut issuer = CertificateParams::default();
    issuer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    issuer
        .distinguished_name
        .push(DnType::CommonName, format!("CA {number}"));
    let issuer = CertifiedIssuer::self_signed(issuer, KeyPair::generate().expect("a key can be made"))
        .expect("a CA can be made");
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = CertificateParams::new([name.to_owned()])
        .expect("the name fits a certificate")
        .signed_by(&key, &issuer)
        .expect("the CA can sign");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("key and certificate fit");
    (TlsAcceptor::from(Arc::new(config)), issuer.pem().into_bytes())
}
