//! What a Barbican store needs to know, as plain data. Nothing here performs I/O.

use std::str::FromStr;
use std::time::Duration;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use url::Url;

use crate::stores::Outcome;
use crate::stores::transport::TransportOptions;

/// Everything about one Barbican store. It holds a credential, so it cannot be printed or copied.
pub struct BarbicanConfig {
    /// Keystone's address, with or without `/v3`.
    pub auth_url: Url,
    /// How to log in.
    pub auth: KeystoneAuth,
    /// Which region's key manager; may be left out where the catalog has only one.
    pub region: Option<String>,
    /// Which of the catalog's endpoints.
    pub interface: Interface,
    /// Barbican's address, taken instead of the catalog's.
    pub endpoint: Option<Url>,
    /// TLS, address rules and deadlines, for Keystone and Barbican alike.
    pub transport: TransportOptions,
    /// Sizes and ages.
    pub limits: Limits,
}

/// Sizes and ages a store keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest payload that is read, and the most that a container may hold in all, in bytes.
    pub payload: usize,
    /// How old a listing of the project may be to answer for a name. It holds names and dates, never a value.
    pub listing_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // What a Kubernetes Secret can hold.
            payload: 1024 * 1024,
            listing_age: Duration::from_secs(10),
        }
    }
}

/// The ways to log in at Keystone.
pub enum KeystoneAuth {
    /// A credential bound to one project. Preferred: it survives a change of the user's password, carries no more
    /// rights than it was given, and a wrong one locks nobody out.
    ApplicationCredential {
        /// Which credential.
        credential: CredentialRef,
        /// Its secret.
        secret: SecretBytes,
    },
    /// A user's password.
    Password {
        /// Whose.
        user: UserRef,
        /// The password.
        password: SecretBytes,
        /// The project whose secrets are read.
        project: ProjectRef,
    },
}

/// How an application credential is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialRef {
    /// By its id.
    Id(String),
    /// By its name, which is unique only for its user.
    Name {
        /// The credential's name.
        name: String,
        /// Its owner.
        user: UserRef,
    },
}

/// How a user is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// By id.
    Id(String),
    /// By name, which is unique only in its domain.
    Name {
        /// The user's name.
        name: String,
        /// The user's domain.
        domain: DomainRef,
    },
}

/// How a project is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectRef {
    /// By id.
    Id(String),
    /// By name, which is unique only in its domain.
    Name {
        /// The project's name.
        name: String,
        /// The project's domain.
        domain: DomainRef,
    },
}

/// How a domain is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainRef {
    /// By id.
    Id(String),
    /// By name.
    Name(String),
}

/// The three kinds of endpoint in a Keystone catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interface {
    /// For everybody.
    #[default]
    Public,
    /// For services of the same cloud.
    Internal,
    /// For administration.
    Admin,
}

impl Interface {
    /// The catalog's spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}

/// The text names no interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the interface is none of public, internal and admin")]
pub struct UnknownInterface;

impl FromStr for Interface {
    type Err = UnknownInterface;

    /// Also takes the older spelling with `URL` at its end, which many files still have.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_suffix("URL").unwrap_or(text) {
            "public" => Ok(Self::Public),
            "internal" => Ok(Self::Internal),
            "admin" => Ok(Self::Admin),
            _ => Err(UnknownInterface),
        }
    }
}

/// Keystone's address without the version, in one spelling: two spellings of one address must not count as two
/// Keystones when rejected passwords are remembered.
pub(super) fn keystone_root(auth_url: &Url) -> Outcome<Url> {
    let root = without_suffix(auth_url, "auth URL", "/v3")?;
    if root.path().ends_with("/v2.0") {
        return Err(invalid("the auth URL names version 2.0 of Keystone's API")
            .advise("use the address that ends in `/v3`"));
    }
    Ok(root)
}

/// Barbican's address without the version: catalogs have it with and without.
pub(super) fn barbican_root(endpoint: &Url) -> Outcome<Url> {
    without_suffix(endpoint, "key manager endpoint", "/v1")
}

fn without_suffix(url: &Url, what: &str, version: &str) -> Outcome<Url> {
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        return Err(invalid(format!("the {what} is not an http address")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(format!("the {what} holds a user or a password"))
            .advise("give credentials through the Secret only"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(format!("the {what} has a query or a fragment")).advise("give the plain address"));
    }
    let mut root = url.clone();
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix(version).unwrap_or(path).trim_end_matches('/');
    root.set_path(path);
    Ok(root)
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::new(Class::Permanent, Reason::SpecInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(text: &str) -> Outcome<String> {
        keystone_root(&Url::parse(text).unwrap()).map(String::from)
    }

    #[test]
    fn every_spelling_of_keystone_is_one_address() {
        for text in [
            "https://id.example.com/identity",
            "https://id.example.com/identity/",
            "https://ID.example.com:443/identity/v3",
            "https://id.example.com/identity//v3//",
        ] {
            assert_eq!(root(text).unwrap(), "https://id.example.com/identity", "{text}");
        }
        assert_eq!(root("http://k:5000/v3").unwrap(), "http://k:5000/");
    }

    #[test]
    fn an_address_that_hides_something_is_refused() {
        for text in [
            "https://me:canary@id.example.com/v3",
            "https://id.example.com/v3?canary=1",
            "https://id.example.com/v3#canary",
            "ftp://id.example.com/v3",
            "https://id.example.com/v2.0",
        ] {
            let fault = root(text).unwrap_err();
            assert_eq!(fault.reason, Reason::SpecInvalid, "{text}");
            assert!(!format!("{fault} {fault:?}").contains("canary"), "{text}");
        }
    }

    #[test]
    fn both_spellings_of_an_interface_are_known() {
        assert_eq!("internalURL".parse(), Ok(Interface::Internal));
        assert_eq!("public".parse(), Ok(Interface::Public));
        assert_eq!("private".parse::<Interface>(), Err(UnknownInterface));
    }
}
