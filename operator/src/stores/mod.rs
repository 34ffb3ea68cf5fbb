//! The doors to what holds secrets: one small trait, a folder per kind of store.
//!
//! A store turns its own protocol into [`Probe`]s and [`Reading`]s and its failures into classified faults. It
//! knows nothing of Kubernetes: credentials arrive as plain data or through [`JwtSource`], and what is done with a
//! value is decided elsewhere. To add a store, add a folder that implements [`Store`] and a line in the factory
//! (`crate::store`).

pub mod barbican;
pub mod pacing;
mod pool;
mod refusal;
pub mod transport;
pub mod vault;

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use keyward_core::fault::Fault;
use keyward_core::secret::SecretBytes;
use keyward_core::shown::Shown;
pub use keyward_core::sync::absence::Absence;
pub use keyward_core::sync::payload::Payload;

use self::pacing::Pacer;

/// What a door answers.
pub type Outcome<T> = Result<T, Fault>;

/// A place in a store that holds one value or one set of fields. Equal references name the same place, so reads
/// of them can be shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteRef {
    /// Where.
    pub place: Place,
    /// Which version; `None` is the newest.
    pub version: Option<u64>,
}

/// The ways a store names a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A path below the mount (Vault, OpenBao); already in canonical form.
    Path(String),
    /// The newest active secret of exactly this name (Barbican).
    Name(String),
    /// One secret by its UUID (Barbican).
    Uuid(String),
    /// A container by its UUID: every secret in it is a field (Barbican).
    Container(String),
}

impl Place {
    /// The path, name or UUID itself.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Path(text) | Self::Name(text) | Self::Uuid(text) | Self::Container(text) => text,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "path `{}`", Shown::whole(path)),
            Self::Name(name) => write!(f, "secret `{}`", Shown::whole(name)),
            Self::Uuid(id) => write!(f, "secret {}", Shown::whole(id)),
            Self::Container(id) => write!(f, "container {}", Shown::whole(id)),
        }
    }
}

/// What identifies the value that a place holds, as far as the store can tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteVersion {
    /// Vault KV v2 version, or Barbican's generation metadata.
    pub number: Option<u64>,
    /// Barbican secret UUID.
    pub id: Option<String>,
    /// When this version was created at the store.
    pub created: Option<DateTime<Utc>>,
    /// When the store will stop serving it.
    pub expires: Option<DateTime<Utc>>,
}

/// The answer to "what is there now?", as cheaply as the store can give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A value of this version is there.
    Current(RemoteVersion),
    /// Nothing to read, and how the store puts it.
    Absent(Absence),
    /// The store (KV v1), or a policy that denies metadata, can only tell by giving the value.
    NeedsRead,
}

/// A value with its version.
pub struct Reading {
    /// Which version this is.
    pub version: RemoteVersion,
    /// The value.
    pub payload: Payload,
}

/// What a read found.
pub enum ReadOutcome {
    /// The value.
    Value(Reading),
    /// Nothing to read.
    Absent(Absence),
}

/// A search over many places.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FindQuery {
    /// Only below this path (Vault) or with this beginning of the name (Barbican).
    pub prefix: String,
    /// Tags that must all be present: custom metadata (Vault), user metadata (Barbican).
    pub tags: BTreeMap<String, String>,
    /// More candidates than this is a fault, never a silent cut.
    pub limit: usize,
}

impl FindQuery {
    /// Whether the search would list a match of this name and place, as far as its prefix says: a folder for a path,
    /// the beginning of any other name.
    #[must_use]
    pub fn reaches(&self, found: &Found) -> bool {
        match found.place {
            Place::Path(_) => {
                let folder = self.prefix.trim_matches('/');
                let below = found.name.strip_prefix(folder);
                folder.is_empty() || below.is_some_and(|below| below.starts_with('/'))
            }
            Place::Name(_) | Place::Uuid(_) | Place::Container(_) => found.name.starts_with(&self.prefix),
        }
    }
}

