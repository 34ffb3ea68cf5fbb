//! A stand-in for Keystone and Barbican, for the faults that real ones cannot be made to show.

use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use keyward_core::address::AddressPolicy;
use keyward_core::logins::{Known, Login, Logins, Step};
use keyward_core::sync::fingerprint::{FingerprintKey, KEY_BYTES};
use serde_json::{Value, json};
use uuid::Uuid;

use super::config::{
    BarbicanConfig, CredentialRef, DomainRef, Interface, KeystoneAuth, Limits, ProjectRef, UserRef,
};
use super::lockout::{LoginGate, LoginMemory};
use super::{BarbicanSessions, BarbicanStore};
use crate::stores::transport::TransportOptions;
use crate::stores::transport::stand_in::{Answer, Seen, StandIn};

/// Stands for every secret: it must show up nowhere but in values.
pub(super) const CANARY: &str = "canary-91be77";
pub(super) const REGION: &str = "north";

/// Remembers for as long as the process lives.
#[derive(Debug, Default)]
pub(super) struct InMemory(Mutex<Logins>);

impl LoginMemory for InMemory {
    fn known(&self, login: &Login, now: DateTime<Utc>) -> Known {
        self.0.lock().unwrap().known(login, now)
    }

    fn note(&self, login: Login, step: Step, now: DateTime<Utc>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.0.lock().unwrap().note(&login, step, now);
        })
    }
}

/// The two servers and what they hold.
pub(super) struct Cloud {
    pub(super) keystone: StandIn,
    pub(super) barbican: StandIn,
    state: Arc<Mutex<State>>,
}

/// What the servers hold and how they behave; tests change it freely.
pub(super) struct State {
    pub(super) secrets: Vec<Secret>,
    pub(super) containers: Vec<(Uuid, Value)>,
    /// Accepted as password and as application credential.
    pub(super) password: String,
    pub(super) token_seconds: i64,
    pub(super) catalog: Value,
    /// Tokens that Barbican accepts.
    pub(super) tokens: Vec<String>,
    issued: usize,
    /// Answers this instead of logging in.
    pub(super) login_fault: Option<fn() -> Answer>,
    /// Answers this instead of anything below `/v1`, where it gives an answer for the request.
    pub(super) fault: Option<fn(&Seen) -> Option<Answer>>,
    /// Runs before each page of a listing.
    pub(super) before_page: Option<fn(&mut State, usize)>,
}

#[derive(Clone)]
pub(super) struct Secret {
    pub(super) id: Uuid,
    pub(super) name: String,
    /// Seconds after a fixed time.
    pub(super) created: i64,
    /// Barbican's spelling.
    pub(super) expiration: Option<String>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) metadata: Value,
}

impl Secret {
    pub(super) fn new(id: u128, name: &str, created: i64) -> Self {
        Self {
            id: Uuid::from_u128(id),
            name: name.into(),
            created,
            expiration: None,
            payload: Some(format!("{CANARY} {id}").into_bytes()),
            metadata: json!({}),
        }
    }

    fn json(&self) -> Value {
        let mut json = json!({
            "name": self.name, "status": "ACTIVE", "created": time(self.created),
            "expiration": self.expiration, "secret_ref": format!("http://inside/v1/secrets/{}", self.id),
        });
        if self.payload.is_some() {
            json["content_types"] = json!({"default": "application/octet-stream"});
        }
        json
    }
}

