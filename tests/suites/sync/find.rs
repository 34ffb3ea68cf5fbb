//! Searches: by prefix, by pattern, by tag, and with a cap that is never a silent cut.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use keyward_crds::ACKNOWLEDGE_ANNOTATION;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::Operator;
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, acknowledgement_in, message_of, often, often_with, strictest, turns_since};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_search_takes_what_its_conditions_say,
        a_new_match_arrives_and_an_empty_search_keeps_everything,
        a_search_over_its_cap_keeps_the_last_value,
        a_search_of_kv_version_1_works_by_prefix,
        what_a_search_loses_is_kept_until_it_comes_back_or_is_let_go,
        a_listed_key_that_disappears_from_kv_version_1_is_kept,
        a_search_drops_what_it_no_longer_asks_for,
        a_match_that_is_deleted_follows_the_policy,
        objects_that_search_the_same_share_the_search,
        an_unchanged_search_costs_its_list_and_what_it_found,
    );
}

async fn an_unchanged_search_costs_its_list_and_what_it_found(case: Case) -> Result<()> {
    let (scene, operator) = both_found(&case, Kv::V2, &json!({})).await?;
    scene.store_reason("vault", "StoreReady").await?;
    let (began, (store, cluster)) = (Instant::now(), scene.marks().await?);
    for _ in 0..2 {
        scene.looked_again(&operator, "found").await?;
    }
    let asked = scene.asked_of_vault(store)?;
    let metadata = format!("{}/metadata/apps", scene.mount);
    ensure!(
        asked.iter().all(|request| request.path.starts_with(&metadata)),
        "only names and metadata are read: {asked:?}"
    );
    let lists = asked.iter().filter(|request| request.operation == "list").count();
    let turns = turns_since(began);
    ensure!((2..=turns).contains(&lists), "one list a turn: {asked:?}");
    // The first turn may have begun before.
    ensure!(
        asked.len() <= lists * 3 + 2,
        "one list, and one look at each of two places: {asked:?}"
    );
    let requests = scene.asked_of_kubernetes(cluster).await?;
    ensure!(requests.is_empty(), "nothing is written: {requests:?}");
    Ok(())
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
            // The cap is on what matches, and not on what is looked through for it.
            json!({"prefix": "apps", "tags": {"tier": "front"}, "max": 1}),
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
    // One that is back does not speak for the other.
    scene.write("apps/two", &json!({"v": "again"})).await?;
    scene.refresh("found").await?;
    let words = "path `apps/one` is no longer listed and is not there";
    scene.told(&operator, "found", "RemoteNotFound", words).await?;
    scene.holds("found", &both).await?;
    scene.write("apps/one", &json!({"v": "again"})).await?;
    scene.refresh("found").await?;
    let again = [("apps_one", r#"{"v":"again"}"#), ("apps_two", r#"{"v":"again"}"#)];
    scene.holds("found", &again).await
}

async fn a_search_over_its_cap_keeps_the_last_value(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let tag = async |place| {
        let tags = BTreeMap::from([("tier", "front")]);
        let api = scene.vault.api();
        api.set_custom_metadata(&scene.mount, place, &tags).await
    };
    for place in ["apps/one", "apps/two"] {
        scene.write(place, &json!({"v": place})).await?;
        tag(place).await?;
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
        (
            "tags",
            json!({"prefix": "apps", "tags": {"tier": "front"}, "max": 2}),
            "3 places match and at most 2 are allowed",
        ),
    ];
    for (name, find, _) in &cases {
        scene.synced(name, &searching(find)).await?;
        scene.ready(name).await?;
    }
    scene.write("apps/three", &json!({"v": "3"})).await?;
    tag("apps/three").await?;
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
    for name in ["plain", "pattern", "tags"] {
        scene.ready(name).await?;
    }
    Ok(())
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

async fn what_a_search_loses_is_kept_until_it_comes_back_or_is_let_go(case: Case) -> Result<()> {
    let (scene, operator) = both_found(&case, Kv::V2, &strictest()).await?;
    scene
        .vault
        .api()
        .delete_metadata(&scene.mount, "apps/one")
        .await?;
    let object = scene
        .told(
            &operator,
            "found",
            "RemoteNotFound",
            "path `apps/one` is no longer listed and is not there; restore it, or, if it is to go, annotate the object",
        )
        .await?;
    // The rest is not followed either: a write without the lost key would lose it.
    scene.write("apps/two", &json!({"v": "newer"})).await?;
    scene.refreshed(&operator, "found").await?;
    scene.holds("found", &BOTH).await?;
    scene.write("apps/one", &json!({"v": "back"})).await?;
    let newer = [("apps_one", r#"{"v":"back"}"#), ("apps_two", r#"{"v":"newer"}"#)];
    scene.holds("found", &newer).await?;
    scene.ready("found").await?;

    scene
        .vault
        .api()
        .delete_metadata(&scene.mount, "apps/one")
        .await?;
    let again = scene.reason("found", "RemoteNotFound").await?;
    // What would have let the first one go says nothing about what came after it.
    let words = acknowledgement_in(message_of(&object)?)?;
    scene.annotate("found", ACKNOWLEDGE_ANNOTATION, words).await?;
    scene.refreshed(&operator, "found").await?;
    scene.holds("found", &newer).await?;
    let words = acknowledgement_in(message_of(&again)?)?;
    scene.annotate("found", ACKNOWLEDGE_ANNOTATION, words).await?;
    scene.holds("found", &newer[1..]).await?;
    scene.ready("found").await.map(drop)
}

async fn a_listed_key_that_disappears_from_kv_version_1_is_kept(case: Case) -> Result<()> {
    let (scene, operator) = both_found(&case, Kv::V1, &strictest()).await?;
    let gone = format!("{}/apps/one", scene.mount);
    scene.vault.api().delete(&gone).await?;
    scene
        .told(
            &operator,
            "found",
            "RemoteNotFound",
            "path `apps/one` is no longer listed",
        )
        .await?;
    scene.holds("found", &BOTH).await?;
    scene
        .annotate("found", ACKNOWLEDGE_ANNOTATION, "apps/one->gone")
        .await?;
    scene.holds("found", &BOTH[1..]).await?;
    scene.ready("found").await.map(drop)
}

async fn a_search_drops_what_it_no_longer_asks_for(case: Case) -> Result<()> {
    let (scene, _operator) = both_found(&case, Kv::V2, &json!({})).await?;
    let narrower = json!({"prefix": "apps", "pattern": "apps/two"});
    scene.synced("found", &searching(&narrower)).await?;
    scene.holds("found", &BOTH[1..]).await?;
    scene.ready("found").await?;

    let tag = async |place: &str, tier: &str| {
        let tags = BTreeMap::from([("tier", tier)]);
        let api = scene.vault.api();
        api.set_custom_metadata(&scene.mount, place, &tags).await
    };
    tag("apps/one", "front").await?;
    tag("apps/two", "front").await?;
    let tagged = json!({"prefix": "apps", "tags": {"tier": "front"}});
    scene.synced("found", &searching(&tagged)).await?;
    scene.holds("found", &BOTH).await?;
    // The store says that it is there and what it carries now: nothing is missing.
    tag("apps/two", "back").await?;
    scene.holds("found", &BOTH[..1]).await?;
    scene.ready("found").await.map(drop)
}

async fn a_match_that_is_deleted_follows_the_policy(case: Case) -> Result<()> {
    let policy = json!({"whenGone": {"deleted": "RemoveKeys"}});
    let (scene, _operator) = both_found(&case, Kv::V2, &policy).await?;
    scene.vault.api().delete_secret(&scene.mount, "apps/one").await?;
    scene.holds("found", &BOTH[1..]).await?;
    scene.event("found", "SecretRemoved").await?;
    // What was removed already is missed by nobody once its last trace goes.
    scene
        .vault
        .api()
        .delete_metadata(&scene.mount, "apps/one")
        .await?;
    scene.ready("found").await?;
    scene.holds("found", &BOTH[1..]).await
}

async fn objects_that_search_the_same_share_the_search(case: Case) -> Result<()> {
    let (scene, operator) = both_found(&case, Kv::V2, &json!({})).await?;
    let others = ["second", "third"];
    for name in others {
        scene.synced(name, &searching(&json!({"prefix": "apps"}))).await?;
        scene.ready(name).await?;
    }
    scene.looked_again(&operator, "found").await?;
    let (began, (store, cluster)) = (Instant::now(), scene.marks().await?);
    let count = |of: &str| -> Result<usize> {
        let asked = scene.asked_of_vault(store)?;
        Ok(asked.iter().filter(|request| request.path.contains(of)).count())
    };
    poll::until("three searches", SOON, || async {
        count("/metadata/apps/").is_ok_and(|asked| asked >= 9)
    })
    .await?;
    // A turn is one listing and one look at each of the two matches, for all three objects.
    let asked = scene.asked_of_vault(store)?;
    let listings = asked.iter().filter(|request| request.operation == "list").count();
    ensure!(
        (3..=turns_since(began)).contains(&listings) && asked.len() <= 3 * listings + 2,
        "one search in each turn: {asked:?}"
    );
    let requests = scene.asked_of_kubernetes(cluster).await?;
    ensure!(requests.is_empty(), "nothing is written: {requests:?}");
    Ok(())
}

/// What [`both_found`] finds.
const BOTH: [(&str, &str); 2] = [("apps_one", r#"{"v":"1"}"#), ("apps_two", r#"{"v":"2"}"#)];

/// A scene whose object `found` holds two places below `apps`.
async fn both_found<'a>(case: &'a Case, kv: Kv, more: &Value) -> Result<(Scene<'a>, Operator)> {
    let scene = Scene::new(case, kv).await?;
    for (place, value) in [("apps/one", "1"), ("apps/two", "2")] {
        scene.write(place, &json!({"v": value})).await?;
    }
    let operator = scene.operator().await?;
    let source = json!({"storeRef": {"name": "vault"}, "find": {"prefix": "apps"}});
    scene.synced("found", &often_with(&[source], more)).await?;
    scene.holds("found", &BOTH).await?;
    scene.ready("found").await?;
    Ok((scene, operator))
}

/// The spec of an object that searches store `vault`.
fn searching(find: &Value) -> Value {
    often(&[json!({"storeRef": {"name": "vault"}, "find": find})])
}
