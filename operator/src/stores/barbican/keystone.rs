//! The calls to Keystone: log in, give the token back.
//!
//! A password is sent only to what has just shown itself to be Keystone, and without a scope first: that answer is
//! about the password alone. A wrong project is told by the second call, which takes a token, so that it is never
//! mistaken for a wrong password.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use url::Url;

use super::catalog::Grant;
use super::classify::{Answered, request_id};
use super::config::{CredentialRef, DomainRef, KeystoneAuth, ProjectRef, UserRef, keystone_root};
use super::lockout::{LoginGate, Refusal, Stakes};
use super::login_body::{login_body, rescope_body};
use super::now;
use crate::stores::Outcome;
use crate::stores::pool::SessionKey;
use crate::stores::refusal::Repeat;
use crate::stores::transport::{Request, Response, Transport, TransportOptions, credential_header};

/// Carries the caller's token.
pub(super) const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
/// Carries the token a call is about.
const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");
const TOKENS: &str = "/v3/auth/tokens";

/// One Keystone with one credential.
pub(super) struct Keystone {
    transport: Transport,
    root: Url,
    auth: KeystoneAuth,
}

/// A token and what came with it.
pub(super) struct Login {
    pub(super) token: SecretBytes,
    /// The token without a project that it was made of, if it was. That one ends both, and outlives the other's end.
    pub(super) parent: Option<SecretBytes>,
    pub(super) grant: Grant,
}

/// A login that gave no token.
pub(super) struct Failed {
    pub(super) fault: Fault,
    /// What it would cost to try again.
    pub(super) repeat: Repeat,
}

impl Keystone {
    pub(super) fn new(auth_url: &Url, auth: KeystoneAuth, options: &TransportOptions) -> Outcome<Self> {
        let root = keystone_root(auth_url)?;
        // An unusable secret is told when the store is built, not at its first use.
        login_body(&auth)?;
        Ok(Self {
            transport: Transport::new(&root, options)?,
            root,
            auth,
        })
    }

    /// Logs in for the project, at most once per refused password.
    pub(super) async fn log_in(&self, gate: &LoginGate) -> Result<Login, Failed> {
        let stakes = self.stakes();
        let (whose, secret) = self.credential();
        let login = gate.login(&whose, secret.expose());
        let login = gate
            .attempt(login, stakes, self.greet(), self.authenticate())
            .await
            .map_err(|refusal| Failed {
                repeat: refusal.repeat(stakes),
                fault: refusal.into_fault(),
            })?;
        match &self.auth {
            KeystoneAuth::ApplicationCredential { .. } => Ok(login),
            KeystoneAuth::Password { project, .. } => match self.rescope(&login.token, project).await {
                Ok(scoped) => Ok(Login {
                    parent: Some(login.token),
                    ..scoped
                }),
                Err(fault) => {
                    // Nobody needs it any more, and what is to be told is the fault.
                    let _ = self.revoke(&login.token).await;
                    // The password was right.
                    Err(Failed {
                        fault,
                        repeat: Repeat::Harmless,
                    })
                }
            },
        }
    }

    /// Everything that decides where, as whom and over which trust a login happens.
    pub(super) fn session_key<'a>(&'a self, transport: &'a TransportOptions) -> SessionKey<'a> {
        let mut key = SessionKey::default();
        transport.mark(&mut key);
        let (whose, secret) = self.credential();
        key.texts(whose);
        key.is(secret.expose());
        if let KeystoneAuth::Password { project, .. } = &self.auth {
            key.texts(project_scope(project));
        }
        key
    }

    /// Gives the token back. Nobody needs the answer: the token ends by itself soon.
    pub(super) async fn revoke(&self, token: &SecretBytes) -> Outcome<()> {
        let value = credential_header(token.expose())?;
        let mut headers = HeaderMap::new();
        headers.insert(AUTH_TOKEN, value.clone());
        headers.insert(SUBJECT_TOKEN, value);
        self.send(Method::DELETE, TOKENS, headers, None).await?;
        Ok(())
    }

    async fn authenticate(&self) -> Result<Login, Refusal> {
        let body = login_body(&self.auth).map_err(Refusal::Unjudged)?;
        let answer = self
            .post_tokens(body)
            .await
            // The connection stood a moment ago, so the credential may well have arrived.
            .map_err(Refusal::Doubtful)?;
        match answer.status {
            StatusCode::CREATED | StatusCode::OK => login(&answer).map_err(Refusal::Unjudged),
            StatusCode::UNAUTHORIZED => Err(Refusal::Rejected(self.rejected(&answer))),
            // An application credential that is not there at all.
            StatusCode::NOT_FOUND if self.stakes() == Stakes::Harmless => {
                Err(Refusal::Rejected(self.rejected(&answer)))
            }
            // Keystone has just answered another question, so it may well have judged the credential before somebody
            // on the way lost the answer.
            status if status.is_server_error() => Err(Refusal::Doubtful(refused(&answer))),
            _ => Err(Refusal::Unjudged(refused(&answer))),
        }
    }

