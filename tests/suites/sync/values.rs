//! What becomes of a value on its way: fields, names, encodings, sizes, several sources, fixed versions.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::openstack::{NewSecret, Service, What};
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use crate::scene::{Scene, often, often_with, path};
use crate::told::Failure;

/// What the values of one Secret may have together.
const MEBIBYTE: usize = 1024 * 1024;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        fields_are_chosen_renamed_and_prefixed,
        values_are_decoded_byte_for_byte,
        a_missing_field_keeps_the_last_value_until_it_is_back,
        a_value_that_does_not_decode_keeps_the_last_one,
        a_secret_over_one_mebibyte_keeps_the_last_one,
        a_key_name_that_kubernetes_refuses_keeps_the_last_value,
        two_sources_with_one_key_follow_the_declared_rule,
        several_stores_fill_one_secret,
        a_fixed_version_stays_and_an_edit_goes_back,
    );
    keyward_tests::tests!(suite, vault_and_barbican_fill_one_secret);
}

async fn fields_are_chosen_renamed_and_prefixed(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let value = json!({
        "host": "db.example", "port": 5432, "tls": true, "nothing": null,
        "login": {"user": {"name": "keyward"}, "a.b": "dotted"}, "list": ["zero", "one"],
    });
    scene.write("apps/db", &value).await?;
    let _operator = scene.operator().await?;

    scene.synced_path("all", "apps/db").await?;
    let mut chosen = path("apps/db");
    chosen["prefix"] = "DB_".into();
    chosen["fields"] = json!([
        {"field": "login.user.name"},
        {"field": "login.a\\.b", "key": "renamed"},
        {"field": "list.1", "key": "second"},
        {"field": "port"},
    ]);
    scene.synced("chosen", &json!({"sources": [chosen]})).await?;
    let mut whole = path("apps/db");
    whole["key"] = "db.json".into();
    scene.synced("whole", &json!({"sources": [whole]})).await?;

    scene
        .holds(
            "all",
            &[
                ("host", "db.example"),
                ("port", "5432"),
                ("tls", "true"),
                ("login", r#"{"a.b":"dotted","user":{"name":"keyward"}}"#),
                ("list", r#"["zero","one"]"#),
            ],
        )
        .await?;
    scene
        .holds(
            "chosen",
            &[
                ("DB_name", "keyward"),
                ("DB_renamed", "dotted"),
                ("DB_second", "one"),
                ("DB_port", "5432"),
            ],
        )
        .await?;
    scene.ready("whole").await?;
    let held = scene.values("whole").await?.unwrap_or_default();
    let document: Value = serde_json::from_slice(&held["db.json"])?;
    ensure!(
        held.len() == 1 && document == value,
        "the whole value is one document"
    );
    Ok(())
}

async fn values_are_decoded_byte_for_byte(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let bytes: Vec<u8> = (0..=255).collect();
    let hex = bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .concat();
    let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&bytes);
    let value =
        json!({"plain": STANDARD.encode(&bytes), "hex": hex, "url": url_safe, "empty": "", "text": "as is"});
    scene.write("apps/binary", &value).await?;
    let _operator = scene.operator().await?;
    let mut source = path("apps/binary");
    source["decode"] = "Base64".into();
    source["fields"] = json!([
        {"field": "plain"},
        {"field": "hex", "decode": "Hex"},
        {"field": "url", "decode": "Base64Url"},
        {"field": "empty"},
        {"field": "text", "decode": "None"},
    ]);
    scene.synced("binary", &json!({"sources": [source]})).await?;
    scene.ready("binary").await?;
    let held = scene.values("binary").await?.unwrap_or_default();
    for key in ["plain", "hex", "url"] {
        ensure!(held[key] == bytes, "`{key}` is not what went in");
    }
    ensure!(held["empty"].is_empty(), "an empty value stays empty");
    ensure!(
        held["text"] == b"as is" && held.len() == 5,
        "a field's own rule goes first"
    );
    Ok(())
}

async fn a_missing_field_keeps_the_last_value_until_it_is_back(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene
        .write("apps/db", &json!({"user": "u", "password": "first"}))
        .await?;
    let operator = scene.operator().await?;
    let mut source = path("apps/db");
    source["fields"] = json!([{"field": "user"}, {"field": "password"}]);
    scene.synced("db", &often(&[source])).await?;
    let last = [("user", "u"), ("password", "first")];
    scene.holds("db", &last).await?;

    scene.write("apps/db", &json!({"user": "other"})).await?;
    let words = "path `apps/db`: the remote value has no field `password`";
    let missing = Failure::new("db", "FieldNotFound", words).keeps(&last);
    let whole = json!({"user": "u", "password": "second"});
    scene
        .survives(&operator, &missing, async || {
            scene.write("apps/db", &whole).await.map(drop)
        })
        .await?;
    scene.holds("db", &[("user", "u"), ("password", "second")]).await
}

async fn a_value_that_does_not_decode_keeps_the_last_one(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"key": "Zmlyc3Q="})).await?;
    let operator = scene.operator().await?;
    let mut source = path("apps/db");
    source["decode"] = "Base64".into();
    scene.synced("db", &often(&[source])).await?;
    scene.holds("db", &[("key", "first")]).await?;

    scene.write("apps/db", &json!({"key": "never base64!"})).await?;
    let undecodable = Failure::new("db", "DecodeFailed", "`key` is not valid").keeps(&[("key", "first")]);
    let object = scene.suffers(&operator, &undecodable).await?;
    let status = serde_json::to_string(&object.status)?;
    ensure!(!status.contains("never base64!"), "the value is in the status");
    scene
        .survives(&operator, &undecodable, async || {
            scene
                .write("apps/db", &json!({"key": "c2Vjb25k"}))
                .await
                .map(drop)
        })
        .await?;
    scene.holds("db", &[("key", "second")]).await
}

