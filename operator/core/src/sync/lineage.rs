//! The places of an object and the versions that were accepted from them: whether there is anything new, whether it
//! may be taken, what is remembered, and which places a search has lost.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::absence::{Absence, Acknowledgement};
use super::digest;
use super::version::{self, SeenVersion, VersionStep};
use crate::fault::{Class, Fault};
use crate::reason::Reason;

/// Tells one source from every other by what it asks for: store, place and fixed version. What was accepted belongs to
/// that: a source that asks for something else begins anew, and one that only moved in the spec goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SourceId(String);

/// Where in an object's spec a value comes from. Equal origins are the same key or keys of its Secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Index of the source.
    pub source: usize,
    /// What the source asks for.
    pub asked: SourceId,
    /// The name under which a search found it; `None` where the source names one place.
    pub found_as: Option<String>,
}

/// A version that the Secret holds, or held until its store reported the value gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Where it comes from.
    pub origin: Origin,
    /// Which it is.
    pub version: SeenVersion,
    /// When the store stops serving it.
    pub expires: Option<DateTime<Utc>>,
    /// How the store put it when the keys were removed; the version is the last one before that.
    pub gone: Option<Absence>,
}

/// What a store shows at a place before anything is read there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// This version.
    Version(SeenVersion),
    /// No value.
    Gone(Absence),
    /// Only a read can tell, and its turn has come.
    Unknown,
    /// Only a read can tell, and there has been one in this turn.
    Compared,
}

/// What a read gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A value.
    Value {
        /// Which version it is.
        version: SeenVersion,
        /// When the store stops serving it.
        expires: Option<DateTime<Utc>>,
    },
    /// No value.
    Gone(Absence),
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

impl SourceId {
    /// Of a source that asks this store for this place; `version` where it is fixed.
    #[must_use]
    pub fn of(store: &str, place: &str, version: Option<u64>) -> Self {
        let version = version.map(|version| version.to_string());
        Self(digest::of_names([
            store,
            place,
            version.as_deref().unwrap_or_default(),
        ]))
    }

