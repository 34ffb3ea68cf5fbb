//! Keystone and Barbican: logins and how they fail, what comes back of what was stored, and what is counted.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::TimeDelta;
use futures::future::{join_all, try_join_all};
use keyward::runtime::clock::now;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::openstack::{
    AccessRule, Answer, Container, ContainerKind, CredentialTerms, KeyManager, Login, NewSecret, Options,
    Role, SecretKind, Service, What,
};
use keyward_tests::rig::tls::Authority;
use keyward_tests::rig::{http, poll};
use reqwest::Method;
use serde_json::Value;

/// Longer than Barbican trusts a token that it has seen.
const REFUSED_WITHIN: Duration = Duration::from_mins(1);

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        the_catalog_gives_the_present_addresses,
        users_log_in_by_password_and_by_application_credential,
        six_wrong_passwords_lock_a_user_out_and_nobody_else,
        wrong_secrets_of_a_credential_lock_nobody_out,
        a_revoked_credential_is_refused,
        a_disabled_user_is_refused,
        a_user_without_a_role_is_refused_until_it_is_granted_again,
        access_rules_allow_what_they_list,
        a_reader_may_not_list,
        every_byte_comes_back_as_it_went_in,
        sizes_end_where_barbican_says,
        a_payload_is_set_once,
        an_expired_secret_is_gone,
        a_deleted_secret_is_gone,
        containers_hold_secrets_by_name,
        names_are_matched_loosely,
        pages_follow_the_wanted_order,
        projects_are_apart,
        requests_are_counted_by_project,
        many_writers_and_readers_are_all_served,
        a_client_without_the_authority_is_turned_away,
        a_short_token_is_refused_at_its_end,
        a_server_comes_back_from_a_stop_and_from_a_freeze,
    );
}

async fn the_catalog_gives_the_present_addresses(case: Case) -> Result<()> {
    let servers = case.openstack().await?;
    let tenant = case.tenant().await?;
    let token = tenant.session().log_in().await?.ok("log in")?.json()?;
    for (service, url) in [
        ("identity", servers.auth_url()),
        ("key-manager", servers.key_manager_url().to_owned()),
    ] {
        let catalog = token["token"]["catalog"]
            .as_array()
            .context("there is a catalog")?;
        let entry = catalog
            .iter()
            .find(|entry| entry["type"] == service)
            .context(service)?;
        for interface in ["public", "internal", "admin"] {
            let endpoints = entry["endpoints"].as_array().context("there are endpoints")?;
            let endpoint = endpoints
                .iter()
                .find(|endpoint| endpoint["interface"] == interface)
                .context(interface)?;
            assert_eq!(endpoint["url"], url.as_str(), "{service} {interface}");
            assert_eq!(endpoint["region_id"], servers.region());
        }
    }
    Ok(())
}

async fn users_log_in_by_password_and_by_application_credential(case: Case) -> Result<()> {
    let servers = case.openstack().await?;
    let log = servers.access_log(Service::Keystone);
    let tenant = case.tenant().await?;
    let credential = tenant.application_credential(&CredentialTerms::default()).await?;
    let mark = log.mark()?;
    for (login, who, method) in [
        (tenant.login(), &tenant.user, "password"),
        (credential.login(), &credential.id, "application_credential"),
    ] {
        let token = servers.session(login).log_in().await?.ok("log in")?.json()?;
        assert_eq!(token["token"]["project"]["id"], tenant.project_id.as_str());
        assert_eq!(token["token"]["user"]["id"], tenant.user_id.as_str());
        let logins = log.logins(mark, who)?;
        let [login] = logins.as_slice() else {
            anyhow::bail!("{} logins of {who}", logins.len())
        };
        assert_eq!(login.login.as_ref().context("it is a login")?.methods, [method]);
        assert_eq!(login.status, 201);
    }
    Ok(())
}

