//! A throw-away certificate authority and the certificates it signs. Keys are ECDSA P-256.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

/// The file of an authority's certificate in the folder of [`Authority::save`].
pub const CA_FILE: &str = "ca.crt";

/// A certificate authority that lives as long as a run.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

/// Where an identity was written.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    /// PEM file of the certificate.
    pub certificate: PathBuf,
    /// PEM file of the private key, readable by its owner alone.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority with a key of its own.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = params(name, None, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority that [`Self::save`] wrote.
    pub fn load(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let certificate = read(CA_FILE)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&read("ca.key")?)?)?;
        Ok(Self { certificate, issuer })
    }

    /// Writes `ca.crt` and `ca.key` and returns where they are.
    pub fn save(&self, folder: &Path) -> Result<IdentityFiles> {
        let identity = Identity {
            certificate: self.certificate.clone(),
            key: self.issuer.key().serialize_pem(),
        };
        identity.save(folder, "ca")
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A server certificate for host names and addresses.
    pub fn server(&self, name: &str, hosts: &[&str]) -> Result<Identity> {
        self.sign(params(name, None, hosts)?, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate. Kubernetes reads the user from `name` and the group from `organization`.
    pub fn client(&self, name: &str, organization: Option<&str>) -> Result<Identity> {
        self.sign(
            params(name, organization, &[])?,
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

impl Identity {
    /// Writes `<stem>.crt` and `<stem>.key`.
    pub fn save(&self, folder: &Path, stem: &str) -> Result<IdentityFiles> {
        let files = IdentityFiles {
            certificate: folder.join(format!("{stem}.crt")),
            key: folder.join(format!("{stem}.key")),
        };
        fs::write(&files.certificate, &self.certificate)
            .with_context(|| format!("write {}", files.certificate.display()))?;
        write_private(&files.key, self.key.as_bytes())?;
        Ok(files)
    }
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("write {}", path.display()))
}

/// Valid from yesterday (clocks differ) for a month (state of `rig up` may be old).
fn params(name: &str, organization: Option<&str>, hosts: &[&str]) -> Result<CertificateParams> {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name = subject;
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::days(1);
    params.not_after = now + time::Duration::days(30);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_authority_signs_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::new("keyward rig").unwrap();
        first.save(folder.path()).unwrap();
        let again = Authority::load(folder.path()).unwrap();
        assert_eq!(again.certificate(), first.certificate());

        let issued = again.client("someone", Some("some group")).unwrap();
        assert!(verifies(&issued.certificate, first.certificate()));
        assert!(!verifies(
            &issued.certificate,
            Authority::new("keyward rig").unwrap().certificate()
        ));
    }

    fn verifies(certificate: &str, authority: &str) -> bool {
        use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
            .unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .unwrap();
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        verifier
            .verify_client_cert(&certificate, &[], UnixTime::now())
            .is_ok()
    }
}
