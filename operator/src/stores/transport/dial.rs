//! Which addresses may be dialled: every name is resolved here and every address is checked before a connection
//! is made to it. Nothing is cached, so that a name that moves is checked again.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use keyward_core::address::{AddressPolicy, AddressRefusal};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::stores::Outcome;

/// Resolves through the system and refuses a name as a whole when one of its addresses is refused.
pub(super) struct Resolver {
    policy: Arc<AddressPolicy>,
    port: u16,
    /// Where the overriding server name really leads.
    real_host: Option<String>,
}

/// A refusal on its way through the HTTP library.
#[derive(Debug)]
pub(super) struct Refused(pub(super) AddressRefusal);

impl Resolver {
    /// With a `server_name`, every name leads to the host of `base`.
    pub(super) fn new(base: &Url, server_name: Option<&str>, policy: Arc<AddressPolicy>) -> Self {
        let host = match base.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        Self {
            policy,
            port: base.port_or_known_default().unwrap_or_default(),
            real_host: server_name.map(|_| host),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, port) = (Arc::clone(&self.policy), self.port);
        let host = self.real_host.clone().unwrap_or_else(|| name.as_str().to_owned());
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port)).await?.collect();
            for address in &found {
                policy.check_socket(*address).map_err(Refused)?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Checks a URL whose host is an address: the HTTP library dials it without asking a resolver.
pub(super) fn check_literal(base: &Url, policy: &AddressPolicy) -> Outcome<()> {
    let address = match base.host() {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
        _ => return Ok(()),
    };
    let port = base.port_or_known_default().unwrap_or_default();
    policy
        .check_socket(SocketAddr::new(address, port))
        .map_err(refusal)
}

/// The fault that a refused address becomes.
pub(super) fn refusal(why: AddressRefusal) -> Fault {
    Fault::new(
        Class::Denied,
        Reason::AddressRefused,
        format!("the store's address is refused: {why}"),
    )
    .advise("ask the cluster administrator which addresses stores may have")
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Refused {}
