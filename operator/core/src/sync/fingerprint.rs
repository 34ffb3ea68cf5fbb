//! Keyed fingerprints: whether two values are the same, said without the values and useless without the key.
//!
//! A plain hash of a short password can be guessed from metadata alone. These are HMAC-SHA-256 under a key that
//! only the operator holds, over an encoding in which every part carries its length, so that no two contents read
//! the same. Each purpose has a domain of its own: a fingerprint of one says nothing in another.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::SecretMap;
use crate::sync::decode::HEX_DIGITS;

/// Length of the key in bytes.
pub const KEY_BYTES: usize = 32;

/// Names the algorithm and the encoding; a change of either changes it.
const VERSION: &str = "1";

/// The operator's fingerprint key, wiped on drop.
pub struct FingerprintKey {
    key: Zeroizing<[u8; KEY_BYTES]>,
    id: String,
}

/// A fingerprint as it is kept: algorithm version, id of the key, digest in hexadecimal, joined by dots.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(String);

/// What a kept fingerprint says about a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The contents are the same.
    Same,
    /// The contents differ.
    Different,
    /// Made with another key or algorithm: it says nothing.
    Unknown,
}

/// What a Secret holds, as far as it is ours.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    /// Its type.
    pub secret_type: &'a str,
    /// Our labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Our annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Our keys.
    pub data: &'a SecretMap,
}

impl FingerprintKey {
    /// Takes the key from `bytes`; `None` where there are not exactly [`KEY_BYTES`] of them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(bytes).ok()?);
        let digest = Encoder::new(&key, "keyward/key-id").digest();
        Some(Self {
            key,
            id: hex(&digest[..4]),
        })
    }

    /// Tells one key from another and says nothing about either.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Of everything that is ours in a Secret: unchanged means that nothing has to be written.
    #[must_use]
    pub fn of_secret(&self, content: &Content<'_>) -> Fingerprint {
        let mut encoder = Encoder::new(&self.key, "keyward/secret");
        encoder.part(content.secret_type.as_bytes());
        encoder.texts(content.labels);
        encoder.texts(content.annotations);
        encoder.values(content.data);
        self.finish(encoder)
    }

    /// Of the values alone: what consumers are restarted for.
    #[must_use]
    pub fn of_values(&self, data: &SecretMap) -> Fingerprint {
        let mut encoder = Encoder::new(&self.key, "keyward/values");
        encoder.values(data);
        self.finish(encoder)
    }

    /// Of one credential at one place: `fields` say where it is used (address, user, domain) and end with the
    /// password itself. What a store has rejected once is recognised wherever it turns up again.
    #[must_use]
    pub fn of_credential(&self, fields: &[&[u8]]) -> [u8; 32] {
        let mut encoder = Encoder::new(&self.key, "keyward/credential");
        encoder.count(fields.len());
        for field in fields {
            encoder.part(field);
        }
        encoder.digest()
    }

    fn finish(&self, encoder: Encoder) -> Fingerprint {
        Fingerprint(format!("{VERSION}.{}.{}", self.id, hex(&encoder.digest())))
    }
}