async fn six_wrong_passwords_lock_a_user_out_and_nobody_else(case: Case) -> Result<()> {
    let servers = case.openstack().await?;
    let log = servers.access_log(Service::Keystone);
    let (tenant, other) = tokio::try_join!(case.tenant(), case.tenant())?;
    let mark = log.mark()?;
    let wrong = || servers.session(Login::password(&tenant.user, "wrong", &tenant.project));
    let right = || servers.session(tenant.login());

    for _ in 0..5 {
        assert_eq!(wrong().log_in().await?.status, 401);
    }
    assert_eq!(right().log_in().await?.status, 201, "five are forgiven");
    for _ in 0..6 {
        assert_eq!(wrong().log_in().await?.status, 401);
    }
    assert_eq!(right().log_in().await?.status, 401, "six are not");
    assert_eq!(log.failed_logins(mark, &tenant.user)?, 12);
    assert_eq!(servers.session(other.login()).log_in().await?.status, 201);
    Ok(())
}

async fn wrong_secrets_of_a_credential_lock_nobody_out(case: Case) -> Result<()> {
    let servers = case.openstack().await?;
    let log = servers.access_log(Service::Keystone);
    let tenant = case.tenant().await?;
    let credential = tenant.application_credential(&CredentialTerms::default()).await?;
    let mark = log.mark()?;
    for _ in 0..8 {
        let wrong = Login::application_credential(&credential.id, "wrong");
        assert_eq!(servers.session(wrong).log_in().await?.status, 401);
    }
    assert_eq!(log.failed_logins(mark, &credential.id)?, 8);
    assert_eq!(servers.session(credential.login()).log_in().await?.status, 201);
    assert_eq!(servers.session(tenant.login()).log_in().await?.status, 201);
    Ok(())
}

async fn a_revoked_credential_is_refused(case: Case) -> Result<()> {
    let servers = case.openstack().await?;
    let tenant = case.tenant().await?;
    let credential = tenant.application_credential(&CredentialTerms::default()).await?;
    let key_manager = servers.key_manager(credential.login());
    key_manager.list("limit=1").await?.ok("list")?;
    tenant.revoke(&credential).await?;
    assert_eq!(
        servers.session(credential.login()).log_in().await?.status,
        404,
        "what is gone is unknown, not wrong"
    );
    until_refused(&key_manager).await
}

async fn a_disabled_user_is_refused(case: Case) -> Result<()> {
    let servers = case.openstack().await?;
    let tenant = case.tenant().await?;
    tenant.set_enabled(false).await?;
    assert_eq!(servers.session(tenant.login()).log_in().await?.status, 401);
    tenant.set_enabled(true).await?;
    assert_eq!(servers.session(tenant.login()).log_in().await?.status, 201);
    Ok(())
}

async fn a_user_without_a_role_is_refused_until_it_is_granted_again(case: Case) -> Result<()> {
    let servers = case.openstack().await?;
    let tenant = case.tenant().await?;
    let credential = tenant.application_credential(&CredentialTerms::default()).await?;
    tenant.revoke_role().await?;
    assert_eq!(servers.session(credential.login()).log_in().await?.status, 401);
    tenant.grant_role().await?;
    assert_eq!(servers.session(credential.login()).log_in().await?.status, 201);
    Ok(())
}

async fn access_rules_allow_what_they_list(case: Case) -> Result<()> {
    let servers = case.openstack().await?;
    let tenant = case.tenant().await?;
    let id = tenant
        .key_manager()
        .store(&NewSecret::named("a"), b"value")
        .await?;
    let terms = CredentialTerms {
        access_rules: AccessRule::reading(),
        ..CredentialTerms::default()
    };
    let credential = tenant.application_credential(&terms).await?;
    let reader = servers.key_manager(credential.login());
    assert_eq!(reader.payload(&id).await?.ok("read")?.body, b"value");
    assert_eq!(total(&reader.list("").await?)?, 1);
    let session = servers.session(credential.login());
    let secret = format!("{}/v1/secrets/{id}", servers.key_manager_url());
    assert_eq!(
        session.bare(Method::DELETE, &secret).await?.status,
        401,
        "what is not listed is 401, not 403"
    );
    Ok(())
}

async fn a_reader_may_not_list(case: Case) -> Result<()> {
    let servers = case.openstack().await?;
    let tenant = servers.tenant(Role::Reader).await?;
    assert_eq!(tenant.key_manager().list("").await?.status, 403);
    Ok(())
}

