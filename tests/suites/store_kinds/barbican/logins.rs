//! How a store finds Barbican and logs in: every way, right and wrong, and what a wrong one costs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyward_crds::SecretStore;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::Settings;
use keyward_tests::rig::openstack::{CredentialTerms, NewSecret, Options, Service, What};
use keyward_tests::rig::poll;
use keyward_tests::rig::tls::Authority;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use super::{Cloud, copy_of};
use crate::scene::{SOON, message_of};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        each_way_of_logging_in_to_keystone_works,
        a_wrong_credential_of_keystone_is_said_and_a_corrected_one_taken_up_at_once,
        barbican_is_found_by_region_interface_override_and_ca,
        stores_with_one_credential_share_a_token_and_give_it_back_once,
        stores_that_share_a_bad_password_cause_one_failed_login,
        a_short_token_is_renewed,
    );
}

async fn each_way_of_logging_in_to_keystone_works(case: Case) -> Result<()> {
    let cloud = Cloud::with_db(&case).await?;
    let (scene, tenant) = (&cloud.scene, &cloud.tenant);
    let credential = tenant.application_credential(&CredentialTerms::default()).await?;
    let clouds = json!({"clouds": {
        "by-password": {
            "auth": {
                "auth_url": cloud.servers.auth_url(), "username": tenant.user, "password": tenant.password,
                "project_name": tenant.project, "user_domain_name": "Default", "project_domain_name": "Default",
            },
            "region_name": cloud.servers.region(),
        },
        "by-credential": {
            "auth_type": "v3applicationcredential",
            "auth": {
                "auth_url": cloud.servers.auth_url(),
                "application_credential_id": credential.id,
                "application_credential_secret": credential.secret,
            },
        },
    }});
    // Every JSON document is a YAML document.
    scene
        .credential("clouds", &json!({"clouds.yaml": clouds.to_string()}))
        .await?;
    scene
        .credential("password", &json!({"password": tenant.password}))
        .await?;
    let file = |name: &str| {
        json!({"barbican": {
            "ca": {"inline": cloud.servers.ca()},
            "cloudsYaml": {"secretRef": {"name": "clouds", "key": "clouds.yaml"}, "cloud": name},
        }})
    };
    let stores = [
        ("credential", cloud.by_credential("credential").await?),
        ("by-password", cloud.by_password("password")),
        ("clouds-password", file("by-password")),
        ("clouds-credential", file("by-credential")),
    ];
    let _operator = scene.operator().await?;
    for (name, spec) in &stores {
        cloud.copied_by(name, spec).await?;
    }
    for (name, _) in &stores {
        scene
            .holds(&copy_of(name), &[("password", "first")])
            .await
            .with_context(|| (*name).to_owned())?;
        scene.store_reason(name, "StoreReady").await?;
    }
    Ok(())
}

async fn a_wrong_credential_of_keystone_is_said_and_a_corrected_one_taken_up_at_once(
    case: Case,
) -> Result<()> {
    let cloud = Cloud::with_db(&case).await?;
    let (scene, tenant) = (&cloud.scene, &cloud.tenant);
    let credential = tenant.application_credential(&CredentialTerms::default()).await?;
    let by_credential = cloud.spec(&json!({"applicationCredential": {
        "id": credential.id, "secretRef": {"name": "credential", "key": "secret"},
    }}));
    scene
        .credential("credential", &json!({"secret": "wrong"}))
        .await?;
    scene
        .credential("password", &json!({"password": "wrong"}))
        .await?;
    let stores = [
        ("by-credential", by_credential),
        ("by-password", cloud.by_password("password")),
    ];
    for (name, spec) in &stores {
        cloud.copied_by(name, spec).await?;
    }
    let log = cloud.servers.access_log(Service::Keystone);
    let mark = log.mark()?;
    let operator = scene.operator().await?;
    for (name, _) in &stores {
        scene.store_reason(name, "CredentialRejected").await?;
        scene.told(&operator, name, "CredentialRejected", "").await?;
    }
    assert_eq!(log.failed_logins(mark, &tenant.user)?, 1);
    scene
        .credential("credential", &json!({"secret": credential.secret}))
        .await?;
    scene
        .credential("password", &json!({"password": tenant.password}))
        .await?;
    for (name, _) in &stores {
        scene.holds(&copy_of(name), &[("password", "first")]).await?;
        scene.ready(name).await?;
        scene.store_reason(name, "StoreReady").await?;
    }
    Ok(())
}

