//! One token for everything a store does: shared, renewed ahead of its end, replaced once when it is refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use tokio::time::Instant;
use url::Url;

use super::catalog::renewal_margin;
use super::classify::Answered;
use super::config::{BarbicanConfig, Interface, barbican_root};
use super::flight::Flight;
use super::keystone::{AUTH_TOKEN, Keystone};
use super::lockout::LoginGate;
use super::wire::max_microversion;
use crate::stores::Outcome;
use crate::stores::transport::{Request, Response, Transport, TransportOptions, credential_header};

const MICROVERSION: HeaderName = HeaderName::from_static("openstack-api-version");
/// Barbican works on one request per worker, of which there are few: more connections only wait there, until they
/// run into the deadline.
const MOST_CONNECTIONS: usize = 8;
/// Room for a page of a hundred secrets.
const LISTING_BYTES: usize = 4 << 20;

/// A session with Barbican by way of Keystone.
pub(super) struct Session(Arc<Shared>);

/// A read of Barbican.
pub(super) struct Call<'a> {
    /// What is being tried, for messages.
    pub(super) tried: &'a str,
    /// Path and query below the server's root.
    pub(super) path: String,
    /// The one content type that is wanted.
    pub(super) accept: &'static str,
    /// Whether to ask by the discovered microversion; else by the first one.
    pub(super) versioned: bool,
}

struct Shared {
    keystone: Keystone,
    gate: Arc<LoginGate>,
    region: Option<String>,
    interface: Interface,
    endpoint: Option<Url>,
    options: TransportOptions,
    state: Mutex<State>,
    logins: Flight<Arc<Live>>,
}

#[derive(Default)]
struct State {
    live: Option<Arc<Live>>,
    renew_at: Option<Instant>,
    door: Option<Arc<Door>>,
    second_try: SecondTry,
    closed: bool,
}

/// A token and where it is good.
struct Live {
    token: SecretBytes,
    expires_at: Instant,
    door: Arc<Door>,
}

/// One Barbican endpoint.
struct Door {
    root: Url,
    transport: Transport,
    /// The newest microversion that both sides know.
    microversion: Option<HeaderValue>,
}

impl Session {
    pub(super) fn new(config: BarbicanConfig, gate: Arc<LoginGate>) -> Outcome<Self> {
        let BarbicanConfig {
            auth_url,
            auth,
            region,
            interface,
            endpoint,
            mut transport,
            limits,
        } = config;
        let keystone = Keystone::new(&auth_url, auth, &transport)?;
        // The name belongs to Keystone's host.
        transport.server_name = None;
        transport.connections = transport.connections.min(MOST_CONNECTIONS);
        transport.max_body = LISTING_BYTES.max(limits.payload.saturating_add(1));
        Ok(Self(Arc::new(Shared {
            keystone,
            gate,
            region,
            interface,
            endpoint: endpoint.as_ref().map(barbican_root).transpose()?,
            options: transport,
            state: Mutex::default(),
            logins: Flight::default(),
        })))
    }

    /// Sends a read. A refused token is replaced once; a second refusal means that rights are missing.
    pub(super) async fn get(&self, call: &Call<'_>) -> Outcome<Response> {
        let live = self.live().await?;
        let answer = live.get(call).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let denied = |answer: &Response| Err(Answered::by("Barbican", call.tried, answer).fault());
        if !self.0.retire(&live) {
            return denied(&answer);
        }
        let answer = self.live().await?.get(call).await?;
        let refused = answer.status == StatusCode::UNAUTHORIZED;
        self.0.state().second_try.ended(refused, Instant::now());
        if refused { denied(&answer) } else { Ok(answer) }
    }

    /// Ends the session and gives its token back.
    pub(super) async fn close(&self) {
        let live = {
            let mut state = self.0.state();
            state.closed = true;
            state.live.take()
        };
        if let Some(live) = live {
            self.0.give_back(&live).await;
        }
    }

    async fn live(&self) -> Outcome<Arc<Live>> {
        if let Some(live) = self.0.state().fresh(Instant::now())? {
            return Ok(live);
        }
        let shared = Arc::clone(&self.0);
        let outcome = self.0.logins.join(|| async move { shared.log_in().await }).await;
        // While Keystone is away, what is left of the old token's life is used.
        outcome.or_else(|fault| self.0.state().make_do(Instant::now()).ok_or(fault))
    }
}

impl Shared {
    async fn log_in(&self) -> Outcome<Arc<Live>> {
        // Whoever missed the last run by a moment comes here with a fresh token already there.
        if let Some(live) = self.state().fresh(Instant::now())? {
            return Ok(live);
        }
        let asked_at = Instant::now();
        let login = self.keystone.log_in(&self.gate).await?;
        let root = if let Some(root) = &self.endpoint {
            root.clone()
        } else {
            barbican_root(&login.grant.key_manager(self.region.as_deref(), self.interface)?)?
        };
        let lifetime = login.grant.lifetime;
        let live = Arc::new(Live {
            token: login.token,
            expires_at: asked_at + lifetime,
            door: self.door(root).await?,
        });
        let closed = {
            let mut state = self.state();
            if !state.closed {
                state.door = Some(Arc::clone(&live.door));
                state.live = Some(Arc::clone(&live));
                state.renew_at = Some(asked_at + lifetime - renewal_margin(lifetime));
            }
            state.closed
        };
        if closed {
            self.give_back(&live).await;
            return Err(closed_session());
        }
        Ok(live)
    }