async fn every_byte_comes_back_as_it_went_in(case: Case) -> Result<()> {
    let key_manager = case.tenant().await?.key_manager();
    let every: Vec<u8> = (0..=255).collect();
    let text = "  spaces and a last line end \n".as_bytes().to_vec();
    for payload in [every, text, vec![0], vec![0xff; 3]] {
        let secret = NewSecret::named("bytes");
        for id in [
            key_manager.store(&secret, &payload).await?,
            key_manager.store_in_two_steps(&secret, &payload).await?,
        ] {
            let answer = key_manager.payload(&id).await?.ok("read")?;
            assert_eq!(answer.body, payload);
            assert!(answer.request_id.is_some());
        }
    }
    Ok(())
}

async fn sizes_end_where_barbican_says(case: Case) -> Result<()> {
    let key_manager = case.tenant().await?.key_manager();
    let secret = NewSecret::named("large");
    let id = key_manager.store(&secret, &vec![7; 15_000]).await?;
    assert_eq!(key_manager.payload(&id).await?.body.len(), 15_000);
    let refused = key_manager
        .store(&secret, &vec![7; 15_001])
        .await
        .expect_err("one byte too many");
    assert!(format!("{refused:#}").contains(": 413 "), "{refused:#}");

    let id = key_manager.store_in_two_steps(&secret, &vec![7; 20_000]).await?;
    assert_eq!(key_manager.payload(&id).await?.body.len(), 20_000);
    let id = key_manager.store_without_payload(&secret).await?;
    assert_eq!(key_manager.set_payload(&id, &vec![7; 20_001]).await?.status, 413);
    Ok(())
}

async fn a_payload_is_set_once(case: Case) -> Result<()> {
    let key_manager = case.tenant().await?.key_manager();
    let id = key_manager
        .store_without_payload(&NewSecret::named("later").kind(SecretKind::Symmetric))
        .await?;
    let described = key_manager.describe(&id).await?.ok("describe")?.json()?;
    assert_eq!(described["status"], "ACTIVE");
    assert_eq!(described["secret_type"], "symmetric");
    assert_eq!(described.get("content_types"), None);
    assert_eq!(key_manager.payload(&id).await?.status, 404);

    key_manager
        .set_payload(&id, b"now")
        .await?
        .ok("set the payload")?;
    assert_eq!(key_manager.payload(&id).await?.body, b"now");
    let described = key_manager.describe(&id).await?.json()?;
    assert_eq!(described["content_types"]["default"], "application/octet-stream");
    assert_eq!(key_manager.set_payload(&id, b"again").await?.status, 409);
    Ok(())
}

async fn an_expired_secret_is_gone(case: Case) -> Result<()> {
    let key_manager = case.tenant().await?.key_manager();
    let past = NewSecret::named("past").expires(now() - TimeDelta::seconds(5));
    let refused = key_manager
        .store(&past, b"value")
        .await
        .expect_err("it would be expired already");
    assert!(format!("{refused:#}").contains(": 400 "), "{refused:#}");

    let soon = NewSecret::named("soon").expires(now() + TimeDelta::seconds(15));
    let id = key_manager.store(&soon, b"value").await?;
    assert_eq!(key_manager.payload(&id).await?.body, b"value");
    poll::until("the secret to expire", REFUSED_WITHIN, async || {
        key_manager
            .payload(&id)
            .await
            .is_ok_and(|answer| answer.status == 404)
    })
    .await?;
    assert_eq!(key_manager.describe(&id).await?.status, 404);
    assert_eq!(total(&key_manager.list("").await?)?, 0);
    Ok(())
}

async fn a_deleted_secret_is_gone(case: Case) -> Result<()> {
    let key_manager = case.tenant().await?.key_manager();
    let id = key_manager.store(&NewSecret::named("a"), b"value").await?;
    key_manager.set_metadata(&id, &[("owner", "someone")]).await?;
    key_manager.delete(&id).await?;
    assert_eq!(key_manager.payload(&id).await?.status, 404);
    assert_eq!(key_manager.describe(&id).await?.status, 404);
    Ok(())
}