async fn a_secret_over_one_mebibyte_keeps_the_last_one(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let half = "h".repeat(MEBIBYTE / 2);
    scene.write("apps/one", &json!({"one": half})).await?;
    scene.write("apps/two", &json!({"two": half})).await?;
    let operator = scene.operator().await?;
    scene
        .synced("large", &often(&[path("apps/one"), path("apps/two")]))
        .await?;
    scene.holds("large", &[("one", &half), ("two", &half)]).await?;

    let more = format!("{half}m");
    scene.write("apps/two", &json!({"two": more})).await?;
    let words = format!("more bytes together than the {MEBIBYTE} that a Secret holds");
    let large = Failure::new("large", "SecretTooLarge", &words).keeps(&[("one", &half), ("two", &half)]);
    scene
        .survives(&operator, &large, async || {
            scene.write("apps/two", &json!({"two": "small"})).await.map(drop)
        })
        .await?;
    scene.holds("large", &[("one", &half), ("two", "small")]).await
}

async fn a_key_name_that_kubernetes_refuses_keeps_the_last_value(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"user": "u"})).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &often(&[path("apps/db")])).await?;
    scene.holds("db", &[("user", "u")]).await?;

    for (refused, shown) in [
        ("with space", "with space"),
        ("with/slash", "with/slash"),
        ("..", ".."),
        ("", "``"),
    ] {
        scene
            .write("apps/db", &json!({"user": "new", refused: "v"}))
            .await?;
        scene.refresh("db").await?;
        let invalid = Failure::new("db", "KeyInvalid", shown).keeps(&[("user", "u")]);
        scene.suffers(&operator, &invalid).await?;
    }
    scene.write("apps/db", &json!({"user": "good"})).await?;
    scene.refresh("db").await?;
    scene.holds("db", &[("user", "good")]).await?;
    scene.ready("db").await.map(drop)
}

async fn two_sources_with_one_key_follow_the_declared_rule(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/one", &json!({"user": "one", "a": "1"})).await?;
    scene.write("apps/two", &json!({"b": "2"})).await?;
    let operator = scene.operator().await?;
    let sources = [path("apps/one"), path("apps/two")];
    for (name, rule) in [("fail", "Fail"), ("first", "FirstWins"), ("last", "LastWins")] {
        let spec = often_with(&sources, &json!({"conflict": rule}));
        scene.synced(name, &spec).await?;
        scene
            .holds(name, &[("user", "one"), ("a", "1"), ("b", "2")])
            .await?;
    }
    scene.write("apps/two", &json!({"user": "two", "b": "2"})).await?;
    let before = [("user", "one"), ("a", "1"), ("b", "2")];
    let words = "`user` is given by `path `apps/one`` and by `path `apps/two``";
    let twice = Failure::new("fail", "KeyConflict", words).keeps(&before);
    scene.suffers(&operator, &twice).await?;
    scene
        .holds("last", &[("user", "two"), ("a", "1"), ("b", "2")])
        .await?;
    scene.looked_again(&operator, "first").await?;
    scene.holds("first", &before).await?;
    scene
        .survives(&operator, &twice, async || {
            scene.write("apps/two", &json!({"c": "3"})).await.map(drop)
        })
        .await?;
    scene
        .holds("fail", &[("user", "one"), ("a", "1"), ("c", "3")])
        .await
}

