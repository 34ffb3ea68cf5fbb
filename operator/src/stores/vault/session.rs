//! One session per credential, whichever stores use it: a login made once for everybody who waits for it, a token
//! renewed before it ends, made anew once when it is found dead, and revoked at the end. A rejected credential is
//! remembered.

use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use vaultrs::api::token::requests::RevokeTokenSelfRequest;

use super::attempts::Attempts;
use super::classify::{refused, rejected, says_token_is_dead};
use super::config::VaultAuth;
use super::endpoints::LookUpSelf;
use super::login::{self, Grant};
use super::wire::{Caller, Wire};
use crate::stores::Outcome;
use crate::stores::pool::ended;
use crate::stores::refusal::Refusals;
use crate::stores::transport::Response;

/// How long a token that was seen alive is believed to be when a call is denied. Many objects may be denied at
/// once, and each look-up is a request.
const TRUST: Duration = Duration::from_mins(1);

/// A token that leaves less than this between two attempts to renew it is let go.
const SHORTEST_WAIT: Duration = Duration::from_millis(250);

/// How long the server may take to revoke a token at the end.
const FAREWELL: Duration = Duration::from_secs(3);

/// A token on loan from a session.
#[derive(Clone)]
pub(super) struct Pass {
    pub(super) token: Arc<SecretBytes>,
    /// Tells tokens of one session apart.
    id: u64,
}

/// See the module.
pub(super) struct Session {
    wire: Arc<Wire>,
    auth: VaultAuth,
    namespace: Option<HeaderValue>,
    gate: Mutex<Gate>,
    logins: Attempts,
    refusals: Lock<Refusals>,
}

/// Held while somebody logs in; everybody else waits.
struct Gate {
    state: State,
    renewal: Option<AbortHandle>,
}

enum State {
    Out,
    In(Live),
    Closed,
}

struct Live {
    pass: Pass,
    ends: Option<Instant>,
    /// When a denial was last shown not to be the token's fault.
    vouched: Option<Instant>,
}

impl Session {
    pub(super) fn new(wire: Arc<Wire>, auth: VaultAuth, namespace: Option<HeaderValue>) -> Self {
        Self {
            wire,
            auth,
            namespace,
            gate: Mutex::new(Gate {
                state: State::Out,
                renewal: None,
            }),
            logins: Attempts::default(),
            refusals: Lock::default(),
        }
    }

    /// Notes that a store begins to use this session.
    pub(super) fn joined(&self) {
        self.refusals().joined();
    }

    /// A live token; logs in if need be.
    pub(super) async fn pass(self: &Arc<Self>) -> Outcome<Pass> {
        let before = self.logins.ended();
        let mut gate = self.gate.lock().await;
        match &gate.state {
            State::In(live) if !live.is_over() => return Ok(live.pass.clone()),
            State::Closed => return Err(ended()),
            _ => {}
        }
        if let Some(fault) = self.logins.failed_since(before) {
            return Err(fault);
        }
        self.refusals().permit(Instant::now())?;
        self.log_in(&mut gate).await
    }

    /// Finds out what a 403 means: `None` if the token is alive and the call was denied by a policy, otherwise
    /// the token to repeat the call with, once.
    pub(super) async fn after_denial(
        self: &Arc<Self>,
        pass: &Pass,
        denial: &Response,
    ) -> Outcome<Option<Pass>> {
        let mut gate = self.gate.lock().await;
        let State::In(live) = &mut gate.state else {
            drop(gate);
            return self.pass().await.map(Some);
        };
        if live.pass.id != pass.id {
            return Ok(Some(live.pass.clone()));
        }
        if !says_token_is_dead(denial) {
            if live.is_trusted() {
                return Ok(None);
            }
            if !self.is_dead(pass).await? {
                live.vouched = Some(Instant::now());
                return Ok(None);
            }
        }
        if matches!(self.auth, VaultAuth::Token(_)) {
            gate.state = State::Out;
            let fault = rejected("the token has ended or was revoked".to_owned());
            return Err(self.refusals().note(fault, self.auth.repeat(), Instant::now()));
        }
        gate.state = State::Out;
        self.log_in(&mut gate).await.map(Some)
    }

    /// Notes that a call was denied although the token was new: the policy is what denies it. Without this, a
    /// token that may not look itself up would be made anew for every denied call.
    pub(super) async fn vouch_for(&self, pass: &Pass) {
        let mut gate = self.gate.lock().await;
        if let State::In(live) = &mut gate.state
            && live.pass.id == pass.id
        {
            live.vouched = Some(Instant::now());
        }
    }

