//! Sessions in use, each for one credential at one server, whoever uses them.
//!
//! Store objects that say the same of where, as whom and over which trust to log in hold the same session. What they
//! say is never kept: a session is found by a keyed digest of all of it, credential included, so whoever is let in
//! has shown the credential itself. The key is made anew by every process and leaves it in no form.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::sync::fingerprint::{FingerprintKey, KEY_BYTES};
use rand::Rng as _;
use zeroize::Zeroizing;

use super::Outcome;

/// Sessions of one kind of store.
pub(super) struct Pool<S> {
    key: FingerprintKey,
    sessions: Sessions<S>,
}

/// All that decides whether two store objects may share a session, in a fixed order.
#[derive(Default)]
pub(super) struct SessionKey<'a>(Vec<&'a [u8]>);

/// One store object's share of a session. The last one to leave is to end it.
pub(super) struct Lease<S> {
    session: Arc<S>,
    digest: Digest,
    sessions: Sessions<S>,
    left: AtomicBool,
}

/// Says nothing of what it was made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

type Sessions<S> = Arc<Mutex<HashMap<Digest, Shared<S>>>>;

struct Shared<S> {
    session: Arc<S>,
    users: usize,
}

impl<S> Pool<S> {
    /// The digest of a key.
    pub(super) fn digest(&self, key: &SessionKey<'_>) -> Digest {
        Digest(self.key.of_credential(&key.0))
    }

    /// The session of this digest: the one that others use, or a new one.
    pub(super) fn join(&self, digest: Digest, make: impl FnOnce() -> S) -> Lease<S> {
        let mut sessions = lock(&self.sessions);
        let shared = sessions.entry(digest).or_insert_with(|| Shared {
            session: Arc::new(make()),
            users: 0,
        });
        shared.users += 1;
        Lease {
            session: Arc::clone(&shared.session),
            digest,
            sessions: Arc::clone(&self.sessions),
            left: AtomicBool::new(false),
        }
    }
}

impl<S> Default for Pool<S> {
    fn default() -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::rng().fill_bytes(&mut *bytes);
        Self {
            key: FingerprintKey::from_bytes(&*bytes).expect("the buffer has the length of a key"),
            sessions: Arc::default(),
        }
    }
}

impl<'a> SessionKey<'a> {
    /// Adds something that is always there.
    pub(super) fn is(&mut self, part: &'a [u8]) {
        self.0.push(part);
    }

    /// Adds parts that are always there.
    pub(super) fn parts(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) {
        self.0.extend(parts);
    }

    /// Adds texts that are always there.
    pub(super) fn texts(&mut self, parts: impl IntoIterator<Item = &'a str>) {
        self.0.extend(parts.into_iter().map(str::as_bytes));
    }

    /// Adds something that may be missing, which is not the same as empty.
    pub(super) fn may_be(&mut self, part: Option<&'a [u8]>) {
        self.flag(part.is_some());
        self.is(part.unwrap_or_default());
    }

    /// Adds a choice.
    pub(super) fn flag(&mut self, chosen: bool) {
        self.is(if chosen { b"yes" } else { b"no" });
    }
}

impl<S> Lease<S> {
    /// The session, until this lease is given up.
    pub(super) fn session(&self) -> Outcome<&Arc<S>> {
        if self.left.load(Ordering::Acquire) {
            return Err(ended());
        }
        Ok(&self.session)
    }

    /// Gives the lease up. Returns the session to whoever was the last to use it; nobody finds it any more.
    pub(super) fn leave(&self) -> Option<Arc<S>> {
        if self.left.swap(true, Ordering::AcqRel) {
            return None;
        }
        let mut sessions = lock(&self.sessions);
        let shared = sessions
            .get_mut(&self.digest)
            .expect("a session stays in the pool while a lease on it lives");
        shared.users -= 1;
        if shared.users > 0 {
            return None;
        }
        sessions.remove(&self.digest).map(|shared| shared.session)
    }
}

impl<S> Drop for Lease<S> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

/// What is answered to whoever still uses a session that was put out of use while he asked. Nothing is wrong with the
/// store: he is woken to ask again through a new one.
pub(super) fn ended() -> Fault {
    Fault::new(
        Class::Conflict,
        Reason::Conflict,
        "the store or its credential changed while it was asked",
    )
}

fn lock<S>(sessions: &Sessions<S>) -> MutexGuard<'_, HashMap<Digest, Shared<S>>> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(pool: &Pool<i32>, parts: &[Option<&str>], session: i32) -> Lease<i32> {
        let mut key = SessionKey::default();
        for part in parts {
            key.may_be(part.map(str::as_bytes));
        }
        pool.join(pool.digest(&key), || session)
    }

    #[test]
    fn equal_keys_share_a_session_and_any_difference_parts_them() {
        let pool = Pool::default();
        let first = join(&pool, &[Some("a"), None], 1);
        let second = join(&pool, &[Some("a"), None], 2);
        assert_eq!(**second.session().unwrap(), 1);
        let others = [
            &[Some("a"), Some("")][..],
            &[Some("a"), None, None],
            &[None, Some("a")],
            &[Some("A"), None],
            &[Some("ano")],
        ];
        let others: Vec<_> = others.iter().map(|parts| join(&pool, parts, 3)).collect();
        assert!(others.iter().all(|lease| **lease.session().unwrap() == 3));
        assert_eq!(lock(&pool.sessions).len(), 6);
        drop((first, others));
        assert_eq!(lock(&pool.sessions).len(), 1, "one is still used");
    }

    #[test]
    fn the_last_to_leave_gets_the_session_and_later_ones_a_new_one() {
        let pool = Pool::default();
        let same = [Some("a")];
        let (first, second) = (join(&pool, &same, 1), join(&pool, &same, 2));
        assert!(first.leave().is_none());
        assert!(first.leave().is_none(), "one leaves once");
        assert!(first.session().is_err());
        assert!(second.session().is_ok());
        assert_eq!(second.leave().as_deref(), Some(&1));
        assert_eq!(**join(&pool, &same, 4).session().unwrap(), 4);
    }
}
