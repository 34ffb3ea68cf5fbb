//! Whose a Secret and its keys are: what is ours is put right at once, what is another's is shown and never forced.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::kubernetes::ApiRequest;
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::scene::{FIRST, SOON, Scene, often_with, path};
use crate::told::{Failure, woken_before};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_foreign_secret_is_left_alone,
        add_keys_adds_what_nobody_has,
        take_keys_takes_the_listed_keys_alone,
        a_key_that_another_manager_applies_is_shown_and_not_forced,
        a_hand_edit_is_reverted_at_once,
        a_key_that_somebody_added_to_our_secret_is_not_taken,
        a_label_of_somebody_else_is_looked_at_once,
        a_secret_that_is_held_while_it_is_deleted_is_told,
        a_deleted_secret_is_repaired_at_once,
        deleting_the_object_takes_the_secret_along,
        deleting_the_object_leaves_the_keys_of_others,
        a_deletion_while_the_operator_was_down_is_made_up_for,
        a_renamed_target_releases_the_old_secret,
        a_target_renamed_while_the_operator_was_down_releases_the_old_secret,
        two_objects_do_not_fight_over_one_secret,
        who_waits_for_a_name_is_woken_when_it_is_free,
        secrets_of_refused_types_are_never_written,
        another_type_keeps_the_last_secret,
        an_immutable_secret_is_told,
    );
}

async fn a_foreign_secret_is_left_alone(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    foreign(
        &scene,
        "db",
        "Opaque",
        &json!({"password": "theirs", "more": "x"}),
    )
    .await?;
    scene.synced("db", &one(&json!({}))).await?;
    let words = "a Secret of this name exists and is not ours";
    let theirs = [("password", "theirs"), ("more", "x")];
    let foreign = Failure::new("db", "SecretNotOwned", words)
        .keeps(&theirs)
        .ends_at_once();
    // Nobody has to touch the object: the name is free as soon as the other Secret is gone.
    scene
        .survives(&operator, &foreign, async || delete(&scene, "db").await)
        .await?;
    scene.holds("db", &FIRST).await
}

async fn add_keys_adds_what_nobody_has(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    foreign(&scene, "db", "Opaque", &json!({"theirs": "x"})).await?;
    foreign(&scene, "taken", "Opaque", &json!({"password": "theirs"})).await?;
    let add = one(&json!({"adoption": {"policy": "AddKeys"}}));
    scene.synced("db", &add).await?;
    scene.synced("taken", &add).await?;
    let both = [("password", "first"), ("theirs", "x")];
    scene.holds("db", &both).await?;
    let secret = scene.api::<Secret>().get("db").await?;
    ensure!(
        secret.metadata.labels.unwrap_or_default().is_empty(),
        "a guest labels nothing"
    );
    let words = "`password` is owned by owner";
    let taken = Failure::new("taken", "KeyOwnedByOther", words).keeps(&[("password", "theirs")]);
    scene.suffers(&operator, &taken).await?;

    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene
        .holds("db", &[("password", "second"), ("theirs", "x")])
        .await?;
    scene.delete("db").await?;
    scene.holds("db", &[("theirs", "x")]).await
}

async fn take_keys_takes_the_listed_keys_alone(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene
        .write("apps/db", &json!({"password": "first", "user": "u"}))
        .await?;
    let operator = scene.operator().await?;
    let theirs = json!({"password": "theirs", "user": "theirs", "more": "x"});
    foreign(&scene, "db", "Opaque", &theirs).await?;
    let take = |keys: &[&str]| one(&json!({"adoption": {"policy": "TakeKeys", "keys": keys}}));
    scene.synced("db", &take(&["password"])).await?;
    let all = [("password", "theirs"), ("user", "theirs"), ("more", "x")];
    let owned = Failure::new("db", "KeyOwnedByOther", "`user` is owned by owner").keeps(&all);
    scene.suffers(&operator, &owned).await?;
    scene.synced("db", &take(&["password", "user"])).await?;
    scene
        .holds("db", &[("password", "first"), ("user", "u"), ("more", "x")])
        .await?;
    scene.delete("db").await?;
    scene.holds("db", &[("more", "x")]).await
}

async fn a_key_that_another_manager_applies_is_shown_and_not_forced(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &one(&json!({}))).await?;
    scene.holds("db", &FIRST).await?;
    scene.ready("db").await?;
    apply(&scene, "db", &json!({"password": "applied"})).await?;
    let words = "`password` is owned by other-tool";
    let owned = Failure::new("db", "KeyOwnedByOther", words).keeps(&[("password", "applied")]);
    scene.suffers(&operator, &owned).await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.refreshed(&operator, "db").await?;
    // The other lets go, and that alone is enough.
    scene
        .survives(&operator, &owned, async || apply(&scene, "db", &json!({})).await)
        .await?;
    scene.holds("db", &[("password", "second")]).await
}

