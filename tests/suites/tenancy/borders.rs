//! A tenant's object never makes the operator use what the tenant's namespace does not hold.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use keyward_crds::{DESIRED_HASH_ANNOTATION, SERVICE_ACCOUNT_CONSENT, SecretStore, SyncedSecret};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::kubernetes::Parts;
use keyward_tests::rig::vault::Kv;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::scene::{self, AUDIENCE, Scene};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        no_field_of_a_store_reaches_into_another_namespace,
        no_field_of_a_synced_secret_reaches_into_another_namespace,
        a_consumer_logs_in_as_itself,
        a_consumer_that_was_refused_is_let_in_once_the_store_admits_it,
    );
}

/// Every field of a store that names another object, with the name of one.
fn referring(scene: &Scene<'_>, name: &str) -> Vec<(&'static str, Value)> {
    let key = json!({"name": name, "key": "value"});
    let login = |auth: Value| scene.vault_with(&auth);
    let trusting = |ca: Value| {
        let mut spec = scene.vault_spec();
        spec["vault"]["ca"] = ca;
        spec
    };
    let keystone = |auth: Value| json!({"barbican": {"authUrl": "https://127.0.0.1:1/v3", "auth": auth}});
    vec![
        ("token", login(json!({"token": {"tokenRef": key}}))),
        (
            "approle",
            login(json!({"appRole": {"roleId": "r", "secretIdRef": key}})),
        ),
        (
            "userpass",
            login(json!({"userpass": {"username": "u", "passwordRef": key}})),
        ),
        ("cert", login(json!({"cert": {"certificateRef": {"name": name}}}))),
        ("jwt", login(json!({"jwt": {"role": "r", "tokenRef": key}}))),
        (
            "jwt-account",
            login(json!({"jwt": {
                "mount": scene.auth_mount(), "role": "reader", "audience": AUDIENCE,
                "serviceAccountRef": {"name": name},
            }})),
        ),
        (
            "kubernetes",
            login(json!({"kubernetes": {
                "mount": scene.auth_mount(), "role": "reader", "audience": AUDIENCE,
                "serviceAccountRef": {"name": name},
            }})),
        ),
        ("ca-map", trusting(json!({"configMapRef": key}))),
        ("ca-secret", trusting(json!({"secretRef": key}))),
        (
            "credential",
            keystone(json!({"applicationCredential": {"id": "i", "secretRef": key}})),
        ),
        (
            "password",
            keystone(json!({"password": {"username": "u", "project": "p", "passwordRef": key}})),
        ),
        ("clouds", json!({"barbican": {"cloudsYaml": {"secretRef": key}}})),
    ]
}

async fn no_field_of_a_store_reaches_into_another_namespace(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    // Another tenant holds everything that these stores lack, each under the very name.
    let victim = case.namespace().await?;
    let held = json!({
        "kind": "Secret",
        "stringData": {"value": "treasure", "tls.crt": "treasure", "tls.key": "treasure"},
    });
    let secrets: Api<Secret> = Api::namespaced(scene.kubernetes.client(), &victim);
    scene::apply(&secrets, "treasure", held).await?;
    lend_account(&scene, &victim, "treasure").await?;
    let stores = referring(&scene, "treasure");
    for (name, spec) in &stores {
        scene
            .store(name, spec)
            .await
            .with_context(|| (*name).to_owned())?;
        scene.synced_from(name, name, "apps/db").await?;
    }
    let mark = scene.kubernetes.audit().mark().await?;
    let _operator = scene.operator().await?;
    for (name, _) in &stores {
        let status = scene
            .store_reason(name, "CredentialMissing")
            .await
            .with_context(|| (*name).to_owned())?;
        let ready = scene::ready_of(&status.conditions).context("there is a condition")?;
        let own = format!("{}/treasure", scene.namespace);
        ensure!(ready.message.contains(&own), "{name}: {}", ready.message);
    }
    let asked = scene.asked_of_kubernetes(mark).await?;
    let astray: Vec<_> = asked
        .iter()
        .filter(|request| request.namespace == victim)
        .collect();
    ensure!(astray.is_empty(), "{astray:?}");

    // A name that looks like a way out is no name.
    let api: Api<SecretStore> = scene.api();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for path in [
        format!("{victim}/treasure"),
        format!("../../{victim}/secrets/treasure"),
    ] {
        for (name, spec) in referring(&scene, &path) {
            let store = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
            let refusal = api.create(&dry, &store).await;
            ensure!(refusal.is_err(), "{name} takes the name {path}");
        }
    }
    Ok(())
}