    /// Asks for the version, which needs no login.
    async fn greet(&self) -> Outcome<()> {
        let answer = self.send(Method::GET, "/v3", HeaderMap::new(), None).await?;
        if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(refused(&answer));
        }
        let version = serde_json::from_slice::<serde_json::Value>(answer.body.expose())
            .ok()
            .filter(|_| answer.status == StatusCode::OK)
            .and_then(|body| Some(body.get("version")?.get("id")?.as_str()?.starts_with("v3")));
        if version == Some(true) {
            Ok(())
        } else {
            Err(Fault::new(
                Class::Permanent,
                Reason::StoreProtocol,
                format!(
                    "what answers at `{}` is not Keystone v3; no credential was sent",
                    self.transport.peer()
                ),
            )
            .advise("check the auth URL")
            .with_request_id(request_id(&answer.headers)))
        }
    }

    async fn rescope(&self, unscoped: &SecretBytes, project: &ProjectRef) -> Outcome<Login> {
        let body = rescope_body(unscoped, project)?;
        let answer = self.post_tokens(body).await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::OK => login(&answer),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Err(Fault::new(
                Class::Denied,
                Reason::CredentialRejected,
                "Keystone accepts the password and gives no token for the project",
            )
            .advise("check the project's name and domain, and that the user has a role in it")
            .with_request_id(request_id(&answer.headers))),
            _ => Err(refused(&answer)),
        }
    }

    async fn post_tokens(&self, body: SecretBytes) -> Outcome<Response> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.send(Method::POST, TOKENS, headers, Some(body)).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<SecretBytes>,
    ) -> Outcome<Response> {
        let request = Request {
            method,
            path_and_query: path.to_owned(),
            headers,
            body,
        };
        self.transport.send(request).await
    }

    fn stakes(&self) -> Stakes {
        match self.auth {
            KeystoneAuth::ApplicationCredential { .. } => Stakes::Harmless,
            KeystoneAuth::Password { .. } => Stakes::LocksOut,
        }
    }

    fn rejected(&self, answer: &Response) -> Fault {
        let (message, advice) = match self.auth {
            KeystoneAuth::ApplicationCredential { .. } => (
                "Keystone refuses the application credential",
                "check its id and secret, that it has not expired, and that its user still has the role",
            ),
            KeystoneAuth::Password { .. } => (
                "Keystone refuses the password",
                "put the right user and password into the Secret; this one is not sent again, \
                 so that the user is not locked out",
            ),
        };
        Fault::new(Class::Denied, Reason::CredentialRejected, message)
            .advise(advice)
            .with_request_id(request_id(&answer.headers))
    }

    /// At which Keystone and whose the secret is, and the secret: everything that decides whether it is accepted, and
    /// nothing that does not.
    fn credential(&self) -> (Vec<&str>, &SecretBytes) {
        let mut scope = vec![self.root.as_str()];
        let secret = match &self.auth {
            KeystoneAuth::ApplicationCredential { credential, secret } => {
                match credential {
                    CredentialRef::Id(id) => scope.extend(["credential id", id]),
                    CredentialRef::Name { name, user } => {
                        scope.extend(["credential name", name]);
                        scope.extend(user_scope(user));
                    }
                }
                secret
            }
            KeystoneAuth::Password { user, password, .. } => {
                scope.extend(user_scope(user));
                password
            }
        };
        (scope, secret)
    }
}

fn user_scope(user: &UserRef) -> Vec<&str> {
    match user {
        UserRef::Id(id) => vec!["user id", id],
        UserRef::Name { name, domain } => [vec!["user name", name], domain_scope(domain)].concat(),
    }
}

fn project_scope(project: &ProjectRef) -> Vec<&str> {
    match project {
        ProjectRef::Id(id) => vec!["project id", id],
        ProjectRef::Name { name, domain } => [vec!["project name", name], domain_scope(domain)].concat(),
    }
}

fn domain_scope(domain: &DomainRef) -> Vec<&str> {
    match domain {
        DomainRef::Id(id) => vec!["domain id", id],
        DomainRef::Name(name) => vec!["domain name", name],
    }
}

fn login(answer: &Response) -> Outcome<Login> {
    let token = answer
        .headers
        .get(SUBJECT_TOKEN)
        .filter(|token| !token.is_empty())
        .ok_or_else(|| {
            Fault::new(
                Class::Transient,
                Reason::StoreProtocol,
                "Keystone answered the login without a token",
            )
        })?;
    Ok(Login {
        token: SecretBytes::new(token.as_bytes().to_vec()),
        parent: None,
        grant: Grant::parse(answer.body.expose(), now())?,
    })
}

/// The fault of a login that Keystone did not judge.
fn refused(answer: &Response) -> Fault {
    let told = Answered::by("Keystone", "logging in", answer).fault();
    let (class, reason, advice) = match answer.status {
        StatusCode::BAD_REQUEST => (
            Class::Permanent,
            Reason::SpecInvalid,
            "check the names of user, project and domains",
        ),
        StatusCode::FORBIDDEN => (
            Class::Denied,
            Reason::CredentialRejected,
            "ask the cloud why it forbids this login",
        ),
        StatusCode::NOT_FOUND => (Class::Permanent, Reason::StoreProtocol, "check the auth URL"),
        _ => return told,
    };
    Fault {
        class,
        reason,
        ..told.advise(advice)
    }
}
