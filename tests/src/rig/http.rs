//! HTTP clients of the tests' own side. They trust one certificate authority and no other.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::tls::Identity;

/// Longer than any server of the rig needs, short enough to notice one that hangs.
const TIMEOUT: Duration = Duration::from_mins(1);

/// What is asked in the clear is on loopback and answers from memory.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that trusts `ca` (PEM) and shows no certificate.
pub fn client(ca: &str) -> Result<reqwest::Client> {
    build(ca, None, &[])
}

/// A client that trusts `ca` (PEM) and sends many requests over one connection where the server can.
pub fn multiplexing_client(ca: &str) -> Result<reqwest::Client> {
    build(ca, None, &[b"h2", b"http/1.1"])
}

/// A client that trusts `ca` (PEM) and shows a certificate.
pub fn client_as(ca: &str, identity: &Identity) -> Result<reqwest::Client> {
    build(ca, Some(identity), &[])
}

/// A client for plain http, such as the operator's own endpoint on loopback.
pub fn plain_client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(PLAIN_TIMEOUT)
        .build()?)
}

fn build(ca: &str, identity: Option<&Identity>, protocols: &[&[u8]]) -> Result<reqwest::Client> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.context("read the certificate authority")?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => config.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?,
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .build()?)
}
