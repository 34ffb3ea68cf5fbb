//! The door to Vault and OpenBao: KV version 1 and 2, six ways to log in, one session per credential.
//!
//! The client library serves as vocabulary: its typed requests and answers travel over our own transport
//! (`wire`), because its executor keeps bodies in errors, prints tokens and follows its own rules for TLS.

mod attempts;
mod classify;
mod client;
mod config;
mod endpoints;
mod find;
mod kv;
mod login;
mod session;
mod standing;
#[cfg(test)]
mod tests;
mod trust;
mod wire;

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::StatusCode;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use tokio::time::Instant;
use vaultrs::api::sys::requests::ReadHealthRequest;

use self::classify::refused;
use self::client::Client;
pub use self::config::{KvVersion, VaultAuth, VaultConfig};
use self::endpoints::Health;
use self::find::Finder;
use self::kv::Mount;
use self::session::Session;
use self::wire::{Caller, Wire, decode, namespace_header};
use super::pacing::Pacer;
use super::pool::Pool;
use super::refusal::RefusalMemory;
use super::transport::{Response, Transport};
use super::{FindQuery, Found, Outcome, Place, Probe, ReadOutcome, RemoteRef, Store};

/// The sessions of a process: stores opened by one of these share what they can.
#[derive(Default)]
pub struct VaultSessions {
    pool: Pool<Session>,
    refusals: RefusalMemory,
}

/// One KV mount with its share of a session.
pub struct VaultStore {
    mount: Mount,
    finder: Finder,
}

impl VaultSessions {
    /// Checks the configuration; nothing is sent yet. Stores with the same credential at the same server share one
    /// session.
    pub fn open(&self, config: VaultConfig) -> Outcome<VaultStore> {
        config.auth.check()?;
        let digest = self.pool.digest(&config.session_key());
        let VaultConfig {
            address,
            namespace,
            login_namespace,
            mount,
            kv_version,
            transport,
            auth,
        } = config;
        let namespace = namespace.as_deref().map(namespace_header).transpose()?;
        let login_namespace = login_namespace.as_deref().map(namespace_header).transpose()?;
        let wire = Arc::new(Wire::new(Transport::new(&address, &transport)?));
        // Only logins, renewals and look-ups of a shared session go over the wire of the store that came first.
        let session = self.pool.join(digest, || {
            Session::new(
                Arc::clone(&wire),
                auth,
                login_namespace.or_else(|| namespace.clone()),
                self.refusals.of(digest, Instant::now()),
            )
        });
        let client = Client {
            wire,
            session,
            namespace,
        };
        Ok(VaultStore {
            mount: Mount::new(client, &mount, kv_version)?,
            finder: Finder::new(),
        })
    }
}

impl VaultStore {
    /// A store with a session of its own, as [`VaultSessions::open`].
    pub fn new(config: VaultConfig) -> Outcome<Self> {
        VaultSessions::default().open(config)
    }

    /// Shows that the server answers and is unsealed. The server neither asks for a token here nor writes an
    /// audit record.
    async fn health(&self) -> Outcome<()> {
        let request = ReadHealthRequest {
            standbyok: Some(true),
            perfstandbyok: Some(true),
            ..ReadHealthRequest::default()
        };
        let wire = &self.mount.client.wire;
        let answer = wire.call(&request, Caller::default()).await?;
        let what = format!("asking `{}` for its health", wire.peer());
        match answer.status {
            // 403 and 404: a proxy in front hides it, and the server answered all the same.
            StatusCode::OK | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(()),
            // A gateway without a server behind it gives the same status.
            StatusCode::SERVICE_UNAVAILABLE if says_sealed(&answer) => Err(Fault::new(
                Class::Sealed,
                Reason::StoreSealed,
                format!("`{}` is sealed", wire.peer()),
            )
            .advise("unseal it; everything resumes by itself")),
            _ => Err(refused(&answer, &what)),
        }
    }
}

impl Store for VaultStore {
    fn probe<'a>(&'a self, place: &'a RemoteRef) -> BoxFuture<'a, Outcome<Probe>> {
        Box::pin(async move { self.mount.probe(path_of(place)?, place.version).await })
    }

    fn read<'a>(&'a self, place: &'a RemoteRef) -> BoxFuture<'a, Outcome<ReadOutcome>> {
        Box::pin(async move { self.mount.read(path_of(place)?, place.version).await })
    }

    fn find<'a>(&'a self, query: &'a FindQuery, pacer: &'a dyn Pacer) -> BoxFuture<'a, Outcome<Vec<Found>>> {
        Box::pin(self.finder.find(&self.mount, query, pacer))
    }

    fn check(&self) -> BoxFuture<'_, Outcome<()>> {
        Box::pin(async move {
            self.health().await?;
            self.mount.client.session.session()?.pass().await?;
            self.mount.check().await
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let last = self.mount.client.session.leave();
        Box::pin(async move {
            if let Some(session) = last {
                session.close().await;
            }
        })
    }
}

impl fmt::Debug for VaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultStore")
            .field("mount", &self.mount.name)
            .finish_non_exhaustive()
    }
}

fn says_sealed(answer: &Response) -> bool {
    decode(answer, "").is_ok_and(|health: Health| health.sealed)
}

fn path_of(place: &RemoteRef) -> Outcome<&str> {
    match &place.place {
        Place::Path(path) => Ok(path),
        Place::Name(_) | Place::Uuid(_) | Place::Container(_) => Err(Fault::new(
            Class::Permanent,
            Reason::SpecInvalid,
            "a Vault store is read by path",
        )
        .advise("give a path, not a name or a UUID")),
    }
}
