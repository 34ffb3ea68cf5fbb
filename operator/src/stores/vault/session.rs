//! One session per credential, whichever stores use it: a login made once for everybody who waits for it, a token
//! renewed before it ends, made anew once when it is found dead, and revoked at the end. A rejected credential is
//! remembered.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;
use keyward_core::fault::Fault;
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use vaultrs::api::token::requests::RevokeTokenSelfRequest;

use super::attempts::Attempts;
use super::classify::{TokenWord, refused, rejected, token_word};
use super::config::VaultAuth;
use super::endpoints::LookUpSelf;
use super::login::{self, Grant};
use super::trust::Trust;
use super::wire::{Caller, Wire};
use crate::stores::Outcome;
use crate::stores::pool::ended;
use crate::stores::refusal::{Repeat, SharedRefusals};
use crate::stores::transport::Response;

/// A token that leaves less than this between two attempts to renew it is let go.
const SHORTEST_WAIT: Duration = Duration::from_millis(250);

/// How long the server may take to revoke a token at the end.
const FAREWELL: Duration = Duration::from_secs(3);

/// A token on loan from a session.
#[derive(Clone)]
pub(super) struct Pass {
    pub(super) token: Arc<SecretBytes>,
    pub(super) id: PassId,
}

/// Tells tokens of one session apart: the number of the login that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PassId(u64);

/// See the module.
pub(super) struct Session {
    wire: Arc<Wire>,
    auth: VaultAuth,
    namespace: Option<HeaderValue>,
    gate: Arc<Mutex<Gate>>,
    logins: Attempts,
    refusals: SharedRefusals,
}

/// Held while somebody logs in; everybody else waits.
struct Gate {
    state: State,
    renewal: Option<AbortHandle>,
    trust: Trust,
}

enum State {
    Out,
    In(Live),
    Closed,
}

struct Live {
    pass: Pass,
    ends: Option<Instant>,
    tells_of_itself: bool,
}

/// What asking a token about itself gave.
enum LookUp {
    Alive,
    /// The policy denies it, which says little of the token.
    Denied,
    Dead,
}

impl Session {
    pub(super) fn new(
        wire: Arc<Wire>,
        auth: VaultAuth,
        namespace: Option<HeaderValue>,
        refusals: SharedRefusals,
    ) -> Self {
        Self {
            wire,
            auth,
            namespace,
            gate: Arc::new(Mutex::new(Gate {
                state: State::Out,
                renewal: None,
                trust: Trust::default(),
            })),
            logins: Attempts::default(),
            refusals,
        }
    }

    /// A live token; logs in if need be.
    pub(super) async fn pass(self: &Arc<Self>) -> Outcome<Pass> {
        let before = self.logins.ended();
        let gate = self.enter().await;
        match &gate.state {
            State::In(live) if !live.is_over() => return Ok(live.pass.clone()),
            State::Closed => return Err(ended()),
            _ => {}
        }
        if let Some(fault) = self.logins.failed_since(before) {
            return Err(fault);
        }
        self.refusals.lock().permit(Instant::now())?;
        self.log_in(gate).await
    }

    /// The token of the last login, whether it still lives or not.
    pub(super) fn last_pass(&self) -> PassId {
        PassId(self.logins.ended())
    }

    /// Finds out what a 403 means: `None` if the token is alive, as far as is known, and the call was denied by a
    /// policy; otherwise the token to repeat the call with, once.
    pub(super) async fn after_denial(
        self: &Arc<Self>,
        pass: &Pass,
        denial: &Response,
    ) -> Outcome<Option<Pass>> {
        let mut gate = self.enter().await;
        let State::In(live) = &gate.state else {
            drop(gate);
            return self.pass().await.map(Some);
        };
        if live.pass.id != pass.id {
            return Ok(Some(live.pass.clone()));
        }
        let word = gate.trust.hear(token_word(denial));
        if word != TokenWord::Dead {
            if word != TokenWord::Doubtful && gate.trust.holds(Instant::now()) {
                return Ok(None);
            }
            let alive = match self.look_up(pass).await? {
                LookUp::Alive => true,
                LookUp::Denied => !live.tells_of_itself,
                LookUp::Dead => false,
            };
            if alive {
                gate.trust.confirmed(word, Instant::now());
                return Ok(None);
            }
        }
        gate.state = State::Out;
        if self.is_given() {
            let fault = rejected("the token has ended or was revoked".to_owned());
            return Err(self.refused(fault, Repeat::Harmless));
        }
        if word != TokenWord::Dead {
            // It may be alive and only not allowed to say so: nobody else would end it.
            self.let_go(pass);
        }
        self.log_in(gate).await.map(Some)
    }

    /// Takes in how the call ended that was repeated with a new token.
    pub(super) async fn tried_anew(&self, fresh: &Pass, answer: &Response) {
        let denied = (answer.status == StatusCode::FORBIDDEN).then(|| token_word(answer));
        let mut gate = self.gate.lock().await;
        if let State::In(live) = &gate.state
            && live.pass.id == fresh.id
        {
            gate.trust.tried_anew(denied, Instant::now());
        }
    }