impl Cloud {
    pub(super) async fn start(secrets: Vec<Secret>) -> Self {
        let state = Arc::new(Mutex::new(State {
            secrets,
            containers: Vec::new(),
            password: CANARY.into(),
            token_seconds: 3600,
            catalog: Value::Null,
            tokens: Vec::new(),
            issued: 0,
            login_fault: None,
            fault: None,
            before_page: None,
        }));
        let served = Arc::clone(&state);
        let barbican = StandIn::plain(move |seen| serve_barbican(&mut served.lock().unwrap(), seen)).await;
        let served = Arc::clone(&state);
        let keystone = StandIn::plain(move |seen| serve_keystone(&mut served.lock().unwrap(), seen)).await;
        let endpoint = |interface: &str, region: &str, url: &str| json!({"interface": interface, "region_id": region, "url": url});
        state.lock().unwrap().catalog = json!([{"type": "key-manager", "endpoints": [
            endpoint("public", REGION, barbican.url().join("v1/").unwrap().as_str()),
            endpoint("public", "south", "http://127.0.0.1:1/"),
        ]}]);
        Self {
            keystone,
            barbican,
            state,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn store(&self) -> BarbicanStore {
        BarbicanSessions::new(gate())
            .open(self.config(password(CANARY)))
            .ok()
            .unwrap()
    }

    pub(super) fn config(&self, auth: KeystoneAuth) -> BarbicanConfig {
        let addresses = AddressPolicy {
            allow_loopback: true,
            ..AddressPolicy::default()
        };
        let mut transport = TransportOptions::new(Arc::new(addresses));
        transport.plain_http_allowed = true;
        transport.deadline = std::time::Duration::from_secs(2);
        BarbicanConfig {
            auth_url: self.keystone.url(),
            auth,
            region: Some(REGION.into()),
            interface: Interface::Public,
            endpoint: None,
            transport,
            limits: Limits {
                payload: 1000,
                ..Limits::default()
            },
        }
    }

    /// How many secrets or passwords Keystone was shown.
    pub(super) fn logins(&self) -> usize {
        let shows_secret = |seen: &&Seen| {
            seen.method == "POST" && !String::from_utf8_lossy(&seen.body).contains("\"token\"")
        };
        self.keystone.seen().iter().filter(shows_secret).count()
    }

    /// What Barbican was asked below `/v1` since the last call, without ids.
    pub(super) fn asked(&self, since: &mut usize) -> Vec<String> {
        let seen = self.barbican.seen();
        let new = seen[*since..].iter().filter(|seen| seen.target != "/");
        let asked = new.map(|seen| {
            let path = seen.target.split('?').next().unwrap();
            let plain = path.split('/').filter(|part| Uuid::try_parse(part).is_err());
            let name = if seen.target.contains("name=") {
                "?name"
            } else {
                ""
            };
            plain.collect::<Vec<_>>().join("/") + name
        });
        let asked = asked.collect();
        *since = seen.len();
        asked
    }
}

pub(super) fn password(password: &str) -> KeystoneAuth {
    KeystoneAuth::Password {
        user: UserRef::Name {
            name: "ada".into(),
            domain: DomainRef::Name("Default".into()),
        },
        password: password.into(),
        project: ProjectRef::Id("web".into()),
    }
}

pub(super) fn credential(secret: &str) -> KeystoneAuth {
    KeystoneAuth::ApplicationCredential {
        credential: CredentialRef::Id("c".into()),
        secret: secret.into(),
    }
}

pub(super) fn gate() -> Arc<LoginGate> {
    Arc::new(LoginGate::new(
        Arc::new(InMemory::default()),
        Arc::new(FingerprintKey::from_bytes(&[7; KEY_BYTES]).unwrap()),
    ))
}

/// Barbican's spelling of a time, in seconds after a fixed one.
pub(super) fn time(second: i64) -> String {
    let time = chrono::DateTime::from_timestamp(1_790_000_000 + second, 0).unwrap();
    time.format("%Y-%m-%dT%H:%M:%S").to_string()
}

fn serve_keystone(state: &mut State, seen: &Seen) -> Answer {
    match (seen.method.as_str(), seen.target.as_str()) {
        ("GET", "/v3") => Answer::json(200, r#"{"version": {"id": "v3.14"}}"#),
        ("POST", "/v3/auth/tokens") => log_in(state, &serde_json::from_slice(&seen.body).unwrap()),
        ("DELETE", "/v3/auth/tokens") => {
            let ended = seen.header("x-subject-token").unwrap();
            state.tokens.retain(|token| token != ended);
            Answer::json(204, "")
        }
        _ => Answer::json(404, "{}"),
    }
}

fn log_in(state: &mut State, body: &Value) -> Answer {
    if let Some(fault) = state.login_fault {
        return fault();
    }
    let identity = &body["auth"]["identity"];
    let shown = [
        &identity["password"]["user"]["password"],
        &identity["application_credential"]["secret"],
    ];
    let scope = &body["auth"]["scope"];
    let unscoped = *scope == json!("unscoped");
    let known = shown.iter().any(|secret| **secret == json!(state.password))
        || (identity["token"]["id"] == json!(format!("unscoped-{CANARY}"))
            && scope["project"]["id"] == json!("web"));
    if !known {
        let body = json!({"error": {"code": 401, "message": format!("{CANARY} {body}")}});
        return Answer::json(401, &body.to_string());
    }
    let token = if unscoped {
        format!("unscoped-{CANARY}")
    } else {
        state.issued += 1;
        let token = format!("token-{CANARY}-{}", state.issued);
        state.tokens.push(token.clone());
        token
    };
    let mut body = json!({"token": {
        "issued_at": format!("{}.000000Z", time(0)),
        "expires_at": format!("{}.000000Z", time(state.token_seconds)),
    }});
    if !unscoped {
        body["token"]["catalog"] = state.catalog.clone();
    }
    Answer::json(201, &body.to_string()).with_header("x-subject-token", &token)
}

fn serve_barbican(state: &mut State, seen: &Seen) -> Answer {
    let url = url::Url::parse("http://x").unwrap().join(&seen.target).unwrap();
    let path: Vec<&str> = url.path().trim_matches('/').split('/').collect();
    if path == [""] {
        return Answer::json(300, r#"{"versions": [{"id": "v1", "max_version": "1.2"}]}"#);
    }
    let token = seen.header("x-auth-token").unwrap_or_default();
    if !state.tokens.iter().any(|known| known == token) {
        return Answer::Whole(401, vec![], format!("no {CANARY}").into());
    }
    if let Some(answer) = state.fault.and_then(|fault| fault(seen)) {
        return answer;
    }
    let query = |key: &str| {
        url.query_pairs()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.into_owned())
    };
    let find = |id: &str| state.secrets.iter().find(|secret| secret.id.to_string() == id);
    let missing = || Answer::json(404, &json!({"code": 404, "title": CANARY}).to_string());
    match path[..] {
        ["v1", "secrets"] => {
            assert_eq!(query("sort").as_deref(), Some("created:desc"));
            list(
                state,
                query("name").as_deref(),
                &query("offset").unwrap(),
                &query("limit").unwrap(),
            )
        }
        ["v1", "secrets", id] => {
            find(id).map_or_else(missing, |secret| Answer::json(200, &secret.json().to_string()))
        }
        ["v1", "secrets", id, "metadata"] => find(id).map_or_else(missing, |secret| {
            Answer::json(200, &json!({"metadata": secret.metadata}).to_string())
        }),
        ["v1", "secrets", id, "payload"] => {
            assert_eq!(seen.header("accept"), Some("application/octet-stream"));
            let payload = find(id).and_then(|secret| secret.payload.clone());
            payload.map_or_else(missing, |payload| {
                let status = if payload.is_empty() { 204 } else { 200 };
                let kind = ("content-type".into(), "application/octet-stream".into());
                Answer::Whole(status, vec![kind], payload)
            })
        }
        ["v1", "containers", id] => {
            let container = state.containers.iter().find(|(known, _)| known.to_string() == id);
            container.map_or_else(missing, |(_, body)| Answer::json(200, &body.to_string()))
        }
        _ => missing(),
    }
}

/// As Barbican does: a name is a LIKE pattern whose case does not count.
fn list(state: &mut State, name: Option<&str>, offset: &str, limit: &str) -> Answer {
    let (offset, limit): (usize, usize) = (offset.parse().unwrap(), limit.parse().unwrap());
    if let Some(change) = state.before_page {
        change(state, offset);
    }
    let like = |secret: &&Secret| {
        let same = |(a, b): (char, char)| a == '_' || a.eq_ignore_ascii_case(&b);
        name.is_none_or(|name| {
            name.chars().count() == secret.name.chars().count()
                && name.chars().zip(secret.name.chars()).all(same)
        })
    };
    let mut fitting: Vec<&Secret> = state.secrets.iter().filter(like).collect();
    fitting.sort_by_key(|secret| -secret.created);
    let page: Vec<Value> = fitting
        .iter()
        .skip(offset)
        .take(limit.min(100))
        .map(|secret| secret.json())
        .collect();
    Answer::json(200, &json!({"secrets": page, "total": fitting.len()}).to_string())
}
