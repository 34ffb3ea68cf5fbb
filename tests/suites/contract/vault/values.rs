//! Values, versions, the ways of being gone, and searches.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use keyward::stores::pacing::Unpaced;
use keyward::stores::vault::{KvVersion, VaultAuth, VaultStore};
use keyward::stores::{Absence, FindQuery, Payload, Probe, ReadOutcome, RemoteRef, RemoteVersion, Store};
use keyward_core::reason::Reason;
use keyward_tests::harness::Suite;
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use super::at;
use super::server::{Asked, Server};

/// How long anything may take that comes by itself.
const SOON: Duration = Duration::from_mins(1);

pub(super) fn register(suite: &mut Suite) {
    super::cases!(
        suite,
        a_value_is_read_and_a_change_is_seen_without_reading_it,
        the_ways_of_being_gone_are_told_apart,
        a_deletion_to_come_is_an_expiry_and_then_a_deletion,
        version_1_gives_values_without_versions,
        odd_paths_and_values_survive,
        large_numbers_are_kept_by_version_1_and_rounded_by_version_2,
        denied_metadata_leads_to_reading,
        a_policy_that_denies_everything_is_no_absence,
        searches_walk_folders_and_select_by_tags,
        a_wrong_mount_or_version_is_said_plainly,
        a_mount_that_is_upgraded_is_found_out_again,
        a_declared_version_is_believed_and_checked_once,
        a_denied_list_says_what_to_grant,
    );
}

fn of_mount<'a>(requests: &'a [Asked], mount: &str) -> Vec<&'a Asked> {
    let own = requests.iter();
    own.filter(|request| request.path.starts_with(mount)).collect()
}

async fn json_at(store: &VaultStore, place: &RemoteRef) -> Result<(RemoteVersion, Value)> {
    match store.read(place).await? {
        ReadOutcome::Value(reading) => match reading.payload {
            Payload::Json(json) => Ok((reading.version, serde_json::from_slice(json.expose())?)),
            _ => bail!("the payload is not JSON"),
        },
        ReadOutcome::Absent(absence) => bail!("there is nothing: {absence:?}"),
    }
}

/// What a probe and a read say is missing; they must agree. A probe leaves it to the read right after a deletion.
async fn absence_at(store: &VaultStore, place: &RemoteRef) -> Result<Absence> {
    match (store.probe(place).await?, store.read(place).await?) {
        (Probe::NeedsRead, ReadOutcome::Absent(Absence::Deleted)) => Ok(Absence::Deleted),
        (Probe::Absent(probed), ReadOutcome::Absent(read)) if probed == read => Ok(read),
        (Probe::Absent(probed), ReadOutcome::Absent(read)) => {
            bail!("{probed:?} when probed, {read:?} when read")
        }
        _ => bail!("something is there"),
    }
}

async fn version_at(store: &VaultStore, place: &RemoteRef) -> Result<RemoteVersion> {
    match store.probe(place).await? {
        Probe::Current(version) => Ok(version),
        other => bail!("{other:?}"),
    }
}

async fn a_value_is_read_and_a_change_is_seen_without_reading_it(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V2).await?;
    let store = server.store(&mount, server.reader(&mount).await?)?;
    server
        .api()
        .write_secret(&mount, Kv::V2, "app/db", &json!({ "n": 1, "deep": { "a": [1] } }))
        .await?;
    let place = at("app/db");
    let first = version_at(&store, &place).await?;
    assert_eq!(first.number, Some(1));
    assert_eq!(
        json_at(&store, &place).await?,
        (first.clone(), json!({ "n": 1, "deep": { "a": [1] } }))
    );

    server
        .api()
        .write_secret(&mount, Kv::V2, "app/db", &json!({ "n": 2 }))
        .await?;
    let before = server.mark().await?;
    let second = version_at(&store, &place).await?;
    assert_eq!(second.number, Some(2));
    ensure!(second.created > first.created);
    let requests = server.since(before).await?;
    assert_eq!(of_mount(&requests, &mount).len(), 1);
    ensure!(!requests.iter().any(|request| request.is_value_read(&mount)));

    let pinned = RemoteRef {
        version: Some(1),
        ..place
    };
    assert_eq!(version_at(&store, &pinned).await?, first);
    assert_eq!(json_at(&store, &pinned).await?.1["n"], 1);
    Ok(())
}

