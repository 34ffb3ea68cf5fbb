//! A stand-in for Vault and `OpenBao`: key-value mounts of both versions, policies, tokens and their ends, the ways to
//! log in, seal and health. It is told what to hold through the same API that it is asked by.

mod acl;
mod auth;
mod kv;
mod sys;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use url::Url;

use self::acl::Policy;
use self::auth::{Method, Token, login_at};
use self::kv::Engine;
use crate::http::{Answer, Seen, StandIn};

/// The token that may do everything.
pub const ROOT_TOKEN: &str = "root";

/// What takes the seal away.
pub const UNSEAL_KEY: &str = "unseal";

/// A running server; it ends when dropped.
pub struct Vault {
    server: StandIn,
    ca: Vec<u8>,
    state: Arc<Mutex<State>>,
}

/// Which product it plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Vault.
    Vault,
    /// `OpenBao`: it can list a folder together with the metadata of what is in it.
    OpenBao,
}

/// Answers a request in the place of the server, where it gives an answer.
type Fault = Box<dyn Fn(&Seen) -> Option<Answer> + Send>;

struct State {
    product: Product,
    sealed: bool,
    mounts: BTreeMap<String, Engine>,
    methods: BTreeMap<String, Method>,
    policies: BTreeMap<String, Policy>,
    tokens: Vec<Token>,
    /// How many ids were given out.
    made: u64,
    fault: Option<Fault>,
}

impl Vault {
    /// Serves plain HTTP.
    pub async fn plain(product: Product) -> Self {
        let state = State::new(product);
        let shared = Arc::clone(&state);
        Self {
            server: StandIn::plain(move |seen| lock(&shared).answer(seen)).await,
            ca: Vec::new(),
            state,
        }
    }

    /// Serves TLS, with a certificate for 127.0.0.1 and localhost.
    pub async fn tls(product: Product) -> Self {
        let state = State::new(product);
        let shared = Arc::clone(&state);
        let (server, ca) = StandIn::tls(&["127.0.0.1", "localhost"], move |seen| {
            lock(&shared).answer(seen)
        })
        .await;
        Self { server, ca, state }
    }

    /// Lets `fault` answer first.
    pub fn fail(&self, fault: impl Fn(&Seen) -> Option<Answer> + Send + 'static) {
        lock(&self.state).fault = Some(Box::new(fault));
    }

    /// Writes to `path`, below `/v1/`, as root and without a request that is seen.
    pub fn write(&self, path: &str, body: &Value) {
        drop(self.tell("PUT", path, body));
    }

    /// As [`Self::write`], for any method, and gives the answer.
    #[must_use]
    pub fn tell(&self, method: &str, path: &str, body: &Value) -> Value {
        let token = [("x-vault-token", ROOT_TOKEN)];
        let seen = Seen::new(
            method,
            &format!("/v1/{path}"),
            &token,
            body.to_string().as_bytes(),
        );
        match lock(&self.state).serve(&seen) {
            Answer::Whole(200..300, _, body) => serde_json::from_slice(&body).unwrap_or_default(),
            _ => panic!("the stand-in refuses {method} {path}"),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> Url {
        self.server.url()
    }

    /// The certificate authority of its certificate, PEM; empty without TLS.
    #[must_use]
    pub fn ca(&self) -> &[u8] {
        &self.ca
    }

    /// Every request so far, in order of arrival.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.server.seen()
    }

    /// How many requests of this method and path (without the query) arrived.
    #[must_use]
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.server.count(method, path)
    }
}

/// What a request is about, once it is known to be allowed.
struct Call<'a> {
    /// `GET`, `PUT`, `DELETE` or `LIST`: the other spellings are the same to the server.
    method: &'a str,
    /// Below the mount, decoded, without a slash at its end.
    path: &'a str,
    seen: &'a Seen,
    body: &'a Value,
}

impl State {
    fn new(product: Product) -> Arc<Mutex<Self>> {
        let mut state = Self {
            product,
            sealed: false,
            mounts: BTreeMap::new(),
            methods: BTreeMap::new(),
            policies: BTreeMap::new(),
            tokens: Vec::new(),
            made: 0,
            fault: None,
        };
        state.tokens.push(Token::root());
        Arc::new(Mutex::new(state))
    }

