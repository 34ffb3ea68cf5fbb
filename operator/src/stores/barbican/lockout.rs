//! Keeps wrong passwords from locking their user out at Keystone.
//!
//! Keystone counts failed logins per user and locks the user after a handful, for every other client too. So a
//! password that Keystone refused is never sent again, by any store, and few that nobody has seen accepted are sent
//! in a row. All logins of one user go one after the other: the second waits for what the first learns. What is
//! remembered are keyed digests; neither they nor anything else here tells what a password was.

mod caution;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use keyward_core::fault::{Class, Fault};
use keyward_core::logins::{Digest, Known, Login, Step};
use keyward_core::reason::Reason;
use keyward_core::sync::fingerprint::FingerprintKey;
use tokio::time::Instant;

use self::caution::Caution;
use crate::stores::Outcome;
use crate::stores::refusal::Repeat;

/// What is known of passwords, by this process and those before it.
pub trait LoginMemory: Send + Sync {
    /// What is known of one.
    fn known(&self, login: &Login, now: DateTime<Utc>) -> Known;

    /// Remembers what happens to it. `known` must tell it from the moment the future is first polled; the future
    /// completes when the memory will also survive this process, or when that has failed and will be tried again.
    fn note(&self, login: Login, step: Step, now: DateTime<Utc>) -> BoxFuture<'_, ()>;
}

/// The door that every login passes, shared by all Barbican stores of the process.
pub struct LoginGate {
    memory: Arc<dyn LoginMemory>,
    key: Arc<FingerprintKey>,
    lanes: Mutex<HashMap<Digest, Arc<Lane>>>,
    clock: fn() -> DateTime<Utc>,
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
    /// Keystone did not judge the credential.
    Unjudged(Fault),
}

impl Refusal {
    /// What it would cost to try again. What was not judged costs nothing: how often a password may be sent whose
    /// end nobody saw is the gate's to say.
    pub(super) fn repeat(&self, stakes: Stakes) -> Repeat {
        match (self, stakes) {
            (Self::Rejected(_), Stakes::LocksOut) => Repeat::Never,
            _ => Repeat::Harmless,
        }
    }

    pub(super) fn into_fault(self) -> Fault {
        match self {
            Self::Rejected(fault) | Self::Doubtful(fault) | Self::Unjudged(fault) => fault,
        }
    }
}

#[derive(Default)]
struct Lane(tokio::sync::Mutex<Caution>);

impl LoginGate {
    /// A gate over what is remembered.
    #[must_use]
    pub fn new(memory: Arc<dyn LoginMemory>, key: Arc<FingerprintKey>) -> Self {
        Self {
            memory,
            key,
            lanes: Mutex::default(),
            clock: super::now,
        }
    }

    /// The digests of a credential: `whose` is all that decides to whom it belongs, and where.
    pub(super) fn login(&self, whose: &[&str], secret: &[u8]) -> Login {
        let mut fields: Vec<&[u8]> = whose.iter().map(|field| field.as_bytes()).collect();
        let user = self.key.of_credential(&fields);
        fields.push(secret);
        Login {
            user,
            password: self.key.of_credential(&fields),
        }
    }

    /// Runs one login, unless the credential is known to be refused or a pause is being kept: first `prepare`, which
    /// shows nobody the credential, then `send`.
    ///
    /// The caller must see to it that this future is not dropped halfway: an answer that nobody hears is a refusal
    /// that nobody remembers.
    pub(super) async fn attempt<T>(
        &self,
        login: Login,
        stakes: Stakes,
        prepare: impl Future<Output = Outcome<()>>,
        send: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let lane = self.lane(match stakes {
            Stakes::LocksOut => login.user,
            Stakes::Harmless => login.password,
        });
        let mut caution = lane.0.lock().await;
        match stakes {
            Stakes::LocksOut => self.send_password(login, &mut caution, prepare, send).await,
            Stakes::Harmless => {
                caution.permit(Instant::now()).map_err(Refusal::Unjudged)?;
                prepare.await.map_err(Refusal::Unjudged)?;
                let outcome = send.await;
                if let Err(Refusal::Rejected(fault)) = &outcome {
                    caution.rejected(Instant::now(), fault);
                } else if outcome.is_ok() {
                    caution.succeeded();
                }
                outcome
            }
        }
    }

