//! What to do when there is nothing to read: the last good value stays unless the store itself says that it was
//! deleted or destroyed *and* the object asks for a removal.

use super::digest;
use crate::fault::{Class, Fault};
use crate::reason::Reason;

/// The longest list of lost places that is spelled out, in bytes.
const MOST_SPELLED: usize = 200;

/// The ways in which a value can be missing. Only `Deleted` and `Destroyed` are the store's own word that it was
/// there and is gone on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Absence {
    /// Plain "not found": never there, removed without a trace, or hidden.
    NotFound,
    /// The store reports it as deleted; it may come back.
    Deleted,
    /// The store reports it as destroyed for good.
    Destroyed,
    /// Past the expiry that the store gave before.
    Expired,
    /// The object exists and holds no value.
    Empty,
}

/// What the object asks for when a value is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum GonePolicy {
    /// The last value stays, with a warning.
    #[default]
    Keep,
    /// The keys of that source are removed.
    RemoveKeys,
    /// All our keys are removed, and the Secret with them where it is ours alone.
    DeleteSecret,
}

/// The policies of one object. There is none for a plain "not found": it is never a ground to remove anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct WhenGone {
    /// For what the store reports as deleted.
    pub deleted: GonePolicy,
    /// For what the store reports as destroyed.
    pub destroyed: GonePolicy,
}

/// A place without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone<'a> {
    /// How messages call the place.
    pub label: &'a str,
    /// Name and version of what a search found there and lists no more; `None` where the place is still listed, or
    /// named by the source itself.
    pub unlisted: Option<&'a str>,
    /// How the store puts it.
    pub absence: Absence,
}

/// Where somebody can say on the object that something is meant, and what is said there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement<'a> {
    /// The name of the annotation.
    pub annotation: &'a str,
    /// Its value.
    pub given: Option<&'a str>,
}

/// What is done about the places without a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Every value that the Secret should hold is there.
    Complete,
    /// The keys of the places without a value go; this is what the store reported.
    RemoveKeys(String),
    /// All our keys go; this is what the store reported.
    DeleteSecret(String),
}

impl Absence {
    /// Why the condition says what it says.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::NotFound => Reason::RemoteNotFound,
            Self::Deleted => Reason::RemoteDeleted,
            Self::Destroyed => Reason::RemoteDestroyed,
            Self::Expired => Reason::RemoteExpired,
            Self::Empty => Reason::RemoteEmpty,
        }
    }

    /// What is said of a place that is gone in this way.
    #[must_use]
    pub fn of(self, label: &str) -> String {
        format!("{label} {}", self.words())
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "is not there",
            Self::Deleted => "is deleted in the store",
            Self::Destroyed => "is destroyed in the store",
            Self::Expired => "has expired in the store",
            Self::Empty => "exists and holds no value",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::NotFound => "check the name and the policy",
            Self::Deleted => "restore it, or set `whenGone.deleted`",
            Self::Destroyed => "write it anew, or set `whenGone.destroyed`",
            Self::Expired => "store a new value",
            Self::Empty => "store a value",
        }
    }
}

impl WhenGone {
    /// What happens to the keys of a source whose value is missing.
    #[must_use]
    pub fn decide(self, kind: Absence) -> GonePolicy {
        match kind {
            Absence::Deleted => self.deleted,
            Absence::Destroyed => self.destroyed,
            Absence::NotFound | Absence::Expired | Absence::Empty => GonePolicy::Keep,
        }
    }

