//! Values by name, by UUID, by container and by search, and what they cost.

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::{join_all, try_join_all};
use keyward::stores::pacing::Unpaced;
use keyward::stores::{Absence, FindQuery, Found, Payload, Place, Probe, RemoteRef, Store};
use keyward_core::fault::Class;
use keyward_core::reason::Reason;
use keyward_tests::harness::Suite;
use keyward_tests::rig::openstack::{Container, ContainerKind, KeyManager, NewSecret, SecretKind, What};
use serde_json::json;

use super::server::{Server, by_credential, gate, open};
use super::{absence_at, bytes_at, container, name, next_second, reading_at, uuid, version_at};

pub(super) fn register(suite: &mut Suite) {
    super::cases!(
        suite,
        the_same_bytes_come_out_up_to_the_largest_size,
        a_name_is_the_newest_of_exactly_this_name,
        a_new_secret_of_the_name_takes_over_and_its_generation_is_read_once,
        a_read_after_its_probe_costs_one_request,
        names_beyond_one_page_cost_the_pages_of_the_project,
        a_backslash_in_a_name_is_a_letter_like_others,
        containers_are_their_parts,
        a_container_of_two_equal_names_is_refused,
        a_search_goes_by_prefix_and_tags_up_to_its_limit,
        a_value_beyond_our_limit_is_refused,
        another_project_is_out_of_reach,
    );
}

async fn the_same_bytes_come_out_up_to_the_largest_size(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let every_byte: Vec<u8> = (0..=255).collect();
    let text = b"  spaces and a last line end \n".to_vec();
    for (title, value) in [
        ("bytes", every_byte),
        ("text", text),
        ("large", vec![0xff; 15_000]),
    ] {
        let id = keys
            .store(&NewSecret::named(title).kind(SecretKind::Symmetric), &value)
            .await?;
        ensure!(bytes_at(&store, &name(title)).await? == value, "{title} by name");
        ensure!(bytes_at(&store, &uuid(&id)).await? == value, "{title} by UUID");
    }
    let id = keys
        .store_in_two_steps(&NewSecret::named("larger"), &vec![10; 20_000])
        .await?;
    ensure!(bytes_at(&store, &uuid(&id)).await? == vec![10; 20_000]);
    Ok(())
}

async fn a_name_is_the_newest_of_exactly_this_name(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let old = keys.store(&NewSecret::named("db_password"), b"old").await?;
    next_second(&keys, &old).await?;
    let new = keys.store(&NewSecret::named("db_password"), b"new").await?;
    // Barbican takes a name for a pattern, and its case does not count there.
    for other in ["db-password", "DB_PASSWORD", "db_password_2"] {
        keys.store(&NewSecret::named(other), b"other").await?;
    }
    for _ in 0..2 {
        // The first answer comes from the project's listing and the second from a listing by name.
        let version = version_at(&store, &name("db_password")).await?;
        assert_eq!(version.id.as_deref(), Some(new.as_str()));
        ensure!(version.created.is_some());
    }
    assert_eq!(bytes_at(&store, &uuid(&old)).await?, b"old");
    assert_eq!(absence_at(&store, &name("db%")).await?, Absence::NotFound);
    Ok(())
}

async fn a_new_secret_of_the_name_takes_over_and_its_generation_is_read_once(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let first = keys.store(&NewSecret::named("db"), b"first").await?;
    keys.set_metadata(&first, &[("Keyward-Generation", "3")]).await?;
    let before = server.mark().await?;
    for _ in 0..2 {
        assert_eq!(version_at(&store, &name("db")).await?.number, Some(3));
    }
    assert_eq!(server.count(before, What::UserMetadata).await?, 1);
    assert_eq!(server.count(before, What::Payload).await?, 0);

    next_second(&keys, &first).await?;
    let second = keys.store(&NewSecret::named("db"), b"second").await?;
    let version = version_at(&store, &name("db")).await?;
    assert_eq!((version.number, version.id), (None, Some(second)));
    assert_eq!(server.count(before, What::UserMetadata).await?, 2);
    let third = RemoteRef {
        version: Some(3),
        ..name("db")
    };
    assert_eq!(reading_at(&store, &third).await?.version.id, Some(first));
    Ok(())
}

