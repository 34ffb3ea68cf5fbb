//! The places of an object and the versions that were accepted from them: whether there is anything new, whether it
//! may be taken, and which places a search has lost.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::version::{self, Consent, SeenVersion, VersionStep};
use crate::fault::{Class, Fault};
use crate::reason::Reason;

/// Where in an object's spec a value comes from. Equal origins are the same key or keys of its Secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Index of the source.
    pub source: usize,
    /// The name under which a search found it; `None` where the source names one place.
    pub found_as: Option<String>,
}

/// A version that the Secret holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Where it comes from.
    pub origin: Origin,
    /// Which it is.
    pub version: SeenVersion,
    /// When the store stops serving it.
    pub expires: Option<DateTime<Utc>>,
}

/// A version that a store gives now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered<'a> {
    /// Where it comes from.
    pub origin: &'a Origin,
    /// How messages call the place.
    pub label: &'a str,
    /// Which it is.
    pub version: SeenVersion,
}

impl Accepted {
    /// What names this version of something that a search found, and no other version of it.
    #[must_use]
    pub fn called(&self) -> Option<String> {
        let name = self.origin.found_as.as_ref()?;
        Some(match self.version.mark() {
            Some(mark) => format!("{name}:{mark}"),
            None => name.clone(),
        })
    }
}

/// Whether what the stores show is what was accepted, place for place. A place without a version is one that only
/// its value can tell, or that has none: such a place is always worth a read.
pub fn nothing_new<'a>(
    accepted: &[Accepted],
    shown: impl IntoIterator<Item = (&'a Origin, Option<SeenVersion>)>,
) -> bool {
    let mut left = accepted.iter();
    let same = shown.into_iter().all(|(origin, shown)| {
        let (Some(accepted), Some(shown)) = (left.next(), shown) else {
            return false;
        };
        accepted.origin == *origin
            && version::step(Some(&accepted.version), &shown, Consent::default()) == VersionStep::Same
    });
    same && left.next().is_none()
}

/// Places every offered version in its lineage. Returns what is to be told of one that began anew.
///
/// # Errors
/// `VersionRegressed` where one went back without consent; nothing is taken then. `annotation` is where consent can
/// be given.
pub fn take<'a>(
    accepted: &[Accepted],
    offered: impl IntoIterator<Item = Offered<'a>>,
    consent: Consent<'_>,
    annotation: &str,
) -> Result<Option<String>, Fault> {
    let mut began_anew = None;
    for Offered {
        origin,
        label,
        version,
    } in offered
    {
        let before = accepted.iter().find(|accepted| accepted.origin == *origin);
        match version::step(before.map(|accepted| &accepted.version), &version, consent) {
            VersionStep::Regressed(regression) => {
                let message = format!("{label}: {regression}");
                return Err(Fault::new(Class::Denied, Reason::VersionRegressed, message).advise(format!(
                    "if going back is meant, annotate the object with `{annotation}: {}`; the last value is kept",
                    regression.acknowledgement()
                )));
            }
            VersionStep::NewLineage => {
                began_anew = Some(format!(
                    "{label} was deleted and made anew in the store; its new value is taken"
                ));
            }
            VersionStep::First | VersionStep::Same | VersionStep::Newer | VersionStep::Acknowledged => {}
        }
    }
    Ok(began_anew)
}

