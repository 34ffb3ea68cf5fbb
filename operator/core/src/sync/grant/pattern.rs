//! Patterns of remote places, as an access rule lists them.

use std::str::FromStr;

use crate::sync::path::{PathError, RemotePath};

/// What a rule lets its namespaces read.
///
/// `*` stands for exactly one segment, a last `**` for one or more, `{{namespace}}` for the reader's namespace.
/// `uuid:…` and `container:…` name one object of a store that has such things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Path {
        segments: Vec<Segment>,
        /// Whether more segments must follow.
        below: bool,
    },
    Uuid(String),
    Container(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Any,
    /// Literal pieces with the reader's namespace between each two of them.
    Literal(Vec<String>),
}

/// A text that is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The text is no canonical path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// `*` stands inside a segment.
    #[error("`*` stands for a whole segment and never for a part of one")]
    PartialWildcard,
    /// `**` stands before the end.
    #[error("`**` stands at the end only")]
    EarlyDoubleWildcard,
    /// Braces that are not `{{namespace}}`.
    #[error("`{{{{namespace}}}}` is the only thing that braces may say")]
    Substitution,
    /// `uuid:` or `container:` with nothing usable after it.
    #[error("`uuid:` and `container:` are followed by one id")]
    Id,
}

const NAMESPACE: &str = "{{namespace}}";

impl PathPattern {
    /// Whether `path` may be read from `namespace`.
    #[must_use]
    pub fn covers_path(&self, path: &RemotePath, namespace: &str) -> bool {
        let Kind::Path { segments, below } = &self.0 else {
            return false;
        };
        let mut rest = path.segments();
        for segment in segments {
            if !rest.next().is_some_and(|text| segment.matches(text, namespace)) {
                return false;
            }
        }
        rest.next().is_some() == *below
    }

    /// Whether every path below `prefix` may be read; `None` is the whole mount.
    #[must_use]
    pub fn covers_below(&self, prefix: Option<&RemotePath>, namespace: &str) -> bool {
        let given: Vec<&str> = prefix.map(|path| path.segments().collect()).unwrap_or_default();
        self.covers_all_after(&given, namespace)
    }

    /// Whether every name that begins with `beginning` may be read. Its last segment may go on, so only the ones
    /// before it are certain.
    #[must_use]
    pub fn covers_beginning(&self, beginning: &str, namespace: &str) -> bool {
        let mut given: Vec<&str> = beginning.split('/').collect();
        given.pop();
        self.covers_all_after(&given, namespace)
    }

    /// Whether the object with this UUID may be read.
    #[must_use]
    pub fn covers_uuid(&self, uuid: &str) -> bool {
        self.is_everything() || matches!(&self.0, Kind::Uuid(id) if id == uuid)
    }

    /// Whether the container with this UUID may be read.
    #[must_use]
    pub fn covers_container(&self, uuid: &str) -> bool {
        self.is_everything() || matches!(&self.0, Kind::Container(id) if id == uuid)
    }

    fn is_everything(&self) -> bool {
        matches!(&self.0, Kind::Path { segments, below: true } if segments.is_empty())
    }

    /// Only an open end covers what is not known, and only after every fixed segment has been met.
    fn covers_all_after(&self, given: &[&str], namespace: &str) -> bool {
        let Kind::Path {
            segments,
            below: true,
        } = &self.0
        else {
            return false;
        };
        segments.len() <= given.len()
            && segments
                .iter()
                .zip(given)
                .all(|(segment, text)| segment.matches(text, namespace))
    }
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if let Some(id) = text.strip_prefix("uuid:") {
            return Ok(Self(Kind::Uuid(parse_id(id)?)));
        }
        if let Some(id) = text.strip_prefix("container:") {
            return Ok(Self(Kind::Container(parse_id(id)?)));
        }
        let path: RemotePath = text.parse()?;
        let mut parts: Vec<&str> = path.segments().collect();
        let below = parts.last() == Some(&"**");
        if below {
            parts.pop();
        }
        let segments = parts.into_iter().map(Segment::parse).collect::<Result<_, _>>()?;
        Ok(Self(Kind::Path { segments, below }))
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, PatternError> {
        match text {
            "*" => return Ok(Self::Any),
            "**" => return Err(PatternError::EarlyDoubleWildcard),
            _ if text.contains('*') => return Err(PatternError::PartialWildcard),
            _ => {}
        }
        let pieces: Vec<String> = text.split(NAMESPACE).map(str::to_owned).collect();
        if pieces.iter().any(|piece| piece.contains(['{', '}'])) {
            return Err(PatternError::Substitution);
        }
        Ok(Self::Literal(pieces))
    }

