//! Calls in the name of the session, repeated at most once, with a new token, when the old one has died.

use std::sync::Arc;

use http::StatusCode;
use http::header::HeaderValue;
use rustify::endpoint::Endpoint;

use super::classify::refused;
use super::session::{Pass, PassId, Session};
use super::wire::{Caller, Wire};
use crate::stores::Outcome;
use crate::stores::pacing::{Pacer, in_turn};
use crate::stores::pool::Lease;
use crate::stores::transport::Response;

/// A server, a namespace and a share of a session.
pub(super) struct Client {
    pub(super) wire: Arc<Wire>,
    pub(super) session: Lease<Session>,
    pub(super) namespace: Option<HeaderValue>,
}

/// An answer, and by which token it was given.
pub(super) struct Answered {
    pub(super) answer: Response,
    pub(super) by: PassId,
}

impl Client {
    /// Sends one request and gives the answer, whatever its status.
    pub(super) async fn call<E: Endpoint>(&self, endpoint: &E) -> Outcome<Response> {
        Ok(self.call_by(endpoint).await?.answer)
    }

    /// As [`Self::call`], with the token that was answered.
    ///
    /// A 403 is the policy's word as far as is known. Where the server does not name a dead token, it is told from a
    /// denied one by a look-up, and believed to be alive for a while after each; what is concluded from a 403 must not
    /// outlive the token.
    pub(super) async fn call_by<E: Endpoint>(&self, endpoint: &E) -> Outcome<Answered> {
        let session = self.session.session()?;
        let pass = session.pass().await?;
        let answer = self.wire.call(endpoint, self.caller(&pass)).await?;
        if answer.status != StatusCode::FORBIDDEN {
            return Ok(Answered::new(answer, &pass));
        }
        let Some(fresh) = session.after_denial(&pass, &answer).await? else {
            return Ok(Answered::new(answer, &pass));
        };
        let answer = self.wire.call(endpoint, self.caller(&fresh)).await?;
        session.tried_anew(&fresh, &answer).await;
        Ok(Answered::new(answer, &fresh))
    }

    /// As [`Self::call_by`], for one of the many requests of a search: it has a turn of its own, and where it is one too
    /// many, it alone is sent again.
    pub(super) async fn call_in_turn<E: Endpoint>(
        &self,
        endpoint: &E,
        what: &str,
        pacer: &dyn Pacer,
    ) -> Outcome<Answered> {
        in_turn(pacer, async || {
            let answered = self.call_by(endpoint).await?;
            match answered.answer.status {
                StatusCode::TOO_MANY_REQUESTS => Err(refused(&answered.answer, what)),
                _ => Ok(answered),
            }
        })
        .await
    }

    /// Whether this is still the token in use.
    pub(super) fn goes_by(&self, pass: PassId) -> bool {
        self.session
            .session()
            .is_ok_and(|session| session.last_pass() == pass)
    }

    fn caller<'a>(&'a self, pass: &'a Pass) -> Caller<'a> {
        Caller {
            token: Some(&pass.token),
            namespace: self.namespace.as_ref(),
        }
    }
}

impl Answered {
    fn new(answer: Response, pass: &Pass) -> Self {
        Self { answer, by: pass.id }
    }
}
