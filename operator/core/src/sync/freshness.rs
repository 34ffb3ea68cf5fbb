//! How new the answers must be that a pass rests on, and when it needs none.
//!
//! Instants are whatever the caller measures with: only their order matters here.

use crate::reason::Reason;

/// What is known of an object when a pass over it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occasion {
    /// The generation of its spec.
    pub generation: i64,
    /// The generation that its Secret was made from; `None` where there is no such Secret.
    pub made_from: Option<i64>,
    /// What the Secret holds.
    pub held: Held,
    /// Whether the last pass came to something else than a Secret that would come about again with the same values:
    /// what an observer would write, or a Secret that is to be gone.
    pub concluded: bool,
    /// Whether a refresh was asked for that has not been carried out.
    pub requested: bool,
    /// Whether one success is enough for each spec.
    pub once: bool,
}

/// What a Secret holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// What was written, with a value of every place.
    Complete,
    /// What was written, without keys whose values the stores reported gone.
    Lacking,
    /// Something else, or there is none.
    Other,
}

/// The last time that every place of an object was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastLook<T> {
    /// When; `None` where nobody has looked since the process started.
    pub at: Option<T>,
    /// The newest of the doors that it went through. A door that is built later has a higher number.
    pub through: u64,
    /// Whether a pass has failed since.
    pub failed_since: bool,
}

impl Occasion {
    /// Whether the Secret was made from another spec than the present one, or not at all.
    #[must_use]
    pub fn spec_changed(&self) -> bool {
        self.made_from != Some(self.generation)
    }

    /// Whether the Secret is as the present spec and the accepted versions make it.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.held != Held::Other && !self.spec_changed()
    }

    /// Whether the same values would bring about the same again, so that a look tells whether there is anything to do.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.settled() || self.concluded
    }

    /// Whether the pass can end before a store is asked for. A Secret that lacks keys which its store reported gone is
    /// no success yet.
    #[must_use]
    pub fn needs_no_store(&self) -> bool {
        self.settled() && self.held == Held::Complete && self.once && !self.requested
    }

    /// Whether the look that was made earlier in this turn serves this pass too: something else than the turn woke
    /// the object, and the stores, as they are now, have been asked already.
    #[must_use]
    pub fn served_by<T: Ord>(&self, last: &LastLook<T>, turn_began: &T, newest_door: u64) -> bool {
        self.at_rest()
            && !self.requested
            && !last.failed_since
            && last.through >= newest_door
            && last.at.as_ref().is_some_and(|at| at >= turn_began)
    }

    /// From when on a look may be: whoever asks for a refresh means the store as it is now, whoever has failed shares
    /// the looks of the present wave, since the store may be what was put right, and everybody else shares those of
    /// the turn.
    #[must_use]
    pub fn looks_from<T: Ord>(&self, turn_began: T, wave_began: T, failed: bool, now: T) -> T {
        if self.requested {
            now
        } else if failed {
            turn_began.max(wave_began)
        } else {
            turn_began
        }
    }

    /// From when on a value may be. One that a look asked for is as new as that look. Without a look, whoever asks for
    /// a refresh or edits what is synced already means the value as it is now; a first sync shares the present wave.
    #[must_use]
    pub fn values_from<T>(&self, looked: Option<T>, wave_began: T, now: T) -> T {
        let edited = self.made_from.is_some() && self.spec_changed();
        match looked {
            Some(at) => at,
            None if self.requested || edited => now,
            None => wave_began,
        }
    }
}

