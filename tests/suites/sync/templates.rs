//! Templates: what they make, and that one that fails, runs for ever or grows too large leaves the last Secret.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, message_of, often_with, path};
use crate::told::Failure;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        templates_make_data_labels_annotations_and_type,
        a_tls_pair_and_a_registry_login_become_secrets_of_their_types,
        a_template_that_fails_keeps_the_last_secret,
        a_template_without_end_keeps_the_last_secret,
        a_template_that_grows_too_large_keeps_the_last_secret,
        an_edited_template_is_carried_out_at_once,
    );
}

async fn templates_make_data_labels_annotations_and_type(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene
        .write(
            "apps/db",
            &json!({"user": "key ward", "password": "p&w", "team": "shop"}),
        )
        .await?;
    let operator = scene.operator().await?;
    let template = json!({
        "data": {
            "dsn": "mysql://{{ user|urlencode }}:{{ password|urlencode }}@db/shop",
            "config.json": "{\"user\":{{ user|tojson }}}",
        },
        "labels": {"app.kubernetes.io/part-of": "{{ team }}"},
        "annotations": {"example.com/note": "for {{ team|upper }}"},
    });
    scene.synced("db", &made(&template, "example.com/login")).await?;
    let wanted = [
        ("dsn", "mysql://key%20ward:p%26w@db/shop"),
        ("config.json", r#"{"user":"key ward"}"#),
    ];
    scene.holds("db", &wanted).await?;
    let secret = scene.api::<Secret>().get("db").await?;
    let labels = secret.metadata.labels.unwrap_or_default();
    let annotations = secret.metadata.annotations.unwrap_or_default();
    ensure!(labels["app.kubernetes.io/part-of"] == "shop", "{labels:?}");
    ensure!(annotations["example.com/note"] == "for SHOP", "{annotations:?}");
    ensure!(
        secret.type_.as_deref() == Some("example.com/login"),
        "{:?}",
        secret.type_
    );

    // The type, too, can be made of values; another one of a Secret that exists is a conflict.
    scene
        .write("apps/kind", &json!({"kind": "example.com/made"}))
        .await?;
    let typed = json!({"type": "{{ kind }}", "data": {"a": "b"}});
    let spec = often_with(&[path("apps/kind")], &json!({"target": {"template": typed}}));
    scene.synced("typed", &spec).await?;
    scene.ready("typed").await?;
    let secret = scene.api::<Secret>().get("typed").await?;
    ensure!(
        secret.type_.as_deref() == Some("example.com/made"),
        "{:?}",
        secret.type_
    );
    scene
        .write(
            "apps/kind",
            &json!({"kind": "kubernetes.io/service-account-token"}),
        )
        .await?;
    scene
        .told(&operator, "typed", "TypeRefused", "are never written")
        .await?;
    scene
        .write("apps/kind", &json!({"kind": "example.com/another"}))
        .await?;
    let object = scene
        .told(
            &operator,
            "typed",
            "TypeConflict",
            "cannot be changed to the wanted one",
        )
        .await?;
    ensure!(
        !message_of(&object)?.contains("example.com/another"),
        "a value that makes the type is told"
    );

    // A label goes with its template; what the template does not name comes with `keepSources`.
    scene
        .synced(
            "db",
            &made(
                &json!({"data": {"both": "{{ user }}/{{ team }}"}, "keepSources": true}),
                "example.com/login",
            ),
        )
        .await?;
    let wanted = [
        ("both", "key ward/shop"),
        ("user", "key ward"),
        ("password", "p&w"),
        ("team", "shop"),
    ];
    scene.holds("db", &wanted).await?;
    let labels = scene.api::<Secret>().get("db").await?.metadata.labels;
    ensure!(
        !labels
            .unwrap_or_default()
            .contains_key("app.kubernetes.io/part-of"),
        "the label stayed"
    );
    Ok(())
}

async fn a_tls_pair_and_a_registry_login_become_secrets_of_their_types(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let identity = scene.vault.client_identity("web")?;
    let bundle = format!("{}{}", identity.key, identity.certificate);
    scene
        .write(
            "apps/db",
            &json!({"bundle": bundle, "server": "registry.example", "user": "u", "password": "p"}),
        )
        .await?;
    let _operator = scene.operator().await?;
    let tls = json!({"data": {
        "tls.crt": "{{ bundle|pem_split('CERTIFICATE')|join('') }}",
        "tls.key": "{{ bundle|pem_key }}",
    }});
    scene.synced("tls", &made(&tls, "kubernetes.io/tls")).await?;
    let docker = json!({"data": {".dockerconfigjson": "{{ dockerconfigjson(server, user, password) }}"}});
    scene
        .synced("docker", &made(&docker, "kubernetes.io/dockerconfigjson"))
        .await?;
    scene.ready("tls").await?;
    scene.ready("docker").await?;
    let held = scene.values("tls").await?.unwrap_or_default();
    let same = |key: &str, wanted: &str| {
        let text = String::from_utf8_lossy(&held[key]);
        text.trim() == wanted.trim()
    };
    ensure!(
        same("tls.crt", &identity.certificate) && same("tls.key", &identity.key),
        "the pair is not the one of the bundle"
    );
    let held = scene.values("docker").await?.unwrap_or_default();
    let login: Value = serde_json::from_slice(&held[".dockerconfigjson"])?;
    let entry = &login["auths"]["registry.example"];
    ensure!(
        entry["username"] == "u" && entry["password"] == "p" && entry["auth"] == STANDARD.encode("u:p"),
        "the login is not one that a kubelet reads"
    );
    Ok(())
}

async fn a_template_that_fails_keeps_the_last_secret(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene
        .write("apps/db", &json!({"user": "u", "extra": "e"}))
        .await?;
    let operator = scene.operator().await?;
    let template = json!({"data": {"line": "{{ user }}{{ extra }}"}});
    scene.synced("db", &made(&template, "Opaque")).await?;
    scene.holds("db", &[("line", "ue")]).await?;

    scene.write("apps/db", &json!({"user": "unseen"})).await?;
    let failed = Failure::new("db", "TemplateFailed", "line").keeps(&[("line", "ue")]);
    let object = scene.suffers(&operator, &failed).await?;
    ensure!(
        !serde_json::to_string(&object.status)?.contains("unseen"),
        "the value is in the status"
    );
    let whole = json!({"user": "u", "extra": "2"});
    scene
        .survives(&operator, &failed, async || {
            scene.write("apps/db", &whole).await.map(drop)
        })
        .await?;
    scene.holds("db", &[("line", "u2")]).await?;

    let broken = json!({"data": {"line": "{{ user "}});
    scene.synced("db", &made(&broken, "Opaque")).await?;
    let failed = Failure::new("db", "TemplateFailed", "template.data.line").keeps(&[("line", "u2")]);
    scene
        .survives(&operator, &failed, async || {
            scene.synced("db", &made(&template, "Opaque")).await
        })
        .await
        .map(drop)
}

async fn a_template_without_end_keeps_the_last_secret(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"turns": "10"})).await?;
    let operator = scene.operator().await?;
    let loops = "{% for a in turns|split(',') %}{% for b in range(9000) %}{% for c in range(9000) %}\
                 {% endfor %}{% endfor %}{% endfor %}done";
    let once = json!({"data": {"line": "{{ turns }}"}});
    scene.synced("db", &made(&once, "Opaque")).await?;
    scene.holds("db", &[("line", "10")]).await?;
    // Another object is served all the same, by the same operator.
    scene
        .synced("endless", &made(&json!({"data": {"line": loops}}), "Opaque"))
        .await?;
    scene
        .synced("db", &made(&json!({"data": {"line": loops}}), "Opaque"))
        .await?;
    let endless = Failure::new("endless", "TemplateLimit", "line");
    scene.suffers(&operator, &endless).await?;
    let kept = Failure::new("db", "TemplateLimit", "line").keeps(&[("line", "10")]);
    scene.suffers(&operator, &kept).await?;
    scene.synced_path("other", "apps/db").await?;
    scene.holds("other", &[("turns", "10")]).await?;
    scene
        .survives(&operator, &kept, async || {
            scene.synced("db", &made(&once, "Opaque")).await
        })
        .await
        .map(drop)
}

