//! `clouds.yaml`, the file OpenStack clients share, read from a Secret.
//!
//! Only what a key manager needs is taken, and what cannot be honoured is refused instead of ignored. The file
//! holds passwords, so no error here repeats anything of it but the line and the names of keys and clouds.

mod auth;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;

use self::auth::Auth;
use super::config::{Interface, KeystoneAuth};

/// More than this is no `clouds.yaml`.
const MAX_BYTES: usize = 256 * 1024;

/// One cloud of a `clouds.yaml`.
pub struct Cloud {
    /// Keystone's address.
    pub auth_url: Url,
    /// How to log in.
    pub auth: KeystoneAuth,
    /// Which region.
    pub region: Option<String>,
    /// Which of the catalog's endpoints.
    pub interface: Interface,
    /// Barbican's address, taken instead of the catalog's.
    pub endpoint: Option<Url>,
    /// `false` where the file switches TLS verification off: never without the store's own consent.
    pub verify: bool,
}

/// Why a `clouds.yaml` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudsError {
    /// The file is larger than such a file can be.
    #[error("clouds.yaml has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// The file is not YAML of this shape.
    #[error("clouds.yaml cannot be read near line {line}: it is not YAML of the expected shape")]
    Syntax {
        /// The line, counted from 1; 0 where the reader cannot tell.
        line: u64,
    },
    /// The file has no cloud at all.
    #[error("clouds.yaml has no entry below `clouds`")]
    NoCloud,
    /// The file has several clouds and the store names none.
    #[error("clouds.yaml has {count} clouds; name one in the store")]
    Several {
        /// How many.
        count: usize,
    },
    /// The file lacks the cloud that the store names.
    #[error("clouds.yaml has no cloud `{0}`")]
    Unknown(String),
    /// A key is missing.
    #[error("clouds.yaml lacks `{0}`")]
    Missing(&'static str),
    /// Two keys say the same thing twice.
    #[error("clouds.yaml has both `{0}` and `{1}`; keep one")]
    Both(&'static str, &'static str),
    /// A key holds something that cannot be used.
    #[error("clouds.yaml: `{key}` {problem}")]
    Unusable {
        /// The key.
        key: &'static str,
        /// What is wrong with it and what to do instead.
        problem: &'static str,
    },
}

/// Reads the cloud called `name`, or the only one there is.
///
/// `insecure_allowed` says that store and administrator have both agreed to unverified TLS.
pub fn parse(file: &SecretBytes, name: Option<&str>, insecure_allowed: bool) -> Result<Cloud, CloudsError> {
    if file.len() > MAX_BYTES {
        return Err(CloudsError::TooLarge);
    }
    let mut clouds = serde_saphyr::from_slice::<File>(file.expose())
        .map_err(|error| CloudsError::Syntax {
            // The error's own text quotes the file.
            line: error.location().map_or(0, |at| at.line()),
        })?
        .clouds
        .unwrap_or_default();
    let entry = match name {
        Some(name) => clouds
            .remove(name)
            .ok_or_else(|| CloudsError::Unknown(name.to_owned()))?,
        None if clouds.len() > 1 => return Err(CloudsError::Several { count: clouds.len() }),
        None => clouds.pop_first().ok_or(CloudsError::NoCloud)?.1,
    };
    entry.into_cloud(insecure_allowed)
}

impl From<CloudsError> for Fault {
    fn from(error: CloudsError) -> Self {
        Self::new(Class::Permanent, Reason::SpecInvalid, error.to_string())
    }
}

#[derive(Deserialize)]
struct File {
    clouds: Option<BTreeMap<String, Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    auth_type: Option<String>,
    auth: Option<Auth>,
    region_name: Option<String>,
    interface: Option<String>,
    endpoint_type: Option<String>,
    key_manager_region_name: Option<String>,
    key_manager_interface: Option<String>,
    key_manager_endpoint_type: Option<String>,
    key_manager_endpoint_override: Option<String>,
    key_manager_endpoint: Option<String>,
    key_manager_service_type: Option<IgnoredAny>,
    key_manager_service_name: Option<IgnoredAny>,
    regions: Option<IgnoredAny>,
    verify: Option<bool>,
    insecure: Option<bool>,
    cacert: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    profile: Option<String>,
}