    /// What happens to the Secret when several of its places are missing. One whose value stays keeps the whole Secret
    /// as it is: its keys can no longer be read, and a write without them would lose them. A place that a search has
    /// lost and that somebody let go by name is no longer missed.
    ///
    /// # Errors
    /// The reason why everything is kept, with what can be done about it.
    pub fn settle(self, gone: &[Gone<'_>], acknowledged: Acknowledgement<'_>) -> Result<Settlement, Fault> {
        let lost: Vec<&str> = gone
            .iter()
            .filter(|gone| self.decide(gone.absence) == GonePolicy::Keep)
            .filter_map(|gone| gone.unlisted)
            .collect();
        let leave = letting_go(&lost);
        let let_go = !lost.is_empty() && acknowledged.given == Some(leave.as_str());
        let missed = gone
            .iter()
            .filter(|gone| !(let_go && gone.unlisted.is_some_and(|name| lost.contains(&name))));
        let mut settlement = Settlement::Complete;
        for gone in missed {
            let cause = || gone.absence.of(gone.label);
            settlement = match (self.decide(gone.absence), settlement) {
                (GonePolicy::Keep, _) => return Err(gone.kept(acknowledged.annotation, &leave)),
                (GonePolicy::RemoveKeys, Settlement::Complete) => Settlement::RemoveKeys(cause()),
                (GonePolicy::DeleteSecret, Settlement::Complete | Settlement::RemoveKeys(_)) => {
                    Settlement::DeleteSecret(cause())
                }
                (_, decided) => decided,
            };
        }
        Ok(settlement)
    }
}

impl Gone<'_> {
    /// Why the last value is kept. `leave` is what would let go all that the searches have lost.
    fn kept(&self, annotation: &str, leave: &str) -> Fault {
        let Self { label, absence, .. } = self;
        let reason = absence.reason();
        if self.unlisted.is_none() {
            let message = absence.of(label);
            let advice = format!("{}; the last value is kept", absence.remedy());
            return Fault::new(Class::Absent, reason, message).advise(advice);
        }
        let message = format!("{label} is no longer listed and {}", absence.words());
        Fault::new(Class::Absent, reason, message).advise(format!(
            "restore it, or, if it is to go, annotate the object with `{annotation}: {leave}`; the last value is kept"
        ))
    }
}

