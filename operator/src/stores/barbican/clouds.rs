//! `clouds.yaml`, the file OpenStack clients share, read from a Secret.
//!
//! Only what a key manager needs is taken, and what cannot be honoured is refused instead of ignored. The file
//! holds passwords, so no error here repeats anything of it but the line and the names of keys and clouds.

use std::collections::BTreeMap;
use std::fmt;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use url::Url;

use super::config::{CredentialRef, DomainRef, Interface, KeystoneAuth, ProjectRef, UserRef};

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
    key_manager_endpoint_override: Option<String>,
    verify: Option<bool>,
    insecure: Option<bool>,
    cacert: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    profile: Option<String>,
}

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the file's own key")]
struct Auth {
    auth_url: Option<String>,
    username: Option<String>,
    user_id: Option<String>,
    password: Option<Hidden>,
    user_domain_name: Option<String>,
    user_domain_id: Option<String>,
    project_name: Option<String>,
    project_id: Option<String>,
    project_domain_name: Option<String>,
    project_domain_id: Option<String>,
    domain_name: Option<String>,
    domain_id: Option<String>,
    system_scope: Option<String>,
    application_credential_id: Option<String>,
    application_credential_name: Option<String>,
    application_credential_secret: Option<Hidden>,
}

/// Text that goes from the reader straight into a wiped buffer.
struct Hidden(SecretBytes);

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
        let endpoint = self
            .key_manager_endpoint_override
            .map(|text| url("key_manager_endpoint_override", &text))
            .transpose()?;
        let interface = one_of(
            ("interface", self.interface),
            ("endpoint_type", self.endpoint_type),
        )?
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
            region: self.region_name,
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
        ];
        match refused.into_iter().find(|(present, ..)| *present) {
            Some((_, key, problem)) => Err(CloudsError::Unusable { key, problem }),
            None => Ok(()),
        }
    }
}

