//! Restarting consumers: each carries in its pod template the hash it should run with, so a value restarts each of
//! them exactly once, however often the operator dies in between.

use super::told::Said;
use crate::reason::Reason;

/// The longest name part of an annotation key that Kubernetes accepts.
const LONGEST_NAME: usize = 63;

/// How much of a fingerprint's digest a pod template carries: enough to tell one value from the next.
const HASH_DIGITS: usize = 16;

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

    /// What `RolledOut` says. `name` is how the consumer at a place in the list is called.
    pub fn said(&self, name: impl Fn(usize) -> String) -> Said {
        let names = |standings: &[Standing]| {
            let named = standings.iter().flat_map(|standing| self.having(*standing));
            named.map(&name).collect::<Vec<_>>().join(", ")
        };
        let missing = names(&[Standing::Missing]);
        let stalled = names(&[Standing::Stalled, Standing::Paused]);
        let (reason, message) = if !missing.is_empty() {
            (Reason::RolloutTargetMissing, format!("not found: {missing}"))
        } else if !stalled.is_empty() {
            (Reason::RolloutStalled, format!("does not move: {stalled}"))
        } else if self.done() {
            let message = "every consumer runs with the present values".to_owned();
            (Reason::RolloutComplete, message)
        } else {
            let message = "consumers are being restarted with the present values".to_owned();
            (Reason::RolloutProgressing, message)
        };
        Said {
            holds: Some(self.done()),
            reason,
            message,
        }
    }
}

/// The annotation of pod templates that carries the hash of `object`: one for each object, so that several can restart
/// the same consumer. `annotation` is what all of them begin with.
#[must_use]
pub fn annotation_of(annotation: &str, object: &str) -> String {
    let suffixed = format!("{annotation}.{object}");
    let name_of = |key: &str| key.rsplit('/').next().map_or(0, str::len);
    if name_of(&suffixed) <= LONGEST_NAME {
        return suffixed;
    }
    let room = LONGEST_NAME.saturating_sub(name_of(annotation) + ".-".len() + 8);
    let head: String = object.chars().take(room).collect();
    format!("{annotation}.{head}-{:08x}", fnv(object))
}

/// The hash that stands for the values with this fingerprint.
#[must_use]
pub fn hash_of(fingerprint: &str) -> &str {
    let digest = fingerprint.rsplit('.').next().unwrap_or(fingerprint);
    digest.get(..HASH_DIGITS).unwrap_or(digest)
}

/// Tells long names apart in annotation keys; nothing rests on it being hard to invert.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
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
        assert_eq!((state.ready(), state.total(), state.done()), (1, 3, false));
        assert_eq!(state.to_patch().collect::<Vec<_>>(), [1]);
        assert_eq!(state.having(Standing::Missing).collect::<Vec<_>>(), [2]);
        let all = RolloutState::of([Some(&ready)], "h1");
        assert!(all.done());
        assert!(RolloutState::of([], "h1").done());
    }

    #[test]
    fn what_somebody_has_to_see_to_is_told_first() {
        for (standings, reason, words) in [
            (vec![Standing::Ready], Reason::RolloutComplete, "every consumer"),
            (vec![], Reason::RolloutComplete, "every consumer"),
            (
                vec![Standing::Ready, Standing::Rolling],
                Reason::RolloutProgressing,
                "being restarted",
            ),
            (
                vec![Standing::Paused, Standing::Rolling, Standing::Stalled],
                Reason::RolloutStalled,
                "does not move: c2, c0",
            ),
            (
                vec![Standing::Stalled, Standing::Missing],
                Reason::RolloutTargetMissing,
                "not found: c1",
            ),
        ] {
            let state = RolloutState { standings };
            let said = state.said(|index| format!("c{index}"));
            assert_eq!(
                (said.reason, said.holds),
                (reason, Some(state.done())),
                "{state:?}"
            );
            assert!(said.message.contains(words), "{}", said.message);
        }
    }

    #[test]
    fn annotation_keys_fit_whatever_the_name() {
        let annotation = |object: &str| annotation_of("example.com/secret-hash", object);
        for length in [1, 40, 51, 52, 100, 253] {
            let key = annotation(&"n".repeat(length));
            let name = key.rsplit('/').next().expect("there is a prefix");
            assert!(name.len() <= LONGEST_NAME, "{length}: {name}");
        }
        let long = "n".repeat(200);
        assert_ne!(annotation(&format!("{long}a")), annotation(&format!("{long}b")));
    }

    #[test]
    fn the_hash_is_the_beginning_of_the_digest() {
        let fingerprint = "1.abcd.0123456789abcdef0123456789abcdef";
        assert_eq!(hash_of(fingerprint), "0123456789abcdef");
        assert_eq!(hash_of("odd"), "odd");
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
