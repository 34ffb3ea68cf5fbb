//! What became of passwords, remembered by the operator's own state: across stores, restarts and failover.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use keyward_core::logins::{Known, Login, Step};
use keyward_core::sync::fingerprint::FingerprintKey;

use crate::cluster::state::OperatorState;
use crate::stores::barbican::lockout::{LoginGate, LoginMemory};

/// The gate that every Barbican login of the process passes.
#[must_use]
pub fn login_gate(state: Arc<OperatorState>, key: FingerprintKey) -> Arc<LoginGate> {
    Arc::new(LoginGate::new(Arc::new(Remembered(state)), Arc::new(key)))
}

struct Remembered(Arc<OperatorState>);

impl LoginMemory for Remembered {
    fn known(&self, login: &Login, now: DateTime<Utc>) -> Known {
        self.0.known_login(login, now)
    }

    fn note(&self, login: Login, step: Step, now: DateTime<Utc>) -> BoxFuture<'_, ()> {
        async move {
            // It is remembered in this process from the first poll on, whether it can be stored or not.
            if let Err(fault) = self.0.note_login(&login, step, now).await {
                tracing::warn!(reason = %fault.reason.as_str(), "what became of a login could not be stored: {fault}");
            }
        }
        .boxed()
    }
}
