//! A store's way to its Barbican: the endpoint that the catalog or the store names, by a token that stores with the
//! same credential share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use keyward_core::fault::Fault;
use url::Url;

use super::classify::Answered;
use super::config::{BarbicanConfig, Interface, barbican_root};
use super::flight::Flight;
use super::keystone::{AUTH_TOKEN, Keystone};
use super::lockout::LoginGate;
use super::tokens::{Token, Tokens};
use super::wire::max_microversion;
use crate::stores::Outcome;
use crate::stores::pool::{Lease, Pool};
use crate::stores::transport::{Request, Response, Transport, TransportOptions, credential_header};

const MICROVERSION: HeaderName = HeaderName::from_static("openstack-api-version");
/// Barbican works on one request per worker, of which there are few: more connections only wait there, until they
/// run into the deadline.
const MOST_CONNECTIONS: usize = 8;
/// Room for a page of a hundred secrets.
const LISTING_BYTES: usize = 4 << 20;

/// A session with Barbican by way of Keystone.
pub(super) struct Session {
    tokens: Lease<Tokens>,
    way: Arc<Way>,
}

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

/// How the endpoint is chosen, and the door to the one that was.
struct Way {
    region: Option<String>,
    interface: Interface,
    endpoint: Option<Url>,
    options: TransportOptions,
    door: Mutex<Option<Arc<Door>>>,
    openings: Flight<Arc<Door>>,
}

/// One Barbican endpoint.
struct Door {
    root: Url,
    transport: Transport,
    /// The newest microversion that both sides know.
    microversion: Option<HeaderValue>,
}

impl Session {
    /// Checks the configuration; nothing is sent yet. Configurations with the same credential at the same Keystone
    /// share their tokens, whichever Barbican they lead to.
    pub(super) fn open(config: BarbicanConfig, pool: &Pool<Tokens>, gate: &Arc<LoginGate>) -> Outcome<Self> {
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
        let digest = pool.digest(&keystone.session_key(&transport));
        // The name belongs to Keystone's host.
        transport.server_name = None;
        transport.connections = transport.connections.min(MOST_CONNECTIONS);
        transport.max_body = LISTING_BYTES.max(limits.payload.saturating_add(1));
        let way = Way {
            region,
            interface,
            endpoint: endpoint.as_ref().map(barbican_root).transpose()?,
            options: transport,
            door: Mutex::default(),
            openings: Flight::default(),
        };
        let tokens = pool.join(digest, || Tokens::new(keystone, Arc::clone(gate)));
        Ok(Self {
            tokens,
            way: Arc::new(way),
        })
    }

    /// Sends a read. A refused token is replaced once; a second refusal means that rights are missing.
    pub(super) async fn get(&self, call: &Call<'_>) -> Outcome<Response> {
        let tokens = self.tokens.session()?;
        let (token, door) = self.enter(tokens).await?;
        let answer = door.get(&token, call).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let denied = |answer: &Response| Err(Answered::by("Barbican", call.tried, answer).fault());
        if !tokens.retire(&token, &door.root) {
            return denied(&answer);
        }
        let (token, door) = self.enter(tokens).await?;
        let answer = door.get(&token, call).await?;
        let refused = answer.status == StatusCode::UNAUTHORIZED;
        tokens.tried_again(&door.root, refused);
        if refused { denied(&answer) } else { Ok(answer) }
    }

    async fn enter(&self, tokens: &Tokens) -> Outcome<(Arc<Token>, Arc<Door>)> {
        let token = tokens.live().await?;
        let door = self.way.door(&token).await;
        // Where the store names Barbican itself, the token's catalog has no part in it.
        if self.way.endpoint.is_none() {
            tokens.led(&token, door.is_ok());
        }
        Ok((token, door?))
    }

    /// Leaves at once. The future gives the token back, if nobody else uses it.
    pub(super) fn close(&self) -> BoxFuture<'static, ()> {
        let last = self.tokens.leave();
        Box::pin(async move {
            if let Some(tokens) = last {
                tokens.close().await;
            }
        })
    }
}

impl Way {
    /// The door to the endpoint that a token is for: the one there is, with its open connections, or a new one.
    async fn door(self: &Arc<Self>, token: &Token) -> Outcome<Arc<Door>> {
        let root = if let Some(root) = &self.endpoint {
            root.clone()
        } else {
            barbican_root(&token.grant.key_manager(self.region.as_deref(), self.interface)?)?
        };
        if let Some(door) = self.open_door(&root) {
            return Ok(door);
        }
        let way = Arc::clone(self);
        self.openings.join(|| async move { way.open(root).await }).await
    }

    async fn open(&self, root: Url) -> Outcome<Arc<Door>> {
        if let Some(door) = self.open_door(&root) {
            return Ok(door);
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
        let door = Arc::new(Door {
            root,
            transport,
            microversion,
        });
        *self.current() = Some(Arc::clone(&door));
        Ok(door)
    }

    fn open_door(&self, root: &Url) -> Option<Arc<Door>> {
        self.current().as_ref().filter(|door| door.root == *root).cloned()
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Door>>> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door {
    async fn get(&self, token: &Token, call: &Call<'_>) -> Outcome<Response> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTH_TOKEN, credential_header(token.secret.expose())?);
        headers.insert(ACCEPT, HeaderValue::from_static(call.accept));
        if let Some(version) = self.microversion.as_ref().filter(|_| call.versioned) {
            headers.insert(MICROVERSION, version.clone());
        }
        let request = Request {
            method: Method::GET,
            path_and_query: call.path.clone(),
            headers,
            body: None,
        };
        self.transport.send(request).await
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
