//! One side of the contract: a real Keystone and Barbican, or the stand-in, with a project of the case's own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use keyward::stores::barbican::config::{
    BarbicanConfig, CredentialRef, DomainRef, Interface, KeystoneAuth, Limits, ProjectRef, UserRef,
};
use keyward::stores::barbican::lockout::{LoginGate, LoginMemory};
use keyward::stores::barbican::{BarbicanSessions, BarbicanStore};
use keyward::stores::transport::TransportOptions;
use keyward_core::address::AddressPolicy;
use keyward_core::logins::{Known, Login, Logins, Step};
use keyward_core::sync::fingerprint::{FingerprintKey, KEY_BYTES};
use keyward_stand_ins::http::Seen;
use keyward_stand_ins::openstack::{ADMINISTRATOR, Cloud, MEMBER, READER, REGION};
use keyward_tests::harness::Case;
use keyward_tests::rig::openstack::{
    ApplicationCredential, CredentialTerms, Elsewhere, KeyManager, Mark, OpenStack, Request, Role, Service,
    Tenant, What,
};

/// Servers to hold against the contract, and a project there.
pub(super) struct Server {
    case: Case,
    side: Side,
    pub(super) tenant: Tenant,
}

enum Side {
    /// Real servers that other tests use too.
    Shared,
    StandIn(Box<(Cloud, OpenStack)>),
}

/// A place in the lists of requests.
#[derive(Clone, Copy)]
pub(super) enum Point {
    Logged(Mark, Mark),
    Seen(usize, usize),
}

/// Remembers for as long as the case lasts.
#[derive(Default)]
struct InMemory(Mutex<Logins>);

impl Server {
    /// The real servers that all tests share.
    pub(super) async fn real(case: Case) -> Result<Self> {
        let tenant = case.tenant().await?;
        Ok(Self {
            case,
            side: Side::Shared,
            tenant,
        })
    }

    /// Stand-ins of the test's own.
    pub(super) async fn stand_in(case: Case) -> Result<Self> {
        let cloud = Cloud::tls("right").await;
        let place = |url: &str| url.trim_end_matches('/').to_owned();
        let (keystone, barbican) = (
            place(cloud.keystone.url().as_str()),
            place(cloud.barbican.url().as_str()),
        );
        let servers = OpenStack::elsewhere(&Elsewhere {
            keystone: &keystone,
            barbican: &barbican,
            ca: std::str::from_utf8(cloud.ca())?,
            region: REGION,
            admin_password: ADMINISTRATOR,
            member_role_id: MEMBER,
            reader_role_id: READER,
        })?;
        let tenant = servers.tenant(Role::Member).await?;
        Ok(Self {
            case,
            side: Side::StandIn(Box::new((cloud, servers))),
            tenant,
        })
    }

    /// The servers, to arrange things.
    pub(super) async fn servers(&self) -> Result<&OpenStack> {
        match &self.side {
            Side::Shared => self.case.openstack().await,
            Side::StandIn(own) => Ok(&own.1),
        }
    }

    /// The project's secrets.
    pub(super) fn keys(&self) -> KeyManager {
        self.tenant.key_manager()
    }

    pub(super) async fn credential(&self) -> Result<ApplicationCredential> {
        self.tenant
            .application_credential(&CredentialTerms::default())
            .await
    }

    /// A store of the project, by a new application credential.
    pub(super) async fn store(&self) -> Result<BarbicanStore> {
        let credential = self.credential().await?;
        self.store_with(by_credential(&credential)).await
    }

    /// A store that logs in in this way, as the factory would make it, and shares no memory of refusals.
    pub(super) async fn store_with(&self, auth: KeystoneAuth) -> Result<BarbicanStore> {
        open(self.config(auth).await?, gate()?)
    }

    pub(super) async fn config(&self, auth: KeystoneAuth) -> Result<BarbicanConfig> {
        let servers = self.servers().await?;
        let addresses = AddressPolicy {
            allow_loopback: true,
            ..AddressPolicy::default()
        };
        let mut transport = TransportOptions::new(Arc::new(addresses.into()));
        transport.ca_pem = Some(servers.ca().into());
        // A busy machine is no fault that any case is about.
        transport.connect_timeout = Duration::from_mins(1);
        transport.deadline = Duration::from_mins(1);
        Ok(BarbicanConfig {
            auth_url: servers.auth_url().parse()?,
            auth,
            region: None,
            interface: Interface::Public,
            endpoint: None,
            transport,
            limits: Limits::default(),
        })
    }

    /// The project's user with this password.
    pub(super) fn by_password(&self, password: &str) -> KeystoneAuth {
        KeystoneAuth::Password {
            user: UserRef::Name {
                name: self.tenant.user.clone(),
                domain: DomainRef::Id("default".into()),
            },
            password: password.into(),
            project: ProjectRef::Id(self.tenant.project_id.clone()),
        }
    }

