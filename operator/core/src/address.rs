//! Which network addresses a store may be reached at.
//!
//! The rule is the cluster administrator's, never a tenant's: a store object names a host, and what that host
//! resolves to is checked at each connection. This module only decides about addresses; resolving and connecting
//! happen at the edge.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What the administrator allows. The default refuses every address that leads back into this host or its network
/// neighbourhood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressPolicy {
    /// Allows 127.0.0.0/8 and `::1`: for tests and demonstrations.
    pub allow_loopback: bool,
    /// Allows 169.254.0.0/16, `fe80::/10` and the other addresses of clouds' metadata services.
    pub allow_link_local: bool,
    /// Refused whatever else is allowed: the API server's own addresses, and what the administrator adds.
    pub denied: Vec<DeniedAddress>,
}

/// An address range that is refused, on every port or on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeniedAddress {
    /// The range.
    pub network: Network,
    /// The only port that is refused; `None` refuses all of them.
    pub port: Option<u16>,
}

/// A range of addresses in CIDR form, or one single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

/// The rule that refused an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AddressRefusal {
    /// The address leads back to the operator's own host.
    #[error("loopback addresses are not allowed for stores")]
    Loopback,
    /// The address is only valid on the local link, or is a cloud's instance metadata service.
    #[error("link-local and metadata-service addresses are not allowed for stores")]
    LinkLocal,
    /// The address means "any" or "this network".
    #[error("an unspecified address cannot be a store")]
    Unspecified,
    /// The address is a group of hosts.
    #[error("a multicast address cannot be a store")]
    Multicast,
    /// The address is every host of a network.
    #[error("the broadcast address cannot be a store")]
    Broadcast,
    /// The address is on the administrator's list.
    #[error("the address lies in {0}, which the administrator denies to stores")]
    Denied(DeniedAddress),
}

/// A text that is neither an address nor a range whose addresses would be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an IP address or a range such as 10.0.0.0/8; IPv4 addresses in IPv6 form are judged as IPv4"
)]
pub struct NetworkError;

impl AddressPolicy {
    /// Decides about a connection to `addr`.
    pub fn check_socket(&self, addr: SocketAddr) -> Result<(), AddressRefusal> {
        self.decide(addr.ip(), Some(addr.port()))
    }

    /// Decides about an address whose port is not known; entries that deny one port do not apply.
    pub fn check(&self, ip: IpAddr) -> Result<(), AddressRefusal> {
        self.decide(ip, None)
    }

    fn decide(&self, ip: IpAddr, port: Option<u16>) -> Result<(), AddressRefusal> {
        let ip = effective(ip);
        if let Some(denied) = self.denied.iter().find(|entry| entry.matches(ip, port)) {
            return Err(AddressRefusal::Denied(*denied));
        }
        match kind_of(ip) {
            None => Ok(()),
            Some(AddressRefusal::Loopback) if self.allow_loopback => Ok(()),
            Some(AddressRefusal::LinkLocal) if self.allow_link_local => Ok(()),
            Some(refusal) => Err(refusal),
        }
    }
}

impl DeniedAddress {
    fn matches(&self, ip: IpAddr, port: Option<u16>) -> bool {
        self.network.contains(ip) && self.port.is_none_or(|denied| port == Some(denied))
    }
}

impl From<SocketAddr> for DeniedAddress {
    /// Denies exactly this endpoint.
    fn from(addr: SocketAddr) -> Self {
        Self {
            network: Network::from(addr.ip()),
            port: Some(addr.port()),
        }
    }
}

impl From<Network> for DeniedAddress {
    /// Denies the range on every port.
    fn from(network: Network) -> Self {
        Self { network, port: None }
    }
}

impl fmt::Display for DeniedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.network)?;
        match self.port {
            Some(port) => write!(f, " port {port}"),
            None => Ok(()),
        }
    }
}

