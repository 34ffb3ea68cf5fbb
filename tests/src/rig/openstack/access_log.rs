//! Reads what was asked of a server. A server writes a line before it answers, so an answered request is in the log.

use std::path::PathBuf;

use anyhow::Result;
use serde::Deserialize;

use crate::rig::journal::{Journal, Mark};

/// The access log of one server.
pub struct AccessLog {
    journal: Journal,
}

/// A request that was answered.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    /// When the request came, in seconds since 1970.
    pub time: f64,
    /// In upper case.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Without its `?`; empty if there is none.
    pub query: String,
    /// The types of content that were asked for.
    pub accept: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The id that the answer carried.
    pub request_id: Option<String>,
    /// The id of the user whose token was accepted.
    pub user: Option<String>,
    /// The id of the project whose token was accepted.
    pub project: Option<String>,
    /// Who tried to log in, if that was asked for.
    pub login: Option<LoginAttempt>,
    /// How long the answer took.
    pub milliseconds: f64,
}

/// Who tried to log in. What a client does not say is absent.
#[derive(Clone, Debug, Deserialize)]
pub struct LoginAttempt {
    /// How: `password`, `application_credential`.
    pub methods: Vec<String>,
    /// The id of the application credential.
    pub application_credential: Option<String>,
    /// The user's id.
    pub user_id: Option<String>,
    /// The user's name.
    pub user_name: Option<String>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A login.
    Login,
    /// A service looks at the token of its caller.
    TokenCheck,
    /// The list of a server's versions.
    Versions,
    /// A page of the list of secrets.
    SecretList,
    /// What is known of one secret, without its payload.
    Secret,
    /// The payload of one secret.
    Payload,
    /// The user metadata of one secret.
    UserMetadata,
    /// Containers, one or all.
    Container,
    /// Creates, changes or deletes something.
    Change,
    /// Anything else.
    Other,
}

impl AccessLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            journal: Journal::new(path),
        }
    }

    /// The present end of the log.
    pub fn mark(&self) -> Result<Mark> {
        self.journal.end()
    }

    /// The requests since `mark`, in the order of their answers.
    pub fn since(&self, mark: Mark) -> Result<Vec<Request>> {
        self.journal.since(mark)
    }

    /// How many requests about `what` a project made since `mark`.
    pub fn count(&self, mark: Mark, project: &str, what: What) -> Result<usize> {
        let requests = self.since(mark)?;
        Ok(requests
            .iter()
            .filter(|request| request.is_of(project) && request.what() == what)
            .count())
    }

    /// The logins since `mark`, good and bad, that named the user or the application credential with this id or
    /// name.
    pub fn logins(&self, mark: Mark, who: &str) -> Result<Vec<Request>> {
        let names = |login: &LoginAttempt| {
            [&login.application_credential, &login.user_id, &login.user_name]
                .into_iter()
                .any(|name| name.as_deref() == Some(who))
        };
        let mut requests = self.since(mark)?;
        requests.retain(|request| request.login.as_ref().is_some_and(names));
        Ok(requests)
    }

    /// How many of [`Self::logins`] were refused for what they showed. A credential that is gone is 404, and is not counted.
    pub fn failed_logins(&self, mark: Mark, who: &str) -> Result<usize> {
        Ok(self
            .logins(mark, who)?
            .iter()
            .filter(|request| request.status == 401)
            .count())
    }
}

impl Request {
    /// Whether it was made with a token of the project with this id.
    #[must_use]
    pub fn is_of(&self, project: &str) -> bool {
        self.project.as_deref() == Some(project)
    }

    /// What it is about.
    #[must_use]
    pub fn what(&self) -> What {
        let path: Vec<&str> = self.path.split('/').filter(|part| !part.is_empty()).collect();
        match (self.method.as_str(), path.as_slice()) {
            ("POST", ["v3", "auth", "tokens"]) => What::Login,
            ("GET", ["v3", "auth", "tokens"]) => What::TokenCheck,
            ("GET", [] | ["v1" | "v3"]) => What::Versions,
            ("GET", ["v1", "secrets"]) => What::SecretList,
            ("GET", ["v1", "secrets", _]) => What::Secret,
            ("GET", ["v1", "secrets", _, "payload"]) => What::Payload,
            ("GET", ["v1", "secrets", _, "metadata", ..]) => What::UserMetadata,
            ("GET", ["v1", "containers", ..]) => What::Container,
            ("GET" | "HEAD" | "OPTIONS", _) => What::Other,
            _ => What::Change,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_method_and_path() {
        for (method, path, what) in [
            ("POST", "/v3/auth/tokens", What::Login),
            ("GET", "/v3/auth/tokens", What::TokenCheck),
            ("GET", "/", What::Versions),
            ("GET", "/v1/", What::Versions),
            ("GET", "/v1/secrets", What::SecretList),
            ("POST", "/v1/secrets", What::Change),
            ("DELETE", "/v1/secrets/1", What::Change),
            ("GET", "/v1/quotas", What::Other),
            ("GET", "/v1/secrets/1", What::Secret),
            ("GET", "/v1/secrets/1/payload", What::Payload),
            ("GET", "/v1/secrets/1/metadata", What::UserMetadata),
            ("GET", "/v1/containers/1", What::Container),
        ] {
            assert_eq!(request(method, path).what(), what, "{method} {path}");
        }
    }

    fn request(method: &str, path: &str) -> Request {
        Request {
            time: 0.0,
            method: method.to_owned(),
            path: path.to_owned(),
            query: String::new(),
            accept: String::new(),
            status: 200,
            request_id: None,
            user: None,
            project: None,
            login: None,
            milliseconds: 0.0,
        }
    }
}