async fn a_template_that_grows_too_large_keeps_the_last_secret(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"piece": "small"})).await?;
    let operator = scene.operator().await?;
    let template = json!({"data": {"line": "{% for a in range(200) %}{{ piece }}{% endfor %}"}});
    scene.synced("db", &made(&template, "Opaque")).await?;
    let last = "small".repeat(200);
    scene.holds("db", &[("line", &last)]).await?;
    let large = "l".repeat(6 * 1024);
    scene.write("apps/db", &json!({"piece": large})).await?;
    let grown = Failure::new("db", "TemplateLimit", "line").keeps(&[("line", &last)]);
    scene
        .survives(&operator, &grown, async || {
            scene.write("apps/db", &json!({"piece": "s"})).await.map(drop)
        })
        .await?;
    scene.holds("db", &[("line", &"s".repeat(200))]).await
}

async fn an_edited_template_is_carried_out_at_once(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"user": "keyward"})).await?;
    let _operator = scene.operator().await?;
    // The next look at the store is an hour away.
    let hourly = |template: Value| json!({"sources": [path("apps/db")], "target": {"template": template}});
    let line = |text: &str| json!({"data": {"line": text}});
    scene.synced("db", &hourly(line("{{ user }}"))).await?;
    scene.holds("db", &[("line", "keyward")]).await?;
    scene.ready("db").await?;
    scene.synced("db", &hourly(line("{{ user|upper }}"))).await?;
    scene.holds("db", &[("line", "KEYWARD")]).await?;
    scene.ready("db").await?;
    let mut labelled = line("{{ user|upper }}");
    labelled["labels"] = json!({"example.com/user": "{{ user }}"});
    scene.synced("db", &hourly(labelled)).await?;
    poll::until("the label", SOON, || async {
        let secret = scene.api::<Secret>().get("db").await;
        let labels = secret.map(|secret| secret.metadata.labels.unwrap_or_default());
        labels.is_ok_and(|labels| {
            labels
                .get("example.com/user")
                .is_some_and(|user| user == "keyward")
        })
    })
    .await
}

/// The spec of an object that makes a Secret of this type from one path.
fn made(template: &Value, secret_type: &str) -> Value {
    let target = json!({"target": {"type": secret_type, "template": template}});
    often_with(&[path("apps/db")], &target)
}
