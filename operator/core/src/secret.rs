//! Secret bytes: a type that cannot be printed, serialised or cloned by accident, and is wiped on drop.
//!
//! Buffers inside HTTP, TLS and Kubernetes client libraries are beyond its reach; the limits page says so.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

/// A secret value in memory, wiped when dropped.
///
/// It has no `Debug`, `Display`, `Serialize` or `Clone`. Reading it takes a call to [`SecretBytes::expose`], which
/// is easy to search for.
#[derive(Default)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

/// Secret values by name, in a fixed order.
pub type SecretMap = BTreeMap<String, SecretBytes>;

impl SecretBytes {
    /// Takes ownership of `bytes`; the caller keeps no copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves. Every call is a place where a value can leak.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The value as text, where it is UTF-8.
    #[must_use]
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The same buffer as text, where it is UTF-8.
    pub(crate) fn into_text(mut self) -> Result<Zeroizing<String>, Self> {
        match String::from_utf8(std::mem::take(&mut *self.0)) {
            Ok(text) => Ok(Zeroizing::new(text)),
            Err(not_text) => Err(Self::new(not_text.into_bytes())),
        }
    }

    /// A second buffer with the same bytes, said out loud because it doubles what must be wiped.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(Zeroizing::new(self.0.to_vec()))
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares without leaving early, so that time says nothing about where two values differ.
    #[must_use]
    pub fn same_as(&self, other: &[u8]) -> bool {
        if self.0.len() != other.len() {
            return false;
        }
        self.0.iter().zip(other).fold(0_u8, |seen, (a, b)| seen | (a ^ b)) == 0
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl From<String> for SecretBytes {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl From<&str> for SecretBytes {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_sees_every_difference() {
        let secret = SecretBytes::from("abc");
        assert!(secret.same_as(b"abc"));
        assert!(!secret.same_as(b"abd"));
        assert!(!secret.same_as(b"ab"));
        assert!(!secret.same_as(b"abcd"));
    }

    #[test]
    fn text_is_the_same_buffer() {
        let secret = SecretBytes::from("value");
        let at = secret.expose().as_ptr();
        let text = secret.into_text().ok().unwrap();
        assert_eq!((text.as_ptr(), text.as_str()), (at, "value"));
        let bytes = SecretBytes::new(vec![0xff, 1]).into_text().err().unwrap();
        assert!(bytes.same_as(&[0xff, 1]));
    }

    #[test]
    fn duplicates_are_equal_and_independent() {
        let first = SecretBytes::from("value");
        let second = first.duplicate();
        drop(first);
        assert_eq!(second.expose_str(), Some("value"));
    }
}
