//! A stand-in for Keystone and Barbican: projects, users, application credentials, tokens and a lock-out; secrets,
//! their metadata, containers and listings. What they hold can be arranged through their API or by [`State`].

mod barbican;
mod keystone;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

pub use self::keystone::{Credential, Token, User};
use crate::http::{Answer, Seen, StandIn};

/// The only region of the catalog.
pub const REGION: &str = "north";
/// The project that is there from the start.
pub const PROJECT: &str = "web";
/// The user that is there from the start: a member of [`PROJECT`], in the domain `Default`.
pub const USER: &str = "ada";
/// The application credential that is there from the start, of [`USER`] for [`PROJECT`].
pub const CREDENTIAL: &str = "c";
/// The user who may do everything in Keystone, with the password of the same name.
pub const ADMINISTRATOR: &str = "admin";
/// The role that may read, write and delete secrets.
pub const MEMBER: &str = "member";
/// The role that may do nothing in Barbican.
pub const READER: &str = "reader";

/// Barbican's own limits, in bytes: of a stored text, base64 or not, and of a request.
const LARGEST_TEXT: usize = 20_000;

/// Both servers; they end when dropped.
pub struct Cloud {
    /// Keystone.
    pub keystone: StandIn,
    /// Barbican.
    pub barbican: StandIn,
    ca: Vec<u8>,
    state: Arc<Mutex<State>>,
}

/// What the servers hold and how they behave; tests change it freely.
pub struct State {
    /// All secrets of all projects.
    pub secrets: Vec<Secret>,
    /// All containers.
    pub containers: Vec<Container>,
    /// Who may log in.
    pub users: Vec<User>,
    /// Stand for users.
    pub credentials: Vec<Credential>,
    /// After how many wrong passwords a user is locked out.
    pub lockout_after: u32,
    /// For how long a new token is good.
    pub token_seconds: i64,
    /// What a token for a project comes with.
    pub catalog: Value,
    /// Tokens that are accepted.
    pub tokens: Vec<Token>,
    /// Who was refused a login, by user or application credential, in order.
    pub refused: Vec<String>,
    /// How many requests Barbican has answered with 401.
    pub turned_away: usize,
    /// How many ids were given out.
    made: u64,
    /// The start of each token.
    prefix: String,
    /// Answers this instead of logging in.
    pub login_fault: Option<fn() -> Answer>,
    /// Answers this instead of anything below `/v1`, where it gives an answer for the request.
    pub fault: Option<fn(&Seen) -> Option<Answer>>,
    /// Runs before each page of a listing, with the page's offset.
    pub before_page: Option<fn(&mut State, usize)>,
}

/// A secret.
#[derive(Clone)]
pub struct Secret {
    /// Its UUID.
    pub id: Uuid,
    /// Its name, which need not be unique.
    pub name: String,
    /// The project it belongs to.
    pub project: String,
    /// Seconds after a fixed time.
    pub created: i64,
    /// In Barbican's spelling.
    pub expiration: Option<String>,
    /// The value, if it was stored yet.
    pub payload: Option<Vec<u8>>,
    /// User metadata: an object of texts.
    pub metadata: Value,
    /// `secret_type`.
    pub kind: String,
}

/// A container.
pub struct Container {
    /// Its UUID.
    pub id: Uuid,
    /// The project it belongs to.
    pub project: String,
    /// What a look at it answers.
    pub body: Value,
}

impl Secret {
    /// A secret of [`PROJECT`] with this value, that never expires.
    #[must_use]
    pub fn new(id: u128, name: &str, created: i64, payload: &[u8]) -> Self {
        Self {
            id: Uuid::from_u128(id),
            name: name.to_owned(),
            project: PROJECT.to_owned(),
            created,
            expiration: None,
            payload: Some(payload.to_vec()),
            metadata: json!({}),
            kind: "opaque".to_owned(),
        }
    }

    fn is_expired(&self) -> bool {
        let end = self
            .expiration
            .as_deref()
            .map(|text| text.trim_end_matches('Z').parse::<NaiveDateTime>());
        matches!(end, Some(Ok(end)) if end.and_utc() <= now())
    }
}