    async fn send_password<T>(
        &self,
        login: Login,
        caution: &mut Caution,
        prepare: impl Future<Output = Outcome<()>>,
        send: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let now = (self.clock)();
        let proven = match self.memory.known(&login, now) {
            Known::Refused => return Err(Refusal::Rejected(known_as_refused())),
            Known::NewLater { at, refused } => return Err(Refusal::Unjudged(not_yet(at, refused, now))),
            Known::Proven => true,
            Known::New => false,
        };
        if !proven {
            caution.permit(Instant::now()).map_err(Refusal::Unjudged)?;
        }
        prepare.await.map_err(Refusal::Unjudged)?;
        if !proven {
            // Ahead of the answer, which this process may not live to hear.
            self.memory.note(login, Step::Sending, now).await;
        }
        let outcome = send.await;
        let step = match &outcome {
            Ok(_) => {
                caution.succeeded();
                Step::Accepted
            }
            Err(Refusal::Rejected(_)) => Step::Refused,
            Err(Refusal::Unjudged(_)) => Step::Unjudged,
            Err(Refusal::Doubtful(fault)) => {
                caution.doubted(Instant::now(), fault);
                Step::Doubtful
            }
        };
        self.memory.note(login, step, (self.clock)()).await;
        outcome
    }

    fn lane(&self, of: Digest) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        // Credentials come and go with their stores; a lane that nobody stands in and that holds no pause is done.
        lanes.retain(|_, lane| {
            Arc::strong_count(lane) > 1 || lane.0.try_lock().is_ok_and(|caution| caution.pause.is_some())
        });
        Arc::clone(lanes.entry(of).or_default())
    }
}

fn known_as_refused() -> Fault {
    Fault::new(
        Class::Denied,
        Reason::CredentialRejected,
        "Keystone has refused this password before; it is not sent again, so that its user is not locked out",
    )
    .advise("put the right password into the Secret")
}

