//! Calls in the name of the session, repeated at most once, with a new token, when the old one has died.

use std::sync::Arc;

use http::StatusCode;
use http::header::HeaderValue;
use rustify::endpoint::Endpoint;

use super::session::{Pass, Session};
use super::wire::{Caller, Wire};
use crate::stores::Outcome;
use crate::stores::pool::Lease;
use crate::stores::transport::Response;

/// A server, a namespace and a share of a session.
pub(super) struct Client {
    pub(super) wire: Arc<Wire>,
    pub(super) session: Lease<Session>,
    pub(super) namespace: Option<HeaderValue>,
}

impl Client {
    /// Sends one request and gives the answer, whatever its status. A 403 is the policy's word: a dead token has
    /// been ruled out.
    pub(super) async fn call<E: Endpoint>(&self, endpoint: &E) -> Outcome<Response> {
        let session = self.session.session()?;
        let pass = session.pass().await?;
        let answer = self.wire.call(endpoint, self.caller(&pass)).await?;
        if answer.status != StatusCode::FORBIDDEN {
            return Ok(answer);
        }
        let Some(fresh) = session.after_denial(&pass, &answer).await? else {
            return Ok(answer);
        };
        let answer = self.wire.call(endpoint, self.caller(&fresh)).await?;
        if answer.status == StatusCode::FORBIDDEN {
            session.vouch_for(&fresh).await;
        }
        Ok(answer)
    }

    fn caller<'a>(&'a self, pass: &'a Pass) -> Caller<'a> {
        Caller {
            token: Some(&pass.token),
            namespace: self.namespace.as_ref(),
        }
    }
}
