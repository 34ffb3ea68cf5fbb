//! What is told about an object after a pass that did not fail: its conditions and the notes that go with them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::ownership::Deed;
use crate::reason::Reason;

/// How long before its expiry a value is warned of.
pub const WARN_AHEAD: TimeDelta = TimeDelta::days(7);

/// What is true of an object after a pass that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The Secret holds what the stores hold.
    Synced,
    /// Nothing is written on purpose; this is what would be.
    Observed {
        /// What a write would change; `None` where nothing.
        pending: Option<String>,
    },
    /// Left alone on purpose.
    Suspended,
    /// Keys or the Secret went because the store reported the value gone and the object asks for that.
    Removed {
        /// What the store reported.
        cause: String,
    },
}

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whether it holds; `None` is "unknown".
    pub holds: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// The same in words.
    pub message: String,
}

/// What is told once, as an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// Whether somebody should look into it.
    pub warning: bool,
    /// Why.
    pub reason: Reason,
    /// The same in words; `None` where the condition says it.
    pub words: Option<&'static str>,
}

impl State {
    /// What `Ready` says of an object with this many keys.
    #[must_use]
    pub fn ready(&self, keys: usize) -> Said {
        let (holds, reason, message) = match self {
            Self::Suspended => {
                let message = "suspended; the Secret is left as it is".to_owned();
                (None, Reason::Suspended, message)
            }
            Self::Observed { pending: None } => {
                let message = "the Secret is as it would be written".to_owned();
                (Some(true), Reason::Observed, message)
            }
            Self::Observed {
                pending: Some(change),
            } => (None, Reason::Observed, change.clone()),
            Self::Removed { cause } => {
                let message = format!("{cause}; its keys were removed as asked");
                (Some(false), Reason::SecretRemoved, message)
            }
            Self::Synced if keys == 1 => {
                let message = "1 key is as the store holds it".to_owned();
                (Some(true), Reason::Synced, message)
            }
            Self::Synced => {
                let message = format!("{keys} keys are as the stores hold them");
                (Some(true), Reason::Synced, message)
            }
        };
        Said {
            holds,
            reason,
            message,
        }
    }
}

/// When a store is going to stop serving a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    /// Never, as far as it says.
    None,
    /// So late that it is warned of only after this time.
    Later(Duration),
    /// Soon: this is what `Expiring` says.
    Near(Said),
}

impl Expiry {
    /// The soonest of these.
    pub fn of(expiries: impl IntoIterator<Item = DateTime<Utc>>, now: DateTime<Utc>) -> Self {
        let Some(soonest) = expiries.into_iter().min() else {
            return Self::None;
        };
        match (soonest - WARN_AHEAD - now).to_std() {
            Ok(wait) if !wait.is_zero() => Self::Later(wait),
            _ => Self::Near(Said {
                holds: Some(true),
                reason: Reason::RemoteExpiring,
                message: format!(
                    "a value expires in its store at {}; store a new one before",
                    soonest.to_rfc3339()
                ),
            }),
        }
    }

    /// How long it is until that has to be said.
    #[must_use]
    pub fn warned_of_in(&self) -> Option<Duration> {
        match self {
            Self::Later(wait) => Some(*wait),
            Self::None | Self::Near(_) => None,
        }
    }
}

/// What is noted of what was done to the Secret of an object that had been synced before, or not.
#[must_use]
pub fn note_of(deed: Deed, synced_before: bool) -> Option<Note> {
    match deed {
        // The first sync is told by the status alone: an event would be one more write for each object.
        Deed::Nothing | Deed::Created | Deed::Released | Deed::Deleted => None,
        Deed::Updated => synced_before.then_some(Note {
            warning: false,
            reason: Reason::SecretUpdated,
            words: None,
        }),
        Deed::Repaired => Some(Note {
            warning: true,
            reason: Reason::DriftRepaired,
            words: Some("the Secret was changed or deleted by somebody else and was put right"),
        }),
    }
}

