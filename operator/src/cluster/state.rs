//! The operator's own state, in two Secrets of its own namespace: what must survive restarts and failover.
//!
//! One Secret holds the key of all fingerprints. It is made once and immutable, because with another key every
//! fingerprint in every status would look like a change. The other holds what became of passwords, so that none that
//! was refused is sent again by a process that comes later, and no user is locked out by many.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use keyward_core::fault::{Class, Fault};
use keyward_core::logins::{Digest, Known, Ledger, Login, Logins, Step};
use keyward_core::reason::Reason;
use keyward_core::secret::{SecretBytes, SecretMap};
use kube::Client;
use rand::Rng as _;
use zeroize::Zeroizing;

use super::{ClusterReader, ExistingSecret, Mark, ObjectKey, Precondition, SecretApply, SecretWriter};

/// Name of the Secret that holds the fingerprint key.
pub const KEY_SECRET: &str = "keyward-fingerprint-key";

/// Name of the Secret that holds what became of passwords.
pub const STATE_SECRET: &str = "keyward-state";

/// The type of both, so that they are told from Secrets of applications.
const SECRET_TYPE: &str = "keyward.dev/state";

/// Bytes of the key.
const DIGEST: usize = 32;

/// How often a write that others overtook is planned anew.
const ATTEMPTS: usize = 5;

/// The operator's own state.
pub struct OperatorState {
    client: Client,
    namespace: String,
    key: Zeroizing<Digest>,
    logins: Mutex<Logins>,
    /// Whoever stores what became of passwords: one at a time, so that each knows what is stored already.
    storing: tokio::sync::Mutex<()>,
}

impl OperatorState {
    /// Reads the state of the operator in `namespace`, and makes it where there is none.
    ///
    /// # Errors
    ///
    /// The Secrets cannot be read or made, or the key is not 32 bytes long.
    pub async fn load(client: Client, namespace: &str) -> Result<Self, Fault> {
        let reader = ClusterReader::new(client.clone());
        let key = load_key(&client, &reader, namespace).await?;
        let stored = reader.secret(&state_key(namespace)).await?;
        Ok(Self {
            client,
            namespace: namespace.into(),
            key,
            logins: Mutex::new(Logins::of(stored.as_ref().map(ledger_of).unwrap_or_default())),
            storing: tokio::sync::Mutex::default(),
        })
    }

    /// The key of all fingerprints.
    #[must_use]
    pub fn fingerprint_key(&self) -> &Digest {
        &self.key
    }

    /// What is known of a password at `now`.
    #[must_use]
    pub fn known_login(&self, login: &Login, now: DateTime<Utc>) -> Known {
        self.logins().known(login, now)
    }