async fn the_ways_of_being_gone_are_told_apart(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V2).await?;
    let store = server.store(&mount, server.reader(&mount).await?)?;
    let api = server.api();
    let place = at("app");
    assert_eq!(absence_at(&store, &place).await?, Absence::NotFound);

    for n in 1..=2 {
        api.write_secret(&mount, Kv::V2, "app", &json!({ "n": n }))
            .await?;
    }
    let live = version_at(&store, &place).await?;
    api.delete_secret(&mount, "app").await?;
    assert_eq!(absence_at(&store, &place).await?, Absence::Deleted);
    let told = || async { store.probe(&place).await == Ok(Probe::Absent(Absence::Deleted)) };
    poll::until("the deletion to be told without a read", SOON, told).await?;
    api.undelete_secret(&mount, "app", &[2]).await?;
    assert_eq!(json_at(&store, &place).await?, (live, json!({ "n": 2 })));

    api.destroy_secret(&mount, "app", &[2]).await?;
    assert_eq!(absence_at(&store, &place).await?, Absence::Destroyed);
    let older = RemoteRef {
        version: Some(1),
        ..at("app")
    };
    assert_eq!(json_at(&store, &older).await?.1["n"], 1);
    let never = RemoteRef {
        version: Some(7),
        ..at("app")
    };
    assert_eq!(absence_at(&store, &never).await?, Absence::NotFound);

    api.delete_metadata(&mount, "app").await?;
    assert_eq!(absence_at(&store, &place).await?, Absence::NotFound);

    api.set_custom_metadata(&mount, "bare", &BTreeMap::from([("team", "a")]))
        .await?;
    assert_eq!(store.probe(&at("bare")).await?, Probe::Absent(Absence::Empty));
    Ok(())
}

async fn a_deletion_to_come_is_an_expiry_and_then_a_deletion(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V2).await?;
    let store = server.store(&mount, server.reader(&mount).await?)?;
    let ttl = json!({ "delete_version_after": "10s" });
    server.api().write(&format!("{mount}/metadata/app"), &ttl).await?;
    server
        .api()
        .write_secret(&mount, Kv::V2, "app", &json!({ "n": 1 }))
        .await?;
    let place = at("app");
    let version = version_at(&store, &place).await?;
    ensure!(version.expires > version.created, "{version:?}");
    assert_eq!(json_at(&store, &place).await?.0, version);
    let gone = || async { matches!(store.probe(&place).await, Ok(Probe::Absent(Absence::Deleted))) };
    poll::until("the end of the version", SOON, gone).await
}

async fn version_1_gives_values_without_versions(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V1).await?;
    let store = server.store(&mount, server.reader(&mount).await?)?;
    let place = at("app/db");
    server
        .api()
        .write_secret(&mount, Kv::V1, "app/db", &json!({ "n": 1 }))
        .await?;
    let before = server.mark().await?;
    assert_eq!(store.probe(&place).await?, Probe::NeedsRead);
    assert_eq!(
        json_at(&store, &place).await?,
        (RemoteVersion::default(), json!({ "n": 1 }))
    );
    let requests = server.since(before).await?;
    assert_eq!(of_mount(&requests, &mount).len(), 1);

    server.api().delete(&format!("{mount}/app/db")).await?;
    ensure!(matches!(
        store.read(&place).await?,
        ReadOutcome::Absent(Absence::NotFound)
    ));
    let pinned = RemoteRef {
        version: Some(1),
        ..place
    };
    ensure!(
        store
            .read(&pinned)
            .await
            .is_err_and(|fault| fault.reason == Reason::SpecInvalid)
    );
    Ok(())
}

async fn odd_paths_and_values_survive(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V2).await?;
    let store = server.store(&mount, server.reader(&mount).await?)?;
    let value = json!({
        "quote\"": "\u{1}\n\\ ü 🗝", "empty": "", "number": 0.5, "none": null,
    });
    for (written, read) in [
        ("a%20b", "a b"),
        ("%C3%BC/x%3Fy%23", "ü/x?y#"),
        ("100%25", "100%"),
    ] {
        server.api().write_secret(&mount, Kv::V2, written, &value).await?;
        assert_eq!(json_at(&store, &at(read)).await?.1, value, "{read}");
    }
    server
        .api()
        .write_secret(&mount, Kv::V2, "none", &json!({}))
        .await?;
    assert_eq!(json_at(&store, &at("none")).await?.1, json!({}));
    Ok(())
}

/// The server's doing, not ours: what is to survive exactly must be written as text.
async fn large_numbers_are_kept_by_version_1_and_rounded_by_version_2(server: Server) -> Result<()> {
    const ODD: u64 = (1 << 53) + 1;
    for (version, read) in [(Kv::V1, ODD), (Kv::V2, ODD - 1)] {
        let mount = server.kv_mount(version).await?;
        let value = json!({ "n": ODD, "text": ODD.to_string() });
        server.api().write_secret(&mount, version, "app", &value).await?;
        let store = server.store(&mount, server.reader(&mount).await?)?;
        let (_, found) = json_at(&store, &at("app")).await?;
        assert_eq!(
            found,
            json!({ "n": read, "text": ODD.to_string() }),
            "{version:?}"
        );
    }
    Ok(())
}