async fn a_hand_edit_is_reverted_at_once(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    // The next look at the store is an hour away.
    scene.synced_path("db", "apps/db").await?;
    scene.holds("db", &FIRST).await?;
    scene.ready("db").await?;
    scene
        .edit("db", &json!({"stringData": {"password": "by hand"}}))
        .await?;
    scene.holds("db", &FIRST).await?;
    scene.event("db", "DriftRepaired").await?;
    scene.edit("db", &json!({"data": {"password": null}})).await?;
    scene.holds("db", &FIRST).await?;
    scene
        .edit(
            "db",
            &json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}}),
        )
        .await?;
    poll::until("the label to be put right", SOON, || async {
        let secret = scene.api::<Secret>().get("db").await;
        let labels = secret.map(|secret| secret.metadata.labels.unwrap_or_default());
        labels.is_ok_and(|labels| labels["app.kubernetes.io/managed-by"] == "keyward")
    })
    .await?;
    operator.counted("keyward_drift_repaired_total", "", 3.0).await?;
    // A key that somebody adds to our Secret is theirs and stays.
    scene.edit("db", &json!({"stringData": {"theirs": "x"}})).await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    scene.refresh("db").await?;
    scene
        .holds("db", &[("password", "second"), ("theirs", "x")])
        .await?;
    scene.ready("db").await.map(drop)
}

async fn a_key_that_somebody_added_to_our_secret_is_not_taken(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &one(&json!({}))).await?;
    scene.ready("db").await?;
    scene
        .edit("db", &json!({"stringData": {"token": "theirs"}}))
        .await?;
    let theirs = [("password", "first"), ("token", "theirs")];
    scene.holds("db", &theirs).await?;
    scene
        .write("apps/db", &json!({"password": "first", "token": "ours"}))
        .await?;
    let words = "`token` is owned by by-hand";
    scene.told(&operator, "db", "KeyOwnedByOther", words).await?;
    scene.holds("db", &theirs).await?;
    scene.edit("db", &json!({"data": {"token": null}})).await?;
    scene
        .holds("db", &[("password", "first"), ("token", "ours")])
        .await?;
    scene.ready("db").await.map(drop)
}

async fn a_label_of_somebody_else_is_looked_at_once(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &one(&json!({}))).await?;
    scene.ready("db").await?;
    let mark = scene.kubernetes.audit().mark().await?;
    scene
        .edit(
            "db",
            &json!({"metadata": {"labels": {"example.com/seen-by": "scanner"}}}),
        )
        .await?;
    let reads = async || -> Result<usize> {
        let requests = scene.asked_of_kubernetes(mark).await?;
        let of_it = |request: &&ApiRequest| request.verb == "get" && request.resource == "secrets";
        Ok(requests.iter().filter(of_it).count())
    };
    poll::until("a look at the labelled Secret", SOON, || async {
        reads().await.is_ok_and(|reads| reads > 0)
    })
    .await?;
    for _ in 0..2 {
        scene.looked_again(&operator, "db").await?;
    }
    ensure!(reads().await? == 1, "what was found intact is known");
    Ok(())
}

async fn a_secret_that_is_held_while_it_is_deleted_is_told(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &one(&json!({}))).await?;
    scene.ready("db").await?;
    let hold = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    scene.edit("db", &hold(json!(["example.com/hold"]))).await?;
    delete(&scene, "db").await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    let words = "the Secret is being deleted by somebody else";
    scene.told(&operator, "db", "Conflict", words).await?;
    scene.edit("db", &hold(Value::Null)).await?;
    scene.holds("db", &[("password", "second")]).await?;
    scene.ready("db").await.map(drop)
}

async fn a_deleted_secret_is_repaired_at_once(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    scene.synced_path("db", "apps/db").await?;
    scene.holds("db", &FIRST).await?;
    scene.ready("db").await?;
    delete(&scene, "db").await?;
    scene.holds("db", &FIRST).await?;
    scene.event("db", "DriftRepaired").await?;
    scene.ready("db").await?;
    operator.counted("keyward_drift_repaired_total", "", 1.0).await
}

async fn deleting_the_object_takes_the_secret_along(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let _operator = scene.operator().await?;
    scene.synced("db", &one(&json!({}))).await?;
    scene.synced("kept", &one(&json!({}))).await?;
    scene.holds("db", &FIRST).await?;
    scene.holds("kept", &FIRST).await?;
    scene.delete("db").await?;
    gone(&scene, "db").await?;
    scene.holds("kept", &FIRST).await
}