    fn matches(&self, text: &str, namespace: &str) -> bool {
        match self {
            Self::Any => !text.is_empty(),
            // Compared piece by piece: whatever a namespace is called, it stands for itself.
            Self::Literal(pieces) => {
                let mut rest = text;
                for (index, piece) in pieces.iter().enumerate() {
                    let name = if index == 0 {
                        Some(rest)
                    } else {
                        rest.strip_prefix(namespace)
                    };
                    match name.and_then(|rest| rest.strip_prefix(piece.as_str())) {
                        Some(remaining) => rest = remaining,
                        None => return false,
                    }
                }
                rest.is_empty()
            }
        }
    }
}

fn parse_id(id: &str) -> Result<String, PatternError> {
    let fits = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits {
        Ok(id.to_ascii_lowercase())
    } else {
        Err(PatternError::Id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> PathPattern {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn path(text: &str) -> RemotePath {
        text.parse().unwrap()
    }

    #[test]
    fn wildcards_stand_for_whole_segments() {
        for (text, inside, outside) in [
            (
                "apps/db",
                vec!["apps/db"],
                vec!["apps", "apps/db/x", "apps/dbx", "Apps/db"],
            ),
            (
                "apps/*",
                vec!["apps/db", "apps/x y"],
                vec!["apps", "apps/db/x", "app/db"],
            ),
            ("*/db", vec!["a/db"], vec!["db", "a/b/db"]),
            ("apps/**", vec!["apps/db", "apps/a/b/c"], vec!["apps", "appsx/a"]),
            ("**", vec!["a", "a/b"], vec![]),
            ("a/*/c/**", vec!["a/b/c/d"], vec!["a/b/c", "a/c/d"]),
        ] {
            for place in inside {
                assert!(pattern(text).covers_path(&path(place), "ns"), "{text} / {place}");
            }
            for place in outside {
                assert!(!pattern(text).covers_path(&path(place), "ns"), "{text} / {place}");
            }
        }
    }

    #[test]
    fn the_namespace_stands_for_itself() {
        let team = pattern("teams/x-{{namespace}}-y/*");
        assert!(team.covers_path(&path("teams/x-shop-y/db"), "shop"));
        assert!(!team.covers_path(&path("teams/x-bank-y/db"), "shop"));
        for widening in ["*", "**", "a/b", "", "{{namespace}}"] {
            assert!(
                !pattern("t/{{namespace}}/k").covers_path(&path("t/other/k"), widening),
                "{widening}"
            );
            assert!(
                !pattern("t/{{namespace}}/k").covers_path(&path("t/a/b/k"), widening),
                "{widening}"
            );
        }
    }

    #[test]
    fn a_search_must_be_covered_completely() {
        let below = |text: &str, prefix: &str| pattern(text).covers_below(Some(&path(prefix)), "shop");
        assert!(below("apps/**", "apps"));
        assert!(below("apps/**", "apps/db"));
        assert!(below("teams/{{namespace}}/**", "teams/shop/x"));
        assert!(below("*/**", "apps"));
        assert!(!below("apps/*", "apps"));
        assert!(!below("apps/db/**", "apps"));
        assert!(!below("apps/db", "apps/db"));
        assert!(!below("teams/{{namespace}}/**", "teams/bank"));
        assert!(pattern("**").covers_below(None, "shop"));
        assert!(!pattern("apps/**").covers_below(None, "shop"));
    }

    #[test]
    fn a_beginning_of_a_name_may_go_on() {
        let beginning = |text: &str, start: &str| pattern(text).covers_beginning(start, "shop");
        assert!(beginning("shop/**", "shop/"));
        assert!(beginning("shop/**", "shop/d"));
        // Names such as `shopping/x` begin so too.
        assert!(!beginning("shop/**", "shop"));
        assert!(!beginning("shop/**", ""));
        assert!(beginning("**", ""));
    }

    #[test]
    fn single_objects_are_named_literally() {
        let id = "0a1b2c3d-0000-4000-8000-000000000001";
        assert!(pattern(&format!("uuid:{id}")).covers_uuid(id));
        assert!(!pattern(&format!("uuid:{id}")).covers_container(id));
        assert!(pattern(&format!("container:{id}")).covers_container(id));
        assert!(pattern("**").covers_uuid(id) && pattern("**").covers_container(id));
        assert!(!pattern("*").covers_uuid(id) && !pattern("a/**").covers_uuid(id));
        assert!(!pattern(&format!("uuid:{id}")).covers_path(&path(&format!("uuid:{id}")), "ns"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("a/**/b", PatternError::EarlyDoubleWildcard),
            ("a/b*", PatternError::PartialWildcard),
            ("a/***", PatternError::PartialWildcard),
            ("{{name}}/a", PatternError::Substitution),
            ("{{ namespace }}/a", PatternError::Substitution),
            ("a/{{namespace}", PatternError::Substitution),
            ("a/../b", PatternError::Path(PathError::Dots)),
            ("/a", PatternError::Path(PathError::EmptySegment)),
            ("uuid:", PatternError::Id),
            ("uuid:*", PatternError::Id),
            ("container:a/b", PatternError::Id),
        ] {
            assert_eq!(text.parse::<PathPattern>(), Err(error), "{text}");
        }
    }

    fn any_pattern() -> impl Strategy<Value = String> {
        let segment = prop_oneof![
            Just("*"),
            Just("a"),
            Just("b"),
            Just("{{namespace}}"),
            Just("a-{{namespace}}")
        ];
        (proptest::collection::vec(segment, 0..4), any::<bool>()).prop_filter_map(
            "empty",
            |(segments, below)| {
                let mut parts = segments;
                parts.extend(below.then_some("**"));
                (!parts.is_empty()).then(|| parts.join("/"))
            },
        )
    }

    fn any_path() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop_oneof!["[ab]", Just("a-b".to_owned()), Just("*".to_owned())],
            1..5,
        )
        .prop_map(|segments| segments.join("/"))
    }

    /// The same rule said by a regular expression.
    fn reference(pattern: &str, namespace: &str) -> regex::Regex {
        let segments = pattern.split('/').map(|segment| match segment {
            "*" => "[^/]+".to_owned(),
            "**" => ".+".to_owned(),
            text => regex::escape(&text.replace(NAMESPACE, namespace)),
        });
        regex::Regex::new(&format!("^{}$", segments.collect::<Vec<_>>().join("/"))).unwrap()
    }

    proptest! {
        #[test]
        fn nothing_outside_is_covered(text in any_pattern(), place in any_path(), namespace in "[ab]") {
            let expected = reference(&text, &namespace).is_match(&place);
            prop_assert_eq!(pattern(&text).covers_path(&path(&place), &namespace), expected);
        }

        #[test]
        fn a_covered_search_finds_only_covered_paths(
            text in any_pattern(),
            prefix in proptest::option::of(any_path()),
            found in any_path(),
            namespace in "[ab]",
        ) {
            let parsed = prefix.as_deref().map(path);
            let place = prefix.map_or(found.clone(), |prefix| format!("{prefix}/{found}"));
            if pattern(&text).covers_below(parsed.as_ref(), &namespace) {
                prop_assert!(pattern(&text).covers_path(&path(&place), &namespace), "{}", place);
            }
        }

        #[test]
        fn a_covered_beginning_finds_only_covered_names(
            text in any_pattern(),
            name in any_path(),
            cut in 0_usize..12,
            namespace in "[ab]",
        ) {
            let beginning = &name[..cut.min(name.len())];
            if pattern(&text).covers_beginning(beginning, &namespace) {
                prop_assert!(pattern(&text).covers_path(&path(&name), &namespace), "{} {}", beginning, name);
            }
        }
    }
}