/// The text that lets go exactly these places. Many are summed up: a condition and an event have room for few.
fn letting_go(names: &[&str]) -> String {
    let all = names.join(",");
    if all.len() <= MOST_SPELLED {
        format!("{all}->gone")
    } else {
        let digest = digest::of_names(names.iter().copied());
        format!("{}-lost:{digest}->gone", names.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Absence::{Deleted, Destroyed, NotFound};
    use super::*;
    use proptest::prelude::*;

    const ALL: [Absence; 5] = [
        Absence::NotFound,
        Absence::Deleted,
        Absence::Destroyed,
        Absence::Expired,
        Absence::Empty,
    ];
    const STRICTEST: WhenGone = WhenGone {
        deleted: GonePolicy::DeleteSecret,
        destroyed: GonePolicy::DeleteSecret,
    };

    #[test]
    fn everything_is_kept_by_default() {
        for kind in ALL {
            assert_eq!(WhenGone::default().decide(kind), GonePolicy::Keep, "{kind:?}");
        }
    }

    #[test]
    fn only_the_stores_own_word_removes() {
        for kind in ALL {
            let removed = STRICTEST.decide(kind) != GonePolicy::Keep;
            assert_eq!(
                removed,
                matches!(kind, Absence::Deleted | Absence::Destroyed),
                "{kind:?}"
            );
        }
        let mixed = WhenGone {
            deleted: GonePolicy::RemoveKeys,
            ..WhenGone::default()
        };
        assert_eq!(mixed.decide(Absence::Deleted), GonePolicy::RemoveKeys);
        assert_eq!(mixed.decide(Absence::Destroyed), GonePolicy::Keep);
    }

    const NOTHING_SAID: Acknowledgement<'_> = Acknowledgement {
        annotation: "example.com/acknowledge",
        given: None,
    };
    const MIXED: WhenGone = WhenGone {
        deleted: GonePolicy::RemoveKeys,
        destroyed: GonePolicy::DeleteSecret,
    };

    fn named(label: &'static str, absence: Absence) -> Gone<'static> {
        Gone {
            label,
            unlisted: None,
            absence,
        }
    }

    fn unlisted(name: &'static str, absence: Absence) -> Gone<'static> {
        Gone {
            unlisted: Some(name),
            ..named(name, absence)
        }
    }

    fn saying(given: &str) -> Acknowledgement<'_> {
        Acknowledgement {
            given: Some(given),
            ..NOTHING_SAID
        }
    }

    #[test]
    fn one_place_that_is_kept_keeps_the_secret_and_is_the_one_that_is_named() {
        let settled = |gone: &[Gone<'_>]| MIXED.settle(gone, NOTHING_SAID);
        assert_eq!(settled(&[]), Ok(Settlement::Complete));
        assert_eq!(
            settled(&[named("a", Deleted), named("b", Deleted)]),
            Ok(Settlement::RemoveKeys("a is deleted in the store".into()))
        );
        assert_eq!(
            settled(&[named("a", Deleted), named("b", Destroyed), named("c", Deleted)]),
            Ok(Settlement::DeleteSecret("b is destroyed in the store".into()))
        );
        let fault = settled(&[named("a", Destroyed), named("b", NotFound)]).expect_err("b is kept");
        assert_eq!(
            (fault.class, fault.reason),
            (Class::Absent, Reason::RemoteNotFound)
        );
        assert_eq!(
            fault.to_string(),
            "b is not there; check the name and the policy; the last value is kept"
        );
    }

    #[test]
    fn what_a_search_has_lost_is_kept_until_it_is_let_go_by_name() {
        let gone = [unlisted("apps/a", NotFound), unlisted("apps/b", Absence::Expired)];
        let fault = STRICTEST.settle(&gone, NOTHING_SAID).expect_err("both are kept");
        assert_eq!(
            fault.to_string(),
            "apps/a is no longer listed and is not there; restore it, or, if it is to go, annotate the object with \
             `example.com/acknowledge: apps/a,apps/b->gone`; the last value is kept"
        );
        for other in ["gone", "apps/a->gone", "apps/b,apps/a->gone"] {
            assert!(STRICTEST.settle(&gone, saying(other)).is_err(), "{other}");
        }
        let both = saying("apps/a,apps/b->gone");
        assert_eq!(STRICTEST.settle(&gone, both), Ok(Settlement::Complete));
        let named_too = [gone[0], gone[1], named("db", NotFound)];
        let fault = STRICTEST.settle(&named_too, both).expect_err("db was not let go");
        assert!(fault.message.starts_with("db is not there"), "{fault}");
    }

    #[test]
    fn many_lost_places_are_let_go_by_their_number_and_digest() {
        let labels: Vec<String> = (0..40).map(|number| format!("apps/service-{number}")).collect();
        let lost = |labels: &[String]| {
            let gone: Vec<_> = labels
                .iter()
                .map(|label| Gone {
                    label,
                    unlisted: Some(label),
                    absence: NotFound,
                })
                .collect();
            let fault = STRICTEST.settle(&gone, NOTHING_SAID).expect_err("they are kept");
            let (_, words) = fault.advice.split_once("acknowledge: ").expect("it says how");
            let words = words.split('`').next().expect("it is quoted").to_owned();
            assert_eq!(STRICTEST.settle(&gone, saying(&words)), Ok(Settlement::Complete));
            words
        };
        let all = lost(&labels);
        assert!(all.starts_with("40-lost:") && all.len() < 60, "{all}");
        assert_ne!(all, lost(&labels[1..]), "it names exactly these");
    }

    #[test]
    fn a_search_that_lost_what_the_store_reports_as_deleted_follows_the_policy() {
        let gone = [unlisted("apps/a", Deleted)];
        let removed = MIXED.settle(&gone, NOTHING_SAID);
        assert_eq!(
            removed,
            Ok(Settlement::RemoveKeys("apps/a is deleted in the store".into()))
        );
        assert!(WhenGone::default().settle(&gone, NOTHING_SAID).is_err());
    }

    fn any_gone() -> impl Strategy<Value = Gone<'static>> {
        let place = prop::sample::select(vec!["a", "b", "c"]);
        (place, any::<bool>(), prop::sample::select(ALL.to_vec())).prop_map(|(name, listed, absence)| {
            if listed {
                named(name, absence)
            } else {
                unlisted(name, absence)
            }
        })
    }

    fn any_policy() -> impl Strategy<Value = GonePolicy> {
        prop::sample::select(vec![
            GonePolicy::Keep,
            GonePolicy::RemoveKeys,
            GonePolicy::DeleteSecret,
        ])
    }

    proptest! {
        #[test]
        fn without_the_stores_word_or_a_humans_nothing_goes(
            gone in prop::collection::vec(any_gone(), 1..5), deleted in any_policy(), destroyed in any_policy(),
        ) {
            let policy = WhenGone { deleted, destroyed };
            let all_reported = gone.iter().all(|gone| matches!(gone.absence, Deleted | Destroyed));
            let settled = policy.settle(&gone, NOTHING_SAID);
            prop_assert!(settled.is_err() || all_reported, "{:?}", settled);
            prop_assert!(settled != Ok(Settlement::Complete));
        }

        #[test]
        fn the_order_decides_nothing(gone in prop::collection::vec(any_gone(), 0..5), deleted in any_policy()) {
            let policy = WhenGone { deleted, destroyed: GonePolicy::DeleteSecret };
            let kind = |settled: Result<Settlement, Fault>| settled.map(|settled| std::mem::discriminant(&settled)).ok();
            let backwards: Vec<_> = gone.iter().rev().copied().collect();
            prop_assert_eq!(
                kind(policy.settle(&gone, NOTHING_SAID)),
                kind(policy.settle(&backwards, NOTHING_SAID))
            );
        }
    }
}
