//! The lineage of remote versions: whether what a store shows now may replace what was accepted before.
//!
//! A store that was restored from an old backup, or a stale replica, shows versions that go backwards. They are
//! never taken silently: the last value stays until somebody says that going back is meant.

use std::fmt;

use chrono::{DateTime, Utc};

/// What identifies one remote version, as far as its store can tell. Equal values name the same version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenVersion {
    /// Vault KV v2 version, or Barbican's generation metadata.
    pub number: Option<u64>,
    /// Barbican secret UUID.
    pub id: Option<String>,
    /// When the store created this version.
    pub created: Option<DateTime<Utc>>,
}

/// How the version a store shows relates to the one accepted before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionStep {
    /// Nothing was accepted before.
    First,
    /// It is the accepted one.
    Same,
    /// It follows the accepted one.
    Newer,
    /// It was created later although its number does not follow: the remote secret was deleted and made anew.
    NewLineage,
    /// It does not follow, and an acknowledgement says that this is meant.
    Acknowledged,
    /// It does not follow: keep the last value and ask.
    Regressed(Regression),
}

/// A version that went backwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regression {
    /// What was accepted before.
    pub accepted: SeenVersion,
    /// What the store shows now.
    pub offered: SeenVersion,
}

impl SeenVersion {
    /// What tells it from other versions of its place, short and free of spaces, so that it fits an annotation typed
    /// by hand. `None` where the store tells nothing.
    #[must_use]
    pub fn mark(&self) -> Option<String> {
        match (self.number, &self.id, self.created) {
            (Some(number), _, Some(created)) => Some(format!("{number}@{}", created.timestamp())),
            (Some(number), _, None) => Some(number.to_string()),
            (None, Some(id), _) => Some(id.clone()),
            (None, None, Some(created)) => Some(format!("@{}", created.timestamp())),
            (None, None, None) => None,
        }
    }
}

impl VersionStep {
    /// Whether the offered version may be written.
    #[must_use]
    pub fn may_take(&self) -> bool {
        !matches!(self, Self::Regressed(_))
    }
}

impl Regression {
    /// The text that acknowledges exactly this step back; an acknowledgement of another one does not fit.
    #[must_use]
    pub fn acknowledgement(&self) -> String {
        let mark = |version: &SeenVersion| version.mark().unwrap_or_else(|| "unknown".to_owned());
        format!("{}->{}", mark(&self.accepted), mark(&self.offered))
    }
}

impl fmt::Display for Regression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the store shows {} after {} was accepted",
            self.offered, self.accepted
        )
    }
}

impl fmt::Display for SeenVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.number, &self.id) {
            (Some(number), _) => write!(f, "version {number}")?,
            (None, Some(id)) => write!(f, "secret {id}")?,
            (None, None) => f.write_str("an unnumbered version")?,
        }
        match self.created {
            Some(created) => write!(f, " of {}", created.format("%Y-%m-%dT%H:%M:%SZ")),
            None => Ok(()),
        }
    }
}

/// Places `offered` in the lineage that `accepted` belongs to. `acknowledged` is what somebody says on the object to be
/// meant; it counts where it is the [`Regression::acknowledgement`] of this very step.
///
/// The first matching rule holds:
/// 1. Without an accepted version, or with one that says nothing, it is the first.
/// 2. The same number and identity with the same creation time is the same version.
/// 3. A higher number follows, whatever the clocks of the store's nodes say; without numbers on both sides, a later
///    creation does.
/// 4. A number that is not higher, created later, is a new lineage.
/// 5. Anything else went backwards.
#[must_use]
pub fn step(
    accepted: Option<&SeenVersion>,
    offered: &SeenVersion,
    acknowledged: Option<&str>,
) -> VersionStep {
    let Some(accepted) = accepted.filter(|seen| **seen != SeenVersion::default()) else {
        return VersionStep::First;
    };
    let natural = natural_step(accepted, offered);
    let VersionStep::Regressed(regression) = &natural else {
        return natural;
    };
    if acknowledged.is_some_and(|text| text == regression.acknowledgement()) {
        VersionStep::Acknowledged
    } else {
        natural
    }
}

