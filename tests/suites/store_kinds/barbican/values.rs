//! What Barbican holds arrives as it is: by name, by UUID, by container, by search; and what happens when it goes.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use keyward::runtime::clock;
use keyward_crds::ACKNOWLEDGE_ANNOTATION;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::kubernetes::ApiRequest;
use keyward_tests::rig::openstack::{Container, ContainerKind, NewSecret, SecretKind, Service, What};
use keyward_tests::rig::poll;
use serde_json::json;

use super::{Cloud, next_second};
use crate::scene::{FIRST, SOON, acknowledgement_in, message_of};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        the_newest_secret_of_a_name_or_one_uuid_is_read,
        a_refresh_of_many_names_costs_the_pages_of_the_project,
        every_byte_arrives_and_sizes_end_where_barbican_says,
        containers_become_keys,
        a_search_finds_by_prefix_pattern_and_tags,
        an_expiry_is_warned_of_and_the_value_outlives_it,
        a_deleted_secret_is_kept_until_one_of_its_name_comes,
        what_a_search_loses_is_kept_until_one_of_its_name_comes,
        a_secret_without_a_value_keeps_the_last_one_until_it_has_one,
    );
}

async fn a_refresh_of_many_names_costs_the_pages_of_the_project(case: Case) -> Result<()> {
    // Two pages of a hundred.
    const SECRETS: usize = 101;
    const OBJECTS: usize = 20;
    let cloud = Cloud::new(&case).await?;
    let (scene, keys) = (&cloud.scene, cloud.tenant.key_manager());
    let spec = cloud.by_credential("login").await?;
    scene.store("barbican", &spec).await?;
    let credential = spec["barbican"]["auth"]["applicationCredential"]["id"].as_str();
    let credential = credential.context("it logs in by one")?;
    for number in 0..SECRETS {
        keys.store(&NewSecret::named(&format!("many-{number}")), b"same")
            .await?;
    }
    let operator = scene.operator().await?;
    for number in 0..OBJECTS {
        let source = json!({
            "storeRef": {"name": "barbican"}, "name": format!("many-{number}"), "key": "password",
        });
        // Longer than a listing may answer, also where a turn begins late on a busy machine.
        let spec = json!({"sources": [source], "refresh": {"interval": "15s"}});
        scene.synced(&format!("many-{number}"), &spec).await?;
    }
    for number in 0..OBJECTS {
        scene.ready(&format!("many-{number}")).await?;
    }
    let turn = async || {
        let now = clock::now();
        for number in 0..OBJECTS {
            scene
                .looked_since(&operator, &format!("many-{number}"), now)
                .await?;
        }
        anyhow::Ok(())
    };
    // What was listed for the first sync serves each name once. From the second turn on, all ask for the next listing.
    turn().await?;
    turn().await?;

    let log = cloud.servers.access_log(Service::Barbican);
    let keystone = cloud.servers.access_log(Service::Keystone);
    let (mark, logins) = (log.mark()?, keystone.mark()?);
    let cluster = scene.kubernetes.audit().mark().await?;
    turn().await?;
    turn().await?;
    let requests = scene.asked_of_kubernetes(cluster).await?;
    let is_write = |request: &&ApiRequest| !["get", "list"].contains(&request.verb.as_str());
    let writes: Vec<&ApiRequest> = requests.iter().filter(is_write).collect();
    ensure!(writes.is_empty(), "{writes:?}");
    assert_eq!(keystone.logins(logins, credential)?.len(), 0);
    let count = |what| log.count(mark, &cloud.tenant.project_id, what);
    assert_eq!(count(What::SecretList)?, 4, "two pages in each of two turns");
    assert_eq!(
        count(What::Payload)? + count(What::Secret)? + count(What::UserMetadata)?,
        0
    );
    Ok(())
}