/// A mount with a value at `app`, and a store that may read what is at `allowed` in it and nothing else.
async fn reading_only(server: &Server, allowed: &str) -> Result<(String, VaultStore)> {
    let mount = server.kv_mount(Kv::V2).await?;
    let value = json!({ "n": 1 });
    server.api().write_secret(&mount, Kv::V2, "app", &value).await?;
    let login = server
        .token(&[(&format!("{mount}/{allowed}"), &["read"])])
        .await?;
    let store = server.store(&mount, VaultAuth::Token(login.token.into()))?;
    Ok((mount, store))
}

async fn denied_metadata_leads_to_reading(server: Server) -> Result<()> {
    let (mount, store) = reading_only(&server, "data/*").await?;
    let before = server.mark().await?;
    for _ in 0..3 {
        assert_eq!(store.probe(&at("app")).await?, Probe::NeedsRead);
        assert_eq!(json_at(&store, &at("app")).await?.0.number, Some(1));
    }
    let requests = server.since(before).await?;
    let own = of_mount(&requests, &mount);
    assert_eq!(own.len(), 4, "metadata once, the value three times: {own:?}");
    Ok(())
}

async fn a_policy_that_denies_everything_is_no_absence(server: Server) -> Result<()> {
    let (_, store) = reading_only(&server, "data/other").await?;
    assert_eq!(store.probe(&at("app")).await?, Probe::NeedsRead);
    let Err(fault) = store.read(&at("app")).await else {
        bail!("the read is denied")
    };
    assert_eq!(fault.reason, Reason::RemoteDenied);
    Ok(())
}

async fn searches_walk_folders_and_select_by_tags(server: Server) -> Result<()> {
    for (version, prefix) in [(Kv::V2, "app"), (Kv::V1, "app/")] {
        let mount = server.kv_mount(version).await?;
        let store = server.store(&mount, server.reader(&mount).await?)?;
        for path in ["app/a", "app/sub/b", "app/sub/c", "apple/d"] {
            server
                .api()
                .write_secret(&mount, version, path, &json!({ "n": 1 }))
                .await?;
        }
        let query = |prefix: &str, limit, tags: &[(&str, &str)]| FindQuery {
            prefix: prefix.into(),
            tags: tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            limit,
        };
        let names = async |query: &FindQuery| -> Result<Vec<String>> {
            Ok(store
                .find(query, &Unpaced)
                .await?
                .into_iter()
                .map(|found| found.name)
                .collect())
        };
        assert_eq!(
            names(&query(prefix, 3, &[])).await?,
            ["app/a", "app/sub/b", "app/sub/c"]
        );
        assert_eq!(names(&query("", 9, &[])).await?.len(), 4);
        assert!(names(&query("nowhere", 9, &[])).await?.is_empty());
        let fault = store
            .find(&query(prefix, 2, &[]), &Unpaced)
            .await
            .expect_err("three are more than two");
        assert_eq!(fault.reason, Reason::FindLimit);

        let tagged = query(prefix, 9, &[("team", "a")]);
        if version == Kv::V1 {
            let fault = store
                .find(&tagged, &Unpaced)
                .await
                .expect_err("version 1 has no tags");
            assert_eq!(fault.reason, Reason::SpecInvalid);
            continue;
        }
        for (path, team) in [("app/a", "a"), ("app/sub/b", "a"), ("app/sub/c", "b")] {
            server
                .api()
                .set_custom_metadata(&mount, path, &BTreeMap::from([("team", team)]))
                .await?;
        }
        let found = store.find(&tagged, &Unpaced).await?;
        assert_eq!(
            found.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(),
            ["app/a", "app/sub/b"]
        );
        for found in found {
            assert_eq!(found.version.and_then(|version| version.number), Some(1));
        }
        assert!(names(&query("nowhere", 9, &[("team", "a")])).await?.is_empty());
    }
    Ok(())
}