async fn deleting_the_object_leaves_the_keys_of_others(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let _operator = scene.operator().await?;
    scene.synced("db", &one(&json!({}))).await?;
    scene.holds("db", &FIRST).await?;
    scene.ready("db").await?;
    apply(&scene, "db", &json!({"theirs": "x"})).await?;
    scene
        .holds("db", &[("password", "first"), ("theirs", "x")])
        .await?;
    scene.delete("db").await?;
    scene.holds("db", &[("theirs", "x")]).await?;
    let secret = scene.api::<Secret>().get("db").await?;
    let annotations = secret.metadata.annotations.unwrap_or_default();
    ensure!(
        !annotations.contains_key(keyward_crds::OWNER_ANNOTATION),
        "our mark stayed: {annotations:?}"
    );
    Ok(())
}

async fn a_deletion_while_the_operator_was_down_is_made_up_for(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    for name in ["db", "shared", "kept"] {
        scene.synced(name, &one(&json!({}))).await?;
        scene.holds(name, &FIRST).await?;
        scene.ready(name).await?;
    }
    apply(&scene, "shared", &json!({"theirs": "x"})).await?;
    operator.stop().await?;
    scene.delete("db").await?;
    scene.delete("shared").await?;
    let _operator = scene.operator().await?;
    gone(&scene, "db").await?;
    scene.holds("shared", &[("theirs", "x")]).await?;
    scene.holds("kept", &FIRST).await
}

async fn a_renamed_target_releases_the_old_secret(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &one(&json!({"name": "old"}))).await?;
    scene.holds_in("db", "old", &FIRST).await?;
    scene.ready("db").await?;
    scene.synced("db", &one(&json!({"name": "new"}))).await?;
    scene.holds_in("db", "new", &FIRST).await?;
    gone(&scene, "old").await?;
    let object = scene.ready("db").await?;
    let secret = object.status.and_then(|status| status.secret);
    ensure!(
        secret.is_some_and(|secret| secret.name == "new"),
        "the status names the new Secret"
    );
    // The old one stays for as long as the new one cannot be written.
    foreign(&scene, "taken", "Opaque", &json!({"password": "theirs"})).await?;
    scene.synced("db", &one(&json!({"name": "taken"}))).await?;
    let foreign = Failure::new("db", "SecretNotOwned", "is not ours").keeps(&FIRST);
    scene
        .suffers(&operator, &foreign.in_secret("new"))
        .await
        .map(drop)
}

async fn a_target_renamed_while_the_operator_was_down_releases_the_old_secret(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &one(&json!({"name": "old"}))).await?;
    scene.holds_in("db", "old", &FIRST).await?;
    operator.stop().await?;
    // Another object of the same name knows nothing of what the first one wrote.
    scene.delete("db").await?;
    scene.synced("db", &one(&json!({"name": "new"}))).await?;
    let _operator = scene.operator().await?;
    scene.holds_in("db", "new", &FIRST).await?;
    gone(&scene, "old").await
}

async fn two_objects_do_not_fight_over_one_secret(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    scene.write("apps/other", &json!({"password": "other"})).await?;
    let operator = scene.operator().await?;
    scene.synced("first", &one(&json!({"name": "shared"}))).await?;
    scene.ready("first").await?;
    let other = often_with(&[path("apps/other")], &json!({"target": {"name": "shared"}}));
    scene.synced("second", &other).await?;
    let words = "the Secret is kept by `first`";
    let kept = Failure::new("second", "SecretNotOwned", words)
        .keeps(&FIRST)
        .in_secret("shared");
    scene
        .survives(&operator, &kept, async || {
            scene.looked_again(&operator, "first").await?;
            scene.ready("first").await?;
            scene.holds_in("first", "shared", &FIRST).await?;
            scene.delete("first").await
        })
        .await?;
    scene.holds_in("second", "shared", &[("password", "other")]).await
}

