//! The TLS side of a transport: whom we trust and who we are.

use std::sync::{Arc, OnceLock};

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, WantsClientCert};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{Identity, TransportOptions};
use crate::stores::Outcome;

/// Builds the configuration that `options` ask for.
pub(super) fn client_config(options: &TransportOptions) -> Outcome<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions");
    let builder = if options.verify {
        builder.with_root_certificates(roots(options.ca_pem.as_deref())?)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
    let mut config = with_identity(builder, options.identity.as_ref())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(ca_pem: Option<&[u8]>) -> Outcome<Arc<RootCertStore>> {
    let Some(pem) = ca_pem else {
        return system_roots();
    };
    let invalid = |what: &'static str| {
        Fault::new(Class::Permanent, Reason::TlsFailed, what).advise("give the CA as PEM certificates")
    };
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem).map_err(|()| invalid("the CA bundle is not PEM"))? {
        store
            .add(certificate)
            .map_err(|_| invalid("the CA bundle holds a certificate that cannot be read"))?;
    }
    if store.is_empty() {
        return Err(invalid("the CA bundle holds no certificate"));
    }
    Ok(Arc::new(store))
}

/// Read once: a few hundred certificates are too many to hold per store.
fn system_roots() -> Outcome<Arc<RootCertStore>> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(store)
    });
    if roots.is_empty() {
        return Err(Fault::new(
            Class::Permanent,
            Reason::TlsFailed,
            "the store names no CA and the system has none",
        )
        .advise("set the store's CA"));
    }
    Ok(Arc::clone(roots))
}

fn with_identity(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<&Identity>,
) -> Outcome<ClientConfig> {
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let invalid = |what: &'static str| Fault::new(Class::Permanent, Reason::CredentialMissing, what);
    let chain = certificates(&identity.certificate_pem)
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| invalid("the client certificate is not PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose())
        .map_err(|_| invalid("the client certificate's private key is not PEM"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|_| invalid("the client certificate and its private key do not fit together"))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ()> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| ())
}

/// Accepts any certificate; the handshake itself is still checked.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
