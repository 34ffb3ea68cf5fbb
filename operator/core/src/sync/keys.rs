//! The keys of a Secret: which names Kubernetes accepts, how sources are merged, how large the whole may be.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use crate::fault::{Class, Fault};
use crate::reason::Reason;
use crate::secret::{SecretBytes, SecretMap};

/// The most bytes that the values of one Secret may have together. The API server counts values only, decoded, and
/// not the names of the keys.
pub const MAX_SECRET_BYTES: usize = 1024 * 1024;

/// The longest key name that Kubernetes accepts.
pub const MAX_KEY_LENGTH: usize = 253;

/// The name of a key in a Secret, by the rule of the API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataKey(String);

/// Values by key, in a fixed order.
pub type DataMap = BTreeMap<DataKey, SecretBytes>;

/// What one source contributes.
pub struct SourceKeys {
    /// How the source is called in messages, for example its path.
    pub source: String,
    /// Its keys.
    pub keys: DataMap,
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
        shown(.0)
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
    /// The values are larger than Kubernetes accepts.
    #[error("the values have {bytes} bytes together; a Secret holds at most {MAX_SECRET_BYTES}")]
    TooLarge {
        /// Their size together.
        bytes: usize,
    },
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

/// Merges the sources in their order of listing.
pub fn merge(sources: Vec<SourceKeys>, rule: ConflictRule) -> Result<DataMap, KeyError> {
    let mut merged: BTreeMap<DataKey, (usize, SecretBytes)> = BTreeMap::new();
    let mut names = Vec::with_capacity(sources.len());
    for (index, SourceKeys { source, keys }) in sources.into_iter().enumerate() {
        names.push(source);
        for (key, value) in keys {
            match merged.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert((index, value));
                }
                Entry::Occupied(mut entry) => match rule {
                    ConflictRule::FirstWins => {}
                    ConflictRule::LastWins => {
                        entry.insert((index, value));
                    }
                    ConflictRule::Fail => {
                        return Err(KeyError::Conflict {
                            key: entry.key().clone(),
                            first: names[entry.get().0].clone(),
                            second: names[index].clone(),
                        });
                    }
                },
            }
        }
    }
    Ok(merged.into_iter().map(|(key, (_, value))| (key, value)).collect())
}

/// The same values under plain names, for templates, fingerprints and writes.
#[must_use]
pub fn into_secret_map(data: DataMap) -> SecretMap {
    data.into_iter().map(|(key, value)| (key.into(), value)).collect()
}

/// Refuses what the API server would refuse for its size.
pub fn check_size(data: &DataMap) -> Result<(), KeyError> {
    let bytes = data.values().map(SecretBytes::len).sum();
    if bytes > MAX_SECRET_BYTES {
        Err(KeyError::TooLarge { bytes })
    } else {
        Ok(())
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
            KeyError::TooLarge { .. } => (Reason::SecretTooLarge, "choose fewer fields or split the Secret"),
        };
        Self::new(Class::Permanent, reason, error.to_string()).advise(advice)
    }
}

/// A refused name as it may be shown: cut, and without characters that change how a terminal prints.
fn shown(name: &str) -> String {
    let cut: String = name.chars().take(64).flat_map(char::escape_debug).collect();
    if name.chars().count() > 64 {
        format!("{cut}…")
    } else {
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(name: &str, keys: &[(&str, &str)]) -> SourceKeys {
        let keys = keys
            .iter()
            .map(|(k, v)| (DataKey::parse(*k).unwrap(), SecretBytes::from(*v)))
            .collect();
        SourceKeys {
            source: name.to_owned(),
            keys,
        }
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
                source("one", &[("k", "1"), ("x", "1")]),
                source("two", &[("k", "2")]),
            ]
        };
        let error = merge(sources(), ConflictRule::Fail).err().unwrap();
        assert_eq!(error.to_string(), "`k` is given by `one` and by `two`");
        for (rule, expected) in [(ConflictRule::FirstWins, "1"), (ConflictRule::LastWins, "2")] {
            let merged = merge(sources(), rule).ok().unwrap();
            assert_eq!(merged["k"].expose_str(), Some(expected));
            assert_eq!(merged.len(), 2);
        }
    }

    #[test]
    fn the_limit_counts_values_alone_and_is_inclusive() {
        let of = |bytes: usize| {
            DataMap::from([(DataKey::parse("key").unwrap(), SecretBytes::new(vec![0; bytes]))])
        };
        assert_eq!(check_size(&of(MAX_SECRET_BYTES)), Ok(()));
        let over = MAX_SECRET_BYTES + 1;
        assert_eq!(check_size(&of(over)), Err(KeyError::TooLarge { bytes: over }));
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
            let sources = |order: Vec<usize>| -> Vec<SourceKeys> {
                order.into_iter().map(|i| source(&i.to_string(), &[(keys[i].as_str(), &i.to_string())])).collect()
            };
            let first = merge(sources((0..keys.len()).collect()), ConflictRule::FirstWins).ok().unwrap();
            let last = merge(sources((0..keys.len()).rev().collect()), ConflictRule::LastWins).ok().unwrap();
            let plain = |map: &DataMap| -> Vec<(String, Vec<u8>)> {
                map.iter().map(|(k, v)| (k.to_string(), v.expose().to_vec())).collect()
            };
            prop_assert_eq!(plain(&first), plain(&last));
        }
    }
}
