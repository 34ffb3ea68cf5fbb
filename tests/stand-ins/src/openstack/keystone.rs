//! Keystone: who may log in, and for what.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{ADMINISTRATOR, MEMBER, PROJECT, State, now, told};
use crate::http::{Answer, Seen};

/// A user of the domain `Default`. Its id is its name.
#[derive(Clone)]
pub struct User {
    /// Name and id.
    pub name: String,
    /// The password.
    pub password: String,
    /// Whether the user may log in.
    pub enabled: bool,
    /// Role by project, each by its id.
    pub roles: Vec<(String, String)>,
    /// How many wrong passwords were shown since the last right one.
    pub failures: u32,
}

/// An application credential.
#[derive(Clone)]
pub struct Credential {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its secret.
    pub secret: String,
    /// Whom it stands for.
    pub user: String,
    /// Where.
    pub project: String,
    /// Methods and paths in Barbican that it is good for; without any, for all. `**` stands for any rest of a path.
    pub rules: Vec<(String, String)>,
}

/// A token.
#[derive(Clone)]
pub struct Token {
    /// What is sent.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// What it is for; without one it is good for nothing but another token.
    pub project: Option<String>,
    rules: Vec<(String, String)>,
    parent: Option<String>,
    ends: DateTime<Utc>,
}

impl Token {
    /// Whether the rules of its application credential list this.
    pub(super) fn allows(&self, method: &str, path: &str) -> bool {
        let fits = |rule: &str| {
            rule.strip_suffix("**")
                .map_or(rule == path, |start| path.starts_with(start))
        };
        self.rules.is_empty()
            || self
                .rules
                .iter()
                .any(|(known, rule)| known == method && fits(rule))
    }
}

/// Why nobody is logged in.
enum Refusal {
    /// Who was not believed.
    Wrong(String),
    Unknown,
}

impl User {
    /// A member of [`PROJECT`].
    #[must_use]
    pub fn new(name: &str, password: &str) -> Self {
        Self {
            name: name.to_owned(),
            password: password.to_owned(),
            enabled: true,
            roles: vec![(PROJECT.to_owned(), MEMBER.to_owned())],
            failures: 0,
        }
    }
}

impl State {
    pub(super) fn keystone(&mut self, seen: &Seen) -> Answer {
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let parts: Vec<&str> = seen.path().trim_matches('/').split('/').collect();
        match (seen.method.as_str(), parts.as_slice()) {
            ("GET", ["v3"]) => told(200, &json!({"version": {"id": "v3.14", "status": "stable"}})),
            ("POST", ["v3", "auth", "tokens"]) => self.log_in(&body["auth"]),
            ("GET", ["v3", "auth", "tokens"]) => match self.bearer(seen) {
                Some(_) => told(200, &json!({})),
                None => unauthorized(),
            },
            ("DELETE", ["v3", "auth", "tokens"]) => {
                let ended = seen.header("x-subject-token").unwrap_or_default();
                // What was made of a token ends with it, and not the other way round.
                let ends = |token: &Token| token.id == ended || token.parent.as_deref() == Some(ended);
                self.tokens.retain(|token| !ends(token));
                told(204, &Value::Null)
            }
            (method, ["v3", rest @ ..]) => match self.bearer(seen) {
                Some(bearer) => self.arrange(&bearer, method, rest, &body),
                None => unauthorized(),
            },
            _ => told(404, &json!({})),
        }
    }

    /// The living token that a request carries.
    pub(super) fn bearer(&self, seen: &Seen) -> Option<Token> {
        let shown = seen.header("x-auth-token")?;
        let token = self.tokens.iter().find(|token| token.id == shown);
        token.filter(|token| now() < token.ends).cloned()
    }

    /// The role of a user in a project.
    pub(super) fn role(&self, user: &str, project: &str) -> Option<&str> {
        let user = self
            .users
            .iter()
            .find(|known| known.name == user && known.enabled)?;
        let role = user.roles.iter().find(|(known, _)| known == project)?;
        Some(&role.1)
    }

    fn log_in(&mut self, auth: &Value) -> Answer {
        if let Some(fault) = self.login_fault {
            return fault();
        }
        let identity = &auth["identity"];
        let known = match identity["methods"][0].as_str() {
            Some("password") => self
                .by_password(&identity["password"]["user"])
                .map(|user| (user, None)),
            Some("application_credential") => self
                .by_credential(&identity["application_credential"])
                .map(|credential| (credential.user.clone(), Some(credential))),
            Some("token") => self.by_token(&identity["token"]["id"]).map(|user| (user, None)),
            _ => return told(400, &json!({"error": {"code": 400, "title": "Bad Request"}})),
        };
        let (user, credential) = match known {
            Ok(known) => known,
            Err(Refusal::Wrong(who)) => {
                self.refused.push(who);
                return unauthorized();
            }
            Err(Refusal::Unknown) => {
                return told(404, &json!({"error": {"code": 404, "title": "Not Found"}}));
            }
        };
        let wanted = &auth["scope"]["project"];
        let wanted = [&wanted["id"], &wanted["name"]]
            .into_iter()
            .find_map(Value::as_str);
        let parent = identity["token"]["id"].as_str().map(str::to_owned);
        let (own, rules) = credential.map(|own| (own.project, own.rules)).unzip();
        let project = own.or_else(|| wanted.map(str::to_owned));
        match project {
            Some(project) if user != ADMINISTRATOR && self.role(&user, &project).is_none() => {
                self.refused.push(user);
                unauthorized()
            }
            project => self.issue(&user, project, rules.unwrap_or_default(), parent),
        }
    }

