//! Tokens and the ways to get one.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{Call, ROOT_TOKEN, State, data, denied, done, enveloped, now, refused, seconds};
use crate::http::Answer;

/// How long a token lives if nothing else is said, in seconds.
const USUAL_LIFE: i64 = 32 * 24 * 3600;

/// A mounted way to log in, with its roles or users by name.
pub(super) struct Method {
    kind: String,
    roles: BTreeMap<String, Value>,
}

/// A token.
#[derive(Clone)]
pub(super) struct Token {
    id: String,
    pub(super) accessor: String,
    pub(super) policies: Vec<String>,
    /// The path that it was made at: the prefix of its lease.
    pub(super) made_at: String,
    issued: DateTime<Utc>,
    /// `None` never ends.
    ends: Option<DateTime<Utc>>,
    terms: Terms,
}

/// How long tokens of one kind live, in seconds; 0 sets no limit.
#[derive(Clone, Copy, Default)]
struct Terms {
    life: i64,
    longest: i64,
    period: i64,
    renewable: bool,
}

impl Method {
    pub(super) fn new(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            roles: BTreeMap::new(),
        }
    }
}

impl Token {
    pub(super) fn root() -> Self {
        Self {
            id: ROOT_TOKEN.to_owned(),
            accessor: "accessor-root".to_owned(),
            policies: vec!["root".to_owned()],
            made_at: String::new(),
            issued: now(),
            ends: None,
            terms: Terms::default(),
        }
    }

    pub(super) fn is_root(&self) -> bool {
        self.ends.is_none()
    }

    pub(super) fn lives(&self, now: DateTime<Utc>) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }

    /// What a login, a renewal and the making of a token answer.
    fn granted(&self) -> Answer {
        let mut auth = json!({
            "client_token": self.id, "accessor": self.accessor, "policies": self.policies, "metadata": null,
            "lease_duration": self.left(), "renewable": self.terms.renewable, "entity_id": "",
            "token_type": "service", "orphan": true, "mfa_requirement": null, "num_uses": 0,
        });
        // Left out where there are none.
        if !self.policies.is_empty() {
            auth["token_policies"] = json!(self.policies);
        }
        enveloped(200, "null", "null", &auth)
    }

    fn renew(&mut self) {
        let limit = |ends: DateTime<Utc>| match self.terms.longest {
            0 => ends,
            longest => ends.min(self.issued + TimeDelta::seconds(longest)),
        };
        self.ends = Some(limit(now() + TimeDelta::seconds(self.terms.step())));
    }

    /// Seconds left, rounded as the server does.
    fn left(&self) -> i64 {
        let left = self.ends.map_or(0, |ends| (ends - now()).num_milliseconds());
        (left + 500).div_euclid(1000)
    }

    fn told(&self) -> Value {
        json!({
            "accessor": self.accessor, "creation_time": self.issued.timestamp(), "creation_ttl": self.terms.step(),
            "display_name": "token", "entity_id": "", "explicit_max_ttl": 0, "id": self.id, "meta": null, "num_uses": 0,
            "orphan": true, "path": self.made_at, "policies": self.policies, "renewable": self.terms.renewable,
            "ttl": self.left(), "type": "service",
        })
    }
}

impl Terms {
    /// Of a role: its settings begin with `token_`, those of `auth/token/create` do not.
    fn of(settings: &Value, prefix: &str) -> Self {
        let of = |name: &str| seconds(&settings[format!("{prefix}{name}")]);
        Self {
            life: of("ttl"),
            longest: of("max_ttl").max(of("explicit_max_ttl")),
            period: of("period"),
            renewable: settings["renewable"] != false && settings["token_type"] != "batch",
        }
    }

    fn step(self) -> i64 {
        match (self.period, self.life) {
            (0, 0) => USUAL_LIFE,
            (0, life) => life,
            (period, _) => period,
        }
    }
}

impl State {
    pub(super) fn token(&self, id: &str) -> Option<Token> {
        self.tokens.iter().find(|token| token.id == id).cloned()
    }

