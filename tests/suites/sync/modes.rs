//! When nothing is written on purpose: observing, suspended, once; and when something is asked for now.

use anyhow::{Result, ensure};
use keyward_crds::REFRESH_ANNOTATION;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use crate::scene::{Scene, message_of, often_with, path, ready_of};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        observe_tells_what_would_change_and_writes_nothing,
        observe_tells_what_a_policy_or_an_owner_would_make_of_it,
        suspend_leaves_everything_until_it_is_lifted,
        once_stops_after_the_first_success_of_each_spec,
        a_refresh_request_is_carried_out_once,
    );
}

async fn observe_tells_what_would_change_and_writes_nothing(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    let cluster = scene.kubernetes.audit().mark().await?;
    let observing = often_with(&[path("apps/db")], &json!({"mode": "Observe"}));
    scene.synced("db", &observing).await?;
    let object = scene.reason("db", "Observed").await?;
    ensure!(
        message_of(&object)? == "the Secret would be created with key `password`",
        "the condition says: {}",
        message_of(&object)?
    );
    scene.looked_again(&operator, "db").await?;
    // What would come of the same values is known: a look tells.
    let store = scene.vault.audit().mark()?;
    scene.looked_again(&operator, "db").await?;
    let asked = scene.asked_of_vault(store)?;
    ensure!(
        !asked.is_empty() && !asked.iter().any(|request| request.is_value_read(&scene.mount)),
        "an observer looks: {asked:?}"
    );
    let written = scene.asked_of_kubernetes(cluster).await?;
    ensure!(
        !written
            .iter()
            .any(|request| request.resource == "secrets" && request.name == "db"),
        "an observer touched a Secret: {written:?}"
    );

    scene
        .synced("db", &often_with(&[path("apps/db")], &json!({})))
        .await?;
    scene.holds("db", &[("password", "first")]).await?;
    scene.ready("db").await?;
    scene.synced("db", &observing).await?;
    scene
        .until("db", "observed as it is", |object| {
            message_of(object).is_ok_and(|message| message == "the Secret is as it would be written")
        })
        .await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene
        .until("db", "observed with other values", |object| {
            message_of(object).is_ok_and(|message| message == "key `password` would get another value")
        })
        .await?;
    // It is still told, and still not written, by the look after.
    scene.looked_again(&operator, "db").await?;
    scene.reason("db", "Observed").await?;
    scene.holds("db", &[("password", "first")]).await?;
    scene
        .synced("db", &often_with(&[path("apps/db")], &json!({})))
        .await?;
    scene.holds("db", &[("password", "second")]).await
}

async fn observe_tells_what_a_policy_or_an_owner_would_make_of_it(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene
        .write("apps/db", &json!({"password": "first", "user": "u"}))
        .await?;
    scene
        .credential("foreign", &json!({"password": "theirs", "more": "x"}))
        .await?;
    let _operator = scene.operator().await?;
    let told = async |name: &str, words: &str| {
        let what = format!("observed with `{words}`");
        scene
            .until(name, &what, |object| {
                message_of(object).is_ok_and(|message| message.contains(words))
            })
            .await
    };
    let observing = |more: &Value| {
        let mut spec = often_with(&[path("apps/db")], more);
        spec["mode"] = "Observe".into();
        spec
    };
    scene.synced("foreign", &observing(&json!({}))).await?;
    told(
        "foreign",
        "the write would be refused: a Secret of this name exists and is not ours",
    )
    .await?;
    let adopting = json!({"target": {"adoption": {"policy": "TakeKeys", "keys": ["password"]}}});
    scene.synced("foreign", &observing(&adopting)).await?;
    told(
        "foreign",
        "key `user` would be added; key `password` would get another value",
    )
    .await?;
    scene
        .holds("foreign", &[("password", "theirs"), ("more", "x")])
        .await?;

    let policy = json!({"whenGone": {"deleted": "DeleteSecret"}});
    scene
        .synced("db", &often_with(&[path("apps/db")], &policy))
        .await?;
    scene.ready("db").await?;
    scene.synced("db", &observing(&policy)).await?;
    told("db", "the Secret is as it would be written").await?;
    scene.vault.api().delete_secret(&scene.mount, "apps/db").await?;
    told(
        "db",
        "path `apps/db` is deleted in the store; the Secret would be deleted as asked",
    )
    .await?;
    scene.holds("db", &[("password", "first"), ("user", "u")]).await
}

