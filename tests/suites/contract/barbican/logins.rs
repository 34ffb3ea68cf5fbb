//! How a store finds Barbican and logs in: every way, right and wrong, what a wrong one costs, and how a token ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::join_all;
use keyward::stores::barbican::config::{
    CredentialRef, DomainRef, Interface, KeystoneAuth, ProjectRef, UserRef,
};
use keyward::stores::{Probe, Store};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_tests::harness::Suite;
use keyward_tests::rig::openstack::{AccessRule, CredentialTerms, NewSecret, Role, Tenant, What};
use keyward_tests::rig::poll;

use super::server::{Server, by_credential, gate, open};
use super::{name, uuid, version_at};

/// Longer than Barbican trusts a token that it has seen.
const REFUSED_WITHIN: Duration = Duration::from_mins(1);
/// Longer than a refused application credential waits for the next try.
const REPEATED_WITHIN: Duration = Duration::from_mins(1);

pub(super) fn register(suite: &mut Suite) {
    super::cases!(
        suite,
        a_password_and_a_credential_log_in_by_every_name,
        many_calls_at_once_share_one_login,
        stores_that_share_a_wrong_password_show_it_once,
        a_wrong_project_is_not_taken_for_a_wrong_password,
        whoever_is_wrong_or_unknown_is_rejected,
        a_disabled_user_is_let_in_again_by_credential_and_not_by_the_password_that_was_refused,
        a_user_without_a_role_is_rejected_until_it_has_one,
        a_dead_token_is_replaced_once_for_all,
        a_second_refusal_stops,
        a_role_that_may_not_read_is_denied,
        barbican_is_found_by_region_interface_and_override,
        a_closed_session_gives_its_token_back,
    );
}

fn rejected(outcome: Result<(), Fault>) -> Result<Fault> {
    let fault = outcome
        .err()
        .ok_or_else(|| anyhow::anyhow!("the login is wrong"))?;
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Denied, Reason::CredentialRejected),
        "{fault}"
    );
    Ok(fault)
}

async fn a_password_and_a_credential_log_in_by_every_name(server: Server) -> Result<()> {
    let (tenant, credential) = (&server.tenant, server.credential().await?);
    let domains = [DomainRef::Id("default".into()), DomainRef::Name("Default".into())];
    let mut ways = vec![by_credential(&credential)];
    for domain in domains {
        let user = UserRef::Name {
            name: tenant.user.clone(),
            domain: domain.clone(),
        };
        ways.push(KeystoneAuth::ApplicationCredential {
            credential: CredentialRef::Name {
                name: credential.name.clone(),
                user: user.clone(),
            },
            secret: credential.secret.as_str().into(),
        });
        ways.push(KeystoneAuth::Password {
            user,
            password: tenant.password.as_str().into(),
            project: ProjectRef::Name {
                name: tenant.project.clone(),
                domain,
            },
        });
    }
    ways.push(KeystoneAuth::Password {
        user: UserRef::Id(tenant.user_id.clone()),
        password: tenant.password.as_str().into(),
        project: ProjectRef::Id(tenant.project_id.clone()),
    });
    for auth in ways {
        server.store_with(auth).await?.check().await?;
    }
    Ok(())
}

async fn many_calls_at_once_share_one_login(server: Server) -> Result<()> {
    let id = server.keys().store(&NewSecret::named("db"), b"value").await?;
    let credential = server.credential().await?;
    let (store, before) = (
        server.store_with(by_credential(&credential)).await?,
        server.mark().await?,
    );
    let place = uuid(&id);
    for probe in join_all((0..30).map(|_| store.probe(&place))).await {
        ensure!(matches!(probe, Ok(Probe::Current(_))), "{probe:?}");
    }
    assert_eq!(server.logins(before, &credential.id).await?, 1);
    Ok(())
}

async fn stores_that_share_a_wrong_password_show_it_once(server: Server) -> Result<()> {
    let (gate, before) = (gate()?, server.mark().await?);
    let mut stores = Vec::new();
    for _ in 0..10 {
        let config = server.config(server.by_password("wrong")).await?;
        stores.push(open(config, Arc::clone(&gate))?);
    }
    for _ in 0..3 {
        for outcome in join_all(stores.iter().map(Store::check)).await {
            rejected(outcome)?;
        }
    }
    assert_eq!(server.logins(before, &server.tenant.user).await?, 1);
    let right = server.config(server.by_password(&server.tenant.password)).await?;
    open(right, gate)?.check().await?;
    Ok(())
}

