//! Keeps wrong passwords from locking their user out at Keystone.
//!
//! Keystone counts failed logins per user and locks the user after a handful, for every other client too. So a
//! password that Keystone refused is never sent again, by any store, and all stores that share a credential log in
//! one after the other: the second waits for what the first learns. What is remembered is a keyed fingerprint;
//! neither it nor anything else here tells what the password was.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::sync::fingerprint::FingerprintKey;
use tokio::time::Instant;

use crate::stores::Outcome;

/// A keyed digest of address, user, domain and password. Without the key it says nothing about any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CredentialFingerprint([u8; 32]);

impl CredentialFingerprint {
    /// The digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The passwords that Keystone has refused.
pub trait RejectedCredentials: Send + Sync {
    /// Whether this one was refused before, by this process or by one before it.
    fn is_rejected(&self, fingerprint: &CredentialFingerprint) -> bool;

    /// Remembers it. `is_rejected` must be true from the moment the future is first polled; it completes when the
    /// memory will also survive this process, or when that has failed and will be tried again.
    fn remember(&self, fingerprint: CredentialFingerprint) -> BoxFuture<'_, ()>;
}

/// The door that every login passes, shared by all Barbican stores of the process.
pub struct LoginGate {
    rejected: Arc<dyn RejectedCredentials>,
    key: Arc<FingerprintKey>,
    lanes: Mutex<HashMap<CredentialFingerprint, Arc<Lane>>>,
}

/// What a refusal of this credential means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stakes {
    /// A password: each refusal counts towards the lock-out, so one is enough.
    LocksOut,
    /// An application credential: refusals are not counted, and it works again once its role is granted again.
    Harmless,
}

/// How a login ended that did not give a token.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Keystone said no to the credential.
    Rejected(Fault),
    /// The credential was sent and no usable answer came: Keystone may have counted a failure.
    Doubtful(Fault),
    /// The credential was not sent, or Keystone did not judge it.
    Unjudged(Fault),
}

#[derive(Default)]
struct Lane(tokio::sync::Mutex<Caution>);

impl LoginGate {
    /// A gate over what is remembered as rejected.
    #[must_use]
    pub fn new(rejected: Arc<dyn RejectedCredentials>, key: Arc<FingerprintKey>) -> Self {
        Self {
            rejected,
            key,
            lanes: Mutex::default(),
        }
    }

    /// The keyed fingerprint of `fields`: all that decides whether Keystone accepts the credential, which is the last.
    pub(super) fn fingerprint(&self, fields: &[&[u8]]) -> CredentialFingerprint {
        CredentialFingerprint(self.key.of_credential(fields))
    }

    /// Runs one login, unless the credential is known to be refused or a pause is being kept.
    ///
    /// The caller must see to it that this future is not dropped halfway: an answer that nobody hears is a refusal
    /// that nobody remembers.
    pub(super) async fn attempt<T>(
        &self,
        fingerprint: CredentialFingerprint,
        stakes: Stakes,
        login: impl Future<Output = Result<T, Refusal>>,
    ) -> Outcome<T> {
        let lane = self.lane(fingerprint);
        let mut caution = lane.0.lock().await;
        if stakes == Stakes::LocksOut && self.rejected.is_rejected(&fingerprint) {
            return Err(known_as_rejected());
        }
        caution.permit(Instant::now())?;
        let outcome = login.await;
        let now = Instant::now();
        match outcome {
            Ok(token) => {
                caution.succeeded();
                Ok(token)
            }
            Err(Refusal::Rejected(fault)) => {
                match stakes {
                    Stakes::LocksOut => self.rejected.remember(fingerprint).await,
                    Stakes::Harmless => caution.rejected(now, &fault),
                }
                Err(fault)
            }
            Err(Refusal::Doubtful(fault)) => {
                if stakes == Stakes::LocksOut {
                    caution.doubted(now, &fault);
                }
                Err(fault)
            }
            Err(Refusal::Unjudged(fault)) => Err(fault),
        }
    }

    fn lane(&self, fingerprint: CredentialFingerprint) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        // Credentials come and go with their stores; a lane that nobody stands in and that holds no pause is done.
        lanes.retain(|_, lane| {
            Arc::strong_count(lane) > 1 || lane.0.try_lock().is_ok_and(|caution| !caution.is_idle())
        });
        Arc::clone(lanes.entry(fingerprint).or_default())
    }
}

/// How carefully one credential is used. Plain state over a clock that is handed in.
#[derive(Debug, Default)]
struct Caution {
    /// This process has logged in with it, so a lost answer was hardly a refusal.
    proven: bool,
    failures: u32,
    pause: Option<(Instant, Fault)>,
}