/// Whether a pass that failed for this reason, after it had the values, fails the same with the same values, object
/// and Secret. Then there is no need to have them again.
#[must_use]
pub fn fails_again(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::SpecInvalid
            | Reason::RemoteTooLarge
            | Reason::FieldNotFound
            | Reason::DecodeFailed
            | Reason::KeyConflict
            | Reason::KeyInvalid
            | Reason::TemplateFailed
            | Reason::TemplateLimit
            | Reason::SecretTooLarge
            | Reason::TypeRefused
            | Reason::TypeConflict
            | Reason::SecretNotOwned
            | Reason::KeyOwnedByOther
            | Reason::SecretImmutable
            | Reason::VersionRegressed
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_rests_on_values_object_and_secret_fails_again() {
        let again = Reason::ALL.iter().copied().filter(|reason| fails_again(*reason));
        assert_eq!(again.count(), 15);
        for reason in [
            Reason::ClusterUnavailable,
            Reason::ClusterDenied,
            Reason::Conflict,
            Reason::StoreUnavailable,
            Reason::RemoteDenied,
            Reason::RemoteDeleted,
        ] {
            assert!(!fails_again(reason), "{reason:?}");
        }
    }

    const SETTLED: Occasion = Occasion {
        generation: 3,
        made_from: Some(3),
        held: Held::Complete,
        concluded: false,
        requested: false,
        once: false,
    };
    const TURN: i32 = 100;
    const LOOKED: LastLook<i32> = LastLook {
        at: Some(TURN),
        through: 7,
        failed_since: false,
    };

    fn never_made() -> Occasion {
        Occasion {
            made_from: None,
            ..SETTLED
        }
    }

    fn edited() -> Occasion {
        Occasion {
            generation: 4,
            ..SETTLED
        }
    }

    fn requested() -> Occasion {
        Occasion {
            requested: true,
            ..SETTLED
        }
    }

    #[test]
    fn one_success_is_enough_where_the_object_says_so() {
        let once = Occasion {
            once: true,
            ..SETTLED
        };
        assert!(once.needs_no_store());
        for more in [
            Occasion {
                generation: 4,
                ..once
            },
            Occasion {
                made_from: None,
                ..once
            },
            Occasion {
                held: Held::Other,
                ..once
            },
            Occasion {
                requested: true,
                ..once
            },
            Occasion {
                held: Held::Lacking,
                ..once
            },
            Occasion { once: false, ..once },
        ] {
            assert!(!more.needs_no_store(), "{more:?}");
        }
    }

    #[test]
    fn a_look_serves_until_something_has_changed() {
        assert!(SETTLED.served_by(&LOOKED, &TURN, 7));
        let stale = [
            LastLook { at: None, ..LOOKED },
            LastLook {
                at: Some(TURN - 1),
                ..LOOKED
            },
            LastLook {
                failed_since: true,
                ..LOOKED
            },
        ];
        for last in stale {
            assert!(!SETTLED.served_by(&last, &TURN, 7), "{last:?}");
        }
        assert!(!SETTLED.served_by(&LOOKED, &TURN, 8), "a door was built since");
        let drifted = Occasion {
            held: Held::Other,
            ..SETTLED
        };
        for occasion in [never_made(), edited(), requested(), drifted] {
            assert!(!occasion.served_by(&LOOKED, &TURN, 7), "{occasion:?}");
        }
        let observer = Occasion {
            concluded: true,
            ..never_made()
        };
        assert!(observer.served_by(&LOOKED, &TURN, 7), "it would come to the same");
    }

    #[test]
    fn values_are_as_new_as_the_reason_for_reading_them() {
        let (wave, now) = (190, 200);
        for (occasion, looked, from) in [
            (SETTLED, Some(150), 150),
            (requested(), Some(200), 200),
            (never_made(), None, wave),
            (edited(), None, now),
            (requested(), None, now),
            (
                Occasion {
                    held: Held::Other,
                    ..SETTLED
                },
                None,
                wave,
            ),
        ] {
            assert_eq!(occasion.values_from(looked, wave, now), from, "{occasion:?}");
        }
        assert_eq!(SETTLED.looks_from(TURN, wave, false, now), TURN);
        assert_eq!(SETTLED.looks_from(TURN, wave, true, now), wave);
        assert_eq!(SETTLED.looks_from(195, wave, true, now), 195);
        assert_eq!(requested().looks_from(TURN, wave, true, now), now);
    }

    fn any_occasion() -> impl Strategy<Value = Occasion> {
        let held = prop::sample::select(vec![Held::Complete, Held::Lacking, Held::Other]);
        (0_i64..3, prop::option::of(0_i64..3), held, any::<[bool; 3]>()).prop_map(
            |(generation, made_from, held, [concluded, requested, once])| Occasion {
                generation,
                made_from,
                held,
                concluded,
                requested,
                once,
            },
        )
    }

    proptest! {
        #[test]
        fn a_request_is_never_answered_from_before_it(occasion in any_occasion(), at in 0..300, door in 0_u64..9) {
            let asked = Occasion { requested: true, ..occasion };
            let last = LastLook { at: Some(at), through: door, failed_since: false };
            prop_assert!(!asked.needs_no_store() && !asked.served_by(&last, &TURN, door));
            prop_assert_eq!(asked.looks_from(TURN, 190, false, 200), 200);
            prop_assert_eq!(asked.values_from(None, 190, 200), 200);
        }

        #[test]
        fn what_is_not_as_written_always_asks(occasion in any_occasion(), at in 0..300) {
            let last = LastLook { at: Some(at), through: u64::MAX, failed_since: false };
            if !occasion.at_rest() {
                prop_assert!(!occasion.needs_no_store() && !occasion.served_by(&last, &TURN, 0));
            }
        }
    }
}