fn natural_step(accepted: &SeenVersion, offered: &SeenVersion) -> VersionStep {
    let created = match (accepted.created, offered.created) {
        (Some(before), Some(now)) => Some(now.cmp(&before)),
        _ => None,
    };
    let later = created == Some(std::cmp::Ordering::Greater);
    let same_time = created.is_none_or(std::cmp::Ordering::is_eq);
    let regressed = || {
        VersionStep::Regressed(Regression {
            accepted: accepted.clone(),
            offered: offered.clone(),
        })
    };

    // A stored object keeps its UUID for life and its value never changes, so the UUID alone decides sameness.
    if let (Some(before), Some(now)) = (&accepted.id, &offered.id)
        && before == now
    {
        return VersionStep::Same;
    }
    match (accepted.number, offered.number) {
        (Some(before), Some(now)) if now > before => VersionStep::Newer,
        (Some(before), Some(now)) if now == before && same_time && accepted.id == offered.id => {
            VersionStep::Same
        }
        (Some(before), Some(now)) if now <= before && later => VersionStep::NewLineage,
        (Some(_), Some(_)) => regressed(),
        _ if later => VersionStep::Newer,
        // Neither number nor identity nor time: such a store (KV v1) has no notion of going back.
        (None, None) if accepted.id.is_none() && offered.id.is_none() && same_time => VersionStep::Same,
        _ => regressed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(seconds, 0)
    }

    fn numbered(number: u64, seconds: i64) -> SeenVersion {
        SeenVersion {
            number: Some(number),
            id: None,
            created: at(seconds),
        }
    }

    fn named(id: &str, seconds: i64) -> SeenVersion {
        SeenVersion {
            number: None,
            id: Some(id.to_owned()),
            created: at(seconds),
        }
    }

    fn plain(accepted: &SeenVersion, offered: &SeenVersion) -> VersionStep {
        step(Some(accepted), offered, None)
    }

    #[test]
    fn numbers_follow_the_table() {
        let accepted = numbered(5, 100);
        assert_eq!(step(None, &accepted, None), VersionStep::First);
        assert_eq!(plain(&accepted, &numbered(5, 100)), VersionStep::Same);
        assert_eq!(plain(&accepted, &numbered(6, 101)), VersionStep::Newer);
        assert_eq!(plain(&accepted, &numbered(9, 100)), VersionStep::Newer);
        assert_eq!(plain(&accepted, &numbered(6, 99)), VersionStep::Newer);
        assert_eq!(plain(&accepted, &numbered(5, 101)), VersionStep::NewLineage);
        assert_eq!(plain(&accepted, &numbered(1, 101)), VersionStep::NewLineage);
        for regressed in [numbered(4, 100), numbered(4, 99), numbered(5, 99)] {
            assert!(!plain(&accepted, &regressed).may_take(), "{regressed}");
        }
    }

    #[test]
    fn identities_follow_creation_time() {
        let accepted = named("a", 100);
        assert_eq!(plain(&accepted, &named("a", 100)), VersionStep::Same);
        assert_eq!(plain(&accepted, &named("b", 101)), VersionStep::Newer);
        assert!(!plain(&accepted, &named("b", 100)).may_take());
        assert!(!plain(&accepted, &named("b", 99)).may_take());
    }

    #[test]
    fn generations_order_barbican_secrets_where_both_have_one() {
        let with = |id: &str, number, seconds| SeenVersion {
            number: Some(number),
            ..named(id, seconds)
        };
        assert_eq!(plain(&with("a", 1, 100), &with("b", 2, 100)), VersionStep::Newer);
        assert_eq!(
            plain(&with("a", 2, 100), &with("b", 1, 101)),
            VersionStep::NewLineage
        );
        assert!(!plain(&with("a", 2, 100), &with("b", 2, 100)).may_take());
        assert!(!plain(&with("a", 2, 100), &with("b", 1, 100)).may_take());
        assert_eq!(plain(&named("a", 100), &with("b", 1, 101)), VersionStep::Newer);
    }

    #[test]
    fn a_store_without_versions_never_goes_back() {
        let unknown = SeenVersion::default();
        assert_eq!(plain(&unknown, &unknown), VersionStep::First);
        assert_eq!(plain(&unknown, &numbered(1, 1)), VersionStep::First);
    }

    #[test]
    fn the_fitting_acknowledgement_lets_it_back() {
        let (accepted, offered) = (numbered(5, 100), numbered(4, 90));
        let VersionStep::Regressed(regression) = plain(&accepted, &offered) else {
            panic!("going back must be seen");
        };
        let text = regression.acknowledgement();
        assert_eq!(text, "5@100->4@90");
        let fits = Some(text.as_str());
        assert_eq!(step(Some(&accepted), &offered, fits), VersionStep::Acknowledged);
        assert!(!step(Some(&accepted), &numbered(3, 80), fits).may_take());
    }

    fn any_version() -> impl Strategy<Value = SeenVersion> {
        (
            proptest::option::of(0_u64..4),
            proptest::option::of("[ab]"),
            proptest::option::of((0_i64..4).prop_map(|s| at(s).unwrap())),
        )
            .prop_map(|(number, id, created)| SeenVersion { number, id, created })
    }

    proptest! {
        #[test]
        fn the_accepted_version_is_never_a_step(version in any_version()) {
            let step = plain(&version, &version);
            prop_assert!(matches!(step, VersionStep::Same | VersionStep::First), "{:?}", step);
        }

        #[test]
        fn no_two_versions_each_follow_the_other(a in any_version(), b in any_version()) {
            // Where a store's clocks contradict its own numbers, either order can be claimed.
            prop_assume!(a.number.is_none() || b.number.is_none() || a.number.cmp(&b.number) == a.created.cmp(&b.created));
            let forward = |step: &VersionStep| matches!(step, VersionStep::Newer | VersionStep::NewLineage);
            prop_assert!(!(forward(&plain(&a, &b)) && forward(&plain(&b, &a))), "{} / {}", a, b);
        }

        #[test]
        fn an_earlier_creation_is_taken_silently_only_with_a_higher_number(a in any_version(), b in any_version()) {
            let higher = matches!((a.number, b.number), (Some(before), Some(now)) if now > before);
            if let (Some(before), Some(now)) = (a.created, b.created) && now < before && !higher {
                let step = plain(&a, &b);
                prop_assert!(!step.may_take() || step == VersionStep::Same, "{:?}", step);
            }
        }

        #[test]
        fn consent_changes_nothing_but_a_regression(a in any_version(), b in any_version()) {
            let natural = plain(&a, &b);
            let text = match &natural {
                VersionStep::Regressed(regression) => regression.acknowledgement(),
                _ => "5@100->4@90".to_owned(),
            };
            let acknowledged = step(Some(&a), &b, Some(&text));
            if natural.may_take() {
                prop_assert_eq!(natural, acknowledged);
            } else {
                prop_assert_eq!(acknowledged, VersionStep::Acknowledged);
            }
        }
    }
}
