//! The store against a stand-in: logins, answers, faults.

mod logins;
mod reads;
mod silence;

use super::testing::{CANARY, Cloud};
use crate::stores::{Absence, Place, Probe, ReadOutcome, RemoteRef, RemoteVersion, Store};

fn name(name: &str) -> RemoteRef {
    newest(Place::Name(name.into()))
}

fn id(id: u128) -> RemoteRef {
    newest(Place::Uuid(uuid::Uuid::from_u128(id).to_string()))
}

fn newest(place: Place) -> RemoteRef {
    RemoteRef { place, version: None }
}

fn current(probe: Probe) -> RemoteVersion {
    match probe {
        Probe::Current(version) => version,
        other => panic!("{other:?}"),
    }
}

fn absent(outcome: &ReadOutcome) -> Absence {
    match outcome {
        ReadOutcome::Absent(absence) => *absence,
        ReadOutcome::Value(_) => panic!("a value was read"),
    }
}
