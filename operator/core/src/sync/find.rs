//! Searches: which of the places that a store lists are taken, and under which keys.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use crate::fault::{Class, Fault};
use crate::reason::Reason;
use crate::sync::keys::{DataKey, KeyError};

/// A regular expression that a whole name must match. Matching takes time in proportion to the name, whatever the
/// expression says.
#[derive(Debug, Clone)]
pub struct NamePattern(Regex);

/// The largest compiled pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// A search whose result cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// The pattern is not a regular expression, or too large a one.
    #[error("the name pattern is not a regular expression, or compiles to too large a one")]
    Pattern,
    /// More places match than the object allows.
    #[error("{found} places match and at most {max} are allowed")]
    TooMany {
        /// How many match.
        found: usize,
        /// How many are allowed.
        max: usize,
    },
    /// Two places would become the same key.
    #[error("`{first}` and `{second}` would both become the key `{key}`")]
    SameKey {
        /// The key.
        key: DataKey,
        /// One of the places.
        first: String,
        /// The other.
        second: String,
    },
    /// A name cannot become a key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl NamePattern {
    /// Compiles `pattern`, which must match from the first to the last character of a name.
    pub fn parse(pattern: &str) -> Result<Self, FindError> {
        // Compiled on its own first: a text such as `a)|(b` must not reach out of the group around it.
        let compile = |text: &str| RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build();
        compile(pattern)
            .and_then(|_| compile(&format!("^(?:{pattern})$")))
            .map(Self)
            .map_err(|_| FindError::Pattern)
    }

    /// Whether the whole of `name` matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

/// Picks the places whose names match and gives each its key, in the order of the keys.
///
/// Either all matches are taken or none: a cut-off result would drop keys from a Secret without a word.
pub fn select<T>(
    listed: impl IntoIterator<Item = (String, T)>,
    pattern: Option<&NamePattern>,
    max: usize,
) -> Result<Vec<(DataKey, T)>, FindError> {
    let matching: Vec<_> = listed
        .into_iter()
        .filter(|(name, _)| pattern.is_none_or(|pattern| pattern.matches(name)))
        .collect();
    if matching.len() > max {
        return Err(FindError::TooMany {
            found: matching.len(),
            max,
        });
    }
    let mut picked: BTreeMap<DataKey, (String, T)> = BTreeMap::new();
    for (name, place) in matching {
        let key = DataKey::from_remote_name(&name)?;
        if let Some((first, _)) = picked.get(&key) {
            return Err(FindError::SameKey {
                key,
                first: first.clone(),
                second: name,
            });
        }
        picked.insert(key, (name, place));
    }
    Ok(picked.into_iter().map(|(key, (_, place))| (key, place)).collect())
}

impl From<FindError> for Fault {
    fn from(error: FindError) -> Self {
        let (reason, advice) = match &error {
            FindError::Pattern => (Reason::SpecInvalid, "correct `find.pattern`"),
            FindError::TooMany { .. } => (Reason::FindLimit, "narrow the search or raise `find.max`"),
            FindError::SameKey { .. } => (
                Reason::KeyConflict,
                "narrow the search, or name the places one by one",
            ),
            FindError::Key(key) => return Self::from(key.clone()),
        };
        Self::new(Class::Permanent, reason, error.to_string()).advise(advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str], pattern: Option<&str>, max: usize) -> Result<Vec<String>, FindError> {
        let pattern = pattern.map(NamePattern::parse).transpose()?;
        let listed = names
            .iter()
            .enumerate()
            .map(|(place, name)| ((*name).to_owned(), place));
        Ok(select(listed, pattern.as_ref(), max)?
            .into_iter()
            .map(|(key, place)| format!("{key}={place}"))
            .collect())
    }

    #[test]
    fn the_whole_name_must_match() {
        let names = ["db/password", "db/password-old", "web/key"];
        assert_eq!(
            keys(&names, Some("db/password"), 9),
            Ok(vec!["db_password=0".to_owned()])
        );
        assert_eq!(keys(&names, Some("db/.*|web"), 9).map(|found| found.len()), Ok(2));
        assert_eq!(keys(&names, None, 9).map(|found| found.len()), Ok(3));
    }

    #[test]
    fn more_than_the_cap_is_refused_and_not_cut() {
        let names = ["a", "b", "c"];
        assert_eq!(
            keys(&names, None, 2),
            Err(FindError::TooMany { found: 3, max: 2 })
        );
        assert_eq!(keys(&names, Some("[ab]"), 2).map(|found| found.len()), Ok(2));
    }

    #[test]
    fn names_that_fall_together_are_refused() {
        let error = keys(&["a/b", "a_b"], None, 9).expect_err("both become a_b");
        assert_eq!(Fault::from(error).reason, Reason::KeyConflict);
        let error = keys(&["a b"], None, 9).expect_err("a space is no part of a key");
        assert_eq!(Fault::from(error).reason, Reason::KeyInvalid);
    }

    #[test]
    fn patterns_are_bounded_and_closed() {
        for pattern in ["(", "a)|(b", "(((a{1000}){1000}){1000})", "\\"] {
            assert_eq!(
                NamePattern::parse(pattern).err(),
                Some(FindError::Pattern),
                "{pattern}"
            );
        }
    }
}