async fn a_read_after_its_probe_costs_one_request(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let id = keys.store(&NewSecret::named("db"), b"value").await?;
    for place in [name("db"), uuid(&id)] {
        let version = version_at(&store, &place).await?;
        let before = server.mark().await?;
        assert_eq!(reading_at(&store, &place).await?.version, version);
        let mut asked = Vec::new();
        for what in [What::Payload, What::Secret, What::SecretList, What::UserMetadata] {
            asked.push(server.count(before, what).await?);
        }
        assert_eq!(asked, [1, 0, 0, 0], "{place:?}");
    }
    Ok(())
}

async fn names_beyond_one_page_cost_the_pages_of_the_project(server: Server) -> Result<()> {
    const SECRETS: usize = 101;
    let (keys, store) = (server.keys(), server.store().await?);
    for chunk in (0..SECRETS).collect::<Vec<_>>().chunks(8) {
        let stored = chunk.iter().map(async |n| {
            keys.store(&NewSecret::named(&format!("name-{n}")), b"value")
                .await
        });
        try_join_all(stored).await?;
    }
    let before = server.mark().await?;
    let places: Vec<RemoteRef> = (0..SECRETS).map(|n| name(&format!("name-{n}"))).collect();
    for probe in join_all(places.iter().map(|place| store.probe(place))).await {
        ensure!(matches!(probe, Ok(Probe::Current(_))), "{probe:?}");
    }
    // What the first of them learns, that there is a second page, makes it ask for its own name once.
    let lists = server.count(before, What::SecretList).await?;
    ensure!((2..=4).contains(&lists), "{lists} pages of lists");
    assert_eq!(found(&store, "name-", &[], 1000).await?.len(), SECRETS);
    Ok(())
}

/// In the patterns of most databases it is something else.
async fn a_backslash_in_a_name_is_a_letter_like_others(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let id = keys.store(&NewSecret::named(r"corp\db"), b"value").await?;
    keys.store(&NewSecret::named("corp-db"), b"another").await?;
    for _ in 0..2 {
        // The first answer comes from the project's listing and the second from a listing by name.
        let version = version_at(&store, &name(r"corp\db")).await?;
        assert_eq!(version.id.as_deref(), Some(id.as_str()));
    }
    Ok(())
}

async fn containers_are_their_parts(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let part =
        async |kind, value: &'static [u8]| keys.store(&NewSecret::named("part").kind(kind), value).await;
    let certificate = part(SecretKind::Certificate, b"first").await?;
    let private = part(SecretKind::Private, b"second").await?;
    for (kind, names) in [
        (ContainerKind::Certificate, ["certificate", "private_key"]),
        (ContainerKind::Rsa, ["private_key", "public_key"]),
        (ContainerKind::Generic, ["one", "two.pem"]),
    ] {
        let secrets = [(names[0], certificate.as_str()), (names[1], private.as_str())];
        let id = contain(&keys, kind, &secrets).await?;
        let version = version_at(&store, &container(&id)).await?;
        let reading = reading_at(&store, &container(&id)).await?;
        assert_eq!(reading.version, version);
        let Payload::Parts(parts) = reading.payload else {
            bail!("a container has parts")
        };
        assert_eq!(parts.keys().map(String::as_str).collect::<Vec<_>>(), names);
        ensure!(parts[names[1]].same_as(b"second") && parts[names[0]].same_as(b"first"));

        // An unchanged container costs one request: its parts cannot change.
        let before = server.mark().await?;
        assert_eq!(version_at(&store, &container(&id)).await?, version);
        assert_eq!(server.count(before, What::Container).await?, 1);
        assert_eq!(server.count(before, What::Secret).await?, 0);
    }
    Ok(())
}

async fn a_container_of_two_equal_names_is_refused(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let one = keys.store(&NewSecret::named("one"), b"1").await?;
    let two = keys.store(&NewSecret::named("two"), b"2").await?;
    let secrets = [("current", one.as_str()), ("current", two.as_str())];
    let refused = contain(&keys, ContainerKind::Generic, &secrets).await.err();
    let refused = refused.context("Barbican wants names to differ when a container is made")?;
    ensure!(format!("{refused:#}").contains(": 400 "), "{refused:#}");

    // It does not look at them when a secret is added.
    let id = contain(&keys, ContainerKind::Generic, &secrets[..1]).await?;
    let root = format!("{}/v1", server.servers().await?.key_manager_url());
    let second = json!({ "name": "current", "secret_ref": format!("{root}/secrets/{two}") });
    let session = server.tenant.session();
    session
        .post(&format!("{root}/containers/{id}/secrets"), &second)
        .await?
        .ok("add a secret")?;
    let fault = store
        .read(&container(&id))
        .await
        .err()
        .context("the names are equal")?;
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Permanent, Reason::KeyConflict)
    );
    Ok(())
}

