//! Whom a store trusts: its CA and the name in its server's certificate.

use anyhow::{Context as _, Result, ensure};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::tls::Authority;
use keyward_tests::rig::vault::{Kv, StoreRequest};
use serde_json::{Value, json};

use super::store_message;
use crate::scene::{FIRST, Scene};
use crate::told::Failure;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        a_server_of_another_ca_or_name_gets_no_login,
        a_ca_from_an_object_is_followed,
    );
}

async fn a_server_of_another_ca_or_name_gets_no_login(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let stranger = Authority::new("stranger")?;
    let wrong = [
        (
            "wrong-ca",
            "ca",
            json!({"inline": stranger.certificate()}),
            "is not issued by a trusted CA",
        ),
        (
            "wrong-name",
            "serverName",
            json!("vault.example.com"),
            "is for another name",
        ),
    ];
    for (name, field, value, _) in &wrong {
        scene.store(name, &with(&scene, field, value)).await?;
        scene.synced_from(name, name, "apps/db").await?;
    }
    // The certificate holds this name beside the address.
    scene
        .store("other-name", &with(&scene, "serverName", &json!("localhost")))
        .await?;
    scene.synced_from("other-name", "other-name", "apps/db").await?;
    let mark = scene.vault.audit().mark()?;
    let operator = scene.operator().await?;
    scene.ready("other-name").await?;
    for (name, _, _, words) in &wrong {
        scene.store_told(&operator, name, "TlsFailed", words).await?;
        let failed = Failure::new(name, "TlsFailed", words);
        scene.suffers(&operator, &failed).await?;
    }
    let logins: Vec<_> = scene
        .asked_of_vault(mark)?
        .into_iter()
        .filter(StoreRequest::is_login)
        .collect();
    assert_eq!(
        logins.len(),
        2,
        "of `vault` and `other-name` and nobody else: {logins:?}"
    );

    scene.store("wrong-ca", &scene.vault_spec()).await?;
    scene.store("wrong-name", &scene.vault_spec()).await?;
    scene.ready("wrong-ca").await?;
    scene.ready("wrong-name").await?;
    Ok(())
}

async fn a_ca_from_an_object_is_followed(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let stranger = Authority::new("stranger")?;
    for (name, field) in [("of-map", "configMapRef"), ("of-secret", "secretRef")] {
        let ca = json!({field: {"name": "trust", "key": "ca.crt"}});
        scene.store(name, &with(&scene, "ca", &ca)).await?;
        scene.synced_from(name, name, "apps/db").await?;
    }
    let operator = scene.operator().await?;
    for (name, what) in [("of-map", "ConfigMap"), ("of-secret", "Secret")] {
        let status = scene.store_reason(name, "CredentialMissing").await?;
        let named = format!("{what} {}/trust does not exist", scene.namespace);
        ensure!(store_message(&status)?.contains(&named));
    }

    let plant = async |ca: &str| {
        scene.config_map("trust", &json!({"ca.crt": ca})).await?;
        scene.credential("trust", &json!({"ca.crt": ca})).await
    };
    plant(stranger.certificate()).await?;
    for name in ["of-map", "of-secret"] {
        scene.store_reason(name, "TlsFailed").await.context(name)?;
    }
    plant(scene.vault.ca()).await?;
    for name in ["of-map", "of-secret"] {
        scene.ready(name).await.context(name)?;
    }
    // One that was right and no longer is ends the use of the store, and the last good Secret stays.
    plant(stranger.certificate()).await?;
    for name in ["of-map", "of-secret"] {
        let failed = Failure::new(name, "TlsFailed", "trusted CA").keeps(&FIRST);
        scene.suffers(&operator, &failed).await?;
    }
    plant("not a certificate").await?;
    for name in ["of-map", "of-secret"] {
        let status = scene.store_reason(name, "TlsFailed").await?;
        ensure!(!store_message(&status)?.contains("not a certificate"));
    }
    plant(scene.vault.ca()).await?;
    for name in ["of-map", "of-secret"] {
        scene.ready(name).await.context(name)?;
    }
    Ok(())
}

/// The spec of the store that works, with another value for one field.
fn with(scene: &Scene<'_>, field: &str, value: &Value) -> Value {
    let mut spec = scene.vault_spec();
    spec["vault"][field] = value.clone();
    spec
}
