//! Where stores may be at this moment: the administrator's rules, and what is learned later of addresses that no store
//! may have.

use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

use keyward_core::address::{AddressPolicy, AddressRefusal, DeniedAddress};

/// Asked at each connection.
#[derive(Debug, Default)]
pub struct Addresses {
    rules: AddressPolicy,
    /// The rules with what was learned.
    now: RwLock<AddressPolicy>,
}

impl Addresses {
    /// Whether a store may be reached there.
    ///
    /// # Errors
    ///
    /// The rule that refuses it.
    pub fn check(&self, address: SocketAddr) -> Result<(), AddressRefusal> {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        now.check_socket(address)
    }

    /// Denies these as well, in place of what was learned before.
    pub fn learn(&self, denied: &[DeniedAddress]) {
        let mut next = self.rules.clone();
        next.denied.extend(denied);
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

impl From<AddressPolicy> for Addresses {
    fn from(rules: AddressPolicy) -> Self {
        Self {
            now: RwLock::new(rules.clone()),
            rules,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learned_replaces_what_was_learned_and_no_rule() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let addresses = Addresses::from(AddressPolicy {
            denied: vec![address("10.0.0.1:443").into()],
            ..AddressPolicy::default()
        });
        let refused = |text: &str| addresses.check(address(text)).is_err();
        assert!(refused("10.0.0.1:443") && !refused("10.0.0.2:6443"));
        addresses.learn(&[address("10.0.0.2:6443").into()]);
        assert!(refused("10.0.0.1:443") && refused("10.0.0.2:6443") && !refused("10.0.0.3:6443"));
        assert!(!refused("10.0.0.2:8200"), "a store beside the API server");
        addresses.learn(&[address("10.0.0.3:6443").into()]);
        assert!(refused("10.0.0.1:443") && !refused("10.0.0.2:6443") && refused("10.0.0.3:6443"));
    }
}