    fn answer(&mut self, seen: &Seen) -> Answer {
        let fault = self.fault.as_ref().and_then(|fault| fault(seen));
        fault.unwrap_or_else(|| self.serve(seen))
    }

    fn serve(&mut self, seen: &Seen) -> Answer {
        let path = percent_decode_str(seen.path()).decode_utf8_lossy();
        let Some(path) = path.strip_prefix("/v1/") else {
            return refused(404, &[]);
        };
        let path = path.trim_end_matches('/');
        let body = &serde_json::from_slice(&seen.body).unwrap_or_default();
        let lists = seen.query("list").as_deref() == Some("true");
        let method = match seen.method.as_str() {
            "GET" if lists => "LIST",
            "POST" => "PUT",
            other => other,
        };
        let call = |path| Call {
            method,
            path,
            seen,
            body,
        };
        if let Some(path) = path.strip_prefix("sys/")
            && let Some(answer) = self.open_to_all(&call(path))
        {
            return answer;
        }
        if self.sealed {
            return refused(503, &["Vault is sealed"]);
        }
        self.tokens.retain(|token| token.lives(now()));
        if let Some((mount, rest)) = login_at(path) {
            return self.log_in(mount, &call(rest));
        }
        let Some(token) = seen.header("x-vault-token").and_then(|id| self.token(id)) else {
            return denied();
        };
        if let Some(mount) = path.strip_prefix("sys/internal/ui/mounts/") {
            return self.mount_information(&call(mount), &token);
        }
        if !self.may(&token, method, path) {
            return refused(403, &["1 error occurred:\n\t* permission denied\n\n"]);
        }
        if let Some(path) = path.strip_prefix("sys/") {
            return self.system(&call(path));
        }
        if let Some(path) = path.strip_prefix("auth/token/") {
            return self.token_call(&call(path), &token);
        }
        if let Some((mount, rest)) = path.strip_prefix("auth/").and_then(|path| path.split_once('/')) {
            let (mount, rest) = (mount.to_owned(), rest.to_owned());
            return self.method_call(&mount, &call(&rest));
        }
        let (product, (mount, rest)) = (self.product, path.split_once('/').unwrap_or((path, "")));
        let Some(engine) = self.mounts.get_mut(mount) else {
            return refused(
                404,
                &[&format!(
                    "no handler for route \"{path}\". route entry not found."
                )],
            );
        };
        engine.serve(product, &call(rest))
    }

    /// A new number, for what must be unique.
    fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A refusal with the server's own words.
fn refused(status: u16, errors: &[&str]) -> Answer {
    Answer::json(status, &json!({ "errors": errors }).to_string())
}

fn denied() -> Answer {
    refused(403, &["permission denied"])
}

/// What is asked for is not there.
fn nothing() -> Answer {
    refused(404, &[])
}

fn done() -> Answer {
    Answer::Whole(204, Vec::new(), Vec::new())
}

fn data(data: &Value) -> Answer {
    enveloped(200, &data.to_string(), "null", &Value::Null)
}

/// The envelope of every answer that is no refusal. `data` and `warnings` are JSON.
fn enveloped(status: u16, data: &str, warnings: &str, auth: &Value) -> Answer {
    let body = format!(
        r#"{{"request_id":"r-1","lease_id":"","renewable":false,"lease_duration":0,"data":{data},"wrap_info":null,"warnings":{warnings},"auth":{auth}}}"#
    );
    Answer::json(status, &body)
}

fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// A length of time as the API takes it: seconds, or a number with the unit `s`, `m` or `h`.
fn seconds(value: &Value) -> i64 {
    let text = match value {
        Value::Number(number) => return number.as_i64().unwrap_or_default(),
        Value::String(text) => text,
        _ => return 0,
    };
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "m" => 60,
        "h" => 3600,
        _ => 1,
    };
    number.parse::<i64>().unwrap_or_default() * unit
}
