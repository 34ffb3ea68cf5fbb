//! What a Vault store needs to know, as plain data.

use std::fmt;
use std::sync::Arc;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use url::Url;

use super::kv::check_path;
use crate::stores::pool::SessionKey;
use crate::stores::refusal::Repeat;
use crate::stores::transport::TransportOptions;
use crate::stores::{JwtSource, Outcome};

/// One mount of one server, and the credential to reach it with.
pub struct VaultConfig {
    /// The server, with or without a path in front of `/v1`.
    pub address: Url,
    /// The namespace of the mount (Vault Enterprise, OpenBao).
    pub namespace: Option<String>,
    /// The namespace of the login, where it is another one.
    pub login_namespace: Option<String>,
    /// The KV mount, for example `secret`.
    pub mount: String,
    /// The KV version of the mount.
    pub kv_version: KvVersion,
    /// How to reach the server.
    pub transport: TransportOptions,
    /// How to log in.
    pub auth: VaultAuth,
}

/// Which KV engine is behind the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvVersion {
    /// Ask the server, once.
    #[default]
    Auto,
    /// Without versions and metadata.
    V1,
    /// With versions.
    V2,
}

/// The ways to log in.
pub enum VaultAuth {
    /// A token of a Kubernetes ServiceAccount.
    Kubernetes {
        /// Where the method is mounted.
        mount: String,
        /// The role to log in as.
        role: String,
        /// Gives a fresh token for each login.
        jwt: Arc<dyn JwtSource>,
    },
    /// A role id and a secret id.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// Names the role.
        role_id: String,
        /// Proves it.
        secret_id: SecretBytes,
    },
    /// A token made elsewhere; it is renewed where it can be and never revoked.
    Token(SecretBytes),
    /// A signed JWT.
    Jwt {
        /// Where the method is mounted.
        mount: String,
        /// The role to log in as; `None` is the method's default.
        role: Option<String>,
        /// Gives the JWT for each login.
        jwt: Arc<dyn JwtSource>,
    },
    /// A user name and a password.
    Userpass {
        /// Where the method is mounted.
        mount: String,
        /// The user.
        username: String,
        /// The password.
        password: SecretBytes,
    },
    /// The client certificate of the transport.
    Cert {
        /// Where the method is mounted.
        mount: String,
        /// The role to log in as; `None` is the first that fits.
        role: Option<String>,
    },
}

impl VaultConfig {
    /// Everything that decides where, as whom and over which trust a login happens. What is read afterwards is no
    /// part of it.
    pub(super) fn session_key(&self) -> SessionKey<'_> {
        let Self {
            address,
            namespace,
            login_namespace,
            mount: _,
            kv_version: _,
            transport,
            auth,
        } = self;
        let mut key = SessionKey::default();
        key.texts([address.as_str().trim_end_matches('/')]);
        key.may_be(
            login_namespace
                .as_ref()
                .or(namespace.as_ref())
                .map(String::as_bytes),
        );
        transport.mark(&mut key);
        auth.mark(&mut key);
        key
    }
}

impl VaultAuth {
    /// The method's name, for messages.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::Kubernetes { .. } => "kubernetes",
            Self::AppRole { .. } => "appRole",
            Self::Token(_) => "token",
            Self::Jwt { .. } => "jwt",
            Self::Userpass { .. } => "userpass",
            Self::Cert { .. } => "cert",
        }
    }

    /// Refuses mounts and names that would lead a login to another path.
    pub(super) fn check(&self) -> Outcome<()> {
        match self {
            Self::Kubernetes { mount, .. }
            | Self::AppRole { mount, .. }
            | Self::Jwt { mount, .. }
            | Self::Cert { mount, .. } => check_path(mount),
            Self::Userpass { mount, username, .. } => {
                check_path(mount)?;
                if username.contains('/') {
                    return Err(Fault::new(
                        Class::Permanent,
                        Reason::SpecInvalid,
                        "the user name of a userpass login holds a slash",
                    ));
                }
                check_path(username)
            }
            Self::Token(_) => Ok(()),
        }
    }

    /// What repeating a refused login can cost: what was missing may have been put right at the server. Vault counts the
    /// failures of users and roles and locks them out after a few.
    pub(super) fn repeat(&self) -> Repeat {
        match self {
            Self::Kubernetes { .. } | Self::Jwt { .. } | Self::Cert { .. } | Self::Token(_) => {
                Repeat::Harmless
            }
            Self::AppRole { .. } | Self::Userpass { .. } => Repeat::Counted,
        }
    }

    /// Adds everything that decides as whom a login happens.
    fn mark<'a>(&'a self, key: &mut SessionKey<'a>) {
        key.texts([self.method()]);
        match self {
            Self::Kubernetes { mount, role, jwt } => {
                key.texts([mount.as_str(), role]);
                key.parts(jwt.identity());
            }
            Self::AppRole {
                mount,
                role_id,
                secret_id,
            } => {
                key.texts([mount.as_str(), role_id]);
                key.is(secret_id.expose());
            }
            Self::Token(token) => key.is(token.expose()),
            Self::Jwt { mount, role, jwt } => {
                key.texts([mount.as_str()]);
                key.may_be(role.as_deref().map(str::as_bytes));
                key.parts(jwt.identity());
            }
            Self::Userpass {
                mount,
                username,
                password,
            } => {
                key.texts([mount.as_str(), username]);
                key.is(password.expose());
            }
            // The certificate is part of the transport.
            Self::Cert { mount, role } => {
                key.texts([mount.as_str()]);
                key.may_be(role.as_deref().map(str::as_bytes));
            }
        }
    }
}

impl fmt::Debug for VaultAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultAuth({})", self.method())
    }
}

impl fmt::Debug for VaultConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultConfig")
            .field("address", &self.address.as_str())
            .field("namespace", &self.namespace)
            .field("mount", &self.mount)
            .field("kv_version", &self.kv_version)
            .field("transport", &self.transport)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}
