//! Searches: by prefix, by pattern, by tag, and with a cap that is never a silent cut.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use super::often;
use crate::scene::Scene;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_search_takes_what_its_conditions_say,
        a_new_match_arrives_and_an_empty_search_keeps_everything,
        a_search_over_its_cap_keeps_the_last_value,
        a_search_of_kv_version_1_works_by_prefix,
    );
}

async fn a_search_takes_what_its_conditions_say(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    for place in ["apps/db", "apps/web/tls", "apps/web/cookie", "other/db"] {
        scene.write(place, &json!({"of": place})).await?;
    }
    let tags = BTreeMap::from([("tier", "front"), ("owner", "team-a")]);
    scene
        .vault
        .api()
        .set_custom_metadata(&scene.mount, "apps/web/tls", &tags)
        .await?;
    let _operator = scene.operator().await?;
    let value = |place: &str| format!(r#"{{"of":"{place}"}}"#);
    let cases = [
        (
            "prefix",
            json!({"prefix": "apps"}),
            vec![
                ("apps_db", "apps/db"),
                ("apps_web_cookie", "apps/web/cookie"),
                ("apps_web_tls", "apps/web/tls"),
            ],
        ),
        (
            "pattern",
            json!({"pattern": "(apps|other)/db"}),
            vec![("apps_db", "apps/db"), ("other_db", "other/db")],
        ),
        (
            "both",
            json!({"prefix": "apps/web", "pattern": ".*cookie"}),
            vec![("apps_web_cookie", "apps/web/cookie")],
        ),
        (
            "tags",
            json!({"prefix": "apps", "tags": {"tier": "front"}}),
            vec![("apps_web_tls", "apps/web/tls")],
        ),
    ];
    for (name, find, wanted) in cases {
        scene.synced(name, &searching(&find)).await?;
        let texts: Vec<_> = wanted.iter().map(|(key, place)| (*key, value(place))).collect();
        let wanted: Vec<_> = texts.iter().map(|(key, text)| (*key, text.as_str())).collect();
        scene.holds(name, &wanted).await?;
    }
    Ok(())
}

async fn a_new_match_arrives_and_an_empty_search_keeps_everything(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/one", &json!({"v": "1"})).await?;
    let operator = scene.operator().await?;
    scene
        .synced("found", &searching(&json!({"prefix": "apps"})))
        .await?;
    scene.holds("found", &[("apps_one", r#"{"v":"1"}"#)]).await?;
    scene.write("apps/two", &json!({"v": "2"})).await?;
    let both = [("apps_one", r#"{"v":"1"}"#), ("apps_two", r#"{"v":"2"}"#)];
    scene.holds("found", &both).await?;

    for place in ["apps/one", "apps/two"] {
        scene.vault.api().delete_secret(&scene.mount, place).await?;
    }
    scene
        .told(&operator, "found", "RemoteDeleted", "is deleted in the store")
        .await?;
    scene.holds("found", &both).await?;
    for place in ["apps/one", "apps/two"] {
        scene.vault.api().delete_metadata(&scene.mount, place).await?;
    }
    scene.refresh("found").await?;
    scene
        .told(&operator, "found", "RemoteNotFound", "sources[0] matches nothing")
        .await?;
    scene.holds("found", &both).await?;
    scene.write("apps/two", &json!({"v": "again"})).await?;
    scene.holds("found", &[("apps_two", r#"{"v":"again"}"#)]).await
}

async fn a_search_over_its_cap_keeps_the_last_value(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    for place in ["apps/one", "apps/two"] {
        scene.write(place, &json!({"v": place})).await?;
    }
    let operator = scene.operator().await?;
    let cases = [
        (
            "plain",
            json!({"prefix": "apps", "max": 2}),
            "meets more than 2 secrets",
        ),
        (
            "pattern",
            json!({"prefix": "apps", "pattern": ".*", "max": 2}),
            "3 places match and at most 2 are allowed",
        ),
    ];
    for (name, find, _) in &cases {
        scene.synced(name, &searching(find)).await?;
        scene.ready(name).await?;
    }
    scene.write("apps/three", &json!({"v": "3"})).await?;
    for (name, _, words) in cases {
        scene.told(&operator, name, "FindLimit", words).await?;
        let held = scene.values(name).await?.unwrap_or_default();
        ensure!(held.len() == 2, "{name} lost or won a key");
    }
    scene
        .vault
        .api()
        .delete_metadata(&scene.mount, "apps/three")
        .await?;
    scene.ready("plain").await?;
    scene.ready("pattern").await.map(drop)
}

async fn a_search_of_kv_version_1_works_by_prefix(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V1).await?;
    scene.write("apps/one", &json!({"v": "1"})).await?;
    scene.write("apps/deep/two", &json!({"v": "2"})).await?;
    let operator = scene.operator().await?;
    scene
        .synced("found", &searching(&json!({"prefix": "apps/"})))
        .await?;
    scene
        .holds(
            "found",
            &[("apps_one", r#"{"v":"1"}"#), ("apps_deep_two", r#"{"v":"2"}"#)],
        )
        .await?;
    let tags = json!({"prefix": "apps", "tags": {"tier": "front"}});
    scene.synced("tags", &searching(&tags)).await?;
    scene
        .told(&operator, "tags", "SpecInvalid", "has no tags")
        .await?;
    Ok(())
}

/// The spec of an object that searches store `vault`.
fn searching(find: &Value) -> Value {
    often(&[json!({"storeRef": {"name": "vault"}, "find": find})])
}