async fn several_stores_fill_one_secret(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"from-v2": "two"})).await?;
    let other = case.kv_mount(Kv::V1).await?;
    scene
        .vault
        .api()
        .write_secret(&other, Kv::V1, "apps/db", &json!({"from-v1": "one"}))
        .await?;
    scene.allow_reader("other").await?;
    let rules = format!("path \"{other}/*\" {{ capabilities = [\"read\"] }}");
    scene.allow_policy("other", &rules).await?;
    let mut spec = scene.vault_spec();
    spec["vault"]["mount"] = other.as_str().into();
    spec["vault"]["auth"]["kubernetes"]["role"] = "other".into();
    spec["vault"]["auth"]["kubernetes"]["serviceAccountRef"]["name"] = "other".into();
    scene.store("second", &spec).await?;
    let _operator = scene.operator().await?;
    let mut second = path("apps/db");
    second["storeRef"]["name"] = "second".into();
    scene.synced("both", &often(&[path("apps/db"), second])).await?;
    scene
        .holds("both", &[("from-v1", "one"), ("from-v2", "two")])
        .await?;
    scene
        .vault
        .api()
        .write_secret(&other, Kv::V1, "apps/db", &json!({"from-v1": "changed"}))
        .await?;
    scene
        .holds("both", &[("from-v1", "changed"), ("from-v2", "two")])
        .await
}

async fn vault_and_barbican_fill_one_secret(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"user": "u"})).await?;
    let (openstack, tenant) = (case.openstack().await?, case.tenant().await?);
    let spec = scene.barbican_spec(openstack, &tenant).await?;
    scene.store("barbican", &spec).await?;
    let (named, keys) = (NewSecret::named("db"), tenant.key_manager());
    keys.store(&named, b"first").await?;
    let log = openstack.access_log(Service::Barbican);
    let mark = log.mark()?;
    let operator = scene.operator().await?;
    let other = json!({"storeRef": {"name": "barbican"}, "name": "db", "key": "password"});
    scene.synced("both", &often(&[path("apps/db"), other])).await?;
    scene
        .holds("both", &[("user", "u"), ("password", "first")])
        .await?;
    // Each is followed.
    scene.write("apps/db", &json!({"user": "another"})).await?;
    keys.store(&named, b"second").await?;
    scene
        .holds("both", &[("user", "another"), ("password", "second")])
        .await?;
    // Without one of them there is no whole value, and the last one stays.
    scene.vault.api().delete_secret(&scene.mount, "apps/db").await?;
    let last = [("user", "another"), ("password", "second")];
    let half = Failure::new("both", "RemoteDeleted", "apps/db").keeps(&last);
    scene
        .survives(&operator, &half, async || {
            scene.write("apps/db", &json!({"user": "u"})).await.map(drop)
        })
        .await?;
    scene
        .holds("both", &[("user", "u"), ("password", "second")])
        .await?;

    let mut payloads = log.since(mark)?;
    payloads.retain(|request| request.is_of(&tenant.project_id) && request.what() == What::Payload);
    ensure!(
        !payloads.is_empty()
            && payloads
                .iter()
                .all(|request| request.accept == "application/octet-stream"),
        "bytes are asked for as bytes: {payloads:?}"
    );
    Ok(())
}

async fn a_fixed_version_stays_and_an_edit_goes_back(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &often(&[path("apps/db")])).await?;
    scene.holds("db", &[("password", "second")]).await?;

    let mut fixed = path("apps/db");
    fixed["version"] = 1.into();
    scene.synced("db", &often(&[fixed])).await?;
    scene.holds("db", &[("password", "first")]).await?;
    let object = scene.ready("db").await?;
    let versions = object.status.unwrap_or_default().versions;
    ensure!(
        versions.len() == 1 && versions[0].number == Some(1),
        "the status names the version: {versions:?}"
    );
    scene.write("apps/db", &json!({"password": "third"})).await?;
    scene.looked_again(&operator, "db").await?;
    scene.holds("db", &[("password", "first")]).await?;
    scene.synced("db", &often(&[path("apps/db")])).await?;
    scene.holds("db", &[("password", "third")]).await?;

    let mut never = path("apps/db");
    never["version"] = 99.into();
    scene.synced("db", &often(&[never])).await?;
    let lost = Failure::new("db", "RemoteNotFound", "path `apps/db` is not there");
    scene
        .suffers(&operator, &lost.keeps(&[("password", "third")]))
        .await
        .map(drop)
}
