//! Rejected passwords, remembered by the operator's own state: across stores, restarts and failover.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use keyward_core::sync::fingerprint::FingerprintKey;

use crate::cluster::state::OperatorState;
use crate::stores::barbican::lockout::{CredentialFingerprint, LoginGate, RejectedCredentials};

/// The gate that every Barbican login of the process passes.
#[must_use]
pub fn login_gate(state: Arc<OperatorState>, key: FingerprintKey) -> Arc<LoginGate> {
    Arc::new(LoginGate::new(Arc::new(Remembered(state)), Arc::new(key)))
}

struct Remembered(Arc<OperatorState>);

impl RejectedCredentials for Remembered {
    fn is_rejected(&self, fingerprint: &CredentialFingerprint) -> bool {
        self.0.is_rejected(fingerprint.as_bytes())
    }

    fn remember(&self, fingerprint: CredentialFingerprint) -> BoxFuture<'_, ()> {
        async move {
            // It is remembered in this process from the first poll on, whether it can be stored or not.
            if let Err(fault) = self.0.remember_rejected(*fingerprint.as_bytes()).await {
                tracing::warn!(reason = %fault.reason.as_str(), "a rejected credential could not be stored: {fault}");
            }
        }
        .boxed()
    }
}
