//! Where the API server itself is: no store may have its address.

use std::io;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use keyward_core::address::{DeniedAddress, Network};
use kube::Config;
use tokio::net::lookup_host;

/// The addresses that this process knows from its own settings: the one it asks itself, and that of the Service.
///
/// # Errors
///
/// A name cannot be resolved.
pub async fn own_addresses(config: &Config, service: Option<&str>) -> io::Result<Vec<DeniedAddress>> {
    let url = &config.cluster_url;
    let port = url.port_u16().unwrap_or(443);
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let asked = look_up(host, port).await?;
    let mut denied: Vec<DeniedAddress> = asked.into_iter().map(DeniedAddress::from).collect();
    if let Some(service) = service {
        let found = look_up(service, port).await?.into_iter();
        denied.extend(found.map(|address| DeniedAddress::from(Network::from(address.ip()))));
    }
    Ok(denied)
}

/// The system does not say which name it failed to resolve.
async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(io::Error::new(error.kind(), format!("`{host}`: {error}"))),
    }
}

/// The addresses in a slice of the Service `kubernetes`: on its ports, or on all where it names none.
pub(super) fn addresses_of(slice: &EndpointSlice) -> Vec<DeniedAddress> {
    let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let addresses: Vec<IpAddr> = addresses.filter_map(|address| address.parse().ok()).collect();
    let ports = slice.ports.iter().flatten().filter_map(|port| port.port);
    let ports: Vec<u16> = ports.filter_map(|port| port.try_into().ok()).collect();
    let on_ports = |ip: &IpAddr| -> Vec<DeniedAddress> {
        match ports.as_slice() {
            [] => vec![Network::from(*ip).into()],
            ports => ports
                .iter()
                .map(|port| SocketAddr::new(*ip, *port).into())
                .collect(),
        }
    };
    addresses.iter().flat_map(on_ports).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_name_that_cannot_be_resolved_is_an_error() {
        let known = async |url: &str, service| {
            let config = Config::new(url.parse().unwrap());
            let known = own_addresses(&config, service).await;
            known
                .map(|known| known.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map_err(|error| error.to_string())
        };
        let here = "https://127.0.0.1:6443";
        let told = known(here, Some("10.96.0.1")).await.unwrap();
        assert_eq!(told, ["127.0.0.1 port 6443", "10.96.0.1"]);
        let told = known("https://[::1]:6443", None).await.unwrap();
        assert_eq!(told, ["::1 port 6443"]);
        for (url, service) in [
            ("https://no-such-host.invalid", None),
            (here, Some("no-such-host.invalid")),
        ] {
            let error = known(url, service).await.unwrap_err();
            assert!(error.starts_with("`no-such-host.invalid`: "), "{error}");
        }
    }

    #[test]
    fn each_endpoint_is_denied_on_each_port() {
        let told = |slice: serde_json::Value| -> Vec<String> {
            let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
            addresses_of(&slice).iter().map(ToString::to_string).collect()
        };
        let endpoints = json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2", "not an address"]}]);
        let ports = json!([{"name": "https", "port": 6443}]);
        let with = |ports: &serde_json::Value| json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        assert_eq!(told(with(&ports)), ["10.0.0.1 port 6443", "10.0.0.2 port 6443"]);
        assert_eq!(told(with(&json!([]))), ["10.0.0.1", "10.0.0.2"]);
    }
}