async fn the_newest_secret_of_a_name_or_one_uuid_is_read(case: Case) -> Result<()> {
    let cloud = Cloud::working(&case).await?;
    let (scene, keys) = (&cloud.scene, cloud.tenant.key_manager());
    let old = keys.store(&NewSecret::named("db"), b"old").await?;
    next_second(&old, &cloud).await?;
    keys.store(&NewSecret::named("db"), b"new").await?;
    // Names are matched exactly.
    keys.store(&NewSecret::named("db-2"), b"another").await?;
    let _operator = scene.operator().await?;
    cloud
        .synced("by-name", &json!({"name": "db", "key": "password"}))
        .await?;
    cloud
        .synced("by-uuid", &json!({"uuid": old, "key": "password"}))
        .await?;
    scene.holds("by-name", &[("password", "new")]).await?;
    scene.holds("by-uuid", &[("password", "old")]).await?;

    let log = cloud.servers.access_log(Service::Barbican);
    let mark = log.mark()?;
    keys.store(&NewSecret::named("db"), b"newest").await?;
    scene.refresh("by-name").await?;
    scene.holds("by-name", &[("password", "newest")]).await?;
    scene.ready("by-name").await?;
    let payloads = log.count(mark, &cloud.tenant.project_id, What::Payload)?;
    assert_eq!(payloads, 1, "only what is new is read");
    Ok(())
}

async fn every_byte_arrives_and_sizes_end_where_barbican_says(case: Case) -> Result<()> {
    let cloud = Cloud::working(&case).await?;
    let (scene, keys) = (&cloud.scene, cloud.tenant.key_manager());
    let every_byte: Vec<u8> = (0..=255).collect();
    let (single, double) = (vec![0xff; 15_000], vec![0x0a; 20_000]);
    keys.store(
        &NewSecret::named("bytes").kind(SecretKind::Symmetric),
        &every_byte,
    )
    .await?;
    keys.store(&NewSecret::named("single"), &single).await?;
    ensure!(
        keys.store(&NewSecret::named("too-long"), &vec![1; 20_001])
            .await
            .is_err(),
        "Barbican has a limit"
    );
    keys.store_in_two_steps(&NewSecret::named("double"), &double)
        .await?;
    keys.store_without_payload(&NewSecret::named("empty")).await?;
    let operator = scene.operator().await?;
    for name in ["bytes", "single", "double", "empty"] {
        cloud.synced(name, &json!({"name": name, "key": "value"})).await?;
    }
    for (name, wanted) in [("bytes", every_byte), ("single", single), ("double", double)] {
        scene.ready(name).await?;
        let values = scene.values(name).await?.context("there is a Secret")?;
        ensure!(
            values == BTreeMap::from([("value".to_owned(), wanted)]),
            "{name} is not what went in"
        );
    }
    scene.told(&operator, "empty", "RemoteEmpty", "no value").await?;
    ensure!(scene.values("empty").await?.is_none());
    Ok(())
}

async fn containers_become_keys(case: Case) -> Result<()> {
    let cloud = Cloud::working(&case).await?;
    let (scene, keys) = (&cloud.scene, cloud.tenant.key_manager());
    let part =
        async |kind, payload: &'static [u8]| keys.store(&NewSecret::named("part").kind(kind), payload).await;
    let certificate = part(SecretKind::Certificate, b"certificate").await?;
    let private = part(SecretKind::Private, b"private").await?;
    let public = part(SecretKind::Public, b"public").await?;
    let chain = part(SecretKind::Certificate, b"chain").await?;
    let make = async |name: &str, kind, secrets: &[(&str, &str)]| {
        let container = Container { name, kind, secrets };
        let id = keys.create_container(&container).await?;
        cloud.synced(name, &json!({ "container": id })).await?;
        anyhow::Ok(id)
    };
    let _operator = scene.operator().await?;
    let parts = [
        ("certificate", certificate.as_str()),
        ("private_key", &private),
        ("intermediates", &chain),
    ];
    let tls = make("tls", ContainerKind::Certificate, &parts).await?;
    let parts = [("public_key", public.as_str()), ("private_key", &private)];
    make("pair", ContainerKind::Rsa, &parts).await?;
    let parts = [("one", public.as_str()), ("two.pem", &chain)];
    make("bag", ContainerKind::Generic, &parts).await?;
    let chosen = json!({
        "storeRef": {"name": "barbican"}, "container": tls,
        "fields": [
            {"field": "certificate", "key": "tls.crt"},
            {"field": "private_key", "key": "tls.key"},
        ],
    });
    let spec = json!({"sources": [chosen], "target": {"type": "kubernetes.io/tls"}});
    scene.synced("chosen", &spec).await?;
    scene
        .holds(
            "tls",
            &[
                ("certificate", "certificate"),
                ("private_key", "private"),
                ("intermediates", "chain"),
            ],
        )
        .await?;
    scene
        .holds("chosen", &[("tls.crt", "certificate"), ("tls.key", "private")])
        .await?;
    scene
        .holds("pair", &[("public_key", "public"), ("private_key", "private")])
        .await?;
    scene
        .holds("bag", &[("one", "public"), ("two.pem", "chain")])
        .await
}

