//! What Keystone's answer to a login says: how long the token lives and where the key manager is.
//!
//! Pure parsing of hostile input. The token itself is not in the body and never passes here.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use serde::Deserialize;
use url::Url;

use super::config::Interface;
use crate::stores::Outcome;

/// The type under which every catalog lists Barbican.
const KEY_MANAGER: &str = "key-manager";

/// The body of a successful login.
#[derive(Debug)]
pub(super) struct Grant {
    /// From issue to expiry by Keystone's own clock, so that a clock that differs from ours does no harm.
    pub(super) lifetime: Duration,
    catalog: Option<Vec<Service>>,
}

#[derive(Deserialize)]
struct Body {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    expires_at: DateTime<Utc>,
    issued_at: Option<DateTime<Utc>>,
    catalog: Option<Vec<Service>>,
}

#[derive(Debug, Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    interface: String,
    region_id: Option<String>,
    region: Option<String>,
    url: String,
}

impl Endpoint {
    fn region(&self) -> &str {
        self.region_id
            .as_deref()
            .or(self.region.as_deref())
            .unwrap_or_default()
    }
}

impl Grant {
    /// Reads the body; `now` stands in where Keystone leaves out when the token was issued.
    pub(super) fn parse(body: &[u8], now: DateTime<Utc>) -> Outcome<Self> {
        let token = serde_json::from_slice::<Body>(body)
            .map_err(|_| {
                protocol("the answer to the login is not a Keystone token")
                    .advise("check that the auth URL is Keystone's address")
            })?
            .token;
        let lifetime = (token.expires_at - token.issued_at.unwrap_or(now))
            .to_std()
            .map_err(|_| protocol("Keystone gave a token that has expired already"))?;
        let mut catalog = token.catalog;
        for service in catalog.iter_mut().flatten() {
            // A cloud lists hundreds of endpoints, and the token is kept for long.
            if service.kind != KEY_MANAGER {
                service.endpoints = Vec::new();
            }
        }
        Ok(Self { lifetime, catalog })
    }

    /// The key manager's address in this catalog.
    pub(super) fn key_manager(&self, region: Option<&str>, interface: Interface) -> Outcome<Url> {
        let catalog = self.catalog.as_deref().unwrap_or_default();
        if catalog.is_empty() {
            return Err(
                unusable("the token has no project scope, so it lists no services").advise(
                    "name a project in the login, or use an application credential, which belongs to one",
                ),
            );
        }
        let endpoints: Vec<&Endpoint> = catalog
            .iter()
            .filter(|service| service.kind == KEY_MANAGER)
            .flat_map(|service| &service.endpoints)
            .collect();
        if endpoints.is_empty() {
            return Err(unusable("Keystone's catalog has no key manager")
                .advise("ask the cloud whether it runs Barbican, or set the endpoint in the store"));
        }
        let in_region: Vec<&Endpoint> = endpoints
            .iter()
            .copied()
            .filter(|endpoint| region.is_none_or(|wanted| wanted == endpoint.region()))
            .collect();
        if in_region.is_empty() {
            return Err(unusable(format!(
                "Keystone's catalog has no key manager in this region; it has one in {}",
                regions(&endpoints)
            ))
            .advise("correct the region"));
        }
        let fitting: Vec<&Endpoint> = in_region
            .into_iter()
            .filter(|endpoint| endpoint.interface.trim_end_matches("URL") == interface.as_str())
            .collect();
        match fitting.as_slice() {
            [] => Err(unusable(format!(
                "Keystone's catalog has no {} endpoint of the key manager",
                interface.as_str()
            ))
            .advise("choose another interface")),
            [first, rest @ ..] if rest.iter().all(|other| other.region() == first.region()) => {
                Url::parse(&first.url)
                    .map_err(|_| protocol("the key manager's address in Keystone's catalog is no address"))
            }
            several => Err(unusable(format!(
                "Keystone's catalog has key managers in several regions: {}",
                regions(several)
            ))
            .advise("name the region")),
        }
    }
}

/// How long before its end a token is renewed: two minutes, and a quarter of its life for a short one.
pub(super) fn renewal_margin(lifetime: Duration) -> Duration {
    const MARGIN: Duration = Duration::from_mins(2);
    MARGIN.min(lifetime / 4)
}