    /// Revokes the token, unless somebody else made it, and refuses everything from now on.
    pub(super) async fn close(&self) {
        let mut gate = self.gate.lock().await;
        if let Some(renewal) = gate.renewal.take() {
            renewal.abort();
        }
        let State::In(live) = std::mem::replace(&mut gate.state, State::Closed) else {
            return;
        };
        if matches!(self.auth, VaultAuth::Token(_)) {
            return;
        }
        let revocation = self
            .wire
            .call(&RevokeTokenSelfRequest {}, self.caller(&live.pass));
        match tokio::time::timeout(FAREWELL, revocation).await {
            Ok(Ok(answer)) if answer.status.is_success() => {}
            _ => tracing::warn!(
                peer = self.wire.peer(),
                "the token could not be revoked and will end by itself"
            ),
        }
    }

    async fn log_in(self: &Arc<Self>, gate: &mut Gate) -> Outcome<Pass> {
        if let Some(renewal) = gate.renewal.take() {
            renewal.abort();
        }
        let caller = Caller {
            token: None,
            namespace: self.namespace.as_ref(),
        };
        let outcome = login::log_in(&self.wire, &self.auth, caller).await;
        let outcome = self.judged(outcome);
        let id = self.logins.note(&outcome);
        gate.state = State::Out;
        match outcome {
            Ok(grant) => {
                if let (true, Some(ttl)) = (grant.renewable, grant.ttl) {
                    gate.renewal =
                        Some(tokio::spawn(keep_alive(Arc::downgrade(self), id, ttl)).abort_handle());
                }
                let live = Live::new(id, grant);
                let pass = live.pass.clone();
                gate.state = State::In(live);
                Ok(pass)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Remembers whether a login was refused.
    fn judged(&self, outcome: Outcome<Grant>) -> Outcome<Grant> {
        let mut refusals = self.refusals();
        match outcome {
            Ok(grant) => {
                refusals.forget();
                Ok(grant)
            }
            Err(fault) if fault.reason == Reason::CredentialRejected => {
                Err(refusals.note(fault, self.auth.repeat(), Instant::now()))
            }
            Err(fault) => Err(fault),
        }
    }

    async fn is_dead(&self, pass: &Pass) -> Outcome<bool> {
        let answer = self.wire.call(&LookUpSelf {}, self.caller(pass)).await?;
        match answer.status {
            StatusCode::OK => Ok(false),
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Ok(true),
            _ => Err(refused(&answer, "looking up the token")),
        }
    }

    /// Renews token `id` and says when to do so again; `None` once there is no more to be gained.
    async fn renew(&self, id: u64, full: Duration) -> Option<Duration> {
        let (pass, ends) = match &self.gate.lock().await.state {
            State::In(live) if live.pass.id == id => (live.pass.clone(), live.ends?),
            _ => return None,
        };
        // Not under the gate: until it ends, the token serves everybody as it is.
        match login::renew(&self.wire, self.caller(&pass)).await {
            Ok(grant) => {
                let ttl = grant.ttl?;
                if let State::In(live) = &mut self.gate.lock().await.state
                    && live.pass.id == id
                {
                    live.ends = Some(usable_until(ttl));
                }
                // Close to the longest life the server allows, each renewal gains less than the one before.
                (grant.renewable && ttl > full / 3).then(|| ttl * 2 / 3)
            }
            Err(fault) if fault.may_pass() => {
                let wait = ends.saturating_duration_since(Instant::now()) / 3;
                (wait >= SHORTEST_WAIT).then_some(wait)
            }
            Err(_) => None,
        }
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn caller<'a>(&'a self, pass: &'a Pass) -> Caller<'a> {
        Caller {
            token: Some(&pass.token),
            namespace: self.namespace.as_ref(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(renewal) = &self.gate.get_mut().renewal {
            renewal.abort();
        }
    }
}

impl Live {
    fn new(id: u64, grant: Grant) -> Self {
        Self {
            pass: Pass {
                token: Arc::new(grant.token),
                id,
            },
            ends: grant.ttl.map(usable_until),
            vouched: None,
        }
    }

    fn is_over(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
    }

    fn is_trusted(&self) -> bool {
        self.vouched.is_some_and(|vouched| vouched.elapsed() < TRUST)
    }
}

/// Renews at two thirds of the token's life for as long as the session lives.
async fn keep_alive(session: Weak<Session>, id: u64, full: Duration) {
    let mut next = Some(full * 2 / 3);
    while let Some(wait) = next {
        tokio::time::sleep(wait).await;
        next = match session.upgrade() {
            Some(session) => session.renew(id, full).await,
            None => None,
        };
    }
}

/// A token about to end would end on the way.
fn usable_until(ttl: Duration) -> Instant {
    Instant::now() + ttl.saturating_sub((ttl / 10).min(Duration::from_secs(5)))
}
