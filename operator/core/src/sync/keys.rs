//! The keys of a Secret: which names Kubernetes accepts, how sources are merged, how large the whole may be.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use crate::fault::{Class, Fault};
use crate::reason::Reason;
use crate::secret::{SecretBytes, SecretMap};
use crate::shown::Shown;
use crate::sync::allowance::{Holder, MAX_KEYS, Room};

/// The longest key name that Kubernetes accepts.
pub const MAX_KEY_LENGTH: usize = 253;

/// The name of a key in a Secret, by the rule of the API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataKey(String);

/// Values by key, in a fixed order.
pub type DataMap = BTreeMap<DataKey, SecretBytes>;

/// The keys of all sources, merged in their order of listing.
pub struct Merge {
    rule: ConflictRule,
    room: Room,
    /// How the sources are called in messages.
    sources: Vec<String>,
    /// Each with the source it is from.
    keys: BTreeMap<DataKey, (usize, SecretBytes)>,
}

/// What happens when two sources give the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ConflictRule {
    /// Nothing is written and both sources are named.
    #[default]
    Fail,
    /// The source that is listed first wins.
    FirstWins,
    /// The source that is listed last wins.
    LastWins,
}

/// Keys that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Kubernetes refuses the name.
    #[error(
        "`{}` is not a key that Kubernetes accepts: 1 to 253 letters, digits, `-`, `_` and `.`, not `.` and not starting with `..`",
        Shown::cut(.0)
    )]
    Invalid(String),
    /// Two sources give the same key under [`ConflictRule::Fail`].
    #[error("`{key}` is given by `{first}` and by `{second}`")]
    Conflict {
        /// The key.
        key: DataKey,
        /// The source that is listed first.
        first: String,
        /// The other source.
        second: String,
    },
    /// The values are larger than what they are made for.
    #[error("the values have more bytes together than {0}")]
    TooLarge(Holder),
    /// There are more values than any Secret could hold.
    #[error("there are more than {MAX_KEYS} keys")]
    TooMany,
}

impl DataKey {
    /// Accepts what the API server accepts.
    pub fn parse(name: impl Into<String>) -> Result<Self, KeyError> {
        let name = name.into();
        let fits = (1..=MAX_KEY_LENGTH).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && name != "."
            && !name.starts_with("..");
        if fits {
            Ok(Self(name))
        } else {
            Err(KeyError::Invalid(name))
        }
    }