async fn suspend_leaves_everything_until_it_is_lifted(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    scene
        .synced("db", &often_with(&[path("apps/db")], &json!({})))
        .await?;
    scene
        .synced("other", &often_with(&[path("apps/db")], &json!({})))
        .await?;
    scene.holds("db", &[("password", "first")]).await?;
    scene.ready("other").await?;
    scene
        .synced("db", &often_with(&[path("apps/db")], &json!({"suspend": true})))
        .await?;
    let object = scene.reason("db", "Suspended").await?;
    let ready = object
        .status
        .as_ref()
        .and_then(|status| ready_of(&status.conditions));
    ensure!(
        ready.is_some_and(|ready| ready.status == "Unknown"),
        "suspended is not ready"
    );
    let by_hand = json!({"stringData": {"password": "by hand"}});
    scene.edit("db", &by_hand).await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.holds("other", &[("password", "second")]).await?;
    scene.looked_again(&operator, "other").await?;
    scene.holds("db", &[("password", "by hand")]).await?;
    scene
        .synced("db", &often_with(&[path("apps/db")], &json!({})))
        .await?;
    scene.holds("db", &[("password", "second")]).await
}

async fn once_stops_after_the_first_success_of_each_spec(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let operator = scene.operator().await?;
    let once = json!({"refresh": {"policy": "Once", "interval": "5s"}});
    scene.synced("db", &often_with(&[path("apps/db")], &once)).await?;
    scene
        .told(&operator, "db", "RemoteNotFound", "path `apps/db` is not there")
        .await?;
    // It has not succeeded yet, so it goes on.
    scene.write("apps/db", &json!({"password": "first"})).await?;
    scene.holds("db", &[("password", "first")]).await?;
    scene.ready("db").await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene
        .synced("other", &often_with(&[path("apps/db")], &json!({})))
        .await?;
    scene.holds("other", &[("password", "second")]).await?;
    scene.looked_again(&operator, "other").await?;
    scene.holds("db", &[("password", "first")]).await?;

    scene.refresh("db").await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.write("apps/db", &json!({"password": "third"})).await?;
    let edited = json!({"refresh": {"policy": "Once", "interval": "6s"}});
    scene
        .synced("db", &often_with(&[path("apps/db")], &edited))
        .await?;
    scene.holds("db", &[("password", "third")]).await
}

async fn a_refresh_request_is_carried_out_once(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator().await?;
    // Only a request can bring a change within the hour.
    scene.synced_path("db", "apps/db").await?;
    scene.holds("db", &[("password", "first")]).await?;
    scene.ready("db").await?;
    let store = scene.vault.audit().mark()?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.annotate("db", REFRESH_ANNOTATION, "request-1").await?;
    scene.holds("db", &[("password", "second")]).await?;
    let handled = |id: &'static str| {
        move |object: &keyward_crds::SyncedSecret| {
            let status = object.status.as_ref();
            status.is_some_and(|status| status.handled_refresh.as_deref() == Some(id))
        }
    };
    scene.until("db", "refreshed", handled("request-1")).await?;
    let asked_for_db = || -> Result<Vec<_>> {
        let mut asked = scene.asked_of_vault(store)?;
        asked.retain(|request| request.path.ends_with("apps/db"));
        Ok(asked)
    };
    let asked = asked_for_db()?.len();

    // The same id again, with another annotation that wakes the object, asks for nothing.
    scene.annotate("db", "example.com/note", "unrelated").await?;
    scene.annotate("db", REFRESH_ANNOTATION, "request-1").await?;
    scene
        .synced("other", &often_with(&[path("apps/none")], &json!({})))
        .await?;
    scene
        .told(&operator, "other", "RemoteNotFound", "path `apps/none`")
        .await?;
    let again = asked_for_db()?;
    ensure!(again.len() == asked, "a handled request was repeated: {again:?}");
    scene.annotate("db", REFRESH_ANNOTATION, "request-2").await?;
    scene
        .until("db", "refreshed again", handled("request-2"))
        .await
        .map(drop)
}