async fn a_search_finds_by_prefix_pattern_and_tags(case: Case) -> Result<()> {
    let cloud = Cloud::working(&case).await?;
    let (scene, keys) = (&cloud.scene, cloud.tenant.key_manager());
    for name in ["svc-nova", "svc-glance", "svc-nova-old", "other"] {
        let id = keys
            .store(&NewSecret::named(name), format!("of {name}").as_bytes())
            .await?;
        if name == "svc-glance" {
            keys.set_metadata(&id, &[("team", "images")]).await?;
        }
    }
    let operator = scene.operator().await?;
    for (name, find) in [
        ("prefix", json!({"prefix": "svc-"})),
        ("pattern", json!({"prefix": "svc-", "pattern": "svc-[a-z]+"})),
        ("tags", json!({"tags": {"team": "images"}})),
        ("cap", json!({"prefix": "svc-", "max": 2})),
        ("nothing", json!({"prefix": "no-such-"})),
    ] {
        cloud.synced(name, &json!({ "find": find })).await?;
    }
    scene
        .holds(
            "prefix",
            &[
                ("svc-nova", "of svc-nova"),
                ("svc-glance", "of svc-glance"),
                ("svc-nova-old", "of svc-nova-old"),
            ],
        )
        .await?;
    scene
        .holds(
            "pattern",
            &[("svc-nova", "of svc-nova"), ("svc-glance", "of svc-glance")],
        )
        .await?;
    scene.holds("tags", &[("svc-glance", "of svc-glance")]).await?;
    scene.told(&operator, "cap", "FindLimit", "2").await?;
    scene.reason("nothing", "RemoteNotFound").await?;
    Ok(())
}

async fn an_expiry_is_warned_of_and_the_value_outlives_it(case: Case) -> Result<()> {
    let cloud = Cloud::working(&case).await?;
    let (scene, keys) = (&cloud.scene, cloud.tenant.key_manager());
    let soon = now() + TimeDelta::seconds(30);
    keys.store(&NewSecret::named("brief").expires(soon), b"brief")
        .await?;
    keys.store(
        &NewSecret::named("distant").expires(now() + TimeDelta::days(400)),
        b"distant",
    )
    .await?;
    let operator = scene.operator().await?;
    for name in ["brief", "distant"] {
        cloud.synced(name, &json!({"name": name, "key": "value"})).await?;
    }
    scene.holds("brief", &[("value", "brief")]).await?;
    let note = scene.event("brief", "RemoteExpiring").await?;
    ensure!(note.contains(&soon.format("%Y-%m-%d").to_string()), "{note}");
    let distant = scene.ready("distant").await?;
    let versions = distant.status.map(|status| status.versions).unwrap_or_default();
    ensure!(versions.iter().all(|version| version.expires.is_some()));
    ensure!(scene.events("distant", "RemoteExpiring").await?.is_empty());

    poll::until("the expiry", SOON, || async { now() > soon }).await?;
    scene.refresh("brief").await?;
    scene.told(&operator, "brief", "RemoteExpired", "expired").await?;
    scene.holds("brief", &[("value", "brief")]).await?;
    keys.store(&NewSecret::named("brief"), b"again").await?;
    scene.refresh("brief").await?;
    scene.holds("brief", &[("value", "again")]).await?;
    scene.ready("brief").await?;
    Ok(())
}

