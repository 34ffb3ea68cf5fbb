//! The one place where types of the API and of the stores become the plain data that decisions are made of, and back.

use keyward_core::sync::absence::{self, Absence, Acknowledgement};
use keyward_core::sync::decode::Decode;
use keyward_core::sync::keys::ConflictRule;
use keyward_core::sync::lineage::{Accepted, Origin, SourceId};
use keyward_core::sync::ownership::Adoption;
use keyward_core::sync::version::SeenVersion;
use keyward_crds::synced_secret as api;
use keyward_crds::{ACKNOWLEDGE_ANNOTATION, REFRESH_ANNOTATION, SyncedSecret};

use crate::stores::RemoteVersion;

/// The versions that a status says were accepted.
pub(super) fn accepted(versions: &[api::AcceptedVersion]) -> Vec<Accepted> {
    let accepted = versions.iter().map(|version| Accepted {
        origin: Origin {
            source: usize::try_from(version.source).unwrap_or_default(),
            asked: SourceId::kept(&version.asked),
            found_as: version.place.clone(),
        },
        version: SeenVersion {
            number: version.number.and_then(|number| u64::try_from(number).ok()),
            id: version.id.clone(),
            created: version.created,
        },
        expires: version.expires,
        gone: version.gone.map(|gone| match gone {
            api::Gone::Deleted => Absence::Deleted,
            api::Gone::Destroyed => Absence::Destroyed,
        }),
    });
    accepted.collect()
}

/// The same as a status says it.
pub(super) fn versions(accepted: &[Accepted]) -> Vec<api::AcceptedVersion> {
    let versions = accepted.iter().map(|accepted| {
        let Accepted {
            origin,
            version,
            expires,
            gone,
        } = accepted;
        api::AcceptedVersion {
            source: i32::try_from(origin.source).unwrap_or(i32::MAX),
            asked: origin.asked.as_str().to_owned(),
            place: origin.found_as.clone(),
            number: version.number.and_then(|number| i64::try_from(number).ok()),
            id: version.id.clone(),
            created: version.created,
            expires: *expires,
            gone: gone.and_then(|gone| match gone {
                Absence::Deleted => Some(api::Gone::Deleted),
                Absence::Destroyed => Some(api::Gone::Destroyed),
                // For these nothing is ever removed.
                Absence::NotFound | Absence::Expired | Absence::Empty => None,
            }),
        }
    });
    versions.collect()
}

/// A store's version as decisions see it.
pub(super) fn seen(version: &RemoteVersion) -> SeenVersion {
    SeenVersion {
        number: version.number,
        id: version.id.clone(),
        created: version.created,
    }
}

/// What the object asks for when a value is gone.
pub(super) fn when_gone(api: api::WhenGone) -> absence::WhenGone {
    let policy = |policy| match policy {
        api::GonePolicy::Keep => absence::GonePolicy::Keep,
        api::GonePolicy::RemoveKeys => absence::GonePolicy::RemoveKeys,
        api::GonePolicy::DeleteSecret => absence::GonePolicy::DeleteSecret,
    };
    absence::WhenGone {
        deleted: policy(api.deleted),
        destroyed: policy(api.destroyed),
    }
}

/// What happens when two sources give the same key.
pub(super) fn conflict_rule(api: api::ConflictRule) -> ConflictRule {
    match api {
        api::ConflictRule::Fail => ConflictRule::Fail,
        api::ConflictRule::FirstWins => ConflictRule::FirstWins,
        api::ConflictRule::LastWins => ConflictRule::LastWins,
    }
}

/// How a value is decoded.
pub(super) fn decode(api: api::Decode) -> Decode {
    match api {
        api::Decode::None => Decode::None,
        api::Decode::Base64 => Decode::Base64,
        api::Decode::Base64Url => Decode::Base64Url,
        api::Decode::Hex => Decode::Hex,
    }
}

/// How far the consent to write into somebody else's Secret goes.
pub(super) fn adoption(target: &api::Target) -> Adoption {
    let Some(adoption) = &target.adoption else {
        return Adoption::Never;
    };
    match adoption.policy {
        api::AdoptionPolicy::Never => Adoption::Never,
        api::AdoptionPolicy::AddKeys => Adoption::AddKeys,
        api::AdoptionPolicy::TakeKeys => {
            Adoption::TakeKeys(adoption.keys.iter().flatten().cloned().collect())
        }
    }
}

/// What somebody says on the object to be meant.
pub(super) fn acknowledgement(object: &SyncedSecret) -> Acknowledgement<'_> {
    Acknowledgement {
        annotation: ACKNOWLEDGE_ANNOTATION,
        given: annotation(object, ACKNOWLEDGE_ANNOTATION),
    }
}

/// The id of the refresh that was asked for last.
pub(super) fn refresh_id(object: &SyncedSecret) -> Option<&str> {
    annotation(object, REFRESH_ANNOTATION)
}

fn annotation<'a>(object: &'a SyncedSecret, name: &str) -> Option<&'a str> {
    let annotations = object.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_comes_back_from_the_status_as_it_went_in() {
        let version = SeenVersion {
            number: Some(7),
            id: Some("3d0b".into()),
            created: chrono::DateTime::from_timestamp(1_800_000_000, 0),
        };
        for (found_as, gone) in [
            (None, None),
            (Some("apps/db".to_owned()), Some(Absence::Deleted)),
            (None, Some(Absence::Destroyed)),
        ] {
            let wanted = Accepted {
                origin: Origin {
                    source: 3,
                    asked: SourceId::of("SecretStore a/b", "path `apps/db`", None),
                    found_as,
                },
                version: version.clone(),
                expires: chrono::DateTime::from_timestamp(1_900_000_000, 0),
                gone,
            };
            assert_eq!(accepted(&versions(std::slice::from_ref(&wanted))), [wanted]);
        }
    }
}