    /// Revokes the token, unless somebody else made it, and refuses everything from now on.
    pub(super) async fn close(&self) {
        let mut gate = self.gate.lock().await;
        gate.end_renewal();
        let State::In(live) = std::mem::replace(&mut gate.state, State::Closed) else {
            return;
        };
        if !self.is_given() && !self.revoke(&live.pass).await {
            tracing::warn!(
                peer = self.wire.peer(),
                "the token could not be revoked and will end by itself"
            );
        }
    }

    async fn enter(&self) -> OwnedMutexGuard<Gate> {
        Arc::clone(&self.gate).lock_owned().await
    }

    /// Logs in, in a task of its own: the server has made the token, or counted the failure, whether the caller
    /// is still there to hear of it or not.
    async fn log_in(self: &Arc<Self>, gate: OwnedMutexGuard<Gate>) -> Outcome<Pass> {
        let session = Arc::clone(self);
        let login = tokio::spawn(async move { session.log_in_now(gate).await });
        match login.await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The process is ending.
            Err(_) => Err(ended()),
        }
    }

    async fn log_in_now(self: &Arc<Self>, mut gate: OwnedMutexGuard<Gate>) -> Outcome<Pass> {
        gate.end_renewal();
        gate.state = State::Out;
        let caller = Caller {
            token: None,
            namespace: self.namespace.as_ref(),
        };
        let outcome = self.judged(login::log_in(&self.wire, &self.auth, caller).await);
        let id = PassId(self.logins.note(&outcome));
        let grant = outcome?;
        gate.trust.renewed();
        if let (true, Some(ttl)) = (grant.renewable, grant.ttl) {
            let renewal = tokio::spawn(keep_alive(Arc::downgrade(self), id, ttl));
            gate.renewal = Some(renewal.abort_handle());
        }
        let live = Live::new(id, grant);
        let pass = live.pass.clone();
        gate.state = State::In(live);
        Ok(pass)
    }

    /// Remembers whether a login was refused.
    fn judged(&self, outcome: Outcome<Grant>) -> Outcome<Grant> {
        match outcome {
            Ok(grant) => {
                self.refusals.lock().forget();
                Ok(grant)
            }
            Err(fault) => Err(match fault.reason {
                Reason::CredentialRejected => self.refused(fault, self.auth.repeat()),
                // There may be a new token behind each answer that is not understood.
                Reason::StoreProtocol => self.refused(fault, Repeat::Harmless),
                _ => fault,
            }),
        }
    }

    fn refused(&self, fault: Fault, repeat: Repeat) -> Fault {
        self.refusals.lock().note(fault, repeat, Instant::now())
    }

    async fn look_up(&self, pass: &Pass) -> Outcome<LookUp> {
        let answer = self.wire.call(&LookUpSelf {}, self.caller(pass)).await?;
        match answer.status {
            StatusCode::OK => Ok(LookUp::Alive),
            StatusCode::FORBIDDEN if token_word(&answer) == TokenWord::Policy => Ok(LookUp::Denied),
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Ok(LookUp::Dead),
            _ => Err(refused(&answer, "looking up the token")),
        }
    }

    /// Renews token `id` and says when to do so again; `None` once there is no more to be gained.
    async fn renew(&self, id: PassId, full: Duration) -> Option<Duration> {
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

    /// Revokes a token that another takes the place of, while the other is made.
    fn let_go(self: &Arc<Self>, pass: &Pass) {
        let (session, pass) = (Arc::clone(self), pass.clone());
        // That it is dead already is the likeliest reason for this to fail.
        tokio::spawn(async move { session.revoke(&pass).await });
    }

    /// Whether the server has ended the token.
    async fn revoke(&self, pass: &Pass) -> bool {
        let revocation = self.wire.call(&RevokeTokenSelfRequest {}, self.caller(pass));
        let outcome = tokio::time::timeout(FAREWELL, revocation).await;
        matches!(outcome, Ok(Ok(answer)) if answer.status.is_success())
    }

    /// Whether the token was made elsewhere: it is neither made anew nor revoked.
    fn is_given(&self) -> bool {
        matches!(self.auth, VaultAuth::Token(_))
    }

    fn caller<'a>(&'a self, pass: &'a Pass) -> Caller<'a> {
        Caller {
            token: Some(&pass.token),
            namespace: self.namespace.as_ref(),
        }
    }
}

impl Gate {
    fn end_renewal(&mut self) {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.end_renewal();
    }
}

impl Live {
    fn new(id: PassId, grant: Grant) -> Self {
        Self {
            pass: Pass {
                token: Arc::new(grant.token),
                id,
            },
            ends: grant.ttl.map(usable_until),
            tells_of_itself: grant.tells_of_itself,
        }
    }

    fn is_over(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
    }
}

/// Renews at two thirds of the token's life for as long as the session lives.
async fn keep_alive(session: Weak<Session>, id: PassId, full: Duration) {
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