impl Container {
    /// A container of [`PROJECT`].
    #[must_use]
    pub fn new(id: u128, body: Value) -> Self {
        Self {
            id: Uuid::from_u128(id),
            project: PROJECT.to_owned(),
            body,
        }
    }
}

impl Cloud {
    /// Serves plain HTTP. [`USER`] and [`CREDENTIAL`] log in with `password`, which also shows in each token.
    pub async fn plain(password: &str, secrets: Vec<Secret>) -> Self {
        let state = State::new(password, secrets);
        let shared = Arc::clone(&state);
        let barbican = StandIn::plain(move |seen| lock(&shared).barbican(seen)).await;
        let shared = Arc::clone(&state);
        let keystone = StandIn::plain(move |seen| lock(&shared).keystone(seen)).await;
        Self::of(keystone, barbican, Vec::new(), state)
    }

    /// Serves TLS, with certificates for 127.0.0.1 and localhost.
    pub async fn tls(password: &str) -> Self {
        let (state, names) = (State::new(password, Vec::new()), ["127.0.0.1", "localhost"]);
        let shared = Arc::clone(&state);
        let (barbican, ca) = StandIn::tls(&names, move |seen| lock(&shared).barbican(seen)).await;
        let shared = Arc::clone(&state);
        let (keystone, other) = StandIn::tls(&names, move |seen| lock(&shared).keystone(seen)).await;
        Self::of(keystone, barbican, [ca, other].concat(), state)
    }

    /// What the servers hold.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The certificate authorities of both servers, PEM; empty without TLS.
    #[must_use]
    pub fn ca(&self) -> &[u8] {
        &self.ca
    }

    fn of(keystone: StandIn, barbican: StandIn, ca: Vec<u8>, state: Arc<Mutex<State>>) -> Self {
        let url = barbican.url().as_str().trim_end_matches('/').to_owned();
        let endpoints = ["public", "internal", "admin"].map(
            |interface| json!({"interface": interface, "region_id": REGION, "region": REGION, "url": url}),
        );
        lock(&state).catalog = json!([{"type": "key-manager", "name": "barbican", "endpoints": endpoints}]);
        Self {
            keystone,
            barbican,
            ca,
            state,
        }
    }
}

impl State {
    fn new(password: &str, secrets: Vec<Secret>) -> Arc<Mutex<Self>> {
        let administrator = User {
            roles: Vec::new(),
            ..User::new(ADMINISTRATOR, ADMINISTRATOR)
        };
        let credential = Credential {
            id: CREDENTIAL.to_owned(),
            name: CREDENTIAL.to_owned(),
            secret: password.to_owned(),
            user: USER.to_owned(),
            project: PROJECT.to_owned(),
            rules: Vec::new(),
        };
        Arc::new(Mutex::new(Self {
            secrets,
            containers: Vec::new(),
            users: vec![administrator, User::new(USER, password)],
            credentials: vec![credential],
            lockout_after: 6,
            token_seconds: 3600,
            catalog: Value::Null,
            tokens: Vec::new(),
            refused: Vec::new(),
            turned_away: 0,
            made: 0,
            prefix: password.to_owned(),
            login_fault: None,
            fault: None,
            before_page: None,
        }))
    }

    fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }
}

/// Barbican's spelling of a time, in seconds after a fixed one.
#[must_use]
pub fn time(second: i64) -> String {
    let time = DateTime::from_timestamp(EPOCH + second, 0).unwrap_or_default();
    time.format("%Y-%m-%dT%H:%M:%S").to_string()
}

/// The fixed time that secrets are dated from.
const EPOCH: i64 = 1_790_000_000;

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

/// An answer of JSON with the id by which the server has logged the request.
fn told(status: u16, body: &Value) -> Answer {
    let id = format!("req-{}", Uuid::new_v4());
    Answer::json(status, &body.to_string()).with_header("x-openstack-request-id", &id)
}