fn not_yet(at: DateTime<Utc>, refused: u32, now: DateTime<Utc>) -> Fault {
    Fault::new(
        Class::Throttled,
        Reason::LoginDelayed,
        format!(
            "Keystone may have refused the last {refused} passwords of this user; this one is not sent before {}, so \
             that the user is not locked out",
            at.format("%Y-%m-%dT%H:%M:%SZ")
        ),
    )
    .advise("make sure that it is the right one")
    .with_retry_after((at - now).to_std().ok())
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::super::testing::gate;
    use super::*;

    fn fault() -> Fault {
        Fault::new(Class::Denied, Reason::CredentialRejected, "refused")
    }

    fn nothing() -> Ready<Outcome<()>> {
        ready(Ok(()))
    }

    async fn refused() -> Result<(), Refusal> {
        tokio::task::yield_now().await;
        Err(Refusal::Rejected(fault()))
    }

    fn accepted() -> Ready<Result<(), Refusal>> {
        ready(Ok(()))
    }

    impl LoginGate {
        /// An attempt that costs nothing to prepare, with the fault of one that failed.
        async fn tried<T>(
            &self,
            login: Login,
            stakes: Stakes,
            send: impl Future<Output = Result<T, Refusal>>,
        ) -> Outcome<T> {
            let outcome = self.attempt(login, stakes, nothing(), send).await;
            outcome.map_err(Refusal::into_fault)
        }
    }

    #[tokio::test]
    async fn ten_logins_at_once_with_one_wrong_password_are_one() {
        let gate = gate();
        let wrong = gate.login(&["ada"], b"wrong");
        let sent = AtomicUsize::new(0);
        let logins = (0..10).map(|_| {
            gate.tried(wrong, Stakes::LocksOut, async {
                sent.fetch_add(1, Ordering::SeqCst);
                refused().await
            })
        });
        let outcomes = futures::future::join_all(logins).await;
        assert_eq!(sent.load(Ordering::SeqCst), 1);
        for outcome in outcomes {
            assert_eq!(outcome.unwrap_err().reason, Reason::CredentialRejected);
        }
        let right = gate.login(&["ada"], b"right");
        let right = gate.tried(right, Stakes::LocksOut, accepted());
        assert!(right.await.is_ok());
    }

    #[tokio::test]
    async fn of_ten_wrong_passwords_of_one_user_two_are_sent() {
        let gate = gate();
        let sent = AtomicUsize::new(0);
        let logins = (0..10_u8).map(|number| {
            let login = gate.login(&["ada"], &[number]);
            gate.tried(login, Stakes::LocksOut, async {
                sent.fetch_add(1, Ordering::SeqCst);
                refused().await
            })
        });
        let outcomes = futures::future::join_all(logins).await;
        assert_eq!(sent.load(Ordering::SeqCst), 2);
        let told: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap_err()).collect();
        let delayed: Vec<_> = told
            .iter()
            .filter(|fault| fault.reason == Reason::LoginDelayed)
            .collect();
        assert_eq!(delayed.len(), 8);
        assert!(
            delayed[0]
                .retry_after
                .is_some_and(|wait| wait > Duration::from_mins(9))
        );
        assert!(
            delayed[0].message.contains("not sent before 20"),
            "{}",
            delayed[0]
        );

        let bob = gate.login(&["bob"], b"right");
        let bob = gate.tried(bob, Stakes::LocksOut, accepted());
        assert!(bob.await.is_ok(), "another user has a count of his own");
    }

    #[tokio::test]
    async fn a_proven_password_passes_whatever_others_were_refused_and_ends_their_wait() {
        let gate = gate();
        let attempt = async |secret: &[u8], right: bool| {
            let send = async { if right { accepted().await } else { refused().await } };
            let login = gate.login(&["ada"], secret);
            gate.tried(login, Stakes::LocksOut, send).await
        };
        attempt(b"right", true).await.unwrap();
        for wrong in [b"1", b"2"] {
            attempt(wrong, false).await.unwrap_err();
        }
        let delayed = attempt(b"new", true).await.unwrap_err();
        assert_eq!(delayed.reason, Reason::LoginDelayed);
        attempt(b"right", true).await.unwrap();
        attempt(b"new", true).await.unwrap();
    }

    #[tokio::test]
    async fn a_password_that_was_not_sent_counts_for_nothing() {
        let gate = gate();
        for number in 0..10_u8 {
            let away = async { Err(fault()) };
            let login = gate.login(&["ada"], &[number]);
            let send = async { unreachable!("nothing is sent") };
            let outcome: Result<(), Refusal> = gate.attempt(login, Stakes::LocksOut, away, send).await;
            assert!(matches!(outcome, Err(Refusal::Unjudged(_))), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_refused_application_credential_pauses_for_everybody_who_shares_it() {
        let gate = gate();
        let login = gate.login(&["credential"], b"secret");
        let told = gate.tried(login, Stakes::Harmless, refused()).await;
        assert!(told.unwrap_err().retry_after.is_none());
        let told = gate.tried(login, Stakes::Harmless, accepted()).await;
        assert!(told.unwrap_err().retry_after.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn lost_answers_slow_a_password_down_whether_it_is_proven_or_not() {
        for proven in [false, true] {
            let gate = gate();
            let login = gate.login(&["ada"], b"right");
            if proven {
                gate.tried(login, Stakes::LocksOut, accepted()).await.unwrap();
            }
            let sent = AtomicUsize::new(0);
            for _ in 0..600 {
                let lost = async {
                    sent.fetch_add(1, Ordering::SeqCst);
                    Err::<(), _>(Refusal::Doubtful(fault()))
                };
                assert!(gate.tried(login, Stakes::LocksOut, lost).await.is_err());
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            // The wall clock stands still here, so the wait after the second try does not end.
            assert_eq!(sent.load(Ordering::SeqCst), 2, "each may have been a refusal");
        }
    }

    #[test]
    fn only_a_password_that_was_judged_is_never_repeated() {
        for (refusal, stakes, repeat) in [
            (Refusal::Rejected(fault()), Stakes::LocksOut, Repeat::Never),
            (Refusal::Rejected(fault()), Stakes::Harmless, Repeat::Harmless),
            (Refusal::Doubtful(fault()), Stakes::LocksOut, Repeat::Harmless),
            (Refusal::Unjudged(fault()), Stakes::LocksOut, Repeat::Harmless),
        ] {
            assert_eq!(refusal.repeat(stakes), repeat, "{refusal:?} {stakes:?}");
        }
    }

    #[tokio::test]
    async fn lanes_without_news_are_dropped() {
        let gate = gate();
        for n in 0..100_u32 {
            let unjudged = async { Err::<(), _>(Refusal::Unjudged(fault())) };
            let login = gate.login(&["ada"], &n.to_be_bytes());
            let _ = gate.tried(login, Stakes::Harmless, unjudged).await;
        }
        assert!(gate.lanes.lock().unwrap().len() <= 1);
    }
}