async fn a_search_goes_by_prefix_and_tags_up_to_its_limit(server: Server) -> Result<()> {
    let (keys, store) = (server.keys(), server.store().await?);
    let older = keys.store(&NewSecret::named("apps/a"), b"older").await?;
    keys.set_metadata(&older, &[("team", "b")]).await?;
    next_second(&keys, &older).await?;
    let newer = keys.store(&NewSecret::named("apps/a"), b"newer").await?;
    let other = keys.store(&NewSecret::named("apps/b"), b"b").await?;
    keys.store(&NewSecret::named("application"), b"c").await?;
    for id in [&newer, &other] {
        keys.set_metadata(id, &[("Team", "a"), ("Keyward-Generation", "7")])
            .await?;
    }
    let by_prefix = found(&store, "apps/", &[], 2).await?;
    assert_eq!(names(&by_prefix), ["apps/a", "apps/b"]);
    assert_eq!(by_prefix[0].place, Place::Uuid(newer), "the newest of its name");
    assert_eq!(
        by_prefix[1].version.as_ref().context("it has a version")?.number,
        Some(7)
    );
    assert_eq!(
        names(&found(&store, "", &[("TEAM", "a")], 2).await?),
        ["apps/a", "apps/b"],
        "the limit is on what carries the tags"
    );
    ensure!(
        found(&store, "", &[("team", "a"), ("x", "y")], 9)
            .await?
            .is_empty()
    );
    ensure!(found(&store, "nowhere/", &[], 9).await?.is_empty());
    for tags in [&[][..], &[("team", "a")]] {
        let fault = store
            .find(&query("apps/", tags, 1), &Unpaced)
            .await
            .err()
            .context("two are more than one")?;
        assert_eq!((fault.class, fault.reason), (Class::Permanent, Reason::FindLimit));
    }
    Ok(())
}

async fn a_value_beyond_our_limit_is_refused(server: Server) -> Result<()> {
    let keys = server.keys();
    keys.store(&NewSecret::named("large"), &[b'x'; 1001]).await?;
    keys.store(&NewSecret::named("fits"), &[b'x'; 1000]).await?;
    let mut config = server.config(by_credential(&server.credential().await?)).await?;
    config.limits.payload = 1000;
    let store = open(config, gate()?)?;
    let fault = store
        .read(&name("large"))
        .await
        .err()
        .context("it is too large")?;
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Permanent, Reason::RemoteTooLarge)
    );
    assert_eq!(bytes_at(&store, &name("fits")).await?.len(), 1000);
    Ok(())
}

async fn another_project_is_out_of_reach(server: Server) -> Result<()> {
    use keyward_tests::rig::openstack::Role;
    let other = server.servers().await?.tenant(Role::Member).await?;
    let secret = other
        .key_manager()
        .store(&NewSecret::named("db"), b"value")
        .await?;
    let bag = contain(
        &other.key_manager(),
        ContainerKind::Generic,
        &[("db", secret.as_str())],
    )
    .await?;
    let store = server.store().await?;
    assert_eq!(absence_at(&store, &name("db")).await?, Absence::NotFound);
    for place in [uuid(&secret), container(&bag)] {
        let fault = store.probe(&place).await.err().context("it is another's")?;
        assert_eq!(
            (fault.class, fault.reason),
            (Class::Denied, Reason::RemoteDenied),
            "{place:?}"
        );
    }
    Ok(())
}

async fn contain(keys: &KeyManager, kind: ContainerKind, secrets: &[(&str, &str)]) -> Result<String> {
    let wanted = Container {
        name: "bag",
        kind,
        secrets,
    };
    keys.create_container(&wanted).await
}

fn query(prefix: &str, tags: &[(&str, &str)], limit: usize) -> FindQuery {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    FindQuery {
        prefix: prefix.into(),
        tags: tags.iter().map(own).collect(),
        limit,
    }
}

async fn found(store: &impl Store, prefix: &str, tags: &[(&str, &str)], limit: usize) -> Result<Vec<Found>> {
    Ok(store.find(&query(prefix, tags, limit), &Unpaced).await?)
}

fn names(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| found.name.as_str()).collect()
}