impl Network {
    /// Whether `ip` lies in the range. IPv4 addresses in IPv6 clothes are compared as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, effective(ip)) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (base.to_bits() ^ ip.to_bits()) & mask == 0
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                (base.to_bits() ^ ip.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for Network {
    fn from(ip: IpAddr) -> Self {
        let base = effective(ip);
        Self {
            base,
            bits: full_length(base),
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let Some((address, bits)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| NetworkError);
        };
        let base: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let bits: u8 = bits.parse().map_err(|_| NetworkError)?;
        if bits > full_length(base) {
            return Err(NetworkError);
        }
        match (base, effective(base)) {
            // No address is ever met in an IPv6 form of an IPv4 one: the range is that of the addresses themselves.
            (IpAddr::V6(_), base @ IpAddr::V4(_)) => {
                let bits = bits.checked_sub(96).ok_or(NetworkError)?;
                Ok(Self { base, bits })
            }
            // `::` and `::1` with forms of others around them, of which none would be met.
            (IpAddr::V6(v6), _) if is_form_of_ipv4(v6) && (96..128).contains(&bits) => Err(NetworkError),
            _ => Ok(Self { base, bits }),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == full_length(self.base) {
            write!(f, "{}", self.base)
        } else {
            write!(f, "{}/{}", self.base, self.bits)
        }
    }
}

fn full_length(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The IPv4 address that an IPv6 form of it would reach: mapped (`::ffff:a.b.c.d`), compatible (`::a.b.c.d`) and
/// NAT64 (`64:ff9b::a.b.c.d`).
fn effective(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) if is_form_of_ipv4(v6) && !v6.is_unspecified() && !v6.is_loopback() => {
            let [.., high, low] = v6.segments();
            IpAddr::V4(Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)))
        }
        _ => ip,
    }
}

/// Whether it lies where the IPv6 forms of IPv4 addresses are. `::` and `::1` lie there as well, and are addresses of
/// their own.
fn is_form_of_ipv4(v6: Ipv6Addr) -> bool {
    matches!(
        v6.segments(),
        [0, 0, 0, 0, 0, 0xffff | 0, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _]
    )
}