async fn barbican_is_found_by_region_interface_override_and_ca(case: Case) -> Result<()> {
    let cloud = Cloud::with_db(&case).await?;
    let scene = &cloud.scene;
    let base = cloud.by_credential("login").await?;
    let with = |field: &str, value: serde_json::Value| {
        let mut spec = base.clone();
        spec["barbican"][field] = value;
        spec
    };
    let good = [
        ("region", with("region", cloud.servers.region().into())),
        ("internal", with("interface", "Internal".into())),
        ("admin", with("interface", "Admin".into())),
        (
            "override",
            with("endpointOverride", cloud.servers.key_manager_url().into()),
        ),
        (
            "ca-map",
            with("ca", json!({"configMapRef": {"name": "trust", "key": "ca.crt"}})),
        ),
    ];
    scene
        .config_map("trust", &json!({"ca.crt": cloud.servers.ca()}))
        .await?;
    let stranger = Authority::new("stranger")?;
    let bad = [
        ("another-region", with("region", "elsewhere".into())),
        ("wrong-ca", with("ca", json!({"inline": stranger.certificate()}))),
        (
            "wrong-override",
            with("endpointOverride", "https://127.0.0.1:1".into()),
        ),
    ];
    for (name, spec) in good.iter().chain(&bad) {
        cloud.copied_by(name, spec).await?;
    }
    let _operator = scene.operator().await?;
    for (name, _) in &good {
        scene
            .holds(&copy_of(name), &[("password", "first")])
            .await
            .with_context(|| (*name).to_owned())?;
    }
    scene.store_reason("wrong-ca", "TlsFailed").await?;
    scene.store_reason("wrong-override", "StoreUnavailable").await?;
    let object = scene.reason("another-region", "StoreProtocol").await?;
    let message = message_of(&object)?;
    ensure!(message.contains(cloud.servers.region()), "{message}");
    for (name, _) in &bad {
        ensure!(scene.values(&copy_of(name)).await?.is_none(), "{name}");
    }
    Ok(())
}

async fn stores_with_one_credential_share_a_token_and_give_it_back_once(case: Case) -> Result<()> {
    let cloud = Cloud::with_db(&case).await?;
    let (scene, tenant) = (&cloud.scene, &cloud.tenant);
    let credential = tenant.application_credential(&CredentialTerms::default()).await?;
    let by_credential = |secret: &str| {
        cloud.spec(&json!({"applicationCredential": {
            "id": credential.id, "secretRef": {"name": secret, "key": "key"},
        }}))
    };
    let mut elsewhere = by_credential("c2");
    // Keystone does not care where Barbican is found.
    elsewhere["barbican"]["endpointOverride"] = cloud.servers.key_manager_url().into();
    let stores = [
        ("c0", &credential.secret, by_credential("c0")),
        ("c1", &credential.secret, by_credential("c1")),
        ("c2", &credential.secret, elsewhere),
        ("p0", &tenant.password, cloud.by_password("p0")),
        ("p1", &tenant.password, cloud.by_password("p1")),
        ("p2", &tenant.password, cloud.by_password("p2")),
    ];
    for (name, secret, spec) in &stores {
        // Each has a Secret of its own, with the same credential.
        scene
            .credential(name, &json!({"key": secret, "password": secret}))
            .await?;
        cloud.copied_by(name, spec).await?;
    }
    let log = cloud.servers.access_log(Service::Keystone);
    let mark = log.mark()?;
    let _operator = scene.operator().await?;
    for (name, ..) in &stores {
        scene
            .holds(&copy_of(name), &[("password", "first")])
            .await
            .with_context(|| (*name).to_owned())?;
        scene.store_reason(name, "StoreReady").await?;
    }
    for who in [&credential.id, &tenant.user] {
        assert_eq!(log.logins(mark, who)?.len(), 1, "three stores, one credential");
    }
    let given_back = || -> Result<usize> {
        let requests = log.since(mark)?;
        let revocations = requests.iter().filter(|request| {
            request.method == "DELETE"
                && request.path.ends_with("/auth/tokens")
                // What ends a password's session is a token without a project.
                && request.user.as_deref() == Some(tenant.user_id.as_str())
        });
        Ok(revocations.count())
    };
    // The last to go gives it back.
    let objects: Api<SecretStore> = scene.api();
    for (number, rest) in stores.chunks(3).enumerate() {
        for (name, ..) in &rest[1..] {
            objects.delete(name, &DeleteParams::default()).await?;
            scene.reason(name, "StoreNotFound").await?;
        }
        assert_eq!(given_back()?, number);
        objects.delete(rest[0].0, &DeleteParams::default()).await?;
        poll::until("a token given back", SOON, || async {
            given_back().is_ok_and(|count| count == number + 1)
        })
        .await?;
    }
    Ok(())
}

