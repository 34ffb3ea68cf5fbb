//! The part `auth` of a cloud: as whom to log in, and for which project.

use std::fmt;

use keyward_core::secret::SecretBytes;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::super::config::{CredentialRef, DomainRef, KeystoneAuth, ProjectRef, UserRef};
use super::{CloudsError, one_of};

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the file's own key")]
pub(super) struct Auth {
    pub(super) auth_url: Option<String>,
    username: Option<String>,
    user_id: Option<String>,
    password: Option<Hidden>,
    user_domain_name: Option<String>,
    user_domain_id: Option<String>,
    project_name: Option<String>,
    project_id: Option<String>,
    project_domain_name: Option<String>,
    project_domain_id: Option<String>,
    /// The older names of a project.
    tenant_name: Option<String>,
    tenant_id: Option<String>,
    /// Beside a project, the domain of user and project where they have none of their own; else what is wanted in
    /// place of a project.
    domain_name: Option<String>,
    domain_id: Option<String>,
    /// The domain of user and project where nothing else is said.
    default_domain_name: Option<String>,
    default_domain_id: Option<String>,
    system_scope: Option<String>,
    trust_id: Option<String>,
    application_credential_id: Option<String>,
    application_credential_name: Option<String>,
    application_credential_secret: Option<Hidden>,
}

/// Text that goes from the reader straight into a wiped buffer.
struct Hidden(SecretBytes);

enum Either {
    Id(String),
    Name(String),
}

/// A key of the file and what it holds.
type Said<'a> = (&'static str, Option<&'a str>);

impl Auth {
    pub(super) fn into_login(self, auth_type: Option<&str>) -> Result<KeystoneAuth, CloudsError> {
        let names_credential = self.application_credential_secret.is_some()
            || self.application_credential_id.is_some()
            || self.application_credential_name.is_some();
        match auth_type {
            Some("v3applicationcredential") => self.into_application_credential(),
            // Other readers take a file without `auth_type` by what it holds.
            None if names_credential => self.into_application_credential(),
            None | Some("password" | "v3password") => self.into_password(names_credential),
            Some(_) => Err(CloudsError::Unusable {
                key: "auth_type",
                problem: "is neither `v3applicationcredential` nor `password`",
            }),
        }
    }

    fn into_application_credential(self) -> Result<KeystoneAuth, CloudsError> {
        if self.password.is_some() {
            return Err(CloudsError::Both(
                "auth.password",
                "auth.application_credential_secret",
            ));
        }
        let user = self.user();
        let secret = self
            .application_credential_secret
            .ok_or(CloudsError::Missing("auth.application_credential_secret"))?;
        let credential = match (self.application_credential_id, self.application_credential_name) {
            // The id wins in other readers too; a name beside it is only a label.
            (Some(id), _) => CredentialRef::Id(id),
            (None, Some(name)) => CredentialRef::Name { name, user: user? },
            (None, None) => return Err(CloudsError::Missing("auth.application_credential_id")),
        };
        Ok(KeystoneAuth::ApplicationCredential {
            credential,
            secret: secret.0,
        })
    }

    fn into_password(self, names_credential: bool) -> Result<KeystoneAuth, CloudsError> {
        if names_credential {
            return Err(CloudsError::Unusable {
                key: "auth_type",
                problem: "is `password`, and the entry holds an application credential; keep one",
            });
        }
        let (user, project) = (self.user(), self.project()?);
        let password = self.password.ok_or(CloudsError::Missing("auth.password"))?;
        Ok(KeystoneAuth::Password {
            user: user?,
            password: password.0,
            project,
        })
    }

    fn user(&self) -> Result<UserRef, CloudsError> {
        match one_of(
            ("auth.user_id", self.user_id.clone().map(Either::Id)),
            ("auth.username", self.username.clone().map(Either::Name)),
        )? {
            None => Err(CloudsError::Missing("auth.username")),
            Some(Either::Id(id)) => Ok(UserRef::Id(id)),
            Some(Either::Name(name)) => Ok(UserRef::Name {
                name,
                domain: self.domain(
                    ("auth.user_domain_name", self.user_domain_name.as_deref()),
                    ("auth.user_domain_id", self.user_domain_id.as_deref()),
                )?,
            }),
        }
    }

    fn project(&self) -> Result<ProjectRef, CloudsError> {
        // The newer spelling wins in other readers too.
        let id = self.project_id.as_ref().or(self.tenant_id.as_ref()).cloned();
        let name = self.project_name.as_ref().or(self.tenant_name.as_ref()).cloned();
        let in_domain = self.domain_name.is_some() || self.domain_id.is_some();
        if self.system_scope.is_some()
            || self.trust_id.is_some()
            || (in_domain && id.is_none() && name.is_none())
        {
            return Err(CloudsError::Unusable {
                key: "auth",
                problem: "asks for the scope of a domain, a system or a trust; secrets live in a project, so name \
                          a project",
            });
        }
        match (id, name) {
            // Files made by the dashboard hold both; the id says it all.
            (Some(id), _) => Ok(ProjectRef::Id(id)),
            (None, Some(name)) => Ok(ProjectRef::Name {
                name,
                domain: self.domain(
                    ("auth.project_domain_name", self.project_domain_name.as_deref()),
                    ("auth.project_domain_id", self.project_domain_id.as_deref()),
                )?,
            }),
            (None, None) => Err(CloudsError::Missing("auth.project_name")),
        }
    }

    /// The domain that is said of one thing, or else of everything.
    fn domain(&self, name: Said, id: Said) -> Result<DomainRef, CloudsError> {
        let said = [
            (name, id),
            (
                ("auth.domain_name", self.domain_name.as_deref()),
                ("auth.domain_id", self.domain_id.as_deref()),
            ),
            (
                ("auth.default_domain_name", self.default_domain_name.as_deref()),
                ("auth.default_domain_id", self.default_domain_id.as_deref()),
            ),
        ];
        for (name, id) in said {
            let domain = one_of(
                (name.0, name.1.map(|name| DomainRef::Name(name.to_owned()))),
                (id.0, id.1.map(|id| DomainRef::Id(id.to_owned()))),
            )?;
            if let Some(domain) = domain {
                return Ok(domain);
            }
        }
        Err(CloudsError::Missing(name.0))
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taker;
        impl Visitor<'_> for Taker {
            type Value = Hidden;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Hidden, E> {
                Ok(Hidden(SecretBytes::from(text)))
            }

            fn visit_string<E>(self, text: String) -> Result<Hidden, E> {
                Ok(Hidden(SecretBytes::from(text)))
            }
        }
        deserializer.deserialize_string(Taker)
    }
}
