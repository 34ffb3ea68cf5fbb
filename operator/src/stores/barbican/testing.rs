//! Stores on the stand-in for Keystone and Barbican, whose answers the contract suite holds to the real ones.

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use keyward_core::address::AddressPolicy;
use keyward_core::logins::{Known, Login, Logins, Step};
use keyward_core::sync::fingerprint::{FingerprintKey, KEY_BYTES};
use keyward_stand_ins::http::Seen;
use keyward_stand_ins::openstack::{self, CREDENTIAL, PROJECT, REGION, Secret, USER};
use uuid::Uuid;

use super::config::{
    BarbicanConfig, CredentialRef, DomainRef, Interface, KeystoneAuth, Limits, ProjectRef, UserRef,
};
use super::lockout::{LoginGate, LoginMemory};
use super::{BarbicanSessions, BarbicanStore};
use crate::stores::transport::TransportOptions;

/// Stands for every secret: it must show up nowhere but in values.
pub(super) const CANARY: &str = "canary-91be77";

/// Remembers for as long as the process lives.
#[derive(Debug, Default)]
pub(super) struct InMemory(Mutex<Logins>);

impl LoginMemory for InMemory {
    fn known(&self, login: &Login, now: DateTime<Utc>) -> Known {
        self.0.lock().unwrap().known(login, now)
    }

    fn note(&self, login: Login, step: Step, now: DateTime<Utc>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.0.lock().unwrap().note(&login, step, now);
        })
    }
}

/// The two servers, whose user and application credential log in with [`CANARY`].
pub(super) struct Cloud(openstack::Cloud);

impl Deref for Cloud {
    type Target = openstack::Cloud;

    fn deref(&self) -> &openstack::Cloud {
        &self.0
    }
}

impl Cloud {
    pub(super) async fn start(secrets: Vec<Secret>) -> Self {
        Self(openstack::Cloud::plain(CANARY, secrets).await)
    }

    /// A store that logs in rightly, with a session and a gate of its own.
    pub(super) fn store(&self) -> BarbicanStore {
        self.store_of(&gate(), password(CANARY))
    }

    /// A store with a session of its own.
    pub(super) fn store_of(&self, gate: &Arc<LoginGate>, auth: KeystoneAuth) -> BarbicanStore {
        let sessions = BarbicanSessions::new(Arc::clone(gate));
        sessions.open(self.config(auth)).ok().unwrap()
    }

    pub(super) fn config(&self, auth: KeystoneAuth) -> BarbicanConfig {
        let addresses = AddressPolicy {
            allow_loopback: true,
            ..AddressPolicy::default()
        };
        let mut transport = TransportOptions::new(Arc::new(addresses.into()));
        transport.plain_http_allowed = true;
        transport.deadline = std::time::Duration::from_secs(2);
        BarbicanConfig {
            auth_url: self.keystone.url(),
            auth,
            region: Some(REGION.into()),
            interface: Interface::Public,
            endpoint: None,
            transport,
            limits: Limits {
                payload: 1000,
                ..Limits::default()
            },
        }
    }

    /// How many secrets or passwords Keystone was shown.
    pub(super) fn logins(&self) -> usize {
        let shows_secret = |seen: &&Seen| {
            seen.method == "POST" && !String::from_utf8_lossy(&seen.body).contains("\"token\"")
        };
        self.keystone.seen().iter().filter(shows_secret).count()
    }

    /// What Barbican was asked below `/v1` since the last call, without ids.
    pub(super) fn asked(&self, since: &mut usize) -> Vec<String> {
        let seen = self.barbican.seen();
        let new = seen[*since..].iter().filter(|seen| seen.target != "/");
        let asked = new.map(|seen| {
            let plain = seen
                .path()
                .split('/')
                .filter(|part| Uuid::try_parse(part).is_err());
            let name = if seen.target.contains("name=") {
                "?name"
            } else {
                ""
            };
            plain.collect::<Vec<_>>().join("/") + name
        });
        let asked = asked.collect();
        *since = seen.len();
        asked
    }
}

/// A secret that holds the canary.
pub(super) fn secret(id: u128, name: &str, created: i64) -> Secret {
    Secret::new(id, name, created, format!("{CANARY} {id}").as_bytes())
}

pub(super) fn password(password: &str) -> KeystoneAuth {
    KeystoneAuth::Password {
        user: UserRef::Name {
            name: USER.into(),
            domain: DomainRef::Name("Default".into()),
        },
        password: password.into(),
        project: ProjectRef::Id(PROJECT.into()),
    }
}

pub(super) fn credential(secret: &str) -> KeystoneAuth {
    KeystoneAuth::ApplicationCredential {
        credential: CredentialRef::Id(CREDENTIAL.into()),
        secret: secret.into(),
    }
}

pub(super) fn gate() -> Arc<LoginGate> {
    Arc::new(LoginGate::new(
        Arc::new(InMemory::default()),
        Arc::new(FingerprintKey::from_bytes(&[7; KEY_BYTES]).unwrap()),
    ))
}
