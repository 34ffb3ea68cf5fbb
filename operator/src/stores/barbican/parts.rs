//! Containers: every secret in one is a part of one value.
//!
//! A container is taken whole or not at all: with one part missing, the others are not given, since a key that
//! silently disappears is worse than a value that is late.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use uuid::Uuid;

use super::api::Value;
use super::listing::Age;
use super::memory::Known;
use super::wire::Container;
use super::{AT_ONCE, BarbicanStore, now};
use crate::stores::{Absence, Outcome, Payload, Probe, ReadOutcome, Reading, RemoteVersion};

/// More parts than this are no container that anybody means.
const MOST_PARTS: usize = 256;

/// A container whose parts are all there.
struct Whole {
    version: RemoteVersion,
    parts: Vec<(String, Uuid)>,
}

impl BarbicanStore {
    pub(super) async fn probe_container(&self, id: Uuid) -> Outcome<Probe> {
        Ok(match self.whole(id).await? {
            Ok(whole) => Probe::Current(whole.version),
            Err(absence) => Probe::Absent(absence),
        })
    }

    pub(super) async fn read_container(&self, id: Uuid) -> Outcome<ReadOutcome> {
        let whole = match self.whole(id).await? {
            Ok(whole) => whole,
            Err(absence) => return Ok(ReadOutcome::Absent(absence)),
        };
        let mut parts = BTreeMap::new();
        let mut size = 0;
        for (name, secret) in whole.parts {
            match self.api.value(secret).await? {
                Value::Bytes(bytes) => {
                    size += bytes.len();
                    if size > self.limits.payload {
                        return Err(too_large(id, self.limits.payload));
                    }
                    parts.insert(name, bytes);
                }
                Value::Empty => return Ok(ReadOutcome::Absent(Absence::Empty)),
                Value::Missing => return Ok(ReadOutcome::Absent(self.missing(secret).await?)),
            }
        }
        Ok(ReadOutcome::Value(Reading {
            version: whole.version,
            payload: Payload::Parts(parts),
        }))
    }

    /// Looks at the container, and once at each of its secrets.
    async fn whole(&self, id: Uuid) -> Outcome<Result<Whole, Absence>> {
        let Some(container) = self.api.container(id).await? else {
            return Ok(Err(Absence::NotFound));
        };
        check_parts(id, &container)?;
        if container.parts.is_empty() {
            return Ok(Err(Absence::Empty));
        }
        let secrets: Vec<Uuid> = container.parts.iter().map(|(_, secret)| *secret).collect();
        let known: Vec<Option<Known>> = futures::stream::iter(secrets)
            .map(|secret| self.fact(secret))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let read_at = now();
        let mut version = RemoteVersion {
            number: None,
            id: Some(identity(id, &container)),
            created: Some(container.created),
            expires: None,
        };
        for known in known {
            let Some(known) = known else {
                return Ok(Err(Absence::NotFound));
            };
            if known.expires.is_some_and(|expires| expires <= read_at) {
                return Ok(Err(Absence::Expired));
            }
            // Barbican notes no time when references change. A secret made later makes the container newer; a secret
            // that was taken out, or deleted, does not, and so is not taken without somebody's word.
            version.created = version.created.max(Some(known.created));
            // The container ends with the first of its parts.
            version.expires = [version.expires, known.expires].into_iter().flatten().min();
        }
        Ok(Ok(Whole {
            version,
            parts: container.parts,
        }))
    }

    async fn fact(&self, secret: Uuid) -> Outcome<Option<Known>> {
        if let Some(known) = self.memory.known(secret) {
            return Ok(Some(known));
        }
        self.by_id(secret, Age::Now).await?;
        Ok(self.memory.known(secret))
    }

    /// Why a part has no value.
    async fn missing(&self, secret: Uuid) -> Outcome<Absence> {
        Ok(match self.api.entry(secret).await? {
            Some(_) => Absence::Empty,
            None => self.memory.absence(secret, now()),
        })
    }
}

/// What tells one state of a container from another: its id and a digest of its references. The digest need not
/// withstand an attack: whoever can choose the references can choose the values.
fn identity(id: Uuid, container: &Container) -> String {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let fields = container
        .parts
        .iter()
        .flat_map(|(name, secret)| [name.as_bytes(), &[0], secret.as_bytes()]);
    let digest = fields.flatten().fold(BASIS, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(PRIME)
    });
    format!("{id}+{digest:016x}")
}

fn check_parts(id: Uuid, container: &Container) -> Outcome<()> {
    if container.parts.len() > MOST_PARTS {
        return Err(Fault::new(
            Class::Permanent,
            Reason::FindLimit,
            format!("container `{id}` has more than {MOST_PARTS} parts"),
        ));
    }
    // Sorted by name, so equal names are neighbours.
    if container.parts.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(Fault::new(
            Class::Permanent,
            Reason::KeyConflict,
            format!("container `{id}` has two parts of one name"),
        )
        .advise("remove one of them, or name the secrets by their own UUIDs"));
    }
    Ok(())
}

fn too_large(id: Uuid, limit: usize) -> Fault {
    Fault::new(
        Class::Permanent,
        Reason::RemoteTooLarge,
        format!("the parts of container `{id}` have more than {limit} bytes together"),
    )
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn container(parts: &[(&str, u128)]) -> Container {
        Container {
            created: DateTime::UNIX_EPOCH,
            parts: parts
                .iter()
                .map(|(name, id)| ((*name).to_owned(), Uuid::from_u128(*id)))
                .collect(),
        }
    }

    #[test]
    fn another_reference_or_name_is_another_identity() {
        let of = |parts: &[(&str, u128)]| identity(Uuid::nil(), &container(parts));
        let before = of(&[("a", 1), ("b", 2)]);
        assert_eq!(before, of(&[("a", 1), ("b", 2)]));
        for other in [
            of(&[("a", 1), ("b", 3)]),
            of(&[("a", 1), ("c", 2)]),
            of(&[("a", 1)]),
        ] {
            assert_ne!(before, other);
        }
    }

    #[test]
    fn two_parts_of_one_name_are_refused() {
        assert!(check_parts(Uuid::nil(), &container(&[("a", 1), ("b", 1)])).is_ok());
        let fault = check_parts(Uuid::nil(), &container(&[("a", 1), ("a", 2)])).unwrap_err();
        assert_eq!(fault.reason, Reason::KeyConflict);
    }
}
