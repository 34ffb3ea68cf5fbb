//! Names of objects that cannot be worked on: those that nobody can parse, and those that are gone.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Change;
use crate::cluster::time::from_kubernetes;
use crate::cluster::{ObjectKey, Unreadable};
use crate::runtime::http::ObjectState;

/// What is known of a name that has no object to work on.
#[derive(Default)]
pub(super) struct Outside {
    unreadable: HashMap<ObjectKey, Unread>,
    departed: HashMap<ObjectKey, Departed>,
}

/// An object that exists and cannot be parsed.
#[derive(Clone)]
pub struct Unread {
    /// As the watch reported it.
    pub object: Unreadable,
    /// Attempts in a row at telling it that failed.
    pub failures: u32,
}

/// An object that is gone, and whose Secrets may still be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departed {
    /// It was seen, and had been made then.
    Seen(DateTime<Utc>),
    /// It went with its kind: its Secrets stay until an object of its name is back.
    LeftInPlace,
}

impl Outside {
    /// Takes in an object that cannot be parsed. What we wrote into its status ourselves is no work.
    pub(super) fn put(&mut self, key: &ObjectKey, object: Unreadable) -> Change {
        let of = |object: &Unreadable| (object.metadata.uid.clone(), object.metadata.generation);
        let known = self.unreadable.get(key);
        let change = match known {
            Some(known) if of(&known.object) == of(&object) && known.object.field == object.field => {
                Change::Echo
            }
            _ => Change::Work,
        };
        self.departed.remove(key);
        let failures = 0;
        self.unreadable.insert(key.clone(), Unread { object, failures });
        change
    }

    /// Takes in that an object of that name can be worked on.
    pub(super) fn is_back(&mut self, key: &ObjectKey) {
        self.unreadable.remove(key);
        self.departed.remove(key);
    }

    /// Takes in that the object of that name is gone. `made` says when it had been made, unless it could not be parsed.
    pub(super) fn went(&mut self, key: &ObjectKey, made: Option<DateTime<Utc>>) {
        let unread = self.unreadable.remove(key);
        let made = made.or_else(|| unread.map(|unread| made_at(&unread.object.metadata)));
        if let Some(made) = made {
            self.departed.insert(key.clone(), Departed::Seen(made));
        }
    }

    pub(super) fn unread(&self, key: &ObjectKey) -> Option<&Unread> {
        self.unreadable.get(key)
    }

    pub(super) fn unread_mut(&mut self, key: &ObjectKey) -> Option<&mut Unread> {
        self.unreadable.get_mut(key)
    }

    pub(super) fn departed(&self, key: &ObjectKey) -> Option<Departed> {
        self.departed.get(key).copied()
    }

    pub(super) fn leave_in_place(&mut self, key: &ObjectKey) {
        self.departed.insert(key.clone(), Departed::LeftInPlace);
    }

    pub(super) fn forget(&mut self, key: &ObjectKey) {
        self.departed.remove(key);
    }

    /// What the operator's own endpoint shows.
    pub(super) fn states(&self) -> impl Iterator<Item = ObjectState> {
        self.unreadable.iter().map(|(key, unread)| unread.state(key))
    }
}

impl Unread {
    pub(super) fn state(&self, key: &ObjectKey) -> ObjectState {
        let conditions = self.object.conditions.iter().flatten();
        let failing =
            conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "False");
        ObjectState {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            ready: Some(false),
            reason: Some(self.object.fault().reason.as_str()),
            last_check: None,
            next_refresh: None,
            failing_since: failing
                .map(|ready| from_kubernetes(&ready.last_transition_time))
                .next(),
            request_id: None,
            current_as_of: None,
        }
    }
}

/// When an object was made. Every object that the API server hands out says so; of one that does not, nothing is deleted.
pub(super) fn made_at(meta: &ObjectMeta) -> DateTime<Utc> {
    let made = meta.creation_timestamp.as_ref();
    made.map_or(DateTime::<Utc>::MIN_UTC, from_kubernetes)
}