/// One match of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What a name pattern is matched against and a key name is derived from: the path relative to the prefix's
    /// mount (Vault), the secret's name (Barbican).
    pub name: String,
    /// Where to read it. Barbican gives the UUID here, so that the read cannot meet another secret.
    pub place: Place,
    /// What the listing already told about the version.
    pub version: Option<RemoteVersion>,
}

impl Found {
    /// How people call it: by its path or name, whatever it is read by.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.place {
            place @ Place::Path(_) => place.to_string(),
            Place::Name(_) | Place::Uuid(_) | Place::Container(_) => {
                Place::Name(self.name.clone()).to_string()
            }
        }
    }
}

/// A logged-in backend. One instance serves every object that uses the same store with the same credential.
///
/// Instances with the same credential at the same server share one session, keep deadlines and size caps on every call, never follow a redirect, and
/// repeat a login at most once for a dead token. A rejected credential is repeated ever more rarely where that locks nobody
/// out, and else only once its failures are forgotten at the server, if ever.
pub trait Store: Send + Sync {
    /// Says what is at `place` without reading the value where that is possible.
    fn probe<'a>(&'a self, place: &'a RemoteRef) -> BoxFuture<'a, Outcome<Probe>>;

    /// Reads the value at `place`.
    fn read<'a>(&'a self, place: &'a RemoteRef) -> BoxFuture<'a, Outcome<ReadOutcome>>;

    /// Lists the places that match, in a fixed order. What is sent for it waits for its turns.
    fn find<'a>(&'a self, query: &'a FindQuery, pacer: &'a dyn Pacer) -> BoxFuture<'a, Outcome<Vec<Found>>>;

    /// Logs in if need be and shows that the store answers: what `Ready` of a store object rests on.
    fn check(&self) -> BoxFuture<'_, Outcome<()>>;

    /// Somebody wants to see a change that was just made: what is asked from now on must not be answered from what
    /// was listed before. A store that keeps no listings has nothing to do.
    fn forget_listings(&self) {}

    /// Ends this store's use of its session, at once, and refuses everything from now on. The future that is
    /// returned revokes the token, where nobody else uses the session and the store knows such a thing. Called once,
    /// at shutdown or replacement.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// Mints a token of a Kubernetes ServiceAccount when a login needs one.
///
/// Implemented at the door to Kubernetes, so that a store never holds the cluster's client.
pub trait JwtSource: Send + Sync {
    /// A fresh, short-lived token.
    fn mint(&self) -> BoxFuture<'_, Outcome<SecretBytes>>;

    /// Whose tokens these are, in parts: sources whose parts are equal may stand for one another.
    fn identity(&self) -> Vec<&[u8]>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(place: Place) -> Found {
        Found {
            name: "apps/db".into(),
            place,
            version: None,
        }
    }

    #[test]
    fn a_search_reaches_what_is_below_its_folder_or_begins_with_its_prefix() {
        let reaches = |prefix: &str, place| {
            let query = FindQuery {
                prefix: prefix.into(),
                tags: BTreeMap::new(),
                limit: 1,
            };
            query.reaches(&found(place))
        };
        for (prefix, as_path, as_name) in [
            ("", true, true),
            ("apps", true, true),
            ("apps/", true, true),
            ("app", false, true),
            ("web", false, false),
        ] {
            assert_eq!(
                reaches(prefix, Place::Path("apps/db".into())),
                as_path,
                "{prefix}"
            );
            assert_eq!(reaches(prefix, Place::Uuid("3d0b".into())), as_name, "{prefix}");
        }
    }

    #[test]
    fn a_match_is_called_by_its_name() {
        assert_eq!(found(Place::Path("apps/db".into())).shown(), "path `apps/db`");
        assert_eq!(found(Place::Uuid("3d0b".into())).shown(), "secret `apps/db`");
    }

    #[test]
    fn a_name_cannot_forge_a_log_line() {
        let name = "db\n2026-01-01 INFO synced".to_owned();
        for place in [Place::Path(name.clone()), Place::Name(name.clone())] {
            let shown = place.to_string();
            assert!(!shown.contains('\n') && shown.contains(r"db\n2026"), "{shown}");
        }
    }
}