async fn who_waits_for_a_name_is_woken_when_it_is_free(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    scene.write("apps/other", &json!({"password": "other"})).await?;
    let operator = scene.operator().await?;
    for shared in ["deleted", "renamed"] {
        scene
            .synced(shared, &one(&json!({"name": format!("of-{shared}")})))
            .await?;
        scene.ready(shared).await?;
        let waiting = json!({
            "sources": [path("apps/other")], "target": {"name": format!("of-{shared}")},
        });
        scene.synced(&format!("after-{shared}"), &waiting).await?;
        scene.reason(&format!("after-{shared}"), "SecretNotOwned").await?;
    }
    for (shared, free) in [("deleted", None), ("renamed", Some("elsewhere"))] {
        let waiting = format!("after-{shared}");
        let planned = scene.rests(&operator, &waiting).await?;
        match free {
            None => scene.delete(shared).await?,
            Some(name) => scene.synced(shared, &one(&json!({"name": name}))).await?,
        }
        scene
            .holds_in(&waiting, &format!("of-{shared}"), &[("password", "other")])
            .await?;
        woken_before(planned, &scene.ready(&waiting).await?)?;
    }
    Ok(())
}

async fn secrets_of_refused_types_are_never_written(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    for refused in [
        "kubernetes.io/service-account-token",
        "bootstrap.kubernetes.io/token",
        "helm.sh/release.v1",
    ] {
        let answer = scene.synced("db", &one(&json!({"type": refused}))).await;
        let error = answer.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(
            error.contains("would give rights"),
            "{refused} was answered with: {error}"
        );
    }
    foreign(&scene, "release", "helm.sh/release.v1", &json!({"release": "r"})).await?;
    let add = json!({"name": "release", "adoption": {"policy": "AddKeys"}});
    scene.synced("db", &one(&add)).await?;
    let words = "type `helm.sh/release.v1` are never written";
    let refused = Failure::new("db", "TypeRefused", words)
        .keeps(&[("release", "r")])
        .in_secret("release");
    scene.suffers(&operator, &refused).await.map(drop)
}

async fn another_type_keeps_the_last_secret(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &one(&json!({}))).await?;
    scene.holds("db", &FIRST).await?;
    scene.ready("db").await?;
    scene
        .synced("db", &one(&json!({"type": "example.com/login"})))
        .await?;
    let words = "has type `Opaque`, which cannot be changed";
    let another = Failure::new("db", "TypeConflict", words).keeps(&FIRST);
    scene
        .survives(&operator, &another, async || delete(&scene, "db").await)
        .await?;
    scene.holds("db", &FIRST).await?;
    let secret = scene.api::<Secret>().get("db").await?;
    ensure!(
        secret.type_.as_deref() == Some("example.com/login"),
        "{:?}",
        secret.type_
    );
    Ok(())
}

async fn an_immutable_secret_is_told(case: Case) -> Result<()> {
    let scene = seeded(&case).await?;
    let operator = scene.operator().await?;
    scene.synced("db", &one(&json!({}))).await?;
    scene.holds("db", &FIRST).await?;
    scene.ready("db").await?;
    scene.edit("db", &json!({"immutable": true})).await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    let immutable = Failure::new("db", "SecretImmutable", "the Secret is marked immutable").keeps(&FIRST);
    scene
        .survives(&operator, &immutable, async || delete(&scene, "db").await)
        .await?;
    scene.holds("db", &[("password", "second")]).await
}

/// A scene with a value to sync.
async fn seeded(case: &Case) -> Result<Scene<'_>> {
    let scene = Scene::new(case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    Ok(scene)
}

/// One path into a Secret as `target` says.
fn one(target: &Value) -> Value {
    often_with(&[path("apps/db")], &json!({"target": target}))
}

/// Makes a Secret as somebody else does, without server-side apply.
async fn foreign(scene: &Scene<'_>, name: &str, secret_type: &str, data: &Value) -> Result<()> {
    let secret = serde_json::from_value(json!({
        "metadata": {"name": name}, "type": secret_type, "stringData": data,
    }))?;
    let params = PostParams {
        field_manager: Some("owner".into()),
        ..PostParams::default()
    };
    scene.api::<Secret>().create(&params, &secret).await?;
    Ok(())
}

/// Applies keys as another tool does, taking what it names.
async fn apply(scene: &Scene<'_>, name: &str, data: &Value) -> Result<()> {
    let encoded: BTreeMap<&String, String> = data
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, STANDARD.encode(value.as_str().unwrap_or_default())))
        .collect();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded,
    });
    scene
        .api::<Secret>()
        .patch(
            name,
            &PatchParams::apply("other-tool").force(),
            &Patch::Apply(&secret),
        )
        .await?;
    Ok(())
}

async fn delete(scene: &Scene<'_>, name: &str) -> Result<()> {
    scene
        .api::<Secret>()
        .delete(name, &DeleteParams::default())
        .await?;
    Ok(())
}

async fn gone(scene: &Scene<'_>, name: &str) -> Result<()> {
    poll::until(&format!("Secret {name} to be gone"), SOON, || async {
        matches!(scene.values(name).await, Ok(None))
    })
    .await
}