async fn a_wrong_project_is_not_taken_for_a_wrong_password(server: Server) -> Result<()> {
    let gate = gate()?;
    let mut config = server.config(server.by_password(&server.tenant.password)).await?;
    if let KeystoneAuth::Password { project, .. } = &mut config.auth {
        *project = ProjectRef::Id("nowhere".into());
    }
    let fault = rejected(open(config, Arc::clone(&gate))?.check().await)?;
    ensure!(fault.advice.contains("project"), "{fault}");
    let right = server.config(server.by_password(&server.tenant.password)).await?;
    open(right, gate)?.check().await?;
    Ok(())
}

async fn whoever_is_wrong_or_unknown_is_rejected(server: Server) -> Result<()> {
    let credential = server.credential().await?;
    let with = |id: &str, secret: &str| KeystoneAuth::ApplicationCredential {
        credential: CredentialRef::Id(id.to_owned()),
        secret: secret.into(),
    };
    let nobody = KeystoneAuth::Password {
        user: UserRef::Name {
            name: "nobody".into(),
            domain: DomainRef::Id("default".into()),
        },
        password: "anything".into(),
        project: ProjectRef::Id(server.tenant.project_id.clone()),
    };
    for auth in [with(&credential.id, "wrong"), with("nobody", "anything"), nobody] {
        let fault = rejected(server.store_with(auth).await?.check().await)?;
        ensure!(fault.request_id.is_some(), "{fault:?}");
    }
    server.tenant.revoke(&credential).await?;
    rejected(server.store_with(by_credential(&credential)).await?.check().await)?;
    Ok(())
}

/// Keystone refuses whoever is disabled in the words in which it refuses a wrong password.
async fn a_disabled_user_is_let_in_again_by_credential_and_not_by_the_password_that_was_refused(
    server: Server,
) -> Result<()> {
    let (tenant, credential, gate) = (&server.tenant, server.credential().await?, gate()?);
    let check = async |auth| -> Result<Result<(), Fault>> {
        Ok(open(server.config(auth).await?, Arc::clone(&gate))?.check().await)
    };
    tenant.set_enabled(false).await?;
    rejected(check(by_credential(&credential)).await?)?;
    rejected(check(server.by_password(&tenant.password)).await?)?;

    tenant.set_enabled(true).await?;
    poll::until("a login by credential", REPEATED_WITHIN, || async {
        check(by_credential(&credential))
            .await
            .is_ok_and(|outcome| outcome.is_ok())
    })
    .await?;
    let before = server.mark().await?;
    rejected(check(server.by_password(&tenant.password)).await?)?;
    assert_eq!(
        server.logins(before, &tenant.user).await?,
        0,
        "it is not sent again"
    );
    tenant.set_password("another").await?;
    // In the second in which a password changes, Keystone takes new tokens for older than the change.
    poll::until("a login by the new password", REPEATED_WITHIN, || async {
        let outcome = check(server.by_password("another")).await;
        outcome.is_ok_and(|outcome| outcome.is_ok())
    })
    .await
}

async fn a_user_without_a_role_is_rejected_until_it_has_one(server: Server) -> Result<()> {
    let (tenant, credential, gate) = (&server.tenant, server.credential().await?, gate()?);
    let check = async |auth| -> Result<Result<(), Fault>> {
        Ok(open(server.config(auth).await?, Arc::clone(&gate))?.check().await)
    };
    tenant.revoke_role().await?;
    rejected(check(by_credential(&credential)).await?)?;
    rejected(check(server.by_password(&tenant.password)).await?)?;
    tenant.grant_role().await?;
    check(server.by_password(&tenant.password)).await??;
    poll::until("a login by credential", REPEATED_WITHIN, || async {
        check(by_credential(&credential))
            .await
            .is_ok_and(|outcome| outcome.is_ok())
    })
    .await
}

