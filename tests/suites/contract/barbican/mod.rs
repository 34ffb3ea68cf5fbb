//! What Keyward relies on in Keystone and Barbican.

mod facts;
mod gone;
mod logins;
mod server;
mod values;

use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use chrono::{DateTime, TimeDelta, Utc};
use keyward::stores::{
    Absence, Payload, Place, Probe, ReadOutcome, Reading, RemoteRef, RemoteVersion, Store,
};
use keyward_tests::harness::Suite;
use keyward_tests::rig::openstack::KeyManager;
use keyward_tests::rig::poll;

pub(super) fn register(suite: &mut Suite) {
    logins::register(suite);
    values::register(suite);
    gone::register(suite);
    facts::register(suite);
}

/// Registers cases twice: against the real servers and against the stand-in.
macro_rules! cases {
    ($suite:expr, $($case:ident),+ $(,)?) => { $(
        $suite.add(concat!(module_path!(), "::real"), stringify!($case), |case| async move {
            $case($crate::contract::barbican::server::Server::real(case).await?).await
        });
        $suite.add(concat!(module_path!(), "::stand_in"), stringify!($case), |case| async move {
            $case($crate::contract::barbican::server::Server::stand_in(case).await?).await
        });
    )+ };
}
use cases;

fn name(name: &str) -> RemoteRef {
    newest(Place::Name(name.to_owned()))
}

fn uuid(id: &str) -> RemoteRef {
    newest(Place::Uuid(id.to_owned()))
}

fn container(id: &str) -> RemoteRef {
    newest(Place::Container(id.to_owned()))
}

fn newest(place: Place) -> RemoteRef {
    RemoteRef { place, version: None }
}

/// What a probe says is there.
async fn version_at(store: &impl Store, place: &RemoteRef) -> Result<RemoteVersion> {
    match store.probe(place).await? {
        Probe::Current(version) => Ok(version),
        other => bail!("{other:?}"),
    }
}

/// What a probe and a read say is missing; they must agree.
async fn absence_at(store: &impl Store, place: &RemoteRef) -> Result<Absence> {
    match (store.probe(place).await?, store.read(place).await?) {
        (Probe::Absent(probed), ReadOutcome::Absent(read)) if probed == read => Ok(read),
        (Probe::Absent(probed), ReadOutcome::Absent(read)) => {
            bail!("{probed:?} when probed, {read:?} when read")
        }
        _ => bail!("something is there"),
    }
}

async fn reading_at(store: &impl Store, place: &RemoteRef) -> Result<Reading> {
    match store.read(place).await? {
        ReadOutcome::Value(reading) => Ok(reading),
        ReadOutcome::Absent(absence) => bail!("there is nothing: {absence:?}"),
    }
}

async fn bytes_at(store: &impl Store, place: &RemoteRef) -> Result<Vec<u8>> {
    match reading_at(store, place).await?.payload {
        Payload::Bytes(bytes) => Ok(bytes.expose().to_vec()),
        _ => bail!("the payload is of another shape"),
    }
}

/// Waits until the next secret is made in a later second than this one: Barbican orders by that.
async fn next_second(keys: &KeyManager, id: &str) -> Result<()> {
    let made: DateTime<Utc> = format!("{}Z", keys.describe(id).await?.text("/created")?).parse()?;
    poll::until("the next second", Duration::from_secs(30), || async {
        DateTime::<Utc>::from(SystemTime::now()) >= made + TimeDelta::seconds(1)
    })
    .await
}