impl Caution {
    fn permit(&self, now: Instant) -> Outcome<()> {
        match &self.pause {
            Some((until, fault)) if now < *until => {
                Err(fault.clone().with_retry_after(Some(until.duration_since(now))))
            }
            _ => Ok(()),
        }
    }

    fn succeeded(&mut self) {
        *self = Self {
            proven: true,
            ..Self::default()
        };
    }

    /// Five seconds, then six times longer each time: few tries in the hours in which Keystone counts them.
    fn doubted(&mut self, now: Instant, fault: &Fault) {
        if !self.proven {
            self.wait(now, fault, Duration::from_secs(5), 6, Duration::from_hours(1));
        }
    }

    fn rejected(&mut self, now: Instant, fault: &Fault) {
        self.wait(now, fault, Duration::from_secs(15), 2, Duration::from_mins(10));
    }

    fn wait(&mut self, now: Instant, fault: &Fault, first: Duration, factor: u32, longest: Duration) {
        let wait = first
            .saturating_mul(factor.saturating_pow(self.failures))
            .min(longest);
        self.failures += 1;
        self.pause = Some((now + wait, fault.clone()));
    }

    fn is_idle(&self) -> bool {
        !self.proven && self.pause.is_none()
    }
}

fn known_as_rejected() -> Fault {
    Fault::new(
        Class::Denied,
        Reason::CredentialRejected,
        "Keystone has refused this password before; it is not sent again, so that its user is not locked out",
    )
    .advise("put the right password into the Secret")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::testing::gate;
    use super::*;

    fn fault() -> Fault {
        Fault::new(Class::Denied, Reason::CredentialRejected, "refused")
    }

    #[tokio::test]
    async fn ten_logins_at_once_with_one_wrong_password_are_one() {
        let gate = gate();
        let fingerprint = gate.fingerprint(&[b"ada", b"wrong"]);
        let sent = AtomicUsize::new(0);
        let logins = (0..10).map(|_| {
            gate.attempt(fingerprint, Stakes::LocksOut, async {
                sent.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Err::<(), _>(Refusal::Rejected(fault()))
            })
        });
        let outcomes = futures::future::join_all(logins).await;
        assert_eq!(sent.load(Ordering::SeqCst), 1);
        for outcome in outcomes {
            assert_eq!(outcome.unwrap_err().reason, Reason::CredentialRejected);
        }

        let other = gate.fingerprint(&[b"ada", b"right"]);
        assert!(
            gate.attempt(other, Stakes::LocksOut, async { Ok(()) })
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn a_refused_application_credential_pauses_for_everybody_who_shares_it() {
        let gate = gate();
        let fingerprint = gate.fingerprint(&[b"credential"]);
        let refused = async { Err::<(), _>(Refusal::Rejected(fault())) };
        let told = gate.attempt(fingerprint, Stakes::Harmless, refused).await;
        assert!(told.unwrap_err().retry_after.is_none());
        let told = gate
            .attempt(fingerprint, Stakes::Harmless, async { Ok(()) })
            .await;
        assert!(told.unwrap_err().retry_after.is_some());
    }

    #[test]
    fn a_refused_application_credential_is_tried_again_ever_more_rarely() {
        let (mut caution, mut now) = (Caution::default(), Instant::now());
        for seconds in [15, 30, 60, 120, 240, 480, 600, 600] {
            assert!(caution.permit(now).is_ok());
            caution.rejected(now, &fault());
            let wait = caution.permit(now).unwrap_err().retry_after;
            assert_eq!(wait, Some(Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn lost_answers_slow_an_unproven_password_down_and_not_a_proven_one() {
        let (mut caution, mut now) = (Caution::default(), Instant::now());
        let mut sent = 0;
        for _ in 0..600 {
            if caution.permit(now).is_ok() {
                sent += 1;
                caution.doubted(now, &fault());
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(sent, 4, "tries in ten minutes");

        caution.succeeded();
        caution.doubted(now, &fault());
        assert!(caution.permit(now).is_ok());
    }

    #[tokio::test]
    async fn lanes_without_news_are_dropped() {
        let gate = gate();
        for n in 0..100_u32 {
            let unjudged = async { Err::<(), _>(Refusal::Unjudged(fault())) };
            let fingerprint = gate.fingerprint(&[&n.to_be_bytes()]);
            let _ = gate.attempt(fingerprint, Stakes::LocksOut, unjudged).await;
        }
        assert!(gate.lanes.lock().unwrap().len() <= 1);
    }
}