impl Fingerprint {
    /// The fingerprint as it is kept.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares with one that was kept, in a time that says nothing about where they differ.
    #[must_use]
    pub fn compare(&self, kept: &str) -> Comparison {
        let prefix = |text: &str| text.rfind('.').map(|at| text[..at].to_owned());
        if prefix(kept) != prefix(&self.0) || kept.len() != self.0.len() {
            return Comparison::Unknown;
        }
        let differences = self
            .0
            .bytes()
            .zip(kept.bytes())
            .fold(0, |seen, (a, b)| seen | (a ^ b));
        if differences == 0 {
            Comparison::Same
        } else {
            Comparison::Different
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Feeds parts with their lengths, so that moving a byte from one part to the next changes the digest.
struct Encoder(Hmac<Sha256>);

impl Encoder {
    fn new(key: &[u8; KEY_BYTES], domain: &str) -> Self {
        // HMAC pads a shorter key with zeros to one block of its hash.
        let mut block = Zeroizing::new([0; 64]);
        block[..KEY_BYTES].copy_from_slice(key);
        let mut encoder = Self(Hmac::new((&*block).into()));
        encoder.part(VERSION.as_bytes());
        encoder.part(domain.as_bytes());
        encoder
    }

    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_be_bytes());
    }

    fn part(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn texts(&mut self, texts: &BTreeMap<String, String>) {
        self.count(texts.len());
        for (name, text) in texts {
            self.part(name.as_bytes());
            self.part(text.as_bytes());
        }
    }

    fn values(&mut self, values: &SecretMap) {
        self.count(values.len());
        for (name, value) in values {
            self.part(name.as_bytes());
            self.part(value.expose());
        }
    }

    fn digest(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(HEX_DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretBytes;
    use proptest::prelude::*;

    fn key(byte: u8) -> FingerprintKey {
        FingerprintKey::from_bytes(&[byte; KEY_BYTES]).unwrap()
    }

    fn map(pairs: &[(&str, &str)]) -> SecretMap {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), SecretBytes::from(*v)))
            .collect()
    }

    fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn every_part_of_a_secret_counts() {
        let (none, label) = (texts(&[]), texts(&[("a", "b")]));
        let (data, other) = (map(&[("k", "v")]), map(&[("k", "w")]));
        let of = |secret_type, labels, annotations, data| {
            key(1).of_secret(&Content {
                secret_type,
                labels,
                annotations,
                data,
            })
        };
        let base = of("Opaque", &none, &none, &data);
        let equal = map(&[("k", "v")]);
        assert_eq!(base, of("Opaque", &none, &none, &equal));
        let changed = [
            of("x", &none, &none, &data),
            of("Opaque", &label, &none, &data),
            of("Opaque", &none, &label, &data),
            of("Opaque", &none, &none, &other),
        ];
        for fingerprint in &changed {
            assert_eq!(base.compare(fingerprint.as_str()), Comparison::Different);
        }
        assert_ne!(changed[1], changed[2]);
    }

    #[test]
    fn another_key_says_nothing() {
        let data = map(&[("k", "v")]);
        let (one, two) = (key(1).of_values(&data), key(2).of_values(&data));
        assert_eq!(one.compare(two.as_str()), Comparison::Unknown);
        assert_eq!(one.compare(one.as_str()), Comparison::Same);
        for odd in ["", "1", "x.y.z", &one.as_str()[..20], &format!("{one}0")] {
            assert_eq!(one.compare(odd), Comparison::Unknown, "{odd}");
        }
        assert_ne!(key(1).id(), key(2).id());
    }

    #[test]
    fn purposes_are_kept_apart() {
        let values = key(1).of_values(&map(&[]));
        let secret = Content {
            secret_type: "",
            labels: &texts(&[]),
            annotations: &texts(&[]),
            data: &map(&[]),
        };
        assert_ne!(values, key(1).of_secret(&secret));
        assert!(!values.as_str().ends_with(&hex(&key(1).of_credential(&[]))));
    }

    #[test]
    fn credentials_are_told_apart_by_place_and_password() {
        let of = |fields: &[&str]| {
            let fields: Vec<_> = fields.iter().map(|field| field.as_bytes()).collect();
            key(1).of_credential(&fields)
        };
        assert_eq!(of(&["https://k", "u", "p"]), of(&["https://k", "u", "p"]));
        assert_ne!(of(&["https://k", "up", ""]), of(&["https://k", "u", "p"]));
        assert_ne!(of(&["https://ku", "p"]), of(&["https://k", "u", "p"]));
        assert_ne!(of(&["https://k", "u", "q"]), of(&["https://k", "u", "p"]));
    }

    #[test]
    fn the_digest_is_hmac_sha_256() {
        // Calculated with Python's hmac and struct, over the parts with their lengths. A change of these rewrites every
        // Secret after an upgrade, and restarts every consumer: that is what the fingerprint of the values is for.
        let bytes: Vec<u8> = (0..).take(KEY_BYTES).collect();
        let key = FingerprintKey::from_bytes(&bytes).unwrap();
        let data: SecretMap = [("a", &b"1"[..]), ("b", &[0xff, 0])]
            .map(|(name, value)| (name.to_owned(), SecretBytes::new(value.to_vec())))
            .into();
        let values = key.of_values(&data);
        assert_eq!(
            values.as_str(),
            "1.95b2d3f5.333203c935733d8f1b62931357f3bb489e388dcc592054c7a83ef86c779b303f"
        );
        let secret = key.of_secret(&Content {
            secret_type: "Opaque",
            labels: &texts(&[("l", "x")]),
            annotations: &texts(&[("n", "y")]),
            data: &data,
        });
        assert_eq!(
            secret.as_str(),
            "1.95b2d3f5.bd4d63d4b4ce8c75a1bc659194284334bbe4d88d74975aea27e854f6a505268d"
        );
        // A change of this one forgets which passwords were refused.
        assert_eq!(
            hex(&key.of_credential(&[b"https://k", b"p"])),
            "9259882300eea8faa9e4c0aadff19076f7a18d6a0f8493f6dc2766980fb6fe98"
        );
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        assert!(FingerprintKey::from_bytes(&[0; 31]).is_none());
        assert!(FingerprintKey::from_bytes(&[]).is_none());
    }

    proptest! {
        #[test]
        fn different_contents_differ(
            a in proptest::collection::btree_map("[ab]{0,2}", "[ab]{0,2}", 0..3),
            b in proptest::collection::btree_map("[ab]{0,2}", "[ab]{0,2}", 0..3),
        ) {
            let secret = |pairs: &BTreeMap<String, String>| -> SecretMap {
                pairs.iter().map(|(k, v)| (k.clone(), SecretBytes::from(v.as_str()))).collect()
            };
            let same = key(1).of_values(&secret(&a)) == key(1).of_values(&secret(&b));
            prop_assert_eq!(same, a == b);
        }
    }
}
