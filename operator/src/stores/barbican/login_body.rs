//! The bodies of the login calls, written straight into buffers that are wiped.

use std::io;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use serde::{Serialize, Serializer};

use super::config::{CredentialRef, DomainRef, KeystoneAuth, ProjectRef, UserRef};
use crate::stores::Outcome;

/// A login. A password asks for no scope; an application credential brings its project along.
pub(super) fn login_body(auth: &KeystoneAuth) -> Outcome<SecretBytes> {
    match auth {
        KeystoneAuth::ApplicationCredential { credential, secret } => {
            let mut which = match credential {
                CredentialRef::Id(id) => vec![("id", Json::Text(id))],
                CredentialRef::Name { name, user } => {
                    vec![
                        ("name", Json::Text(name)),
                        ("user", Json::Object(user_json(user))),
                    ]
                }
            };
            which.push(("secret", secret_text(secret)?));
            Ok(envelope("application_credential", which, None))
        }
        KeystoneAuth::Password { user, password, .. } => {
            let mut whose = user_json(user);
            whose.push(("password", secret_text(password)?));
            let method = vec![("user", Json::Object(whose))];
            Ok(envelope("password", method, Some(Json::Text("unscoped"))))
        }
    }
}

/// Trades an unscoped token for one of the project.
pub(super) fn rescope_body(token: &SecretBytes, project: &ProjectRef) -> Outcome<SecretBytes> {
    let method = vec![("id", secret_text(token)?)];
    let project = match project {
        ProjectRef::Id(id) => vec![("id", Json::Text(id))],
        ProjectRef::Name { name, domain } => {
            vec![("name", Json::Text(name)), ("domain", domain_json(domain))]
        }
    };
    let scope = Json::Object(vec![("project", Json::Object(project))]);
    Ok(envelope("token", method, Some(scope)))
}

/// A JSON document that borrows its texts, so that no part of a secret is copied on the way into the body.
enum Json<'a> {
    Text(&'a str),
    List(Vec<Json<'a>>),
    Object(Fields<'a>),
}

type Fields<'a> = Vec<(&'a str, Json<'a>)>;

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(fields) => serializer.collect_map(fields.iter().map(|(key, value)| (key, value))),
        }
    }
}

fn envelope(method: &str, fields: Fields<'_>, scope: Option<Json<'_>>) -> SecretBytes {
    let identity = Json::Object(vec![
        ("methods", Json::List(vec![Json::Text(method)])),
        (method, Json::Object(fields)),
    ]);
    let mut auth = vec![("identity", identity)];
    auth.extend(scope.map(|scope| ("scope", scope)));
    wiped(&Json::Object(vec![("auth", Json::Object(auth))]))
}

fn user_json(user: &UserRef) -> Fields<'_> {
    match user {
        UserRef::Id(id) => vec![("id", Json::Text(id))],
        UserRef::Name { name, domain } => {
            vec![("name", Json::Text(name)), ("domain", domain_json(domain))]
        }
    }
}

fn domain_json(domain: &DomainRef) -> Json<'_> {
    Json::Object(vec![match domain {
        DomainRef::Id(id) => ("id", Json::Text(id)),
        DomainRef::Name(name) => ("name", Json::Text(name)),
    }])
}

fn secret_text(secret: &SecretBytes) -> Outcome<Json<'_>> {
    let text = secret.expose_str().filter(|text| !text.is_empty());
    text.map(Json::Text).ok_or_else(|| {
        Fault::new(
            Class::Permanent,
            Reason::CredentialMissing,
            "the credential for Keystone is empty or not UTF-8 text",
        )
        .advise("put it into the Secret as plain text")
    })
}

/// Measures first: a buffer that grew would leave unwiped pieces behind.
fn wiped(document: &Json<'_>) -> SecretBytes {
    let mut size = Measure(0);
    serde_json::to_writer(&mut size, document).expect("counting cannot fail");
    let mut bytes = Vec::with_capacity(size.0);
    serde_json::to_writer(&mut bytes, document).expect("writing to memory cannot fail");
    SecretBytes::new(bytes)
}

struct Measure(usize);

impl io::Write for Measure {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0 += piece.len();
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(body: &SecretBytes) -> Value {
        serde_json::from_slice(body.expose()).unwrap()
    }

    fn ada() -> UserRef {
        UserRef::Name {
            name: "ada".into(),
            domain: DomainRef::Name("Default".into()),
        }
    }

    #[test]
    fn a_password_asks_for_no_scope_and_keeps_its_characters() {
        let odd = "\" \\ \n \u{1} ü \u{1f511}";
        let body = login_body(&KeystoneAuth::Password {
            user: ada(),
            password: odd.into(),
            project: ProjectRef::Id("p".into()),
        });
        let expected = json!({"auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": "ada", "domain": {"name": "Default"}, "password": odd}},
            },
            "scope": "unscoped",
        }});
        assert_eq!(parsed(&body.ok().unwrap()), expected);
    }

    #[test]
    fn an_application_credential_goes_by_id_or_by_name_and_user() {
        for (credential, which) in [
            (CredentialRef::Id("c".into()), json!({"id": "c", "secret": "s"})),
            (
                CredentialRef::Name {
                    name: "n".into(),
                    user: ada(),
                },
                json!({"name": "n", "user": {"name": "ada", "domain": {"name": "Default"}}, "secret": "s"}),
            ),
        ] {
            let body = login_body(&KeystoneAuth::ApplicationCredential {
                credential,
                secret: "s".into(),
            });
            let identity = json!({"methods": ["application_credential"], "application_credential": which});
            assert_eq!(
                parsed(&body.ok().unwrap()),
                json!({"auth": {"identity": identity}})
            );
        }
    }

    #[test]
    fn a_token_is_traded_for_one_of_the_project() {
        let project = ProjectRef::Name {
            name: "web".into(),
            domain: DomainRef::Id("default".into()),
        };
        let body = rescope_body(&"t".into(), &project).ok().unwrap();
        let expected = json!({"auth": {
            "identity": {"methods": ["token"], "token": {"id": "t"}},
            "scope": {"project": {"name": "web", "domain": {"id": "default"}}},
        }});
        assert_eq!(parsed(&body), expected);
    }

    #[test]
    fn a_secret_that_is_no_text_is_refused() {
        for secret in [vec![], vec![0xff]] {
            let body = login_body(&KeystoneAuth::ApplicationCredential {
                credential: CredentialRef::Id("c".into()),
                secret: SecretBytes::new(secret),
            });
            assert_eq!(body.err().unwrap().reason, Reason::CredentialMissing);
        }
    }
}