    /// Remembers what happens to a password: at once in this process, and for later ones when this returns. A login
    /// as usual is nothing to remember and costs no request.
    ///
    /// # Errors
    ///
    /// It could not be stored. It is still remembered here, and stored with the next one.
    pub async fn note_login(&self, login: &Login, step: Step, now: DateTime<Utc>) -> Result<(), Fault> {
        if !self.logins().note(login, step, now) {
            return Ok(());
        }
        let reader = ClusterReader::new(self.client.clone());
        let _turn = self.storing.lock().await;
        for attempt in 1.. {
            let stored = reader.secret(&state_key(&self.namespace)).await?;
            // Another process may have stored some, too.
            let found = stored.as_ref().map(ledger_of).unwrap_or_default();
            let Some(all) = self.logins().to_store(&found) else {
                self.logins().learn(found);
                break;
            };
            match self.store(stored.as_ref(), &all).await {
                Ok(()) => {
                    self.logins().learn(all);
                    break;
                }
                Err(fault) if fault.class == Class::Conflict && attempt < ATTEMPTS => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    async fn store(&self, stored: Option<&ExistingSecret>, all: &Ledger) -> Result<(), Fault> {
        let parts = all.parts().into_iter();
        let data: SecretMap = parts
            .map(|(name, bytes)| (name.to_owned(), SecretBytes::new(bytes)))
            .collect();
        let precondition = stored.map_or(Precondition::Absent, ExistingSecret::unchanged);
        let key = state_key(&self.namespace);
        let writer = SecretWriter::new(self.client.clone());
        writer.apply(&own_secret(&key, &precondition, &data)).await?;
        Ok(())
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn load_key(
    client: &Client,
    reader: &ClusterReader,
    namespace: &str,
) -> Result<Zeroizing<Digest>, Fault> {
    let key = ObjectKey::new(namespace, KEY_SECRET);
    if let Some(stored) = reader.secret(&key).await? {
        return key_of(&stored, &key);
    }
    let mut fresh = vec![0; DIGEST];
    rand::rng().fill_bytes(&mut fresh);
    let data = SecretMap::from([("key".to_owned(), SecretBytes::new(fresh))]);
    let writer = SecretWriter::new(client.clone());
    match writer
        .create_immutable(&own_secret(&key, &Precondition::Absent, &data))
        .await
    {
        Ok(_) => {}
        // Another process was first, or nobody knows: what is stored counts.
        Err(fault) if matches!(fault.class, Class::Conflict | Class::Ambiguous) => {}
        Err(fault) => return Err(fault),
    }
    match reader.secret(&key).await? {
        Some(stored) => key_of(&stored, &key),
        None => Err(Fault::new(
            Class::Transient,
            Reason::ClusterUnavailable,
            format!("Secret {key} was made and is not there"),
        )),
    }
}

fn key_of(stored: &ExistingSecret, key: &ObjectKey) -> Result<Zeroizing<Digest>, Fault> {
    let bytes = stored.data.get("key").map(SecretBytes::expose);
    let digest = bytes.and_then(|bytes| Digest::try_from(bytes).ok());
    digest.map(Zeroizing::new).ok_or_else(|| {
        Fault::new(
            Class::Permanent,
            Reason::SpecInvalid,
            format!("Secret {key} holds no key of {DIGEST} bytes"),
        )
        .advise("restore it from a backup, or delete it: every Secret is then written once more")
    })
}

fn state_key(namespace: &str) -> ObjectKey {
    ObjectKey::new(namespace, STATE_SECRET)
}

fn ledger_of(stored: &ExistingSecret) -> Ledger {
    Ledger::from_parts(|name| stored.data.get(name).map(SecretBytes::expose))
}

fn own_secret<'a>(
    key: &'a ObjectKey,
    precondition: &'a Precondition,
    data: &'a SecretMap,
) -> SecretApply<'a> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    SecretApply {
        key,
        precondition,
        data,
        secret_type: Some(SECRET_TYPE),
        labels: &NONE,
        annotations: &NONE,
        mark: Mark::None,
        // Nobody else has any business in it: who restored it from a backup, or edited it, must not keep us out.
        force: true,
    }
}

#[cfg(test)]
mod tests {
    use keyward_stand_ins::kubernetes::ApiServer;

    use super::super::call::tests::client_of;
    use super::*;

    const KEY: &str = "/api/v1/namespaces/keyward/secrets/keyward-fingerprint-key";

    #[tokio::test]
    async fn the_key_is_made_once() {
        let server = ApiServer::default();
        let first = OperatorState::load(client_of(&server), "keyward").await.unwrap();
        let second = OperatorState::load(client_of(&server), "keyward").await.unwrap();
        assert_eq!(first.fingerprint_key(), second.fingerprint_key());
        assert_ne!(first.fingerprint_key(), &[0; DIGEST]);
        assert_eq!(server.state().objects[KEY].body["immutable"], true);
    }

    #[tokio::test]
    async fn what_was_rejected_survives_and_is_shared() {
        let server = ApiServer::default();
        let first = OperatorState::load(client_of(&server), "keyward").await.unwrap();
        let second = OperatorState::load(client_of(&server), "keyward").await.unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let refuse = async |state: &OperatorState, number| {
            state
                .note_login(&login(number), Step::Refused, now)
                .await
                .unwrap();
        };
        let known = |state: &OperatorState, number| state.known_login(&login(number), now);
        refuse(&first, 1).await;
        refuse(&second, 2).await;
        assert_eq!(known(&second, 1), Known::Refused, "learnt while storing");
        let third = OperatorState::load(client_of(&server), "keyward").await.unwrap();
        assert_eq!(
            (known(&third, 1), known(&third, 2)),
            (Known::Refused, Known::Refused)
        );
        assert_eq!(known(&third, 3), Known::New);
    }

    #[tokio::test]
    async fn only_the_first_login_with_a_password_is_stored() {
        let server = ApiServer::default();
        let state = OperatorState::load(client_of(&server), "keyward").await.unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let written = || server.state().writes;
        let before = written();
        for step in [Step::Sending, Step::Accepted, Step::Accepted, Step::Accepted] {
            state.note_login(&login(1), step, now).await.unwrap();
        }
        assert_eq!(written() - before, 2);
        let later = OperatorState::load(client_of(&server), "keyward").await.unwrap();
        assert_eq!(later.known_login(&login(1), now), Known::Proven);
        later.note_login(&login(1), Step::Accepted, now).await.unwrap();
        assert_eq!(written() - before, 2);
    }

    #[tokio::test]
    async fn tries_that_are_noted_at_once_are_each_counted_once() {
        let server = ApiServer::default();
        let state = OperatorState::load(client_of(&server), "keyward").await.unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let of_user = |user: u8, password: u8| Login {
            user: [user; DIGEST],
            password: [password; DIGEST],
        };
        let refuse = async |user| state.note_login(&of_user(user, user), Step::Refused, now).await;
        let notes = (0..10).map(refuse);
        futures::future::try_join_all(notes).await.unwrap();
        let later = OperatorState::load(client_of(&server), "keyward").await.unwrap();
        for user in 0..10 {
            assert_eq!(later.known_login(&of_user(user, user), now), Known::Refused);
            assert_eq!(
                later.known_login(&of_user(user, 99), now),
                Known::New,
                "one is free"
            );
        }
    }

    fn login(number: u8) -> Login {
        Login {
            user: [number; DIGEST],
            password: [number; DIGEST],
        }
    }

    #[tokio::test]
    async fn a_broken_key_is_not_replaced() {
        let server = ApiServer::default();
        OperatorState::load(client_of(&server), "keyward").await.unwrap();
        server.state().objects.get_mut(KEY).unwrap().body["data"]["key"] = "AA==".into();
        let fault = OperatorState::load(client_of(&server), "keyward")
            .await
            .err()
            .expect("one byte is no key");
        assert_eq!(fault.class, Class::Permanent);
    }
}
