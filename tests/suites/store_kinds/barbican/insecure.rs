//! Choices that weaken a Barbican store, also those that a `clouds.yaml` makes.

use anyhow::{Context as _, Result, ensure};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::openstack::Service;
use keyward_tests::rig::tls::Authority;
use serde_json::{Value, json};

use super::{Cloud, copy_of};
use crate::scene::message_of;
use crate::store_kinds::insecure::{
    REASON, counted, exception, in_an_hour, insecure_message, permissive, plain_http,
};
use crate::store_kinds::store_message;
use crate::told::Kind;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        insecure_choices_on_barbican_are_refused_unless_the_administrator_allows_them,
        an_insecure_choice_on_barbican_in_use_is_reported,
    );
}

/// A store that makes an insecure choice.
struct Weakened {
    name: &'static str,
    choice: &'static str,
    spec: Value,
}

async fn insecure_choices_on_barbican_are_refused_unless_the_administrator_allows_them(
    case: Case,
) -> Result<()> {
    let cloud = Cloud::with_db(&case).await?;
    let scene = &cloud.scene;
    let stores = weakened(&cloud, "http://127.0.0.1:1", "http://127.0.0.1:1").await?;
    for store in &stores {
        cloud.copied_by(store.name, &store.spec).await?;
    }
    // A file cannot make the choice for the store.
    let mut silent = stores[2].spec.clone();
    silent.as_object_mut().context("a spec")?.remove("insecure");
    cloud.copied_by("silent", &silent).await?;
    let log = cloud.servers.access_log(Service::Keystone);
    let mark = log.mark()?;
    let operator = scene.operator().await?;
    for Weakened { name, choice, .. } in &stores {
        let status = scene.store_reason(name, "InsecureRefused").await.context(*name)?;
        let message = store_message(&status)?;
        ensure!(message.contains(choice), "{message}");
        ensure!(
            insecure_message(&status).is_none(),
            "what is refused is not in use"
        );
        scene
            .passed_on(&operator, Kind::SecretStore, name, "InsecureRefused")
            .await?;
        counted(&operator, choice, false).await?;
    }
    let status = scene.store_reason("silent", "SpecInvalid").await?;
    let message = store_message(&status)?;
    ensure!(message.contains("switches TLS verification off"), "{message}");
    let object = scene.reason("silent", "StoreNotReady").await?;
    ensure!(message_of(&object)?.contains("verify"), "{object:?}");
    for who in [&cloud.tenant.user, &credential_of(&stores[0])?] {
        assert_eq!(log.logins(mark, who)?.len(), 0, "nothing was shown to anybody");
    }
    for name in stores.iter().map(|store| store.name).chain(["silent"]) {
        ensure!(scene.values(&copy_of(name)).await?.is_none(), "{name}");
    }
    Ok(())
}

async fn an_insecure_choice_on_barbican_in_use_is_reported(case: Case) -> Result<()> {
    let cloud = Cloud::with_db(&case).await?;
    let scene = &cloud.scene;
    let (servers, ca) = (cloud.servers, cloud.servers.ca());
    let keystone = servers.auth_url();
    let keystone = plain_http(keystone.strip_suffix("/v3").unwrap_or(&keystone), ca).await?;
    let barbican = plain_http(servers.key_manager_url(), ca).await?;
    let stores = weakened(
        &cloud,
        &format!("http://{keystone}/v3"),
        &format!("http://{barbican}"),
    )
    .await?;
    for store in &stores {
        cloud.copied_by(store.name, &store.spec).await?;
    }
    let operator = scene.operator_with(&permissive(scene)).await?;
    for Weakened { name, choice, .. } in &stores {
        let copied = scene
            .holds_in(name, &copy_of(name), &[("password", "first")])
            .await;
        copied.context(*name)?;
        let status = scene.store_reason(name, "StoreReady").await?;
        let message = insecure_message(&status).context("there is no Insecure condition")?;
        ensure!(message.contains(REASON), "{message}");
        let implied = if *choice == "plainHttp" {
            "read every value"
        } else {
            "pose as the store"
        };
        ensure!(message.contains(implied), "{message}");
        scene.event_about(Kind::SecretStore, name, "Insecure").await?;
        counted(&operator, choice, true).await?;
    }
    Ok(())
}

/// One store for each choice: a plain address, a certificate that nobody looks at, and the same by a `clouds.yaml`.
async fn weakened(cloud: &Cloud<'_>, keystone: &str, barbican: &str) -> Result<[Weakened; 3]> {
    let base = cloud.by_credential("login").await?;
    let stranger = json!({"inline": Authority::new("stranger")?.certificate()});
    let mut plain = base.clone();
    plain["barbican"]["authUrl"] = keystone.into();
    plain["barbican"]["endpointOverride"] = barbican.into();
    plain["barbican"]["ca"] = Value::Null;
    plain["insecure"] = exception("plainHttp", in_an_hour());
    let mut unverified = base;
    unverified["barbican"]["ca"] = stranger.clone();
    unverified["insecure"] = exception("skipTlsVerify", in_an_hour());
    let file = json!({"clouds": {"one": {
        "verify": false,
        "auth": {
            "auth_url": cloud.servers.auth_url(), "username": cloud.tenant.user, "password": cloud.tenant.password,
            "project_name": cloud.tenant.project, "domain_name": "Default",
        },
    }}});
    // Every JSON document is a YAML document.
    let text = json!({"clouds.yaml": file.to_string()});
    cloud.scene.credential("clouds", &text).await?;
    let file = json!({
        "barbican": {"ca": stranger, "cloudsYaml": {"secretRef": {"name": "clouds", "key": "clouds.yaml"}}},
        "insecure": exception("skipTlsVerify", in_an_hour()),
    });
    Ok([
        Weakened {
            name: "plain",
            choice: "plainHttp",
            spec: plain,
        },
        Weakened {
            name: "unverified",
            choice: "skipTlsVerify",
            spec: unverified,
        },
        Weakened {
            name: "by-file",
            choice: "skipTlsVerify",
            spec: file,
        },
    ])
}

fn credential_of(store: &Weakened) -> Result<String> {
    let id = store.spec["barbican"]["auth"]["applicationCredential"]["id"].as_str();
    Ok(id.context("it logs in by one")?.to_owned())
}