async fn stores_that_share_a_bad_password_cause_one_failed_login(case: Case) -> Result<()> {
    let cloud = Cloud::with_db(&case).await?;
    let (scene, tenant) = (&cloud.scene, &cloud.tenant);
    let log = cloud.servers.access_log(Service::Keystone);
    let names: Vec<String> = (0..10).map(|number| format!("store-{number}")).collect();
    for name in &names {
        // Each has a Secret of its own, with the same wrong password.
        scene.credential(name, &json!({"password": "wrong"})).await?;
        cloud.copied_by(name, &cloud.by_password(name)).await?;
    }
    let mark = log.mark()?;
    let first = scene.operator().await?;
    for name in &names {
        scene.store_reason(name, "CredentialRejected").await?;
        scene.reason(name, "CredentialRejected").await?;
    }
    assert_eq!(log.failed_logins(mark, &tenant.user)?, 1);
    first.stop().await?;

    // A successor knows it without asking.
    let second = scene.operator_with(&Settings::inside(&scene.namespace)).await?;
    scene.credential("new", &json!({"password": "wrong"})).await?;
    scene.store("newcomer", &cloud.by_password("new")).await?;
    scene.store_reason("newcomer", "CredentialRejected").await?;
    for name in &names {
        scene.tried(&second, name).await?;
    }
    assert_eq!(log.failed_logins(mark, &tenant.user)?, 1);

    // The user was never locked out.
    for name in &names {
        scene
            .credential(name, &json!({"password": tenant.password}))
            .await?;
    }
    for name in &names {
        scene.holds(&copy_of(name), &[("password", "first")]).await?;
    }
    assert_eq!(log.failed_logins(mark, &tenant.user)?, 1);
    Ok(())
}

async fn a_short_token_is_renewed(case: Case) -> Result<()> {
    let lifetime = Duration::from_secs(20);
    let servers = case
        .private_openstack(&Options {
            token_lifetime: lifetime,
            ..Options::default()
        })
        .await?;
    let cloud = Cloud::with(&case, &servers).await?;
    let (scene, tenant) = (&cloud.scene, &cloud.tenant);
    let key_manager = tenant.key_manager();
    let id = key_manager.store(&NewSecret::named("db"), b"first").await?;
    let credential = tenant.application_credential(&CredentialTerms::default()).await?;
    scene
        .credential("login", &json!({"secret": credential.secret}))
        .await?;
    let spec = cloud.spec(&json!({"applicationCredential": {
        "id": credential.id, "secretRef": {"name": "login", "key": "secret"},
    }}));
    scene.store("barbican", &spec).await?;
    let (keystone, barbican) = (
        servers.access_log(Service::Keystone),
        servers.access_log(Service::Barbican),
    );
    let marks = (keystone.mark()?, barbican.mark()?);
    let operator = scene.operator().await?;
    let source = json!({"storeRef": {"name": "barbican"}, "name": "db", "key": "password"});
    scene
        .synced("db", &json!({"sources": [source], "refresh": {"interval": "5s"}}))
        .await?;
    scene.holds("db", &[("password", "first")]).await?;
    // Long enough for the first token to end, told by the logins that follow it.
    poll::until("a third login", lifetime * 4, || async {
        keystone
            .logins(marks.0, &credential.id)
            .is_ok_and(|logins| logins.len() >= 3)
    })
    .await?;
    scene.looked_again(&operator, "db").await?;
    scene.ready("db").await?;
    let refused = barbican
        .since(marks.1)?
        .into_iter()
        .filter(|request| request.status == 401)
        .count();
    assert_eq!(refused, 0, "a token was renewed only after it was refused");
    assert_eq!(
        barbican.count(marks.1, &tenant.project_id, What::Payload)?,
        1,
        "the payload is read once"
    );
    key_manager.delete(&id).await?;
    Ok(())
}
