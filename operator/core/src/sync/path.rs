//! Remote paths in one canonical form, so that what is checked against a grant is what is asked of the store.

use std::fmt;
use std::str::FromStr;

/// The longest remote path that is accepted, in bytes.
pub const MAX_PATH_BYTES: usize = 1024;

/// A path at a store: segments joined by single slashes, with nothing in it that any layer on the way could read as
/// another path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath(String);

/// A text that is no canonical path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathError {
    /// There is nothing in it.
    #[error("a remote path must not be empty")]
    Empty,
    /// It is over [`MAX_PATH_BYTES`].
    #[error("a remote path has at most {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// It begins or ends with a slash, or has two in a row.
    #[error("a remote path has no slash at its ends and no two in a row")]
    EmptySegment,
    /// It has `.` or `..` as a segment.
    #[error("a remote path has no `.` or `..` as a segment")]
    Dots,
    /// It has a character that some layer could take for something else.
    #[error("a remote path has no control characters, no `\\`, `%`, `?` and `#`")]
    Character,
}

impl RemotePath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments in order.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for RemotePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        // An escape (`%2e`) could be decoded after the check, and a backslash be turned into a slash.
        if text
            .chars()
            .any(|c| c.is_control() || matches!(c, '\\' | '%' | '?' | '#'))
        {
            return Err(PathError::Character);
        }
        for segment in text.split('/') {
            match segment {
                "" => return Err(PathError::EmptySegment),
                "." | ".." => return Err(PathError::Dots),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_form_is_accepted() {
        for good in [
            "a",
            "apps/db",
            "Ünï/with space",
            "a.b/..c/d..",
            "x/*",
            "...",
            "uuid:1",
        ] {
            assert_eq!(good.parse::<RemotePath>().unwrap().as_str(), good);
        }
        for (bad, error) in [
            ("", PathError::Empty),
            ("/", PathError::EmptySegment),
            ("/a", PathError::EmptySegment),
            ("a/", PathError::EmptySegment),
            ("a//b", PathError::EmptySegment),
            ("..", PathError::Dots),
            ("a/../b", PathError::Dots),
            ("a/./b", PathError::Dots),
            ("a/..", PathError::Dots),
            ("a/%2e%2e/b", PathError::Character),
            ("a%2fb", PathError::Character),
            ("a\\..\\b", PathError::Character),
            ("a\0b", PathError::Character),
            ("a\nb", PathError::Character),
            ("a?list=true", PathError::Character),
            ("a#b", PathError::Character),
        ] {
            assert_eq!(bad.parse::<RemotePath>(), Err(error), "{bad}");
        }
        assert_eq!(
            "a".repeat(MAX_PATH_BYTES + 1).parse::<RemotePath>(),
            Err(PathError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn resolving_an_accepted_path_changes_nothing(text in r"[a.%/\\]{0,12}") {
            if let Ok(path) = text.parse::<RemotePath>() {
                let mut resolved: Vec<&str> = Vec::new();
                for segment in path.segments() {
                    match segment {
                        "" | "." => {}
                        ".." => { resolved.pop(); }
                        other => resolved.push(other),
                    }
                }
                prop_assert_eq!(resolved.join("/"), text);
            }
        }
    }
}
