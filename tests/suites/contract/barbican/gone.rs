//! The ways in which a value is missing, and how it comes back.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use keyward::stores::pacing::Unpaced;
use keyward::stores::{Absence, FindQuery, Payload, Probe, Store};
use keyward_tests::harness::Suite;
use keyward_tests::rig::openstack::{Container, ContainerKind, NewSecret};
use keyward_tests::rig::poll;

use super::server::Server;
use super::{absence_at, bytes_at, container, name, next_second, reading_at, uuid, version_at};

/// A UUID that nothing has.
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

pub(super) fn register(suite: &mut Suite) {
    super::cases!(
        suite,
        what_never_was_is_not_found,
        a_secret_without_a_value_is_empty_until_it_has_one,
        a_deleted_secret_is_not_found_and_one_of_its_name_takes_its_place,
        an_expired_secret_is_expired,
        what_a_search_found_and_lists_no_more_is_told_by_name_as_by_uuid,
        a_deleted_secret_drops_out_of_its_container,
        a_container_without_a_value_in_it_is_empty,
    );
}

async fn what_never_was_is_not_found(server: Server) -> Result<()> {
    let store = server.store().await?;
    for place in [name("none"), uuid(NOBODY), container(NOBODY)] {
        assert_eq!(absence_at(&store, &place).await?, Absence::NotFound, "{place:?}");
    }
    Ok(())
}

async fn a_secret_without_a_value_is_empty_until_it_has_one(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let id = keys.store_without_payload(&NewSecret::named("later")).await?;
    for place in [name("later"), uuid(&id)] {
        assert_eq!(absence_at(&store, &place).await?, Absence::Empty, "{place:?}");
    }
    keys.set_payload(&id, b"now").await?.ok("set the payload")?;
    store.forget_listings();
    for place in [name("later"), uuid(&id)] {
        version_at(&store, &place).await?;
        assert_eq!(bytes_at(&store, &place).await?, b"now");
    }
    Ok(())
}

async fn a_deleted_secret_is_not_found_and_one_of_its_name_takes_its_place(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let id = keys.store(&NewSecret::named("db"), b"first").await?;
    for place in [name("db"), uuid(&id)] {
        version_at(&store, &place).await?;
    }
    keys.delete(&id).await?;
    store.forget_listings();
    for place in [name("db"), uuid(&id)] {
        assert_eq!(absence_at(&store, &place).await?, Absence::NotFound, "{place:?}");
    }
    let second = keys.store(&NewSecret::named("db"), b"second").await?;
    store.forget_listings();
    assert_eq!(version_at(&store, &name("db")).await?.id, Some(second));
    assert_eq!(bytes_at(&store, &name("db")).await?, b"second");
    assert_eq!(absence_at(&store, &uuid(&id)).await?, Absence::NotFound);
    Ok(())
}

async fn an_expired_secret_is_expired(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    store.check().await?;
    let lasting = keys.store(&NewSecret::named("lasting"), b"value").await?;
    let end = now() + TimeDelta::seconds(25);
    let id = keys
        .store(&NewSecret::named("ending").expires(end), b"value")
        .await?;
    assert_eq!(version_at(&store, &uuid(&lasting)).await?.expires, None);
    for place in [name("ending"), uuid(&id)] {
        let expires = version_at(&store, &place).await?.expires;
        assert_eq!(
            expires.map(|at| at.timestamp_micros()),
            Some(end.timestamp_micros())
        );
    }
    poll::until("the expiry", Duration::from_mins(1), || async { now() > end }).await?;
    for place in [name("ending"), uuid(&id)] {
        assert_eq!(absence_at(&store, &place).await?, Absence::Expired, "{place:?}");
    }
    let stranger = server.store().await?;
    let probe = stranger.probe(&uuid(&id)).await?;
    assert_eq!(
        probe,
        Probe::Absent(Absence::NotFound),
        "the server itself does not tell"
    );
    Ok(())
}

/// A search gives UUIDs. Who asks for one of its matches later may do so by name.
async fn what_a_search_found_and_lists_no_more_is_told_by_name_as_by_uuid(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let deleted = keys.store(&NewSecret::named("apps/deleted"), b"value").await?;
    let end = now() + TimeDelta::seconds(25);
    let ending = NewSecret::named("apps/ending").expires(end);
    let expired = keys.store(&ending, b"value").await?;
    let empty = keys
        .store_without_payload(&NewSecret::named("apps/empty"))
        .await?;
    let query = FindQuery {
        prefix: "apps/".into(),
        tags: BTreeMap::new(),
        limit: 9,
    };
    let found: Vec<String> = store
        .find(&query, &Unpaced)
        .await?
        .into_iter()
        .map(|found| found.name)
        .collect();
    assert_eq!(found, ["apps/deleted", "apps/empty", "apps/ending"]);

    keys.delete(&deleted).await?;
    store.forget_listings();
    poll::until("the expiry", Duration::from_mins(1), || async { now() > end }).await?;
    for (called, id, absence) in [
        ("apps/deleted", &deleted, Absence::NotFound),
        ("apps/ending", &expired, Absence::Expired),
        ("apps/empty", &empty, Absence::Empty),
    ] {
        for place in [name(called), uuid(id)] {
            assert_eq!(absence_at(&store, &place).await?, absence, "{place:?}");
        }
    }
    // An older secret of the name stands for it from then on.
    let older = keys.store(&NewSecret::named("apps/twice"), b"older").await?;
    next_second(&keys, &older).await?;
    let newer = keys.store(&NewSecret::named("apps/twice"), b"newer").await?;
    store.forget_listings();
    assert_eq!(
        version_at(&store, &name("apps/twice")).await?.id,
        Some(newer.clone())
    );
    keys.delete(&newer).await?;
    store.forget_listings();
    assert_eq!(version_at(&store, &name("apps/twice")).await?.id, Some(older));
    assert_eq!(absence_at(&store, &uuid(&newer)).await?, Absence::NotFound);
    Ok(())
}

async fn a_deleted_secret_drops_out_of_its_container(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let one = keys.store(&NewSecret::named("one"), b"1").await?;
    let two = keys.store(&NewSecret::named("two"), b"2").await?;
    let wanted = Container {
        name: "bag",
        kind: ContainerKind::Generic,
        secrets: &[("one", &one), ("two", &two)],
    };
    let id = keys.create_container(&wanted).await?;
    let bag = container(&id);
    let whole = version_at(&store, &bag).await?;
    keys.delete(&two).await?;
    let without = version_at(&store, &bag).await?;
    ensure!(
        without.id != whole.id,
        "another state of the container is another version"
    );
    assert_eq!(without.created, whole.created, "what lacks a part is not newer");
    let Payload::Parts(parts) = reading_at(&store, &bag).await?.payload else {
        bail!("a container has parts")
    };
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["one"]);

    keys.delete_container(&id).await?;
    assert_eq!(absence_at(&store, &bag).await?, Absence::NotFound);
    Ok(())
}

async fn a_container_without_a_value_in_it_is_empty(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let waiting = keys.store_without_payload(&NewSecret::named("waiting")).await?;
    for secrets in [&[][..], &[("waiting", waiting.as_str())]] {
        let wanted = Container {
            name: "bag",
            kind: ContainerKind::Generic,
            secrets,
        };
        let bag = container(&keys.create_container(&wanted).await?);
        let read = store.read(&bag).await?;
        ensure!(
            matches!(read, keyward::stores::ReadOutcome::Absent(Absence::Empty)),
            "{secrets:?}"
        );
    }
    Ok(())
}

fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}