async fn no_field_of_a_synced_secret_reaches_into_another_namespace(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let victim = Scene::new(&case, Kv::V2).await?;
    victim.write("apps/db", &json!({"password": "theirs"})).await?;
    scene.write("apps/db", &json!({"password": "ours"})).await?;
    victim.store("their-store", &victim.vault_spec()).await?;
    let labels = json!({"app": "web"});
    let deployment = json!({
        "kind": "Deployment",
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": "web"}]},
            },
        },
    });
    scene::apply(&victim.api::<Deployment>(), "web", deployment).await?;

    let mark = scene.kubernetes.audit().mark().await?;
    let _operator = scene.operator().await?;
    scene.synced_from("borrowed", "their-store", "apps/db").await?;
    let web = json!({
        "sources": [{"storeRef": {"name": "vault"}, "path": "apps/db"}],
        "consumers": [{"kind": "Deployment", "name": "web"}],
    });
    scene.synced("own", &web).await?;
    scene.reason("borrowed", "StoreNotFound").await?;
    scene
        .until("own", "without its consumer", |object| {
            let conditions = object.status.iter().flat_map(|status| &status.conditions);
            conditions
                .into_iter()
                .any(|condition| condition.reason == "RolloutTargetMissing")
        })
        .await?;
    ensure!(scene.values("borrowed").await?.is_none());
    let theirs = victim.api::<Deployment>().get("web").await?;
    let annotations = theirs
        .spec
        .and_then(|spec| spec.template.metadata)
        .and_then(|meta| meta.annotations)
        .unwrap_or_default();
    ensure!(!annotations.contains_key(DESIRED_HASH_ANNOTATION));
    let asked = scene.asked_of_kubernetes(mark).await?;
    let astray: Vec<_> = asked
        .iter()
        .filter(|request| request.namespace == victim.namespace)
        .collect();
    ensure!(astray.is_empty(), "{astray:?}");

    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let out = format!("{}/web", victim.namespace);
    let source = json!({"storeRef": {"name": "vault"}, "path": "apps/db"});
    for spec in [
        json!({"sources": [{"storeRef": {"name": out}, "path": "apps/db"}]}),
        json!({"sources": [source], "consumers": [{"kind": "Deployment", "name": out}]}),
        json!({"sources": [source], "target": {"name": out}}),
    ] {
        let object = serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": spec}))?;
        let refusal = scene.api::<SyncedSecret>().create(&dry, &object).await;
        ensure!(refusal.is_err(), "{spec} is taken");
    }
    Ok(())
}

async fn a_consumer_logs_in_as_itself(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    let without = "tenant-none";
    scene.another_namespace(without, &json!({})).await?;
    let (first, second) = tenants_of_one_store(&scene).await?;
    let mark = scene.vault.audit().mark()?;
    let _operator = scene.operator_of_all().await?;
    scene.cluster_store_reason("shared", "StoreReady").await?;
    for namespace in [first, second, without] {
        let banner = json!({"path": "shared/banner"});
        scene.synced_in(namespace, "banner", "shared", &banner).await?;
    }
    scene.reason_in(first, "banner", "Synced").await?;
    scene.reason_in(second, "banner", "CredentialRejected").await?;
    let message = scene.reason_in(without, "banner", "CredentialMissing").await?;
    ensure!(message.contains("tenant-none/tenant"), "{message}");
    let asked = scene.asked_of_vault(mark)?;
    let readers: Vec<_> = asked
        .iter()
        .filter(|request| request.path.starts_with(&scene.mount))
        .collect();
    ensure!(!readers.is_empty());
    for request in readers {
        ensure!(
            request.display_name.contains("tenant-one") && request.display_name.contains("tenant"),
            "asked by {}",
            request.display_name
        );
    }
    Ok(())
}

async fn a_consumer_that_was_refused_is_let_in_once_the_store_admits_it(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    let (first, second) = tenants_of_one_store(&scene).await?;
    let mark = scene.vault.audit().mark()?;
    let _operator = scene.operator_of_all().await?;
    let banner = json!({"path": "shared/banner"});
    for namespace in [first, second] {
        scene.synced_in(namespace, "banner", "shared", &banner).await?;
    }
    scene.reason_in(first, "banner", "Synced").await?;
    let message = scene.reason_in(second, "banner", "CredentialRejected").await?;
    ensure!(!message.contains("eyJ"), "a token is told: {message}");
    // The store's administrator acts; in the cluster nothing changes.
    admit(&scene, &[first, second]).await?;
    scene.reason_in(second, "banner", "Synced").await?;
    let asked = scene.asked_of_vault(mark)?;
    let logins = asked.iter().filter(|request| request.is_login());
    let by_first = logins.filter(|request| request.display_name.contains(first));
    ensure!(by_first.count() <= 1, "who was let in before logs in no more");
    Ok(())
}

/// A cluster store `shared` whose consumers log in as themselves, with two tenants of which it admits the first.
pub(super) async fn tenants_of_one_store(scene: &Scene<'_>) -> Result<(&'static str, &'static str)> {
    scene.write("shared/banner", &json!({"value": "for all"})).await?;
    let (first, second) = ("tenant-one", "tenant-two");
    for namespace in [first, second] {
        scene.another_namespace(namespace, &json!({})).await?;
        lend_account(scene, namespace, "tenant").await?;
    }
    // The store's own policy admits only one of the two: it sees who asks.
    admit(scene, &[first]).await?;
    let everybody = json!([{"name": "all", "selector": {}, "paths": ["**"]}]);
    scene
        .cluster_store("shared", &scene.consumer_spec(&everybody))
        .await?;
    Ok((first, second))
}

/// Lets ServiceAccount `tenant` of these namespaces, and of no other, log in and read.
async fn admit(scene: &Scene<'_>, namespaces: &[&str]) -> Result<()> {
    let reads = format!("path \"{}/*\" {{ capabilities = [\"read\"] }}", scene.mount);
    let policy = format!("{}-tenant", scene.mount);
    scene.vault.api().write_policy(&policy, &reads).await?;
    let role = json!({
        "bound_service_account_names": ["tenant"],
        "bound_service_account_namespaces": namespaces,
        "audience": AUDIENCE,
        "token_policies": [policy],
    });
    scene
        .vault
        .api()
        .create_role(&scene.auth_mount(), "tenant", &role)
        .await
}

/// Makes a ServiceAccount of any namespace that lends itself to Keyward.
async fn lend_account(scene: &Scene<'_>, namespace: &str, name: &str) -> Result<()> {
    let account = json!({"metadata": {"name": name, "annotations": {SERVICE_ACCOUNT_CONSENT: "true"}}});
    Api::<ServiceAccount>::namespaced(scene.kubernetes.client(), namespace)
        .create(&PostParams::default(), &serde_json::from_value(account)?)
        .await?;
    Ok(())
}