async fn containers_hold_secrets_by_name(case: Case) -> Result<()> {
    let key_manager = case.tenant().await?.key_manager();
    let certificate = key_manager
        .store(
            &NewSecret::named("crt").kind(SecretKind::Certificate),
            b"certificate",
        )
        .await?;
    let key = key_manager
        .store(&NewSecret::named("key").kind(SecretKind::Private), b"key")
        .await?;
    for (kind, name, names) in [
        (
            ContainerKind::Certificate,
            "certificate",
            ["certificate", "private_key"],
        ),
        (ContainerKind::Rsa, "rsa", ["public_key", "private_key"]),
        (ContainerKind::Generic, "generic", ["one", "two"]),
    ] {
        let secrets = [(names[0], certificate.as_str()), (names[1], key.as_str())];
        let id = key_manager
            .create_container(&Container {
                name: "pair",
                kind,
                secrets: &secrets,
            })
            .await?;
        let container = key_manager
            .describe_container(&id)
            .await?
            .ok("describe the container")?
            .json()?;
        assert_eq!(container["type"], name);
        let references = container["secret_refs"].as_array().context("it holds secrets")?;
        for (name, id) in secrets {
            let reference = references
                .iter()
                .find(|reference| reference["name"] == name)
                .context(name)?;
            let target = reference["secret_ref"].as_str().context("a reference is text")?;
            assert!(target.ends_with(&format!("/v1/secrets/{id}")), "{target}");
        }
        key_manager.delete_container(&id).await?;
        assert_eq!(key_manager.describe_container(&id).await?.status, 404);
    }
    assert_eq!(key_manager.payload(&key).await?.body, b"key");
    Ok(())
}

async fn names_are_matched_loosely(case: Case) -> Result<()> {
    let key_manager = case.tenant().await?.key_manager();
    for name in ["db_password", "db-password", "DB_PASSWORD", "db_password_2"] {
        key_manager.store(&NewSecret::named(name), b"value").await?;
    }
    assert_eq!(
        total(&key_manager.list("name=db_password").await?)?,
        3,
        "as a pattern, without regard to case"
    );
    assert_eq!(
        total(&key_manager.list("name=db%25").await?)?,
        4,
        "a percent sign stands for anything"
    );
    Ok(())
}

async fn pages_follow_the_wanted_order(case: Case) -> Result<()> {
    let key_manager = case.tenant().await?.key_manager();
    let mut newest_first = Vec::new();
    for number in 0..5 {
        newest_first.insert(
            0,
            key_manager
                .store(&NewSecret::named(&format!("s{number}")), b"value")
                .await?,
        );
    }
    let mut listed = Vec::new();
    for offset in [0, 2, 4] {
        let page = key_manager
            .list(&format!("sort=created:desc&limit=2&offset={offset}"))
            .await?
            .ok("list")?;
        assert_eq!(total(&page)?, 5);
        let page = page.json()?;
        assert_eq!(
            page.get("next").is_some(),
            offset < 4,
            "there is a next page until the last"
        );
        let secrets = page["secrets"].as_array().context("a page holds secrets")?;
        listed.extend(secrets.iter().filter_map(|secret| {
            secret["secret_ref"]
                .as_str()?
                .rsplit('/')
                .next()
                .map(String::from)
        }));
    }
    assert_eq!(listed, newest_first);
    assert_eq!(key_manager.list("sort=nothing:desc").await?.status, 400);
    Ok(())
}

async fn projects_are_apart(case: Case) -> Result<()> {
    let (one, two) = tokio::try_join!(case.tenant(), case.tenant())?;
    let id = one.key_manager().store(&NewSecret::named("a"), b"value").await?;
    assert_eq!(two.key_manager().payload(&id).await?.status, 403);
    assert_eq!(total(&two.key_manager().list("").await?)?, 0);
    Ok(())
}

async fn requests_are_counted_by_project(case: Case) -> Result<()> {
    let servers = case.openstack().await?;
    let log = servers.access_log(Service::Barbican);
    let (one, two) = tokio::try_join!(case.tenant(), case.tenant())?;
    let mark = log.mark()?;
    let id = one.key_manager().store(&NewSecret::named("a"), b"value").await?;
    for _ in 0..3 {
        one.key_manager().payload(&id).await?;
    }
    one.key_manager().list("limit=100").await?;
    two.key_manager().list("limit=100").await?;
    let count = |project: &str, what| log.count(mark, project, what);
    assert_eq!(count(&one.project_id, What::Change)?, 1);
    assert_eq!(count(&one.project_id, What::Payload)?, 3);
    assert_eq!(count(&one.project_id, What::SecretList)?, 1);
    assert_eq!(count(&two.project_id, What::SecretList)?, 1);
    assert_eq!(count(&two.project_id, What::Payload)?, 0);
    Ok(())
}