    /// The key for a place found by a search. The separators of a path become `_`; everything else must fit.
    pub fn from_remote_name(name: &str) -> Result<Self, KeyError> {
        Self::parse(name.trim_matches('/').replace('/', "_"))
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Merge {
    /// Of no source yet.
    #[must_use]
    pub fn new(rule: ConflictRule, holder: Holder) -> Self {
        Self {
            rule,
            room: Room::of(holder),
            sources: Vec::new(),
            keys: BTreeMap::new(),
        }
    }

    /// Adds the keys of the next source, which messages call `source`.
    pub fn add(&mut self, source: impl Into<String>, keys: DataMap) -> Result<(), KeyError> {
        let index = self.sources.len();
        self.sources.push(source.into());
        for (key, value) in keys {
            match self.keys.entry(key) {
                Entry::Vacant(entry) => {
                    self.room.take(value.len())?;
                    entry.insert((index, value));
                }
                Entry::Occupied(mut entry) => match self.rule {
                    ConflictRule::FirstWins => {}
                    ConflictRule::LastWins => {
                        self.room.give_back(entry.get().1.len());
                        self.room.take(value.len())?;
                        entry.insert((index, value));
                    }
                    ConflictRule::Fail => {
                        return Err(KeyError::Conflict {
                            key: entry.key().clone(),
                            first: self.sources[entry.get().0].clone(),
                            second: self.sources[index].clone(),
                        });
                    }
                },
            }
        }
        Ok(())
    }

    /// The values under plain names, for templates, fingerprints and writes.
    #[must_use]
    pub fn finish(self) -> SecretMap {
        self.keys
            .into_iter()
            .map(|(key, (_, value))| (key.0, value))
            .collect()
    }
}

impl fmt::Display for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for DataKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<DataKey> for String {
    fn from(key: DataKey) -> Self {
        key.0
    }
}

impl From<KeyError> for Fault {
    fn from(error: KeyError) -> Self {
        let (reason, advice) = match &error {
            KeyError::Invalid(_) => (Reason::KeyInvalid, "rename it with `key`"),
            KeyError::Conflict { .. } => (
                Reason::KeyConflict,
                "rename one, add a prefix, or set the conflict rule",
            ),
            KeyError::TooLarge(_) | KeyError::TooMany => {
                (Reason::SecretTooLarge, "choose fewer fields or split the Secret")
            }
        };
        Self::new(Class::Permanent, reason, error.to_string()).advise(advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::allowance::MAX_SECRET_BYTES;
    use proptest::prelude::*;

    fn keys(keys: &[(&str, &str)]) -> DataMap {
        keys.iter()
            .map(|(k, v)| (DataKey::parse(*k).unwrap(), SecretBytes::from(*v)))
            .collect()
    }

    fn merged(rule: ConflictRule, sources: Vec<(String, DataMap)>) -> Result<SecretMap, KeyError> {
        let mut merge = Merge::new(rule, Holder::Secret);
        for (source, keys) in sources {
            merge.add(source, keys)?;
        }
        Ok(merge.finish())
    }

    #[test]
    fn names_follow_the_api_server() {
        for good in [
            "a",
            "tls.crt",
            "A_b-c.9",
            ".dockerconfigjson",
            "-",
            "a..",
            &"k".repeat(253),
        ] {
            assert!(DataKey::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "..a",
            "a/b",
            "a b",
            "ключ",
            "a\n",
            "ä",
            &"k".repeat(254),
        ] {
            assert_eq!(
                DataKey::parse(bad),
                Err(KeyError::Invalid(bad.to_owned())),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_refused_name_cannot_forge_a_log_line() {
        let fault = Fault::from(DataKey::parse("a\n\u{1b}[31mREADY").unwrap_err());
        assert!(!fault.to_string().contains(['\n', '\u{1b}']), "{fault}");
    }

    #[test]
    fn found_names_lose_their_slashes_only() {
        assert_eq!(
            DataKey::from_remote_name("apps/db/password").unwrap().as_str(),
            "apps_db_password"
        );
        assert!(DataKey::from_remote_name("apps/db pass").is_err());
    }

    #[test]
    fn the_rule_decides_conflicts_and_names_both_sources() {
        let sources = || {
            vec![
                ("one".to_owned(), keys(&[("k", "1"), ("x", "1")])),
                ("two".to_owned(), keys(&[("k", "2")])),
            ]
        };
        let error = merged(ConflictRule::Fail, sources()).err().unwrap();
        assert_eq!(error.to_string(), "`k` is given by `one` and by `two`");
        for (rule, expected) in [(ConflictRule::FirstWins, "1"), (ConflictRule::LastWins, "2")] {
            let merged = merged(rule, sources()).ok().unwrap();
            assert_eq!(merged["k"].expose_str(), Some(expected));
            assert_eq!(merged.len(), 2);
        }
    }

    #[test]
    fn the_limit_counts_values_alone_and_is_inclusive() {
        let of = |bytes: usize| {
            let key = DataKey::parse("key").unwrap();
            DataMap::from([(key, SecretBytes::new(vec![0; bytes]))])
        };
        let fits = |rule, sizes: &[usize]| {
            let sources = sizes.iter().map(|bytes| ("source".to_owned(), of(*bytes)));
            merged(rule, sources.collect()).map(|merged| merged["key"].len())
        };
        let too_large = Err(KeyError::TooLarge(Holder::Secret));
        for (rule, sizes, expected) in [
            (ConflictRule::Fail, &[MAX_SECRET_BYTES][..], Ok(MAX_SECRET_BYTES)),
            (ConflictRule::Fail, &[MAX_SECRET_BYTES + 1], too_large.clone()),
            // What another source replaces, or what another one has already given, takes no room.
            (ConflictRule::LastWins, &[MAX_SECRET_BYTES, 7], Ok(7)),
            (ConflictRule::LastWins, &[7, MAX_SECRET_BYTES + 1], too_large),
            (ConflictRule::FirstWins, &[7, MAX_SECRET_BYTES], Ok(7)),
        ] {
            assert_eq!(fits(rule, sizes), expected, "{rule:?} {sizes:?}");
        }
    }

    proptest! {
        #[test]
        fn accepted_names_fit_the_published_pattern(name in "[-._a-z/ ]{0,8}") {
            let pattern = regex::Regex::new("^[-._a-zA-Z0-9]+$").unwrap();
            let fits = pattern.is_match(&name) && name != "." && !name.starts_with("..");
            prop_assert_eq!(DataKey::parse(name).is_ok(), fits);
        }

        #[test]
        fn first_wins_is_last_wins_backwards(keys in proptest::collection::vec("[a-c]", 1..6)) {
            let sources = |order: Vec<usize>| {
                order.into_iter().map(|i| (i.to_string(), self::keys(&[(keys[i].as_str(), &i.to_string())]))).collect()
            };
            let first = merged(ConflictRule::FirstWins, sources((0..keys.len()).collect())).ok().unwrap();
            let last = merged(ConflictRule::LastWins, sources((0..keys.len()).rev().collect())).ok().unwrap();
            let plain = |map: &SecretMap| -> Vec<(String, Vec<u8>)> {
                map.iter().map(|(k, v)| (k.clone(), v.expose().to_vec())).collect()
            };
            prop_assert_eq!(plain(&first), plain(&last));
        }
    }
}