/// What is noted of an object that works again after a failure, where nothing else tells it.
///
/// Of those that only waited for their store nothing is noted: the store tells it once, and ten thousand events would
/// hold up the statuses that say the same.
#[must_use]
pub fn note_of_recovery(failed_with: Option<Reason>, state: &State, deed: Deed) -> Option<Note> {
    let failed_alone = failed_with.is_some_and(|reason| !reason.is_of_the_whole_store());
    let silent = deed == Deed::Nothing && *state == State::Synced;
    (failed_alone && silent).then_some(Note {
        warning: false,
        reason: Reason::Synced,
        words: Some("works again"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed() -> State {
        State::Removed {
            cause: "path `a` is deleted in the store".into(),
        }
    }

    #[test]
    fn ready_says_what_is_true() {
        let pending = |pending: Option<&str>| State::Observed {
            pending: pending.map(str::to_owned),
        };
        for (state, holds, reason, words) in [
            (
                State::Synced,
                Some(true),
                Reason::Synced,
                "2 keys are as the stores hold them",
            ),
            (State::Suspended, None, Reason::Suspended, "suspended"),
            (
                pending(None),
                Some(true),
                Reason::Observed,
                "as it would be written",
            ),
            (
                pending(Some("would change")),
                None,
                Reason::Observed,
                "would change",
            ),
            (
                removed(),
                Some(false),
                Reason::SecretRemoved,
                "deleted in the store; its keys were removed as asked",
            ),
        ] {
            let said = state.ready(2);
            assert_eq!((said.holds, said.reason), (holds, reason), "{state:?}");
            assert!(said.message.contains(words), "{}", said.message);
        }
        assert_eq!(State::Synced.ready(1).message, "1 key is as the store holds it");
    }

    #[test]
    fn the_soonest_expiry_is_warned_of_a_week_ahead() {
        let at = |days| DateTime::UNIX_EPOCH + TimeDelta::days(days);
        assert_eq!(Expiry::of([], at(0)), Expiry::None);
        let later = Expiry::of([at(30), at(8)], at(0));
        let one_day = Duration::from_hours(24);
        assert_eq!(later, Expiry::Later(one_day));
        assert_eq!(
            later.warned_of_in(),
            Some(one_day),
            "also where nothing else is due"
        );
        for (soonest, now) in [(7, 0), (1, 3)] {
            let Expiry::Near(said) = Expiry::of([at(30), at(soonest)], at(now)) else {
                panic!("seven days are near, and past is nearer still");
            };
            let date = format!("1970-01-0{}", soonest + 1);
            assert!(said.message.contains(&date), "{}", said.message);
        }
    }

    #[test]
    fn a_first_sync_makes_no_event() {
        for (deed, before, reason) in [
            (Deed::Nothing, true, None),
            (Deed::Created, false, None),
            (Deed::Created, true, None),
            (Deed::Released, true, None),
            (Deed::Deleted, true, None),
            (Deed::Updated, false, None),
            (Deed::Updated, true, Some(Reason::SecretUpdated)),
            (Deed::Repaired, true, Some(Reason::DriftRepaired)),
        ] {
            assert_eq!(
                note_of(deed, before).map(|note| note.reason),
                reason,
                "{deed:?} {before}"
            );
        }
    }

    #[test]
    fn a_recovery_is_noted_where_nothing_else_tells_it() {
        let denied = Some(Reason::RemoteDenied);
        assert!(note_of_recovery(denied, &State::Synced, Deed::Nothing).is_some());
        assert_eq!(note_of_recovery(None, &State::Synced, Deed::Nothing), None);
        assert_eq!(note_of_recovery(denied, &State::Synced, Deed::Updated), None);
        assert_eq!(note_of_recovery(denied, &removed(), Deed::Nothing), None);
        let sealed = Some(Reason::StoreSealed);
        assert_eq!(note_of_recovery(sealed, &State::Synced, Deed::Nothing), None);
    }
}