async fn a_dead_token_is_replaced_once_for_all(server: Server) -> Result<()> {
    let id = server.keys().store(&NewSecret::named("db"), b"value").await?;
    let credential = server.credential().await?;
    let (store, before) = (
        server.store_with(by_credential(&credential)).await?,
        server.mark().await?,
    );
    store.check().await?;
    // Another password ends every token of the user, and no application credential.
    server.tenant.set_password("another").await?;
    let place = uuid(&id);
    let replaced = || async {
        for probe in join_all((0..10).map(|_| store.probe(&place))).await {
            assert!(matches!(probe, Ok(Probe::Current(_))), "{probe:?}");
        }
        server
            .logins(before, &credential.id)
            .await
            .is_ok_and(|logins| logins > 1)
    };
    poll::until("a second login", REFUSED_WITHIN, replaced).await?;
    assert_eq!(server.logins(before, &credential.id).await?, 2);
    Ok(())
}

async fn a_second_refusal_stops(server: Server) -> Result<()> {
    let id = server.keys().store(&NewSecret::named("db"), b"value").await?;
    // What an access rule does not list is answered as a bad token is.
    let terms = CredentialTerms {
        access_rules: vec![AccessRule {
            method: "GET".to_owned(),
            path: "/v1/containers".to_owned(),
        }],
        ..CredentialTerms::default()
    };
    let credential = server.tenant.application_credential(&terms).await?;
    let (store, before) = (
        server.store_with(by_credential(&credential)).await?,
        server.mark().await?,
    );
    for _ in 0..10 {
        let fault = store
            .read(&uuid(&id))
            .await
            .err()
            .ok_or_else(|| anyhow::anyhow!("it is not allowed"))?;
        assert_eq!(
            (fault.class, fault.reason),
            (Class::Denied, Reason::RemoteDenied),
            "{fault}"
        );
    }
    assert_eq!(server.logins(before, &credential.id).await?, 2);
    Ok(())
}

async fn a_role_that_may_not_read_is_denied(server: Server) -> Result<()> {
    let id = server.keys().store(&NewSecret::named("db"), b"value").await?;
    let reader: Tenant = server.servers().await?.tenant(Role::Reader).await?;
    let credential = reader.application_credential(&CredentialTerms::default()).await?;
    let store = server.store_with(by_credential(&credential)).await?;
    let (check, probe) = (store.check().await, store.probe(&name("db")).await);
    let read = store.read(&uuid(&id)).await.map(drop);
    for fault in [check.err(), probe.err(), read.err()] {
        let fault = fault.ok_or_else(|| anyhow::anyhow!("a reader may read nothing"))?;
        assert_eq!(
            (fault.class, fault.reason),
            (Class::Denied, Reason::RemoteDenied),
            "{fault}"
        );
        ensure!(fault.request_id.is_some(), "{fault:?}");
    }
    Ok(())
}

async fn barbican_is_found_by_region_interface_and_override(server: Server) -> Result<()> {
    server.keys().store(&NewSecret::named("db"), b"value").await?;
    let (servers, credential) = (server.servers().await?, server.credential().await?);
    let config = async || server.config(by_credential(&credential)).await;
    let mut right = Vec::new();
    for interface in [Interface::Public, Interface::Internal, Interface::Admin] {
        let mut config = config().await?;
        config.interface = interface;
        config.region = Some(servers.region().to_owned());
        right.push(config);
    }
    let mut given = config().await?;
    given.endpoint = Some(servers.key_manager_url().parse()?);
    right.push(given);
    for config in right {
        let before = server.mark().await?;
        let store = open(config, gate()?)?;
        version_at(&store, &name("db")).await?;
        assert_eq!(server.count(before, What::SecretList).await?, 1);
    }
    let mut elsewhere = config().await?;
    elsewhere.region = Some("elsewhere".to_owned());
    let fault = open(elsewhere, gate()?)?.check().await;
    let fault = fault
        .err()
        .ok_or_else(|| anyhow::anyhow!("there is no such region"))?;
    assert_eq!(fault.reason, Reason::StoreProtocol);
    ensure!(fault.message.contains(servers.region()), "{fault}");
    Ok(())
}

async fn a_closed_session_gives_its_token_back(server: Server) -> Result<()> {
    let credential = server.credential().await?;
    for auth in [
        by_credential(&credential),
        server.by_password(&server.tenant.password),
    ] {
        let before = server.mark().await?;
        let store = server.store_with(auth).await?;
        store.check().await?;
        store.close().await;
        assert_eq!(server.tokens_given_back(before).await?, 1);
        let fault = store
            .check()
            .await
            .err()
            .ok_or_else(|| anyhow::anyhow!("it is closed"))?;
        assert_eq!(fault.reason, Reason::Conflict);
    }
    Ok(())
}