fn regions(endpoints: &[&Endpoint]) -> String {
    let names: BTreeSet<&str> = endpoints.iter().map(|endpoint| endpoint.region()).collect();
    names
        .into_iter()
        .take(10)
        .map(|name| format!("`{}`", name.escape_debug().take(64).collect::<String>()))
        .collect::<Vec<_>>()
        .join(", ")
}

fn unusable(message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::new(Class::Permanent, Reason::StoreProtocol, message)
}

fn protocol(message: &'static str) -> Fault {
    Fault::new(Class::Transient, Reason::StoreProtocol, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grant(catalog: &serde_json::Value) -> Grant {
        let body = json!({"token": {
            "expires_at": "2026-11-22T12:00:00.000000Z",
            "issued_at": "2026-11-22T11:00:00.000000Z",
            "catalog": catalog,
        }});
        Grant::parse(body.to_string().as_bytes(), DateTime::UNIX_EPOCH).unwrap()
    }

    fn endpoint(interface: &str, region: &str, url: &str) -> serde_json::Value {
        json!({"interface": interface, "region_id": region, "region": region, "url": url})
    }

    fn two_regions() -> Grant {
        grant(&json!([
            {"type": "compute", "endpoints": [endpoint("public", "north", "https://nova")]},
            {"type": "key-manager", "endpoints": [
                endpoint("public", "north", "https://north/v1"),
                endpoint("internal", "north", "https://north.internal"),
                endpoint("public", "south", "https://south"),
            ]},
        ]))
    }

    #[test]
    fn the_endpoint_is_the_one_of_region_and_interface() {
        let grant = two_regions();
        assert_eq!(grant.lifetime, Duration::from_hours(1));
        for (region, interface, url) in [
            (Some("north"), Interface::Public, "https://north/v1"),
            (Some("north"), Interface::Internal, "https://north.internal/"),
            (Some("south"), Interface::Public, "https://south/"),
            // Only one region has an internal endpoint.
            (None, Interface::Internal, "https://north.internal/"),
        ] {
            assert_eq!(grant.key_manager(region, interface).unwrap().as_str(), url);
        }
    }

    #[test]
    fn what_the_catalog_lacks_is_said() {
        let grant = two_regions();
        for (region, interface, told) in [
            (Some("west"), Interface::Public, "`north`, `south`"),
            (None, Interface::Public, "several regions"),
            (Some("south"), Interface::Admin, "no admin endpoint"),
        ] {
            let fault = grant.key_manager(region, interface).unwrap_err();
            assert!(fault.message.contains(told), "{fault}");
            assert_eq!(fault.class, Class::Permanent);
        }
    }

    #[test]
    fn a_token_without_scope_or_key_manager_is_refused_with_advice() {
        for (catalog, told) in [
            (json!(null), "no project scope"),
            (json!([]), "no project scope"),
            (json!([{"type": "identity", "endpoints": []}]), "no key manager"),
        ] {
            let fault = grant(&catalog).key_manager(None, Interface::Public).unwrap_err();
            assert!(fault.message.contains(told), "{fault}");
            assert!(!fault.advice.is_empty());
        }
    }

    #[test]
    fn other_bodies_are_a_protocol_fault_that_repeats_nothing() {
        for body in [
            "<html>canary</html>",
            "{}",
            r#"{"token": "canary"}"#,
            r#"{"token": {"expires_at": "canary"}}"#,
            r#"{"token": {"expires_at": "2026-11-22T11:00:00Z", "issued_at": "2026-11-22T12:00:00Z"}}"#,
        ] {
            let fault = Grant::parse(body.as_bytes(), DateTime::UNIX_EPOCH).unwrap_err();
            assert_eq!(fault.reason, Reason::StoreProtocol);
            assert!(!format!("{fault:?}").contains("canary"));
        }
    }

    #[test]
    fn a_short_token_is_renewed_at_a_quarter_of_its_life() {
        assert_eq!(renewal_margin(Duration::from_hours(1)), Duration::from_mins(2));
        assert_eq!(renewal_margin(Duration::from_secs(8)), Duration::from_secs(2));
        assert_eq!(renewal_margin(Duration::ZERO), Duration::ZERO);
    }
}