    /// The present end of the lists of requests.
    pub(super) async fn mark(&self) -> Result<Point> {
        Ok(match &self.side {
            Side::StandIn(own) => Point::Seen(own.0.keystone.seen().len(), own.0.barbican.seen().len()),
            Side::Shared => {
                let servers = self.servers().await?;
                Point::Logged(
                    servers.access_log(Service::Keystone).mark()?,
                    servers.access_log(Service::Barbican).mark()?,
                )
            }
        })
    }

    /// How many requests about `what` Barbican has had from the project since `point`.
    pub(super) async fn count(&self, point: Point, what: What) -> Result<usize> {
        match (&self.side, point) {
            (Side::StandIn(own), Point::Seen(_, before)) => {
                let seen = own.0.barbican.seen();
                Ok(seen[before..]
                    .iter()
                    .filter(|seen| request(seen).what() == what)
                    .count())
            }
            (Side::Shared, Point::Logged(_, before)) => {
                let log = self.servers().await?.access_log(Service::Barbican);
                log.count(before, &self.tenant.project_id, what)
            }
            _ => bail!("the point belongs to another server"),
        }
    }

    /// How many logins, good and bad, Keystone has had since `point` that named this user or application credential.
    pub(super) async fn logins(&self, point: Point, who: &str) -> Result<usize> {
        match (&self.side, point) {
            (Side::StandIn(own), Point::Seen(before, _)) => {
                let seen = own.0.keystone.seen();
                let who = format!("\"{who}\"");
                let names = |seen: &&Seen| {
                    seen.path().ends_with("/auth/tokens")
                        && String::from_utf8_lossy(&seen.body).contains(&who)
                };
                Ok(seen[before..].iter().filter(names).count())
            }
            (Side::Shared, Point::Logged(before, _)) => {
                let log = self.servers().await?.access_log(Service::Keystone);
                Ok(log.logins(before, who)?.len())
            }
            _ => bail!("the point belongs to another server"),
        }
    }

    /// How many tokens of the project's user were given back since `point`.
    pub(super) async fn tokens_given_back(&self, point: Point) -> Result<usize> {
        let gives_back = |method: &str, path: &str| method == "DELETE" && path.ends_with("/auth/tokens");
        match (&self.side, point) {
            (Side::StandIn(own), Point::Seen(before, _)) => {
                let seen = own.0.keystone.seen();
                let own = seen[before..]
                    .iter()
                    .filter(|seen| gives_back(&seen.method, seen.path()));
                Ok(own.count())
            }
            (Side::Shared, Point::Logged(before, _)) => {
                let requests = self
                    .servers()
                    .await?
                    .access_log(Service::Keystone)
                    .since(before)?;
                let own = requests.iter().filter(|request| {
                    gives_back(&request.method, &request.path)
                        && request.user.as_deref() == Some(self.tenant.user_id.as_str())
                });
                Ok(own.count())
            }
            _ => bail!("the point belongs to another server"),
        }
    }
}

impl LoginMemory for InMemory {
    fn known(&self, login: &Login, now: DateTime<Utc>) -> Known {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .known(login, now)
    }

    fn note(&self, login: Login, step: Step, now: DateTime<Utc>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .note(&login, step, now);
        })
    }
}

/// A store with a session of its own.
pub(super) fn open(config: BarbicanConfig, gate: Arc<LoginGate>) -> Result<BarbicanStore> {
    Ok(BarbicanSessions::new(gate).open(config)?)
}

/// A memory of refusals.
pub(super) fn gate() -> Result<Arc<LoginGate>> {
    let key = FingerprintKey::from_bytes(&[7; KEY_BYTES]).context("the key is as long as it must be")?;
    Ok(Arc::new(LoginGate::new(
        Arc::new(InMemory::default()),
        Arc::new(key),
    )))
}

pub(super) fn by_credential(credential: &ApplicationCredential) -> KeystoneAuth {
    KeystoneAuth::ApplicationCredential {
        credential: CredentialRef::Id(credential.id.clone()),
        secret: credential.secret.as_str().into(),
    }
}

/// What a stand-in has seen, as an access log would have it.
fn request(seen: &Seen) -> Request {
    Request {
        time: 0.0,
        method: seen.method.clone(),
        path: seen.path().to_owned(),
        query: seen
            .target
            .split_once('?')
            .map_or_else(String::new, |(_, query)| query.to_owned()),
        accept: seen.header("accept").unwrap_or_default().to_owned(),
        status: 0,
        request_id: None,
        user: None,
        project: None,
        login: None,
        milliseconds: 0.0,
    }
}
