//! Free ports on loopback.

use std::collections::{BTreeSet, VecDeque};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

/// Below the range from which Linux takes the local end of outgoing connections, so that no client grabs a
/// port between our look and the server's start.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
const ATTEMPTS: usize = 200;

/// How many of the last ports stay claimed: far more than have no server yet, far fewer than files may be open.
const CLAIMS: usize = 100;

static GIVEN: Mutex<Given> = Mutex::new(Given {
    ports: BTreeSet::new(),
    claims: VecDeque::new(),
});

struct Given {
    /// All that this process was given.
    ports: BTreeSet<u16>,
    /// The last of them, held against other processes that look for ports: a server takes seconds to open its own. Our
    /// servers speak TCP, so the port of the same number for UDP can be held meanwhile, and is free when we end.
    claims: VecDeque<UdpSocket>,
}

/// A port of 127.0.0.1 that nothing listens on, that this process was not given before, and that no other process was
/// given a moment ago.
pub fn free() -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..ATTEMPTS {
        let port = FIRST + random_below(COUNT);
        let Ok(claim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else {
            continue;
        };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && given.ports.insert(port) {
            given.claims.push_back(claim);
            if given.claims.len() > CLAIMS {
                given.claims.pop_front();
            }
            return Ok(port);
        }
    }
    bail!(
        "no free port found on 127.0.0.1 between {FIRST} and {}",
        FIRST + COUNT
    )
}

fn random_below(limit: u16) -> u16 {
    let [high, low, ..] = *uuid::Uuid::new_v4().as_bytes();
    u16::from_be_bytes([high, low]) % limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_can_be_bound() {
        let ports: BTreeSet<u16> = (0..20).map(|_| free().unwrap()).collect();
        assert_eq!(ports.len(), 20);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
            assert!(
                UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_err(),
                "another process would be given {port}"
            );
        }
    }
}
