//! A small HTTP/1.1 server: below the stand-ins, and for faults that a real server cannot be made to show, such as
//! hung calls, cut bodies and odd statuses.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use url::Url;

/// A listening server; it ends when dropped.
pub struct StandIn {
    address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    answering: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// One request as it arrived.
#[derive(Clone)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    headers: Vec<(String, String)>,
    /// The body, empty if there is none.
    pub body: Vec<u8>,
    /// The certificate that the client has shown, DER. Only the possession of its key was checked.
    pub client_certificate: Option<Vec<u8>>,
}

/// What to answer.
pub enum Answer {
    /// A whole answer.
    Whole(u16, Vec<(String, String)>, Vec<u8>),
    /// Announces the body's length and ends after half of it.
    Cut(Vec<u8>),
    /// Never answers.
    Hang,
}

impl Answer {
    /// A whole answer of JSON.
    #[must_use]
    pub fn json(status: u16, body: &str) -> Self {
        Self::Whole(
            status,
            vec![("content-type".into(), "application/json".into())],
            body.into(),
        )
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn with_header(self, name: &str, value: &str) -> Self {
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
    /// A request that did not come over the network.
    #[must_use]
    pub fn new(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: headers.iter().map(own).collect(),
            body: body.to_vec(),
            client_certificate: None,
        }
    }

    /// The path as sent, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
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
    pub async fn plain(handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(handler)).await
    }

    /// Serves TLS with a certificate for `names`; gives the PEM of its CA as well. A client may show a certificate.
    pub async fn tls(
        names: &[&str],
        handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> (Self, Vec<u8>) {
        let (acceptor, ca) = acceptor(names);
        (Self::start(Some(acceptor), Arc::new(handler)).await, ca)
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> Url {
        Url::parse(&format!("{}://{}", self.scheme, self.address)).expect("an address makes a URL")
    }

    /// The same server by a host name instead of an address.
    #[must_use]
    pub fn url_by_name(&self, host: &str) -> Url {
        Url::parse(&format!("{}://{host}:{}", self.scheme, self.address.port())).expect("a name makes a URL")
    }

    /// Every request so far, in order of arrival.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .expect("no test panics while it holds the lock")
            .clone()
    }

    /// How many requests of this method and path (without the query) arrived.
    #[must_use]
    pub fn count(&self, method: &str, path: &str) -> usize {
        let matches = |seen: &&Seen| seen.method == method && seen.path() == path;
        self.seen().iter().filter(matches).count()
    }

    /// Holds back answers, which are made as ever, from now on and until this is called with `false`.
    pub fn hold(&self, hold: bool) {
        self.answering.send_replace(!hold);
    }

    async fn start(tls: Option<TlsAcceptor>, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let log = Arc::clone(&seen);
        let (answering, gate) = watch::channel(true);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, handler, log) = (tls.clone(), Arc::clone(&handler), Arc::clone(&log));
                let gate = gate.clone();
                connections.spawn(async move {
                    match tls {
                        None => serve(socket, None, handler, log, gate).await,
                        Some(tls) => {
                            // A failed handshake is what some tests are about.
                            if let Ok(stream) = tls.accept(socket).await {
                                let shown = stream.get_ref().1.peer_certificates();
                                let shown = shown.and_then(|chain| Some(chain.first()?.to_vec()));
                                serve(stream, shown, handler, log, gate).await;
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
            answering,
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
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    shown: Option<Vec<u8>>,
    handler: Handler,
    log: Arc<Mutex<Vec<Seen>>>,
    mut gate: watch::Receiver<bool>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut stream).await {
        request.client_certificate.clone_from(&shown);
        log.lock()
            .expect("no test panics while it holds the lock")
            .push(request.clone());
        let answer = handler(&request);
        // It fails where the stand-in is gone, and its connections with it.
        let _ = gate.wait_for(|answering| *answering).await;
        match answer {
            Answer::Whole(status, headers, body) => {
                let mut answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
                if !headers.iter().any(|(name, _)| name == "date") {
                    let _ = write!(answer, "date: {}\r\n", date());
                }
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

/// The time of day, as every server tells it.
fn date() -> String {
    let now: DateTime<Utc> = SystemTime::now().into();
    now.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
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
        client_certificate: None,
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

fn acceptor(names: &[&str]) -> (TlsAcceptor, Vec<u8>) {
    let mut issuer = CertificateParams::default();
    issuer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    issuer
        .distinguished_name
        .push(DnType::CommonName, format!("CA {number}"));
    let issuer = CertifiedIssuer::self_signed(issuer, KeyPair::generate().expect("a key can be made"))
        .expect("a CA can be made");
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        .expect("the names fit a certificate")
        .signed_by(&key, &issuer)
        .expect("the CA can sign");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_client_cert_verifier(Arc::new(AnyClient(provider)))
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("key and certificate fit");
    (TlsAcceptor::from(Arc::new(config)), issuer.pem().into_bytes())
}

/// Lets a client show a certificate, or not. Whether it is a good one is decided above.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