async fn a_deleted_secret_is_kept_until_one_of_its_name_comes(case: Case) -> Result<()> {
    let cloud = Cloud::working(&case).await?;
    let (scene, keys) = (&cloud.scene, cloud.tenant.key_manager());
    let id = keys.store(&NewSecret::named("db"), b"first").await?;
    let operator = scene.operator().await?;
    cloud
        .synced("db", &json!({"name": "db", "key": "password"}))
        .await?;
    cloud
        .synced("one", &json!({"uuid": id, "key": "password"}))
        .await?;
    scene.holds("db", &[("password", "first")]).await?;
    scene.holds("one", &[("password", "first")]).await?;
    keys.delete(&id).await?;
    for name in ["db", "one"] {
        scene.refresh(name).await?;
        // Barbican does not tell what was deleted from what never was.
        scene.told(&operator, name, "RemoteNotFound", "").await?;
        scene.holds(name, &[("password", "first")]).await?;
    }
    keys.store(&NewSecret::named("db"), b"second").await?;
    scene.refresh("db").await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.ready("db").await?;
    scene.holds("one", &[("password", "first")]).await
}

async fn what_a_search_loses_is_kept_until_one_of_its_name_comes(case: Case) -> Result<()> {
    let cloud = Cloud::working(&case).await?;
    let (scene, keys) = (&cloud.scene, cloud.tenant.key_manager());
    let id = keys.store(&NewSecret::named("svc-a"), b"a").await?;
    keys.store(&NewSecret::named("svc-b"), b"b").await?;
    let operator = scene.operator().await?;
    let found = json!({"find": {"prefix": "svc-"}});
    cloud.synced("found", &found).await?;
    scene.holds("found", &[("svc-a", "a"), ("svc-b", "b")]).await?;
    next_second(&id, &cloud).await?;
    keys.delete(&id).await?;
    scene.refresh("found").await?;
    let words = "secret `svc-a` is no longer listed and is not there";
    scene.told(&operator, "found", "RemoteNotFound", words).await?;
    scene.holds("found", &[("svc-a", "a"), ("svc-b", "b")]).await?;
    // Another secret of the name is the same key with a later version.
    let id = keys.store(&NewSecret::named("svc-a"), b"again").await?;
    scene.refresh("found").await?;
    scene
        .holds("found", &[("svc-a", "again"), ("svc-b", "b")])
        .await?;
    scene.ready("found").await?;
    keys.delete(&id).await?;
    scene.refresh("found").await?;
    let object = scene.told(&operator, "found", "RemoteNotFound", words).await?;
    let words = acknowledgement_in(message_of(&object)?)?;
    ensure!(words.contains(&id), "{words}");
    scene.annotate("found", ACKNOWLEDGE_ANNOTATION, words).await?;
    scene.holds("found", &[("svc-b", "b")]).await?;
    scene.ready("found").await.map(drop)
}

async fn a_secret_without_a_value_keeps_the_last_one_until_it_has_one(case: Case) -> Result<()> {
    let cloud = Cloud::with_db(&case).await?;
    let (scene, keys) = (&cloud.scene, cloud.tenant.key_manager());
    let spec = cloud.by_credential("login").await?;
    scene.store("barbican", &spec).await?;
    let operator = scene.operator().await?;
    cloud
        .synced("db", &json!({"name": "db", "key": "password"}))
        .await?;
    scene.holds("db", &FIRST).await?;
    let made = scene.ready("db").await?.status.map(|status| status.versions);
    let id = made.into_iter().flatten().find_map(|version| version.id);
    next_second(&id.context("the version names its secret")?, &cloud).await?;
    let id = keys.store_without_payload(&NewSecret::named("db")).await?;
    scene.refresh("db").await?;
    scene
        .told(&operator, "db", "RemoteEmpty", "exists and holds no value")
        .await?;
    scene.holds("db", &FIRST).await?;
    keys.set_payload(&id, b"second").await?.ok("set the value")?;
    scene.refresh("db").await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.ready("db").await.map(drop)
}

fn now() -> DateTime<Utc> {
    std::time::SystemTime::now().into()
}