/// What a search gave once and lists no more, although `asked_for` says that it still asks for it.
///
/// A listing that lacks a place says nothing about why: each of them is to be asked about by itself.
pub fn lost<'a>(
    accepted: &'a [Accepted],
    listed: &BTreeSet<&Origin>,
    asked_for: impl Fn(&Accepted) -> bool,
) -> Vec<&'a Accepted> {
    let found = accepted
        .iter()
        .filter(|accepted| accepted.origin.found_as.is_some());
    found
        .filter(|accepted| !listed.contains(&accepted.origin) && asked_for(accepted))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANNOTATION: &str = "example.com/acknowledge";

    fn origin(source: usize, found_as: Option<&str>) -> Origin {
        Origin {
            source,
            found_as: found_as.map(str::to_owned),
        }
    }

    fn numbered(number: u64) -> SeenVersion {
        SeenVersion {
            number: Some(number),
            created: DateTime::from_timestamp(i64::try_from(number).unwrap(), 0),
            ..SeenVersion::default()
        }
    }

    fn accepted(source: usize, found_as: Option<&str>, number: u64) -> Accepted {
        Accepted {
            origin: origin(source, found_as),
            version: numbered(number),
            expires: None,
        }
    }

    fn offered(origin: &Origin, version: SeenVersion) -> Offered<'_> {
        Offered {
            origin,
            label: "path `apps/db`",
            version,
        }
    }

    #[test]
    fn nothing_is_new_only_where_every_place_shows_what_was_accepted() {
        let before = [accepted(0, None, 1), accepted(1, Some("apps/a"), 2)];
        let (one, found, other) = (
            origin(0, None),
            origin(1, Some("apps/a")),
            origin(1, Some("apps/b")),
        );
        let same = |shown: Vec<(&Origin, Option<SeenVersion>)>| nothing_new(&before, shown);
        let first = (&one, Some(numbered(1)));
        assert!(same(vec![first.clone(), (&found, Some(numbered(2)))]));
        assert!(
            !same(vec![first.clone(), (&found, Some(numbered(3)))]),
            "a newer version"
        );
        assert!(!same(vec![first.clone(), (&found, None)]), "only a read can tell");
        assert!(
            !same(vec![first.clone(), (&other, Some(numbered(2)))]),
            "another place"
        );
        assert!(!same(vec![first.clone()]), "one place less");
        let more = vec![first, (&found, Some(numbered(2))), (&other, Some(numbered(1)))];
        assert!(!same(more), "one place more");
    }

    #[test]
    fn a_place_is_compared_with_itself_alone() {
        let before = [accepted(0, Some("a"), 9), accepted(0, Some("b"), 1)];
        let (a, b, c) = (origin(0, Some("a")), origin(0, Some("b")), origin(0, Some("c")));
        let taken = |origin, number| {
            take(
                &before,
                [offered(origin, numbered(number))],
                Consent::default(),
                ANNOTATION,
            )
        };
        assert_eq!(taken(&b, 2), Ok(None));
        assert_eq!(taken(&c, 1), Ok(None), "a first version of a new place");
        let fault = taken(&a, 2).expect_err("nine came before two");
        assert_eq!(fault.reason, Reason::VersionRegressed);
        assert!(
            fault.advice.contains("`example.com/acknowledge: 9@9->2@2`"),
            "{fault}"
        );
        assert!(fault.advice.ends_with("the last value is kept"), "{fault}");
    }

    #[test]
    fn one_place_that_went_back_holds_up_all() {
        let before = [accepted(0, None, 1), accepted(1, None, 5)];
        let (first, second) = (origin(0, None), origin(1, None));
        let offers = [offered(&first, numbered(2)), offered(&second, numbered(4))];
        assert!(take(&before, offers.clone(), Consent::default(), ANNOTATION).is_err());
        let edited = Consent {
            spec_changed: true,
            ..Consent::default()
        };
        assert_eq!(take(&before, offers, edited, ANNOTATION), Ok(None));
    }

    #[test]
    fn a_new_lineage_is_taken_and_told() {
        let before = [accepted(0, None, 5)];
        let anew = SeenVersion {
            number: Some(1),
            ..numbered(99)
        };
        let at = origin(0, None);
        let note = take(&before, [offered(&at, anew)], Consent::default(), ANNOTATION);
        let note = note.expect("it was created later").expect("and that is told");
        assert!(
            note.starts_with("path `apps/db` was deleted and made anew"),
            "{note}"
        );
    }

    #[test]
    fn only_what_a_search_still_asks_for_is_lost() {
        let before = [
            accepted(0, None, 1),
            accepted(1, Some("apps/a"), 1),
            accepted(1, Some("apps/b"), 1),
            accepted(1, Some("web/c"), 1),
        ];
        let listed = origin(1, Some("apps/a"));
        let below = |accepted: &Accepted| {
            let name = accepted.origin.found_as.as_deref();
            name.is_some_and(|name| name.starts_with("apps/"))
        };
        let lost = lost(&before, &BTreeSet::from([&listed]), below);
        assert_eq!(lost, [&before[2]]);
    }

    #[test]
    fn what_was_found_is_called_by_name_and_version() {
        assert_eq!(
            accepted(0, Some("apps/a"), 3).called().as_deref(),
            Some("apps/a:3@3")
        );
        let unversioned = Accepted {
            version: SeenVersion::default(),
            ..accepted(0, Some("apps/a"), 3)
        };
        assert_eq!(unversioned.called().as_deref(), Some("apps/a"));
        assert_eq!(accepted(0, None, 3).called(), None);
    }

    proptest! {
        #[test]
        fn nothing_is_both_listed_and_lost(had in prop::collection::btree_set(0_u8..6, 0..6), has in prop::collection::btree_set(0_u8..6, 0..6)) {
            let name = |n: &u8| n.to_string();
            let before: Vec<_> = had.iter().map(|n| accepted(0, Some(&name(n)), 1)).collect();
            let listed: Vec<_> = has.iter().map(|n| origin(0, Some(&name(n)))).collect();
            let lost: Vec<_> = lost(&before, &listed.iter().collect(), |_| true)
                .into_iter()
                .map(|accepted| accepted.origin.found_as.clone().unwrap())
                .collect();
            let missing: Vec<_> = had.difference(&has).map(name).collect();
            prop_assert_eq!(lost, missing);
        }
    }
}
