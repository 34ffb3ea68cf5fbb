//! Which addresses may be dialled: every name is resolved here and every address is checked before a connection
//! is made to it. Nothing is cached, so that a name that moves is checked again.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use keyward_core::address::AddressRefusal;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::Addresses;

/// Resolves through the system and refuses a name as a whole when one of its addresses is refused.
pub(super) struct Resolver {
    addresses: Arc<Addresses>,
    port: u16,
    /// Where the overriding server name really leads.
    real_host: Option<String>,
}

/// A refusal on its way through the HTTP library.
#[derive(Debug)]
pub(super) struct Refused(pub(super) AddressRefusal);

impl Resolver {
    /// With a `server_name`, every name leads to the host of `base`.
    pub(super) fn new(base: &Url, server_name: Option<&str>, addresses: Arc<Addresses>) -> Self {
        let host = match base.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        Self {
            addresses,
            port: base.port_or_known_default().unwrap_or_default(),
            real_host: server_name.map(|_| host),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (addresses, port) = (Arc::clone(&self.addresses), self.port);
        let host = self.real_host.clone().unwrap_or_else(|| name.as_str().to_owned());
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port)).await?.collect();
            for address in &found {
                addresses.check(*address).map_err(Refused)?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// A host that is an address: the HTTP library dials it without asking a resolver, so it is checked before each request.
pub(super) struct Literal {
    address: Option<SocketAddr>,
    addresses: Arc<Addresses>,
}

impl Literal {
    pub(super) fn of(base: &Url, addresses: &Arc<Addresses>) -> Self {
        let ip: Option<IpAddr> = match base.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            _ => None,
        };
        let port = base.port_or_known_default().unwrap_or_default();
        Self {
            address: ip.map(|ip| SocketAddr::new(ip, port)),
            addresses: Arc::clone(addresses),
        }
    }

    pub(super) fn check(&self) -> Result<(), AddressRefusal> {
        let checked = self.address.map(|address| self.addresses.check(address));
        checked.unwrap_or(Ok(()))
    }
}

/// The fault that a refused address becomes.
pub(super) fn refusal(why: AddressRefusal, peer: &str) -> Fault {
    Fault::new(
        Class::Denied,
        Reason::AddressRefused,
        format!("the address of `{peer}` is refused: {why}"),
    )
    .advise("ask the cluster administrator which addresses stores may have")
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Refused {}