    /// The door to `root`: the one there is, with its open connections, or a new one.
    async fn door(&self, root: Url) -> Outcome<Arc<Door>> {
        if let Some(door) = self.state().door.as_ref().filter(|door| door.root == root) {
            return Ok(Arc::clone(door));
        }
        let transport = Transport::new(&root, &self.options).map_err(|fault| Fault {
            // Most often it comes from the catalog, where the user has not seen it.
            message: format!(
                "the key manager's endpoint `{root}` cannot be used: {}",
                fault.message
            )
            .into(),
            ..fault
        })?;
        let microversion = discover(&transport).await?;
        Ok(Arc::new(Door {
            root,
            transport,
            microversion,
        }))
    }

    /// Drops a refused token; `false` where a new one would be refused just the same.
    fn retire(&self, refused: &Arc<Live>) -> bool {
        let mut state = self.state();
        let current = state.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, refused));
        if !current {
            // Somebody else has replaced it meanwhile.
            return true;
        }
        let allowed = state.second_try.allowed(Instant::now());
        if allowed {
            state.live = None;
        }
        allowed
    }

    async fn give_back(&self, live: &Live) {
        if let Err(fault) = self.keystone.revoke(&live.token).await {
            tracing::debug!(%fault, "a Keystone token was not revoked and ends by itself");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fresh(&self, now: Instant) -> Outcome<Option<Arc<Live>>> {
        if self.closed {
            return Err(closed_session());
        }
        let in_time = self.renew_at.is_some_and(|renew_at| now < renew_at);
        Ok(self.live.as_ref().filter(|_| in_time).cloned())
    }

    /// The old token, if it still lives, and a moment's rest before the next try to renew it.
    fn make_do(&mut self, now: Instant) -> Option<Arc<Live>> {
        let live = self.live.clone().filter(|live| now < live.expires_at)?;
        let rest = (live.expires_at - now) / 4;
        self.renew_at = Some(now + rest.min(Duration::from_secs(10)));
        Some(live)
    }
}

impl Live {
    async fn get(&self, call: &Call<'_>) -> Outcome<Response> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTH_TOKEN, credential_header(self.token.expose())?);
        headers.insert(ACCEPT, HeaderValue::from_static(call.accept));
        if let Some(version) = self.door.microversion.as_ref().filter(|_| call.versioned) {
            headers.insert(MICROVERSION, version.clone());
        }
        let request = Request {
            method: Method::GET,
            path_and_query: call.path.clone(),
            headers,
            body: None,
        };
        self.door.transport.send(request).await
    }
}

/// Whether a refused token may be replaced by a login. Where a login has just not helped, the refusal is about
/// rights, and repeating it for each object would be a flood of logins.
#[derive(Debug, Default)]
struct SecondTry {
    not_before: Option<Instant>,
    wait: Duration,
}

impl SecondTry {
    const FIRST_WAIT: Duration = Duration::from_secs(30);
    const LONGEST_WAIT: Duration = Duration::from_mins(10);

    fn allowed(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| now >= not_before)
    }

    fn ended(&mut self, refused: bool, now: Instant) {
        if !refused {
            *self = Self::default();
        } else if self.allowed(now) {
            self.wait = (self.wait * 2).clamp(Self::FIRST_WAIT, Self::LONGEST_WAIT);
            self.not_before = Some(now + self.wait);
        }
    }
}

/// Asks which microversions the server knows; a server that does not say is spoken to in the first one.
async fn discover(transport: &Transport) -> Outcome<Option<HeaderValue>> {
    let mut headers = HeaderMap::new();
    // Without it the answer has an older shape that lacks the range.
    headers.insert(MICROVERSION, HeaderValue::from_static("key-manager 1.1"));
    let request = Request {
        method: Method::GET,
        path_and_query: "/".to_owned(),
        headers,
        body: None,
    };
    let answer = transport.send(request).await?;
    if answer.status.is_server_error() {
        return Err(Answered::by("Barbican", "asking for its version", &answer).fault());
    }
    Ok(max_microversion(answer.body.expose()).map(HeaderValue::from_static))
}

fn closed_session() -> Fault {
    Fault::new(
        Class::Transient,
        Reason::StoreNotReady,
        "the session with the store has ended",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_that_do_not_help_become_rare() {
        let mut second_try = SecondTry::default();
        let (mut logins, mut now) = (0, Instant::now());
        for _ in 0..3600 {
            if second_try.allowed(now) {
                logins += 1;
                second_try.ended(true, now);
                // Others with the same refusal do not add to the wait.
                second_try.ended(true, now);
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(
            logins, 10,
            "at 0, 30, 90, 210, 450 and 930 s, and every ten minutes after"
        );
        second_try.ended(false, now);
        assert!(second_try.allowed(now));
    }
}