    fn by_password(&mut self, shown: &Value) -> Result<String, Refusal> {
        let named = [&shown["name"], &shown["id"]]
            .into_iter()
            .find_map(Value::as_str)
            .unwrap_or_default();
        let limit = self.lockout_after;
        let wrong = || Refusal::Wrong(named.to_owned());
        let user = self
            .users
            .iter_mut()
            .find(|user| user.name == named)
            .ok_or_else(wrong)?;
        let in_default = shown["domain"].is_null()
            || shown["domain"]["id"] == "default"
            || shown["domain"]["name"] == "Default";
        let locked = user.failures >= limit;
        if shown["password"] != user.password.as_str() || !user.enabled || !in_default || locked {
            user.failures += 1;
            return Err(wrong());
        }
        user.failures = 0;
        Ok(user.name.clone())
    }

    fn by_credential(&self, shown: &Value) -> Result<Credential, Refusal> {
        let owner = [&shown["user"]["name"], &shown["user"]["id"]]
            .into_iter()
            .find_map(Value::as_str);
        let named = |credential: &&Credential| match shown["id"].as_str() {
            Some(id) => credential.id == id,
            None => shown["name"] == credential.name.as_str() && owner == Some(credential.user.as_str()),
        };
        let credential = self.credentials.iter().find(named).ok_or(Refusal::Unknown)?;
        let wrong = shown["secret"] != credential.secret.as_str();
        if wrong || self.role(&credential.user, &credential.project).is_none() {
            return Err(Refusal::Wrong(credential.id.clone()));
        }
        Ok(credential.clone())
    }

    fn by_token(&self, shown: &Value) -> Result<String, Refusal> {
        let token = self.tokens.iter().find(|token| *shown == token.id.as_str());
        token.map(|token| token.user.clone()).ok_or(Refusal::Unknown)
    }

    fn issue(
        &mut self,
        user: &str,
        project: Option<String>,
        rules: Vec<(String, String)>,
        parent: Option<String>,
    ) -> Answer {
        let (issued, number) = (now(), self.number());
        let token = Token {
            id: format!("token-{}-{number}", self.prefix),
            user: user.to_owned(),
            project,
            rules,
            parent,
            ends: issued + TimeDelta::seconds(self.token_seconds),
        };
        let spelled = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut body = json!({
            "methods": ["password"], "user": {"id": user, "name": user},
            "issued_at": spelled(issued), "expires_at": spelled(token.ends),
        });
        if let Some(project) = &token.project {
            body["project"] = json!({"id": project, "name": project});
            body["catalog"] = self.catalog.clone();
        }
        let answer = told(201, &json!({ "token": body })).with_header("x-subject-token", &token.id);
        self.tokens.push(token);
        answer
    }

    /// What an administrator, and a user for itself, may arrange.
    fn arrange(&mut self, bearer: &Token, method: &str, path: &[&str], body: &Value) -> Answer {
        match (method, path) {
            ("POST", ["users", user, "application_credentials"]) => {
                let number = self.number();
                let rules = body["application_credential"]["access_rules"]
                    .as_array()
                    .into_iter()
                    .flatten();
                let rules = rules.filter_map(|rule| {
                    Some((
                        rule["method"].as_str()?.to_owned(),
                        rule["path"].as_str()?.to_owned(),
                    ))
                });
                let credential = Credential {
                    rules: rules.collect(),
                    id: format!("credential-{number}"),
                    name: body["application_credential"]["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    secret: format!("secret-{number}"),
                    user: (*user).to_owned(),
                    project: bearer.project.clone().unwrap_or_default(),
                };
                let made = json!({"id": credential.id, "name": credential.name, "secret": credential.secret});
                self.credentials.push(credential);
                told(201, &json!({ "application_credential": made }))
            }
            ("DELETE", ["users", _, "application_credentials", id]) => {
                self.credentials.retain(|credential| credential.id != *id);
                told(204, &Value::Null)
            }
            _ if bearer.user != ADMINISTRATOR => {
                told(403, &json!({"error": {"code": 403, "title": "Forbidden"}}))
            }
            ("POST", ["projects"]) => told(201, &json!({"project": {"id": body["project"]["name"]}})),
            ("POST", ["users"]) => {
                let text = |name: &str| body["user"][name].as_str().unwrap_or_default().to_owned();
                self.users.push(User {
                    roles: Vec::new(),
                    ..User::new(&text("name"), &text("password"))
                });
                told(201, &json!({"user": {"id": body["user"]["name"]}}))
            }
            ("PATCH", ["users", name]) => {
                // Another password, or none any more, ends every token of the user.
                self.tokens.retain(|token| token.user != *name);
                self.with_user(name, |user| {
                    if let Some(enabled) = body["user"]["enabled"].as_bool() {
                        user.enabled = enabled;
                    }
                    if let Some(password) = body["user"]["password"].as_str() {
                        password.clone_into(&mut user.password);
                    }
                    told(200, &json!({"user": {"id": user.name}}))
                })
            }
            ("PUT", ["projects", project, "users", name, "roles", role]) => self.with_user(name, |user| {
                user.roles.push(((*project).to_owned(), (*role).to_owned()));
                told(204, &Value::Null)
            }),
            ("DELETE", ["projects", project, "users", name, "roles", role]) => self.with_user(name, |user| {
                user.roles
                    .retain(|(known, held)| known != project || held != role);
                told(204, &Value::Null)
            }),
            _ => told(404, &json!({})),
        }
    }

    fn with_user(&mut self, name: &str, change: impl FnOnce(&mut User) -> Answer) -> Answer {
        match self.users.iter_mut().find(|user| user.name == name) {
            Some(user) => change(user),
            None => told(404, &json!({})),
        }
    }
}

fn unauthorized() -> Answer {
    let message = "The request you have made requires authentication.";
    told(
        401,
        &json!({"error": {"code": 401, "message": message, "title": "Unauthorized"}}),
    )
}
