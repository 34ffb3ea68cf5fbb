//! One Keystone token per credential, whichever stores use it: shared, renewed ahead of its end, replaced once when it
//! is refused, given back at the end. Where a token is good for reading is not known here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use tokio::time::Instant;
use url::Url;

use super::catalog::{Grant, renewal_margin};
use super::flight::Flight;
use super::keystone::{Failed, Keystone};
use super::lockout::LoginGate;
use crate::stores::Outcome;
use crate::stores::pool::ended;
use crate::stores::refusal::Refusals;

/// A token whose catalog has led nobody anywhere is kept for this long: the catalog may be put right, and each look at
/// it is a login.
const PATIENCE: Duration = Duration::from_mins(1);

/// The tokens of one credential, one after the other.
pub(super) struct Tokens(Arc<Shared>);

/// A token and what came with it.
pub(super) struct Token {
    pub(super) secret: SecretBytes,
    /// What is given back at the end, where it is another token.
    parent: Option<SecretBytes>,
    pub(super) grant: Grant,
    /// Whether its catalog has led some store to a Barbican.
    leads: AtomicBool,
    asked_at: Instant,
    expires_at: Instant,
}

struct Shared {
    keystone: Keystone,
    gate: Arc<LoginGate>,
    state: Mutex<State>,
    logins: Flight<Arc<Token>>,
}

#[derive(Default)]
struct State {
    live: Option<Arc<Token>>,
    renew_at: Option<Instant>,
    refusals: Refusals,
    /// By the server that refused a token.
    second_tries: HashMap<Url, SecondTry>,
    closed: bool,
}

impl Tokens {
    pub(super) fn new(keystone: Keystone, gate: Arc<LoginGate>) -> Self {
        Self(Arc::new(Shared {
            keystone,
            gate,
            state: Mutex::default(),
            logins: Flight::default(),
        }))
    }

    /// A live token; logs in if need be.
    pub(super) async fn live(&self) -> Outcome<Arc<Token>> {
        if let Some(live) = self.0.state().fresh(Instant::now())? {
            return Ok(live);
        }
        let shared = Arc::clone(&self.0);
        let outcome = self.0.logins.join(|| async move { shared.log_in().await }).await;
        // While Keystone is away, what is left of the old token's life is used.
        outcome.or_else(|fault| self.0.state().make_do(Instant::now()).ok_or(fault))
    }

    /// Drops a token that `server` refused, and gives it back, since the refusal may have been about rights; `false`
    /// where a new one would be refused just the same.
    pub(super) fn retire(&self, refused: &Arc<Token>, server: &Url) -> bool {
        let mut state = self.0.state();
        let current = state.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, refused));
        if !current {
            // Somebody else has replaced it meanwhile.
            return true;
        }
        let allowed = state
            .second_tries
            .get(server)
            .is_none_or(|second_try| second_try.allowed(Instant::now()));
        if allowed && let Some(dropped) = state.live.take() {
            self.0.discard(dropped);
        }
        allowed
    }

    /// Notes what became of the token that replaced a refused one.
    pub(super) fn tried_again(&self, server: &Url, refused: bool) {
        let mut state = self.0.state();
        if refused {
            let second_try = state.second_tries.entry(server.clone()).or_default();
            second_try.refused(Instant::now());
        } else {
            state.second_tries.remove(server);
        }
    }

    /// Notes whether a token's catalog led a store to its Barbican. One that leads none of them is replaced in time.
    pub(super) fn led(&self, token: &Arc<Token>, there: bool) {
        if there {
            token.leads.store(true, Ordering::Relaxed);
            return;
        }
        let useless = token.asked_at.elapsed() >= PATIENCE && !token.leads.load(Ordering::Relaxed);
        let mut state = self.0.state();
        let dropped = state.live.take_if(|live| useless && Arc::ptr_eq(live, token));
        if let Some(dropped) = dropped {
            self.0.discard(dropped);
        }
    }

    /// Gives the token back, and refuses everything from now on.
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
}

impl Shared {
    async fn log_in(&self) -> Outcome<Arc<Token>> {
        // Whoever missed the last run by a moment comes here with a fresh token already there.
        {
            let state = self.state();
            let now = Instant::now();
            if let Some(live) = state.fresh(now)? {
                return Ok(live);
            }
            state.refusals.permit(now)?;
        }
        let asked_at = Instant::now();
        let login = match self.keystone.log_in(&self.gate).await {
            Ok(login) => login,
            Err(Failed { fault, repeat }) => {
                // One with a wait of its own is the gate's word, which costs nothing to ask for again.
                let refused = fault.reason == Reason::CredentialRejected && fault.retry_after.is_none();
                return Err(if refused {
                    self.state().refusals.note(fault, repeat, Instant::now())
                } else {
                    fault
                });
            }
        };
        let lifetime = login.grant.lifetime;
        let live = Arc::new(Token {
            secret: login.token,
            parent: login.parent,
            grant: login.grant,
            leads: AtomicBool::default(),
            asked_at,
            expires_at: asked_at + lifetime,
        });
        let closed = {
            let mut state = self.state();
            state.refusals.forget();
            if !state.closed {
                state.live = Some(Arc::clone(&live));
                state.renew_at = Some(asked_at + lifetime - renewal_margin(lifetime));
            }
            state.closed
        };
        if closed {
            self.give_back(&live).await;
            return Err(ended());
        }
        Ok(live)
    }

    /// Gives a token back that nobody is handed any more. Nobody waits for that.
    fn discard(self: &Arc<Self>, token: Arc<Token>) {
        let shared = Arc::clone(self);
        tokio::spawn(async move { shared.give_back(&token).await });
    }

    async fn give_back(&self, live: &Token) {
        if let Err(fault) = self
            .keystone
            .revoke(live.parent.as_ref().unwrap_or(&live.secret))
            .await
        {
            tracing::debug!(%fault, "a Keystone token was not revoked and ends by itself");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fresh(&self, now: Instant) -> Outcome<Option<Arc<Token>>> {
        if self.closed {
            return Err(ended());
        }
        let in_time = self.renew_at.is_some_and(|renew_at| now < renew_at);
        Ok(self.live.as_ref().filter(|_| in_time).cloned())
    }

    /// The old token, if it still lives, and a moment's rest before the next try to renew it.
    fn make_do(&mut self, now: Instant) -> Option<Arc<Token>> {
        let live = self.live.clone().filter(|live| now < live.expires_at)?;
        let rest = (live.expires_at - now) / 4;
        self.renew_at = Some(now + rest.min(Duration::from_secs(10)));
        Some(live)
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

    fn refused(&mut self, now: Instant) {
        if self.allowed(now) {
            self.wait = (self.wait * 2).clamp(Self::FIRST_WAIT, Self::LONGEST_WAIT);
            self.not_before = Some(now + self.wait);
        }
    }
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
                second_try.refused(now);
                // Others with the same refusal do not add to the wait.
                second_try.refused(now);
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(
            logins, 10,
            "at 0, 30, 90, 210, 450 and 930 s, and every ten minutes after"
        );
    }
}