async fn many_writers_and_readers_are_all_served(case: Case) -> Result<()> {
    let tenant = case.tenant().await?;
    let key_manager = tenant.key_manager();
    tenant.session().log_in().await?.ok("log in")?;
    let write_and_read = async |number: u8| {
        let id = key_manager.store(&NewSecret::named("a"), &[number]).await?;
        let answer = key_manager.payload(&id).await?.ok("read")?;
        ensure!(answer.body == [number], "another value came back");
        anyhow::Ok(())
    };
    try_join_all((0..16).map(write_and_read)).await?;
    let refused = join_all((0..4).map(|_| key_manager.list("limit=100"))).await;
    for page in refused {
        assert_eq!(total(&page?)?, 16);
    }
    Ok(())
}

async fn a_client_without_the_authority_is_turned_away(case: Case) -> Result<()> {
    let servers = case.openstack().await?;
    let other = Authority::new("another")?;
    for url in [servers.auth_url(), servers.key_manager_url().to_owned()] {
        http::client(servers.ca())?.get(&url).send().await?;
        let refused = http::client(other.certificate())?
            .get(&url)
            .send()
            .await
            .expect_err("the certificate is signed by another authority");
        assert!(refused.is_connect(), "{refused:?}");
    }
    Ok(())
}

async fn a_short_token_is_refused_at_its_end(case: Case) -> Result<()> {
    let options = Options {
        token_lifetime: Duration::from_secs(20),
        ..Options::default()
    };
    let servers = case.private_openstack(&options).await?;
    let log = servers.access_log(Service::Keystone);
    let tenant = servers.tenant(Role::Member).await?;
    let session = tenant.session();
    let list = format!("{}/v1/secrets", servers.key_manager_url());
    let mark = log.mark()?;
    session.get(&list).await?.ok("list")?;
    assert_eq!(log.logins(mark, &tenant.user)?.len(), 1);
    poll::until("a second login", Duration::from_mins(2), async || {
        let listed = session.get(&list).await;
        listed.is_ok_and(|answer| answer.status == 200)
            && log.logins(mark, &tenant.user).is_ok_and(|all| all.len() == 2)
    })
    .await?;
    let logins = log.logins(mark, &tenant.user)?;
    let apart = logins[1].time - logins[0].time;
    assert!(apart >= 19.0, "{apart} s apart");
    Ok(())
}

async fn a_server_comes_back_from_a_stop_and_from_a_freeze(case: Case) -> Result<()> {
    let servers = case.private_openstack(&Options::default()).await?;
    let tenant = servers.tenant(Role::Member).await?;
    let key_manager = tenant.key_manager();
    let id = key_manager.store(&NewSecret::named("a"), b"value").await?;
    for service in [Service::Barbican, Service::Keystone] {
        let ask = async || match service {
            Service::Barbican => key_manager.payload(&id).await,
            Service::Keystone => servers.session(tenant.login()).log_in().await,
        };
        servers.pause(service)?;
        let silence = tokio::time::timeout(Duration::from_secs(1), ask()).await;
        silence.map(drop).expect_err("a frozen server is silent");
        servers.resume(service)?;
        ask().await?.ok("ask a server that goes on")?;

        servers.stop(service).await?;
        ask().await.map(drop).expect_err("nothing listens");
        servers.restart(service).await?;
        ask().await?.ok("ask a server that came back")?;
    }
    assert_eq!(key_manager.payload(&id).await?.body, b"value");
    Ok(())
}

async fn until_refused(key_manager: &KeyManager) -> Result<()> {
    poll::until("the token to be refused", REFUSED_WITHIN, async || {
        // A refused token makes the session log in again, and that is refused too.
        key_manager.list("limit=1").await.is_err()
    })
    .await
}

fn total(page: &Answer) -> Result<u64> {
    page.json()?
        .get("total")
        .and_then(Value::as_u64)
        .context("a page says how many there are in all")
}
