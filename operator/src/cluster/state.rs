//! The operator's own state, in two Secrets of its own namespace: what must survive restarts and failover.
//!
//! One Secret holds the key of all fingerprints. It is made once and immutable, because with another key every
//! fingerprint in every status would look like a change. The other holds the fingerprints of credentials that were
//! refused, so that none of them is sent again by a process that comes later.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::{SecretBytes, SecretMap};
use kube::Client;
use rand::Rng as _;
use zeroize::Zeroizing;

use super::{ClusterReader, ExistingSecret, Mark, ObjectKey, Precondition, SecretApply, SecretWriter};

/// Name of the Secret that holds the fingerprint key.
pub const KEY_SECRET: &str = "keyward-fingerprint-key";

/// Name of the Secret that holds what was refused.
pub const STATE_SECRET: &str = "keyward-state";

/// The type of both, so that they are told from Secrets of applications.
const SECRET_TYPE: &str = "keyward.dev/state";

/// Bytes of the key, and of each fingerprint.
const DIGEST: usize = 32;

/// Fingerprints that are kept; beyond it the oldest goes. 128 KiB in all.
const MOST: usize = 4096;

/// How often a write that others overtook is planned anew.
const ATTEMPTS: usize = 5;

/// A credential's keyed fingerprint.
pub type Digest = [u8; DIGEST];

/// The operator's own state.
pub struct OperatorState {
    client: Client,
    namespace: String,
    key: Zeroizing<Digest>,
    rejected: Mutex<VecDeque<Digest>>,
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
            rejected: Mutex::new(stored.as_ref().map(digests_of).unwrap_or_default()),
        })
    }

    /// The key of all fingerprints.
    #[must_use]
    pub fn fingerprint_key(&self) -> &Digest {
        &self.key
    }

    /// Whether a credential was refused before.
    #[must_use]
    pub fn is_rejected(&self, digest: &Digest) -> bool {
        self.rejected().contains(digest)
    }

    /// Remembers a refused credential: at once in this process, and for later ones when this returns.
    ///
    /// # Errors
    ///
    /// It could not be stored. It is still remembered here, and stored with the next one.
    pub async fn remember_rejected(&self, digest: Digest) -> Result<(), Fault> {
        insert(&mut self.rejected(), digest);
        let reader = ClusterReader::new(self.client.clone());
        let mut attempts = 0;
        loop {
            let stored = reader.secret(&state_key(&self.namespace)).await?;
            // Another process may have stored some, too.
            let mut all = stored.as_ref().map(digests_of).unwrap_or_default();
            for digest in self.rejected().iter() {
                insert(&mut all, *digest);
            }
            attempts += 1;
            match self.store(stored.as_ref(), &all).await {
                Ok(()) => {
                    *self.rejected() = all;
                    return Ok(());
                }
                Err(fault) if fault.class == Class::Conflict && attempts < ATTEMPTS => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn store(&self, stored: Option<&ExistingSecret>, all: &VecDeque<Digest>) -> Result<(), Fault> {
        let bytes = all.iter().flatten().copied().collect::<Vec<_>>();
        let data = SecretMap::from([("rejected".to_owned(), SecretBytes::new(bytes))]);
        let precondition = stored.map_or(Precondition::Absent, ExistingSecret::unchanged);
        let key = state_key(&self.namespace);
        let writer = SecretWriter::new(self.client.clone());
        writer.apply(&own_secret(&key, &precondition, &data)).await?;
        Ok(())
    }

    fn rejected(&self) -> MutexGuard<'_, VecDeque<Digest>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
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

fn digests_of(stored: &ExistingSecret) -> VecDeque<Digest> {
    let bytes = stored
        .data
        .get("rejected")
        .map(SecretBytes::expose)
        .unwrap_or_default();
    bytes.as_chunks::<DIGEST>().0.iter().copied().collect()
}

/// Adds a digest as the newest, within the bound.
fn insert(all: &mut VecDeque<Digest>, digest: Digest) {
    if all.contains(&digest) {
        return;
    }
    if all.len() >= MOST {
        all.pop_front();
    }
    all.push_back(digest);
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
        force: false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use http::Method;
    use serde_json::{Value, json};

    use super::super::call::tests::scripted;
    use super::*;

    /// Secrets by path, written with the preconditions of server-side apply.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<(BTreeMap<String, Value>, u64)>>);

    impl Server {
        fn client(&self) -> Client {
            let server = self.clone();
            scripted(move |seen| {
                let mut state = server.0.lock().unwrap();
                let path = seen.path.split('?').next().unwrap().to_owned();
                if seen.method == Method::GET {
                    let stored = state.0.get(&path).cloned();
                    return stored.map_or((404, json!({"code": 404})), |secret| (200, secret));
                }
                let current = state
                    .0
                    .get(&path)
                    .map_or(json!("1"), |secret| secret["metadata"]["resourceVersion"].clone());
                if seen.body["metadata"]["resourceVersion"] != current {
                    return (409, json!({"code": 409, "reason": "Conflict"}));
                }
                state.1 += 1;
                let mut secret = seen.body.clone();
                secret["metadata"]["uid"] = path.clone().into();
                secret["metadata"]["resourceVersion"] = (state.1 + 100).to_string().into();
                state.0.insert(path, secret.clone());
                (200, secret)
            })
            .0
        }
    }

    #[tokio::test]
    async fn the_key_is_made_once() {
        let server = Server::default();
        let first = OperatorState::load(server.client(), "keyward").await.unwrap();
        let second = OperatorState::load(server.client(), "keyward").await.unwrap();
        assert_eq!(first.fingerprint_key(), second.fingerprint_key());
        assert_ne!(first.fingerprint_key(), &[0; DIGEST]);
        let stored = server.0.lock().unwrap();
        let secret = &stored.0["/api/v1/namespaces/keyward/secrets/keyward-fingerprint-key"];
        assert_eq!(secret["immutable"], true);
    }

    #[tokio::test]
    async fn what_was_rejected_survives_and_is_shared() {
        let server = Server::default();
        let first = OperatorState::load(server.client(), "keyward").await.unwrap();
        let second = OperatorState::load(server.client(), "keyward").await.unwrap();
        first.remember_rejected([1; DIGEST]).await.unwrap();
        second.remember_rejected([2; DIGEST]).await.unwrap();
        assert!(second.is_rejected(&[1; DIGEST]), "learnt while storing");
        let third = OperatorState::load(server.client(), "keyward").await.unwrap();
        assert!(third.is_rejected(&[1; DIGEST]) && third.is_rejected(&[2; DIGEST]));
        assert!(!third.is_rejected(&[3; DIGEST]));
    }

    #[tokio::test]
    async fn a_broken_key_is_not_replaced() {
        let server = Server::default();
        OperatorState::load(server.client(), "keyward").await.unwrap();
        let path = "/api/v1/namespaces/keyward/secrets/keyward-fingerprint-key";
        server.0.lock().unwrap().0.get_mut(path).unwrap()["data"]["key"] = "AA==".into();
        let fault = OperatorState::load(server.client(), "keyward")
            .await
            .err()
            .expect("one byte is no key");
        assert_eq!(fault.class, Class::Permanent);
    }

    #[test]
    fn memory_is_bounded() {
        let mut all = VecDeque::new();
        for number in 0..=u32::try_from(MOST).unwrap() {
            let mut digest = [0; DIGEST];
            digest[..4].copy_from_slice(&number.to_be_bytes());
            insert(&mut all, digest);
            insert(&mut all, digest);
        }
        assert_eq!(all.len(), MOST);
        assert_eq!(all[0][..4], 1_u32.to_be_bytes());
    }
}