async fn a_wrong_mount_or_version_is_said_plainly(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V2).await?;
    let declared = async |mount: &str, kv_version| -> Result<VaultStore> {
        let mut config = server.config(mount, server.reader(mount).await?)?;
        config.kv_version = kv_version;
        Ok(VaultStore::new(config)?)
    };
    declared(&mount, KvVersion::V2).await?.check().await?;
    let wrong = declared(&mount, KvVersion::V1).await?;
    assert_eq!(
        wrong.check().await.expect_err("it has versions").reason,
        Reason::SpecInvalid
    );
    ensure!(
        wrong
            .read(&at("app"))
            .await
            .is_err_and(|fault| fault.reason == Reason::SpecInvalid)
    );

    let missing = declared(&server.unique(), KvVersion::Auto).await?;
    assert_eq!(
        missing.check().await.expect_err("there is no such mount").reason,
        Reason::RemoteDenied
    );
    let below = declared(&format!("{mount}/team"), KvVersion::Auto).await?;
    let fault = below.check().await.expect_err("it is a folder of the mount");
    assert_eq!(fault.reason, Reason::SpecInvalid);
    let advice = format!("set the mount to `{mount}`, and begin paths with `team/`");
    assert_eq!(fault.advice, advice);
    let transit = server.unique();
    server.api().mount(&transit, "transit").await?;
    let other = declared(&transit, KvVersion::Auto).await?;
    assert_eq!(
        other.check().await.expect_err("it is no KV mount").reason,
        Reason::SpecInvalid
    );
    Ok(())
}

async fn a_mount_that_is_upgraded_is_found_out_again(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V1).await?;
    let value = json!({ "n": 1 });
    server.api().write_secret(&mount, Kv::V1, "app", &value).await?;
    let rules = [(format!("{mount}/*"), ["read", "list"])];
    let rules: Vec<(&str, &[&str])> = rules
        .iter()
        .map(|(path, may)| (path.as_str(), &may[..]))
        .collect();
    let login = server.token(&rules).await?;
    let store = server.store(&mount, VaultAuth::Token(login.token.into()))?;
    assert_eq!(json_at(&store, &at("app")).await?.0, RemoteVersion::default());

    let upgraded = json!({ "options": { "version": "2" } });
    server
        .api()
        .write(&format!("sys/mounts/{mount}/tune"), &upgraded)
        .await?;
    let versioned = || async {
        let found = json_at(&store, &at("app")).await;
        found.is_ok_and(|(version, read)| version.number == Some(1) && read == value)
    };
    poll::until("the value with its version", SOON, versioned).await?;
    assert_eq!(version_at(&store, &at("app")).await?.number, Some(1));
    let query = FindQuery {
        prefix: String::new(),
        tags: BTreeMap::new(),
        limit: 9,
    };
    assert_eq!(store.find(&query, &Unpaced).await?.len(), 1);
    Ok(())
}

async fn a_declared_version_is_believed_and_checked_once(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V2).await?;
    let value = json!({ "n": 1 });
    server.api().write_secret(&mount, Kv::V2, "app", &value).await?;
    let mut declared = server.config(&mount, server.reader(&mount).await?)?;
    declared.kv_version = KvVersion::V2;
    let (store, before) = (VaultStore::new(declared)?, server.mark().await?);
    let looks = async || -> Result<usize> {
        let look = format!("sys/internal/ui/mounts/{mount}");
        Ok(server
            .since(before)
            .await?
            .iter()
            .filter(|asked| asked.path == look)
            .count())
    };
    version_at(&store, &at("app")).await?;
    assert_eq!(looks().await?, 0);
    store.check().await?;
    store.check().await?;
    assert_eq!(looks().await?, 1);

    // A mount that is hidden from the token may be declared, and cannot be found out.
    for (version, reason) in [
        (KvVersion::V2, None),
        (KvVersion::Auto, Some(Reason::RemoteDenied)),
    ] {
        let login = server.token(&[("elsewhere/*", &["read"])]).await?;
        let mut hidden = server.config(&mount, VaultAuth::Token(login.token.into()))?;
        hidden.kv_version = version;
        let check = VaultStore::new(hidden)?.check().await;
        assert_eq!(check.err().map(|fault| fault.reason), reason, "{version:?}");
    }
    Ok(())
}

async fn a_denied_list_says_what_to_grant(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V2).await?;
    let login = server.token(&[(&format!("{mount}/*"), &["read"])]).await?;
    let store = server.store(&mount, VaultAuth::Token(login.token.into()))?;
    let query = FindQuery {
        prefix: "app".into(),
        tags: BTreeMap::new(),
        limit: 9,
    };
    let fault = store
        .find(&query, &Unpaced)
        .await
        .expect_err("it may not be listed");
    assert_eq!(fault.reason, Reason::RemoteDenied);
    ensure!(
        fault
            .advice
            .contains(&format!("`list` on `{mount}/metadata/app`")),
        "{fault}"
    );
    Ok(())
}