    pub(super) fn log_in(&mut self, mount: &str, call: &Call<'_>) -> Answer {
        let Some(method) = self.methods.get(mount) else {
            return denied();
        };
        match method.settings_for(call) {
            Ok(settings) => {
                let (settings, path) = (settings.clone(), format!("auth/{mount}/login{}", call.path));
                let by_default = settings["token_no_default_policy"] != true;
                let policies = policies(&settings["token_policies"], by_default);
                self.make_token(policies, Terms::of(&settings, "token_"), &path)
                    .granted()
            }
            Err((status, error)) => refused(status, &[error]),
        }
    }

    /// Roles, users and settings of a way to log in.
    pub(super) fn method_call(&mut self, mount: &str, call: &Call<'_>) -> Answer {
        let number = self.number();
        let Some(method) = self.methods.get_mut(mount) else {
            return refused(
                404,
                &[&format!(
                    "no handler for route \"auth/{mount}\". route entry not found."
                )],
            );
        };
        let parts: Vec<&str> = call.path.split('/').collect();
        match (call.method, parts.as_slice()) {
            ("PUT", ["config"]) => done(),
            ("PUT", ["role" | "users" | "certs", name]) => {
                let mut role = call.body.clone();
                role["role_id"] = format!("role-{number}").into();
                role["secret_ids"] = json!([]);
                method.roles.insert((*name).to_owned(), role);
                done()
            }
            ("GET", ["role", name, "role-id"]) => {
                let role = method.roles.get(*name);
                role.map_or_else(super::nothing, |role| {
                    data(&json!({ "role_id": role["role_id"] }))
                })
            }
            ("PUT", ["role", name, "role-id"]) => {
                if let Some(role) = method.roles.get_mut(*name) {
                    role["role_id"] = call.body["role_id"].clone();
                }
                done()
            }
            ("PUT", ["role", name, "secret-id" | "custom-secret-id"]) => {
                let given = call.body["secret_id"].as_str().map(str::to_owned);
                let secret = json!(given.unwrap_or_else(|| format!("secret-{number}")));
                match method
                    .roles
                    .get_mut(*name)
                    .and_then(|role| role["secret_ids"].as_array_mut())
                {
                    None => super::nothing(),
                    Some(known) => {
                        known.push(secret.clone());
                        data(&json!({ "secret_id": secret, "secret_id_accessor": "", "secret_id_ttl": 0 }))
                    }
                }
            }
            _ => refused(404, &["unsupported path"]),
        }
    }

    /// What is below `auth/token/`.
    pub(super) fn token_call(&mut self, call: &Call<'_>, bearer: &Token) -> Answer {
        let named = call.body["accessor"].as_str().unwrap_or_default();
        match (call.method, call.path) {
            ("PUT", "create") => {
                let terms = Terms::of(call.body, "");
                let by_default = call.body["no_default_policy"] != true;
                let policies = policies(&call.body["policies"], by_default);
                let mut token = self.make_token(policies, terms, "auth/token/create");
                if let Some(id) = call.body["id"].as_str() {
                    self.rename(&mut token, id);
                }
                token.granted()
            }
            ("GET", "lookup-self") => data(&bearer.told()),
            ("PUT", "renew-self") => {
                let Some(token) = self.tokens.iter_mut().find(|token| token.id == bearer.id) else {
                    return denied();
                };
                token.renew();
                token.granted()
            }
            ("PUT", "revoke-self") => {
                self.tokens.retain(|token| token.id != bearer.id);
                done()
            }
            ("PUT", "revoke-accessor") => {
                self.tokens.retain(|token| token.accessor != named);
                done()
            }
            ("PUT", "lookup-accessor") => match self.tokens.iter().find(|token| token.accessor == named) {
                Some(token) => data(&token.told()),
                None => refused(403, &["invalid accessor"]),
            },
            _ => refused(404, &["unsupported path"]),
        }
    }

    /// Root may say what a token is to be called.
    fn rename(&mut self, token: &mut Token, id: &str) {
        self.tokens.retain(|known| known.id != token.id);
        id.clone_into(&mut token.id);
        self.tokens.push(token.clone());
    }