    /// As a status keeps it.
    #[must_use]
    pub fn kept(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text that a status keeps.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Origin {
    /// What is asked for, wherever in the spec.
    fn place(&self) -> (&SourceId, Option<&str>) {
        (&self.asked, self.found_as.as_deref())
    }
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

/// Whether what the stores show is what was accepted, place for place. A place that only its value can tell is always
/// worth a read.
pub fn nothing_new<'a>(accepted: &[Accepted], shown: impl IntoIterator<Item = (&'a Origin, Shown)>) -> bool {
    let mut left = accepted.iter();
    let same = shown.into_iter().all(|(origin, shown)| {
        left.next().is_some_and(|accepted| {
            accepted.origin == *origin
                && match (shown, accepted.gone) {
                    (Shown::Version(shown), None) => {
                        version::step(Some(&accepted.version), &shown, None) == VersionStep::Same
                    }
                    (Shown::Gone(now), Some(before)) => now == before,
                    (Shown::Compared, _) => true,
                    _ => false,
                }
        })
    });
    same && left.next().is_none()
}

/// Places every offered version in its lineage. Returns what is to be told of one that began anew.
///
/// # Errors
/// `VersionRegressed` where one went back and the acknowledgement does not fit; nothing is taken then.
pub fn take<'a>(
    accepted: &[Accepted],
    offered: impl IntoIterator<Item = Offered<'a>>,
    acknowledged: Acknowledgement<'_>,
) -> Result<Option<String>, Fault> {
    let mut began_anew = None;
    for Offered {
        origin,
        label,
        version,
    } in offered
    {
        let before = before(accepted, origin).map(|accepted| &accepted.version);
        match version::step(before, &version, acknowledged.given) {
            VersionStep::Regressed(regression) => {
                let message = format!("{label}: {regression}");
                return Err(
                    Fault::new(Class::Denied, Reason::VersionRegressed, message).advise(format!(
                        "if going back is meant, annotate the object with `{}: {}`; the last value is kept",
                        acknowledged.annotation,
                        regression.acknowledgement()
                    )),
                );
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

/// What is remembered of the places after a read of all of them. One without a value keeps the version it had: what
/// comes back must not be older.
pub fn remembered(accepted: &[Accepted], given: impl IntoIterator<Item = (Origin, Given)>) -> Vec<Accepted> {
    let remember = |(origin, given): (Origin, Given)| match given {
        Given::Value { version, expires } => Accepted {
            origin,
            version,
            expires,
            gone: None,
        },
        Given::Gone(absence) => Accepted {
            version: before(accepted, &origin)
                .map(|accepted| accepted.version.clone())
                .unwrap_or_default(),
            origin,
            expires: None,
            gone: Some(absence),
        },
    };
    given.into_iter().map(remember).collect()
}

/// What a search gave once and lists no more, although `asked_for` says that it still asks for it. What was removed
/// already is missed by nobody.
///
/// A listing that lacks a place says nothing about why: each of them is to be asked about by itself.
pub fn lost<'a, 'b>(
    accepted: &'a [Accepted],
    listed: impl IntoIterator<Item = &'b Origin>,
    asked_for: impl Fn(&Accepted) -> bool,
) -> Vec<&'a Accepted> {
    let listed: BTreeSet<_> = listed.into_iter().map(Origin::place).collect();
    let found = accepted
        .iter()
        .filter(|accepted| accepted.origin.found_as.is_some() && accepted.gone.is_none());
    found
        .filter(|accepted| !listed.contains(&accepted.origin.place()) && asked_for(accepted))
        .collect()
}

fn before<'a>(accepted: &'a [Accepted], origin: &Origin) -> Option<&'a Accepted> {
    accepted
        .iter()
        .find(|accepted| accepted.origin.place() == origin.place())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOBODY: Acknowledgement<'static> = Acknowledgement {
        annotation: "example.com/acknowledge",
        given: None,
    };

    /// Each source asks for a path of its own.
    fn origin(source: usize, found_as: Option<&str>) -> Origin {
        Origin {
            source,
            asked: SourceId::of("SecretStore a/b", &format!("path {source}"), None),
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
            gone: None,
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
        let removed = Accepted {
            gone: Some(Absence::Deleted),
            ..accepted(2, None, 3)
        };
        let before = [accepted(0, None, 1), accepted(1, Some("apps/a"), 2), removed];
        let (one, found, gone) = (origin(0, None), origin(1, Some("apps/a")), origin(2, None));
        let version = |number| Shown::Version(numbered(number));
        let same = |shown: &[(&Origin, Shown)]| nothing_new(&before, shown.iter().cloned());
        let unchanged = [
            (&one, version(1)),
            (&found, version(2)),
            (&gone, Shown::Gone(Absence::Deleted)),
        ];
        assert!(same(&unchanged));
        let compared = [
            (&one, Shown::Compared),
            unchanged[1].clone(),
            unchanged[2].clone(),
        ];
        assert!(same(&compared), "it was read when its turn began");
        let other = origin(1, Some("apps/b"));
        for (at, changed, what) in [
            (0, (&one, version(2)), "a newer version"),
            (0, (&one, Shown::Unknown), "only a read can tell"),
            (0, (&one, Shown::Gone(Absence::Deleted)), "gone now"),
            (1, (&other, version(2)), "another place"),
            (2, (&gone, version(3)), "back again"),
            (2, (&gone, Shown::Gone(Absence::Destroyed)), "gone in another way"),
        ] {
            let mut shown = unchanged.clone();
            shown[at] = changed;
            assert!(!same(&shown), "{what}");
        }
        assert!(!same(&unchanged[..2]), "one place less");
        let mut more = unchanged.to_vec();
        more.push((&other, version(1)));
        assert!(!same(&more), "one place more");
    }

    #[test]
    fn a_place_is_compared_with_itself_alone() {
        let before = [accepted(0, Some("a"), 9), accepted(0, Some("b"), 1)];
        let (a, b, c) = (origin(0, Some("a")), origin(0, Some("b")), origin(0, Some("c")));
        let taken = |origin, number| take(&before, [offered(origin, numbered(number))], NOBODY);
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
    fn a_lineage_follows_what_is_asked_for_and_not_where_it_stands() {
        let before = [accepted(0, None, 5)];
        let moved = Origin {
            source: 3,
            ..origin(0, None)
        };
        let older = |origin: &Origin| take(&before, [offered(origin, numbered(4))], NOBODY);
        assert!(older(&moved).is_err(), "the same source, further down");
        let store = |store: &str, place: &str, version| Origin {
            source: 0,
            asked: SourceId::of(store, place, version),
            found_as: None,
        };
        for edited in [
            store("SecretStore a/c", "path 0", None),
            store("SecretStore a/b", "path 1", None),
            store("SecretStore a/b", "path 0", Some(4)),
        ] {
            assert_eq!(older(&edited), Ok(None), "an edit may go back: {edited:?}");
        }
    }

    #[test]
    fn one_place_that_went_back_holds_up_all() {
        let before = [accepted(0, None, 1), accepted(1, None, 5)];
        let (first, second) = (origin(0, None), origin(1, None));
        let offers = [offered(&first, numbered(2)), offered(&second, numbered(4))];
        assert!(take(&before, offers.clone(), NOBODY).is_err());
        let fits = Acknowledgement {
            given: Some("5@5->4@4"),
            ..NOBODY
        };
        assert_eq!(take(&before, offers, fits), Ok(None));
    }

    #[test]
    fn a_new_lineage_is_taken_and_told() {
        let before = [accepted(0, None, 5)];
        let anew = SeenVersion {
            number: Some(1),
            ..numbered(99)
        };
        let at = origin(0, None);
        let note = take(&before, [offered(&at, anew)], NOBODY);
        let note = note.expect("it was created later").expect("and that is told");
        assert!(
            note.starts_with("path `apps/db` was deleted and made anew"),
            "{note}"
        );
    }

    #[test]
    fn what_was_removed_may_not_come_back_older() {
        let before = [accepted(0, None, 8), accepted(1, None, 2)];
        let gone = Given::Gone(Absence::Deleted);
        let value = |number| Given::Value {
            version: numbered(number),
            expires: None,
        };
        let read = |first, second| [(origin(0, None), first), (origin(1, None), second)];
        let now = remembered(&before, read(gone.clone(), value(3)));
        assert_eq!(now[0].gone, Some(Absence::Deleted));
        assert_eq!(now[0].version, numbered(8));
        assert_eq!(now[1], accepted(1, None, 3));
        let at = origin(0, None);
        assert!(take(&now, [offered(&at, numbered(7))], NOBODY).is_err());
        assert_eq!(take(&now, [offered(&at, numbered(8))], NOBODY), Ok(None));
        let again = remembered(&now, read(gone.clone(), value(3)));
        assert_eq!(again, now, "however often it is looked at");
        assert_eq!(
            remembered(&now, read(value(9), value(3)))[0],
            accepted(0, None, 9)
        );
        assert_eq!(
            remembered(&[], read(gone, value(3)))[0].version,
            SeenVersion::default()
        );
    }

    #[test]
    fn only_what_a_search_still_asks_for_is_lost() {
        let removed = Accepted {
            gone: Some(Absence::Deleted),
            ..accepted(1, Some("apps/d"), 1)
        };
        let before = [
            accepted(0, None, 1),
            accepted(1, Some("apps/a"), 1),
            accepted(1, Some("apps/b"), 1),
            accepted(1, Some("web/c"), 1),
            removed,
        ];
        let below = |accepted: &Accepted| {
            let name = accepted.origin.found_as.as_deref();
            name.is_some_and(|name| name.starts_with("apps/"))
        };
        let listed = Origin {
            source: 4,
            ..origin(1, Some("apps/a"))
        };
        assert_eq!(lost(&before, [&listed], below), [&before[2]]);
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
            let lost: Vec<_> = lost(&before, &listed, |_| true)
                .into_iter()
                .map(|accepted| accepted.origin.found_as.clone().unwrap())
                .collect();
            let missing: Vec<_> = had.difference(&has).map(name).collect();
            prop_assert_eq!(lost, missing);
        }
    }
}
