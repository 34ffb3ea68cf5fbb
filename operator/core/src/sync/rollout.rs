//! Restarting consumers: each carries in its pod template the hash it should run with, so a value restarts each of
//! them exactly once, however often the operator dies in between.

/// What a consumer looks like at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Consumer {
    /// The hash in its pod template.
    pub hash: Option<String>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `status.observedGeneration`: up to where its controller has read.
    pub observed_generation: i64,
    /// Pods that there should be.
    pub desired: i32,
    /// Pods that there are, old ones included.
    pub current: i32,
    /// Pods of the present template.
    pub updated: i32,
    /// Pods that are ready to serve.
    pub available: i32,
    /// Whether its rollouts are paused.
    pub paused: bool,
    /// Whether its controller reports that it makes no progress.
    pub failed: bool,
}

/// Where one consumer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It does not exist.
    Missing,
    /// Its pod template must be patched.
    ToPatch,
    /// It is rolling.
    Rolling,
    /// It carries the hash and waits for somebody to resume it.
    Paused,
    /// Its controller reports that it does not move.
    Stalled,
    /// Every pod runs with the hash.
    Ready,
}

/// The rollout of one Secret over all its consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutState {
    /// Where each consumer stands, in the order given.
    pub standings: Vec<Standing>,
}

impl Consumer {
    /// Where it stands with respect to `hash`.
    #[must_use]
    pub fn standing(&self, hash: &str) -> Standing {
        if self.hash.as_deref() != Some(hash) {
            return Standing::ToPatch;
        }
        // Before its controller has read the template, its counts speak of the one before.
        let read = self.observed_generation >= self.generation;
        let rolled =
            self.updated >= self.desired && self.current <= self.updated && self.available >= self.desired;
        match (read && rolled, self.paused, read && self.failed) {
            (true, ..) => Standing::Ready,
            (false, true, _) => Standing::Paused,
            (false, false, true) => Standing::Stalled,
            (false, false, false) => Standing::Rolling,
        }
    }
}

impl RolloutState {
    /// Looks at every consumer; `None` is one that does not exist.
    pub fn of<'a>(consumers: impl IntoIterator<Item = Option<&'a Consumer>>, hash: &str) -> Self {
        let standing =
            |consumer: Option<&Consumer>| consumer.map_or(Standing::Missing, |found| found.standing(hash));
        Self {
            standings: consumers.into_iter().map(standing).collect(),
        }
    }

    /// The consumers to patch now, by their place in the list.
    pub fn to_patch(&self) -> impl Iterator<Item = usize> {
        self.having(Standing::ToPatch)
    }

    /// The consumers with this standing, by their place in the list.
    pub fn having(&self, standing: Standing) -> impl Iterator<Item = usize> {
        self.standings
            .iter()
            .enumerate()
            .filter(move |(_, has)| **has == standing)
            .map(|(index, _)| index)
    }

    /// How many run with the hash.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.having(Standing::Ready).count()
    }

    /// How many there are in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.standings.len()
    }

    /// Whether every consumer runs with the hash.
    #[must_use]
    pub fn done(&self) -> bool {
        self.ready() == self.total()
    }

    /// Whether somebody has to act before it can end.
    #[must_use]
    pub fn stalled(&self) -> bool {
        self.standings
            .iter()
            .any(|standing| matches!(standing, Standing::Missing | Standing::Paused | Standing::Stalled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settled() -> Consumer {
        Consumer {
            hash: Some("h1".into()),
            generation: 3,
            observed_generation: 3,
            desired: 2,
            current: 2,
            updated: 2,
            available: 2,
            ..Consumer::default()
        }
    }

    #[test]
    fn each_stage_has_its_standing() {
        let rolling = Consumer {
            updated: 1,
            current: 3,
            ..settled()
        };
        for (consumer, expected) in [
            (settled(), Standing::Ready),
            (
                Consumer {
                    hash: None,
                    ..settled()
                },
                Standing::ToPatch,
            ),
            (
                Consumer {
                    hash: Some("h0".into()),
                    ..settled()
                },
                Standing::ToPatch,
            ),
            (
                Consumer {
                    observed_generation: 2,
                    ..settled()
                },
                Standing::Rolling,
            ),
            (
                Consumer {
                    observed_generation: 2,
                    failed: true,
                    ..settled()
                },
                Standing::Rolling,
            ),
            (rolling.clone(), Standing::Rolling),
            (
                Consumer {
                    current: 3,
                    ..settled()
                },
                Standing::Rolling,
            ),
            (
                Consumer {
                    available: 1,
                    ..settled()
                },
                Standing::Rolling,
            ),
            (
                Consumer {
                    paused: true,
                    ..rolling.clone()
                },
                Standing::Paused,
            ),
            (
                Consumer {
                    failed: true,
                    ..rolling
                },
                Standing::Stalled,
            ),
            (
                Consumer {
                    desired: 0,
                    current: 0,
                    updated: 0,
                    available: 0,
                    ..settled()
                },
                Standing::Ready,
            ),
            (
                Consumer {
                    paused: true,
                    ..settled()
                },
                Standing::Ready,
            ),
        ] {
            assert_eq!(consumer.standing("h1"), expected, "{consumer:?}");
        }
    }

    #[test]
    fn the_whole_counts_every_consumer() {
        let (ready, old) = (
            settled(),
            Consumer {
                hash: None,
                ..settled()
            },
        );
        let state = RolloutState::of([Some(&ready), Some(&old), None], "h1");
        assert_eq!(
            (state.ready(), state.total(), state.done(), state.stalled()),
            (1, 3, false, true)
        );
        assert_eq!(state.to_patch().collect::<Vec<_>>(), [1]);
        assert_eq!(state.having(Standing::Missing).collect::<Vec<_>>(), [2]);
        let all = RolloutState::of([Some(&ready)], "h1");
        assert!(all.done() && !all.stalled());
        assert!(RolloutState::of([], "h1").done());
    }

    proptest! {
        #[test]
        fn a_consumer_that_carries_the_hash_is_never_patched_again(
            generation in 0_i64..3,
            observed_generation in 0_i64..3,
            counts in proptest::array::uniform4(0_i32..3),
            paused: bool,
            failed: bool,
        ) {
            let [desired, current, updated, available] = counts;
            let consumer = Consumer {
                hash: Some("h".into()), generation, observed_generation, desired, current, updated, available, paused, failed,
            };
            prop_assert_ne!(consumer.standing("h"), Standing::ToPatch);
            prop_assert_eq!(consumer.standing("other"), Standing::ToPatch);
        }
    }
}
