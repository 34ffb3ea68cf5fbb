//! The store against the stand-in: what real servers cannot be made to show, and what it takes. What both show is
//! the contract (`tests/suites/contract`).

mod faults;
mod listings;
mod logins;
mod silence;

use super::testing::{CANARY, Cloud};
use crate::stores::{
    Absence, FindQuery, Payload, Place, Probe, ReadOutcome, Reading, RemoteRef, RemoteVersion, Store,
};

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

async fn value(store: &impl Store, place: &RemoteRef) -> Reading {
    match store.read(place).await.unwrap() {
        ReadOutcome::Value(reading) => reading,
        ReadOutcome::Absent(absence) => panic!("{absence:?}"),
    }
}

fn bytes(reading: &Reading) -> &[u8] {
    match &reading.payload {
        Payload::Bytes(bytes) => bytes.expose(),
        _ => panic!("another shape of value"),
    }
}

fn everything(prefix: &str) -> FindQuery {
    FindQuery {
        prefix: prefix.into(),
        tags: std::collections::BTreeMap::new(),
        limit: 1000,
    }
}
