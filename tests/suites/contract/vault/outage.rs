//! A server that is sealed, stopped, frozen, or not the one we mean.

use std::time::Duration;

use anyhow::{Result, bail};
use keyward::stores::vault::{VaultAuth, VaultStore};
use keyward::stores::{Probe, Store};
use keyward_core::fault::Class;
use keyward_core::reason::Reason;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::tls::Authority;
use keyward_tests::rig::vault::Kv;
use reqwest::Method;
use serde_json::json;

use super::server::Server;
use super::{Readable, at};

pub(super) fn register(suite: &mut Suite) {
    super::cases!(
        suite,
        a_seal_is_told_apart_and_work_resumes_after_it,
        another_ca_and_another_name_are_refused,
    );
    // A stand-in lives in the test's own process, which cannot be stopped.
    keyward_tests::vault_tests!(suite, stop_and_freeze_pass_and_work_resumes);
}

async fn a_seal_is_told_apart_and_work_resumes_after_it(server: Server) -> Result<()> {
    let server = server.private().await?;
    let held = Readable::new(&server).await?;
    let store = server.store(&held.mount, server.reader(&held.mount).await?)?;
    store.check().await?;
    let open = server.api_as(None)?.send(Method::GET, "sys/health", None).await?;
    assert_eq!(open.status, 200, "health is told to everybody");

    server.api().write("sys/seal", &json!({})).await?;
    assert_eq!(faults(&store).await?, [(Class::Sealed, Reason::StoreSealed); 2]);
    let sealed = server.api_as(None)?.send(Method::GET, "sys/health", None).await?;
    assert_eq!(sealed.status, 503);
    server.unseal().await?;
    store.check().await?;
    assert!(matches!(store.probe(&at("app")).await, Ok(Probe::Current(_))));
    Ok(())
}

async fn another_ca_and_another_name_are_refused(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let config = async || server.config(&held.mount, server.reader(&held.mount).await?);
    let mut other_ca = config().await?;
    other_ca.transport.ca_pem = Some(Authority::new("another")?.certificate().into());
    let mut other_name = config().await?;
    other_name.transport.server_name = Some("vault.example".into());
    for config in [other_ca, other_name] {
        let store = VaultStore::new(config)?;
        assert_eq!(faults(&store).await?, [(Class::Denied, Reason::TlsFailed); 2]);
    }
    let mut right_name = config().await?;
    right_name.transport.server_name = Some("localhost".into());
    VaultStore::new(right_name)?.check().await?;

    let mut refused = config().await?;
    refused.transport.addresses = std::sync::Arc::default();
    let store = VaultStore::new(refused)?;
    assert_eq!(
        faults(&store).await?,
        [(Class::Denied, Reason::AddressRefused); 2]
    );
    Ok(())
}

async fn stop_and_freeze_pass_and_work_resumes(case: Case) -> Result<()> {
    let vault = case.private_vault().await?;
    vault.api().mount_kv("kv", Kv::V2).await?;
    vault
        .api()
        .write_secret("kv", Kv::V2, "app", &json!({ "a": "b" }))
        .await?;
    let root = VaultAuth::Token(vault.connection().root_token.as_str().into());
    let mut config = super::server::config(vault.url(), vault.ca(), "kv", root)?;
    config.transport.deadline = Duration::from_secs(5);
    let store = VaultStore::new(config)?;
    let works = async || matches!(store.probe(&at("app")).await, Ok(Probe::Current(_)));
    store.check().await?;
    assert!(works().await);

    vault.stop().await?;
    assert_eq!(
        faults(&store).await?,
        [(Class::Transient, Reason::StoreUnavailable); 2]
    );
    vault.start_sealed().await?;
    vault.unseal().await?;
    assert!(works().await);

    vault.pause()?;
    // The signal reaches a thread that works on a call a moment later.
    let hung = match faults(&store).await {
        Err(_) => faults(&store).await,
        hung => hung,
    };
    vault.resume()?;
    assert_eq!(hung?, [(Class::Transient, Reason::StoreUnavailable); 2]);
    assert!(works().await);
    Ok(())
}

/// How a check and a probe fail.
async fn faults(store: &VaultStore) -> Result<[(Class, Reason); 2]> {
    let (check, probe) = (store.check().await, store.probe(&at("app")).await);
    let (Err(check), Err(probe)) = (check, probe) else {
        bail!("a check or a probe did not fail")
    };
    Ok([(check.class, check.reason), (probe.class, probe.reason)])
}