impl Auth {
    fn into_login(self, auth_type: Option<&str>) -> Result<KeystoneAuth, CloudsError> {
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

    fn user(&self) -> Result<UserRef, CloudsError> {
        match one_of(
            ("auth.user_id", self.user_id.clone().map(Either::Id)),
            ("auth.username", self.username.clone().map(Either::Name)),
        )? {
            None => Err(CloudsError::Missing("auth.username")),
            Some(Either::Id(id)) => Ok(UserRef::Id(id)),
            Some(Either::Name(name)) => Ok(UserRef::Name {
                name,
                domain: domain(
                    ("auth.user_domain_name", self.user_domain_name.clone()),
                    ("auth.user_domain_id", self.user_domain_id.clone()),
                )?,
            }),
        }
    }

    fn into_password(self, names_credential: bool) -> Result<KeystoneAuth, CloudsError> {
        if names_credential {
            return Err(CloudsError::Unusable {
                key: "auth_type",
                problem: "is `password`, and the entry holds an application credential; keep one",
            });
        }
        if self.system_scope.is_some() || self.domain_name.is_some() || self.domain_id.is_some() {
            return Err(CloudsError::Unusable {
                key: "auth",
                problem: "asks for a domain or system scope; secrets live in a project, so name a project",
            });
        }
        let user = self.user();
        let password = self.password.ok_or(CloudsError::Missing("auth.password"))?;
        let project = match (self.project_id, self.project_name) {
            // Files made by the dashboard hold both; the id says it all.
            (Some(id), _) => ProjectRef::Id(id),
            (None, Some(name)) => ProjectRef::Name {
                name,
                domain: domain(
                    ("auth.project_domain_name", self.project_domain_name),
                    ("auth.project_domain_id", self.project_domain_id),
                )?,
            },
            (None, None) => return Err(CloudsError::Missing("auth.project_name")),
        };
        Ok(KeystoneAuth::Password {
            user: user?,
            password: password.0,
            project,
        })
    }
}

enum Either {
    Id(String),
    Name(String),
}

fn domain(
    name: (&'static str, Option<String>),
    id: (&'static str, Option<String>),
) -> Result<DomainRef, CloudsError> {
    let missing = CloudsError::Missing(name.0);
    one_of(
        (name.0, name.1.map(DomainRef::Name)),
        (id.0, id.1.map(DomainRef::Id)),
    )?
    .ok_or(missing)
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

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-7f3a";

    fn read(text: &str, name: Option<&str>) -> Result<Cloud, CloudsError> {
        parse(&SecretBytes::from(text), name, false)
    }

    fn error(text: &str) -> CloudsError {
        let error = read(text, None).err().expect("this file must be refused");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        error
    }

    fn password_file(extra: &str) -> String {
        format!(
            "clouds:\n  one:\n    auth:\n      auth_url: https://id.example.com/v3\n      username: ada\n      \
             password: {CANARY}\n      user_domain_name: Default\n      project_name: web\n      \
             project_domain_id: default\n{extra}"
        )
    }

    #[test]
    fn a_password_cloud_is_read() {
        let cloud = read(
            &password_file(
                "    region_name: north\n    interface: internalURL\n    identity_api_version: 3\n    \
                 key_manager_endpoint_override: https://kms.example.com/v1\n",
            ),
            Some("one"),
        )
        .ok()
        .unwrap();
        assert_eq!(cloud.region.as_deref(), Some("north"));
        assert_eq!(cloud.interface, Interface::Internal);
        assert_eq!(cloud.endpoint.unwrap().as_str(), "https://kms.example.com/v1");
        assert!(cloud.verify);
        let KeystoneAuth::Password {
            user,
            password,
            project,
        } = cloud.auth
        else {
            panic!("read as another kind of login");
        };
        assert!(password.same_as(CANARY.as_bytes()));
        assert_eq!(
            user,
            UserRef::Name {
                name: "ada".into(),
                domain: DomainRef::Name("Default".into())
            }
        );
        assert_eq!(
            project,
            ProjectRef::Name {
                name: "web".into(),
                domain: DomainRef::Id("default".into())
            }
        );
    }

    #[test]
    fn an_application_credential_is_known_with_and_without_its_type() {
        for auth_type in ["", "    auth_type: v3applicationcredential\n"] {
            let cloud = read(
                &format!(
                    "clouds:\n  one:\n{auth_type}    auth:\n      auth_url: https://id.example.com\n      \
                     application_credential_id: abc\n      application_credential_secret: {CANARY}\n"
                ),
                None,
            )
            .ok()
            .unwrap();
            let KeystoneAuth::ApplicationCredential { credential, secret } = cloud.auth else {
                panic!("read as another kind of login");
            };
            assert_eq!(credential, CredentialRef::Id("abc".into()));
            assert!(secret.same_as(CANARY.as_bytes()));
        }
    }

    #[test]
    fn an_unquoted_number_is_the_password_as_written() {
        let cloud = read(&password_file("").replace(CANARY, "0012"), None)
            .ok()
            .unwrap();
        let KeystoneAuth::Password { password, .. } = cloud.auth else {
            panic!("read as another kind of login");
        };
        assert!(password.same_as(b"0012"));
    }

    #[test]
    fn the_choice_of_a_cloud_is_never_guessed() {
        let two = format!("{}  two: {{}}\n", password_file(""));
        assert_eq!(error(&two), CloudsError::Several { count: 2 });
        assert!(read(&two, Some("one")).is_ok());
        assert_eq!(
            read(&two, Some("three")).err(),
            Some(CloudsError::Unknown("three".into()))
        );
        assert_eq!(error("clouds: {}"), CloudsError::NoCloud);
        assert_eq!(error("other: 1"), CloudsError::NoCloud);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for (line, key) in [
            ("    cacert: /etc/ssl/ca.pem\n", "cacert"),
            ("    verify: false\n", "verify"),
            ("    insecure: true\n", "insecure"),
            ("    cert: /etc/ssl/me.pem\n", "cert"),
            ("    profile: vendor\n", "profile"),
            ("    auth_type: v3token\n", "auth_type"),
            ("    interface: canary\n", "interface"),
            (
                "    key_manager_endpoint_override: canary\n",
                "key_manager_endpoint_override",
            ),
        ] {
            match error(&password_file(line)) {
                CloudsError::Unusable { key: told, .. } => assert_eq!(told, key),
                other => panic!("{line}: {other:?}"),
            }
        }
        let unverified = SecretBytes::from(password_file("    verify: false\n").as_str());
        assert!(!parse(&unverified, None, true).ok().unwrap().verify);
    }

    #[test]
    fn contradictions_and_gaps_are_named() {
        let with = |line: &str| password_file("").replace("      username: ada\n", line);
        assert_eq!(error(&with("")), CloudsError::Missing("auth.username"));
        assert_eq!(
            error(&with("      username: ada\n      user_id: b\n")),
            CloudsError::Both("auth.user_id", "auth.username")
        );
        assert_eq!(
            error(&with(
                "      application_credential_id: a\n      application_credential_secret: canary\n"
            )),
            CloudsError::Both("auth.password", "auth.application_credential_secret")
        );
        assert_eq!(
            error(&password_file("").replace("      user_domain_name: Default\n", "")),
            CloudsError::Missing("auth.user_domain_name")
        );
        assert!(matches!(
            error(&password_file("").replace("project_name: web", "system_scope: all")),
            CloudsError::Unusable { key: "auth", .. }
        ));
    }

    #[test]
    fn hostile_files_end_in_a_plain_error() {
        let bomb = format!(
            "{}clouds: {{}}\n",
            (0..30).fold(String::from("a0: &a0 [canary]\n"), |file, n| {
                format!(
                    "{file}a{m}: &a{m} [{refs}]\n",
                    m = n + 1,
                    refs = vec![format!("*a{n}"); 20].join(",")
                )
            })
        );
        for text in [
            "clouds: [canary",
            "clouds: canary",
            "clouds:\n  one: canary",
            "clouds:\n  one:\n    verify: canary",
            "clouds:\n  one: {}\n  one: {}\n# canary",
            "\u{0}canary",
            "- canary\n--- \n- canary",
            &format!("clouds: {}", "[".repeat(5_000)),
            &bomb,
        ] {
            assert!(
                matches!(error(text), CloudsError::Syntax { .. }),
                "{}",
                &text[..20.min(text.len())]
            );
        }
        assert!(matches!(
            parse(&SecretBytes::new(vec![0xff, 0xfe, b'a']), None, false).err(),
            Some(CloudsError::Syntax { .. })
        ));
        assert_eq!(
            parse(&SecretBytes::new(vec![b' '; MAX_BYTES + 1]), None, false).err(),
            Some(CloudsError::TooLarge)
        );
    }
}