/// Where clouds answer with credentials of the machine, beside the link-local addresses: Alibaba, Oracle's older one,
/// Azure.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// The same at unique-local addresses: the instances of AWS, the pods of its EKS, Google.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn kind_of(ip: IpAddr) -> Option<AddressRefusal> {
    match ip {
        IpAddr::V4(v4) if v4.is_loopback() => Some(AddressRefusal::Loopback),
        IpAddr::V4(v4) if v4.is_link_local() || METADATA_V4.contains(&v4) => Some(AddressRefusal::LinkLocal),
        // Hosts treat all of 0.0.0.0/8 as "this network", and Linux connects 0.0.0.0 to itself.
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some(AddressRefusal::Unspecified),
        IpAddr::V4(v4) if v4.is_multicast() => Some(AddressRefusal::Multicast),
        IpAddr::V4(v4) if v4.is_broadcast() => Some(AddressRefusal::Broadcast),
        IpAddr::V6(v6) if v6.is_loopback() => Some(AddressRefusal::Loopback),
        IpAddr::V6(v6) if v6.is_unicast_link_local() || METADATA_V6.contains(&v6) => {
            Some(AddressRefusal::LinkLocal)
        }
        IpAddr::V6(v6) if v6.is_unspecified() => Some(AddressRefusal::Unspecified),
        IpAddr::V6(v6) if v6.is_multicast() => Some(AddressRefusal::Multicast),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_default_refuses_what_leads_back_home() {
        let policy = AddressPolicy::default();
        for (address, refusal) in [
            ("127.0.0.1", AddressRefusal::Loopback),
            ("127.9.9.9", AddressRefusal::Loopback),
            ("::1", AddressRefusal::Loopback),
            ("::ffff:127.0.0.1", AddressRefusal::Loopback),
            ("::127.0.0.1", AddressRefusal::Loopback),
            ("64:ff9b::7f00:1", AddressRefusal::Loopback),
            ("169.254.169.254", AddressRefusal::LinkLocal),
            ("::ffff:169.254.169.254", AddressRefusal::LinkLocal),
            ("fe80::1", AddressRefusal::LinkLocal),
            ("fd00:ec2::254", AddressRefusal::LinkLocal),
            ("fd00:ec2::23", AddressRefusal::LinkLocal),
            ("fd20:ce::254", AddressRefusal::LinkLocal),
            ("100.100.100.200", AddressRefusal::LinkLocal),
            ("192.0.0.192", AddressRefusal::LinkLocal),
            ("168.63.129.16", AddressRefusal::LinkLocal),
            ("64:ff9b::6464:64c8", AddressRefusal::LinkLocal),
            ("0.0.0.0", AddressRefusal::Unspecified),
            ("0.1.2.3", AddressRefusal::Unspecified),
            ("::", AddressRefusal::Unspecified),
            ("::ffff:0.0.0.0", AddressRefusal::Unspecified),
            ("224.0.0.1", AddressRefusal::Multicast),
            ("ff02::1", AddressRefusal::Multicast),
            ("255.255.255.255", AddressRefusal::Broadcast),
        ] {
            assert_eq!(policy.check(ip(address)), Err(refusal), "{address}");
        }
        for address in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "2001:db8::1", "fd00::1"] {
            assert_eq!(policy.check(ip(address)), Ok(()), "{address}");
        }
    }

    #[test]
    fn each_allowance_opens_one_kind_only() {
        let policy = AddressPolicy {
            allow_loopback: true,
            ..AddressPolicy::default()
        };
        assert_eq!(policy.check(ip("::ffff:127.0.0.1")), Ok(()));
        assert_eq!(policy.check(ip("169.254.0.1")), Err(AddressRefusal::LinkLocal));
        assert_eq!(policy.check(ip("0.0.0.0")), Err(AddressRefusal::Unspecified));
    }

    #[test]
    fn a_denied_endpoint_stays_denied_where_its_kind_is_allowed() {
        let server: SocketAddr = "127.0.0.1:6443".parse().unwrap();
        let policy = AddressPolicy {
            allow_loopback: true,
            denied: vec![server.into()],
            ..Default::default()
        };
        assert!(matches!(
            policy.check_socket(server),
            Err(AddressRefusal::Denied(_))
        ));
        assert!(matches!(
            policy.check_socket("[::ffff:127.0.0.1]:6443".parse().unwrap()),
            Err(AddressRefusal::Denied(_))
        ));
        assert_eq!(policy.check_socket("127.0.0.1:8200".parse().unwrap()), Ok(()));
        assert_eq!(policy.check(server.ip()), Ok(()));
    }

    #[test]
    fn a_denied_range_holds_on_every_port_and_is_named() {
        let range: Network = "10.96.0.0/12".parse().unwrap();
        let policy = AddressPolicy {
            denied: vec![range.into()],
            ..Default::default()
        };
        let refusal = policy.check_socket("10.96.0.1:443".parse().unwrap()).unwrap_err();
        assert!(refusal.to_string().contains("10.96.0.0/12"), "{refusal}");
        assert_eq!(policy.check(ip("10.112.0.1")), Ok(()));
    }

    #[test]
    fn ranges_are_parsed_strictly() {
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "host",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(wrong.parse::<Network>(), Err(NetworkError), "{wrong}");
        }
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains(ip("8.8.8.8")));
        assert!("::/0".parse::<Network>().unwrap().contains(ip("2001:db8::1")));
        assert_eq!("10.0.0.7".parse::<Network>().unwrap().to_string(), "10.0.0.7");
    }

    #[test]
    fn a_range_of_ipv4_addresses_in_ipv6_form_denies_them() {
        for (text, kept, inside) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8", "10.1.2.3"),
            ("64:ff9b::/96", "0.0.0.0/0", "8.8.8.8"),
            ("64:ff9b::a00:0/120", "10.0.0.0/24", "::ffff:10.0.0.9"),
            ("::10.0.0.0/128", "10.0.0.0", "10.0.0.0"),
            ("::ffff:10.0.0.7", "10.0.0.7", "64:ff9b::a00:7"),
        ] {
            let network: Network = text.parse().unwrap();
            assert!(network.contains(ip(inside)), "{text} holds {inside}");
            assert_eq!(network.to_string(), kept, "{text}");
        }
        // They would deny nothing, or less than they say.
        for wrong in ["::ffff:0:0/95", "64:ff9b::/64", "::/96", "::1/127", "::/127"] {
            assert_eq!(wrong.parse::<Network>(), Err(NetworkError), "{wrong}");
        }
        assert!("::1/128".parse::<Network>().unwrap().contains(ip("::1")));
        assert!("64::/16".parse::<Network>().unwrap().contains(ip("64::1")));
    }

    proptest! {
        #[test]
        fn an_ipv6_form_is_judged_as_its_ipv4_address(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let policy = AddressPolicy::default();
            prop_assert_eq!(policy.check(IpAddr::V4(v4)), policy.check(IpAddr::V6(v4.to_ipv6_mapped())));
        }

        #[test]
        fn a_range_holds_exactly_its_prefix(base: u32, other: u32, bits in 0_u8..=32) {
            let range: Network = format!("{}/{bits}", Ipv4Addr::from_bits(base)).parse().unwrap();
            let same = bits == 0 || (base >> (32 - bits)) == (other >> (32 - bits));
            prop_assert_eq!(range.contains(IpAddr::V4(Ipv4Addr::from_bits(other))), same);
        }
    }
}