impl Entry {
    fn into_cloud(self, insecure_allowed: bool) -> Result<Cloud, CloudsError> {
        self.refuse_what_cannot_be_honoured()?;
        let verify = self.verify.unwrap_or(true) && !self.insecure.unwrap_or(false);
        if !verify && !insecure_allowed {
            return Err(CloudsError::Unusable {
                key: if self.insecure == Some(true) {
                    "insecure"
                } else {
                    "verify"
                },
                problem: "switches TLS verification off; give the CA in the store's `ca`, \
                          or make the choice under the store's `insecure`",
            });
        }
        let auth = self.auth.ok_or(CloudsError::Missing("auth"))?;
        let auth_url = auth
            .auth_url
            .as_deref()
            .ok_or(CloudsError::Missing("auth.auth_url"))?;
        let auth_url = url("auth.auth_url", auth_url)?;
        let endpoint = one_of(
            (
                "key_manager_endpoint_override",
                self.key_manager_endpoint_override,
            ),
            ("key_manager_endpoint", self.key_manager_endpoint),
        )?
        .map(|text| url("key_manager_endpoint_override", &text))
        .transpose()?;
        // What is said of the key manager goes before what is said of every service.
        let interface = one_of(
            ("key_manager_interface", self.key_manager_interface),
            ("key_manager_endpoint_type", self.key_manager_endpoint_type),
        )?;
        let interface = match interface {
            None => one_of(
                ("interface", self.interface),
                ("endpoint_type", self.endpoint_type),
            )?,
            given => given,
        };
        let interface = interface
            .map(|text| text.parse::<Interface>())
            .transpose()
            .map_err(|_| CloudsError::Unusable {
                key: "interface",
                problem: "is none of public, internal and admin",
            })?
            .unwrap_or_default();
        Ok(Cloud {
            auth_url,
            auth: auth.into_login(self.auth_type.as_deref())?,
            region: self.key_manager_region_name.or(self.region_name),
            interface,
            endpoint,
            verify,
        })
    }

    fn refuse_what_cannot_be_honoured(&self) -> Result<(), CloudsError> {
        let refused = [
            (
                self.cacert.is_some(),
                "cacert",
                "is a file path, which means nothing in this pod; give the CA in the store's `ca`",
            ),
            (
                self.cert.is_some() || self.key.is_some(),
                "cert",
                "asks for a client certificate, which is not supported for Barbican",
            ),
            (
                self.profile.is_some(),
                "profile",
                "refers to vendor files that are not here; write the settings out",
            ),
            (
                self.regions.is_some(),
                "regions",
                "may name several; name one by `region_name`",
            ),
            (
                self.key_manager_service_type.is_some() || self.key_manager_service_name.is_some(),
                "key_manager_service_type",
                "asks for another service of the catalog; Barbican is the one of type `key-manager`, or what \
                 `key_manager_endpoint_override` names",
            ),
        ];
        match refused.into_iter().find(|(present, ..)| *present) {
            Some((_, key, problem)) => Err(CloudsError::Unusable { key, problem }),
            None => Ok(()),
        }
    }
}

fn one_of<T>(
    (first, a): (&'static str, Option<T>),
    (second, b): (&'static str, Option<T>),
) -> Result<Option<T>, CloudsError> {
    match (a, b) {
        (Some(_), Some(_)) => Err(CloudsError::Both(first, second)),
        (a, b) => Ok(a.or(b)),
    }
}

fn url(key: &'static str, text: &str) -> Result<Url, CloudsError> {
    Url::parse(text).map_err(|_| CloudsError::Unusable {
        key,
        problem: "is not an address",
    })
}
