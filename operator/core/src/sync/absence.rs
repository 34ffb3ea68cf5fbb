//! What to do when there is nothing to read: the last good value stays unless the store itself says that it was
//! deleted or destroyed *and* the object asks for a removal.

use crate::reason::Reason;

/// The ways in which a value can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AbsenceKind {
    /// Plain "not found": never there, removed without a trace, or hidden.
    NotFound,
    /// The store reports it as deleted; it may come back.
    Deleted,
    /// The store reports it as destroyed for good.
    Destroyed,
    /// Past its expiry.
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

impl AbsenceKind {
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
}

impl WhenGone {
    /// What happens to the keys of a source whose value is missing.
    #[must_use]
    pub fn decide(self, kind: AbsenceKind) -> GonePolicy {
        match kind {
            AbsenceKind::Deleted => self.deleted,
            AbsenceKind::Destroyed => self.destroyed,
            AbsenceKind::NotFound | AbsenceKind::Expired | AbsenceKind::Empty => GonePolicy::Keep,
        }
    }

    /// What happens to the Secret when several of its sources are missing. One source whose value stays keeps the
    /// whole Secret as it is: its keys can no longer be read, and a write without them would lose them.
    #[must_use]
    pub fn decide_all(self, kinds: impl IntoIterator<Item = AbsenceKind>) -> GonePolicy {
        let decisions = kinds.into_iter().map(|kind| self.decide(kind));
        decisions
            .reduce(|so_far, next| match so_far.min(next) {
                GonePolicy::Keep => GonePolicy::Keep,
                _ => so_far.max(next),
            })
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::AbsenceKind::{Deleted, Destroyed, NotFound};
    use super::*;

    const ALL: [AbsenceKind; 5] = [
        AbsenceKind::NotFound,
        AbsenceKind::Deleted,
        AbsenceKind::Destroyed,
        AbsenceKind::Expired,
        AbsenceKind::Empty,
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
                matches!(kind, AbsenceKind::Deleted | AbsenceKind::Destroyed),
                "{kind:?}"
            );
        }
        let mixed = WhenGone {
            deleted: GonePolicy::RemoveKeys,
            ..WhenGone::default()
        };
        assert_eq!(mixed.decide(AbsenceKind::Deleted), GonePolicy::RemoveKeys);
        assert_eq!(mixed.decide(AbsenceKind::Destroyed), GonePolicy::Keep);
    }

    #[test]
    fn one_source_that_is_kept_keeps_the_secret() {
        let mixed = WhenGone {
            deleted: GonePolicy::RemoveKeys,
            destroyed: GonePolicy::DeleteSecret,
        };
        assert_eq!(mixed.decide_all([Deleted, Destroyed]), GonePolicy::DeleteSecret);
        assert_eq!(mixed.decide_all([Destroyed, NotFound, Deleted]), GonePolicy::Keep);
        assert_eq!(mixed.decide_all([Deleted, Deleted]), GonePolicy::RemoveKeys);
        assert_eq!(mixed.decide_all([]), GonePolicy::Keep);
    }
}