    fn make_token(&mut self, policies: Vec<String>, terms: Terms, path: &str) -> Token {
        let number = self.number();
        let mut token = Token {
            id: format!("token-{number}"),
            accessor: format!("accessor-{number}"),
            policies,
            made_at: path.to_owned(),
            issued: now(),
            ends: None,
            terms,
        };
        token.renew();
        self.tokens.push(token.clone());
        token
    }
}

impl Method {
    /// The role or user that a login proves to be, or the refusal.
    fn settings_for(&self, call: &Call<'_>) -> Result<&Value, (u16, &'static str)> {
        let named = |name: &Value| name.as_str().and_then(|name| self.roles.get(name));
        match self.kind.as_str() {
            "approle" => {
                let role = self
                    .roles
                    .values()
                    .find(|role| role["role_id"] == call.body["role_id"]);
                let role = role.ok_or((400, "invalid role ID"))?;
                let known = role["secret_ids"]
                    .as_array()
                    .is_some_and(|ids| ids.contains(&call.body["secret_id"]));
                if known {
                    Ok(role)
                } else {
                    Err((400, "invalid secret id"))
                }
            }
            "userpass" => {
                let user = self.roles.get(call.path.trim_start_matches('/'));
                user.filter(|user| user["password"] == call.body["password"])
                    .ok_or((400, "invalid username or password"))
            }
            "jwt" => {
                let role = named(&call.body["role"]).ok_or((400, "role could not be found"))?;
                let bound = role["bound_audiences"].as_array();
                let fits = audiences(&call.body["jwt"]).is_some_and(|audiences| {
                    bound.is_some_and(|bound| bound.iter().any(|one| audiences.contains(one)))
                });
                if fits {
                    Ok(role)
                } else {
                    Err((400, "error validating token: invalid audience (aud) claim"))
                }
            }
            "kubernetes" => {
                let role = named(&call.body["role"]).ok_or((400, "invalid role name"))?;
                let fits = audiences(&call.body["jwt"])
                    .is_some_and(|audiences| audiences.contains(&role["audience"]));
                if fits {
                    Ok(role)
                } else {
                    Err((403, "permission denied"))
                }
            }
            "cert" => {
                let role = named(&call.body["name"]).ok_or((400, "no chain matching all constraints"))?;
                let shown = call.seen.client_certificate.as_deref().and_then(common_name);
                let allowed = role["allowed_common_names"].as_array();
                let fits =
                    shown.is_some_and(|name| allowed.is_some_and(|allowed| allowed.contains(&json!(name))));
                if fits {
                    Ok(role)
                } else {
                    Err((400, "invalid certificate or no client certificate supplied"))
                }
            }
            _ => Err((400, "unsupported")),
        }
    }
}

/// The mount and the rest of a path at which somebody logs in.
pub(super) fn login_at(path: &str) -> Option<(&str, &str)> {
    let (mount, rest) = path.strip_prefix("auth/")?.split_once("/login")?;
    (rest.is_empty() || rest.starts_with('/')).then_some((mount, rest))
}

fn policies(named: &Value, with_default: bool) -> Vec<String> {
    let mut policies: Vec<String> = serde_json::from_value(named.clone()).unwrap_or_default();
    if with_default {
        policies.push("default".to_owned());
    }
    policies
}

/// The subject's common name in a certificate (DER): the last one in it, since the issuer's comes first. Who signed
/// the certificate is not looked at.
fn common_name(certificate: &[u8]) -> Option<String> {
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    let at = certificate
        .windows(COMMON_NAME.len())
        .rposition(|window| window == COMMON_NAME)?;
    let [_kind, length, text @ ..] = &certificate[at + COMMON_NAME.len()..] else {
        return None;
    };
    let name = text.get(..usize::from(*length))?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// The audiences that a JWT says it is for. Its signature is not looked at.
fn audiences(jwt: &Value) -> Option<Vec<Value>> {
    let claims = URL_SAFE_NO_PAD.decode(jwt.as_str()?.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims["aud"].as_array().cloned()
}
