//! The door to Vault and `OpenBao`.

mod faults;
mod logins;
mod values;

use std::sync::Arc;

use anyhow::Result;
use futures::future::BoxFuture;
use keyward::stores::transport::TransportOptions;
use keyward::stores::vault::{KvVersion, VaultAuth, VaultConfig, VaultStore};
use keyward::stores::{JwtSource, Outcome, Place, RemoteRef};
use keyward_core::address::AddressPolicy;
use keyward_core::secret::SecretBytes;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::vault::{Login, Vault};
use serde_json::json;

pub(super) fn register(suite: &mut Suite) {
    logins::register(suite);
    values::register(suite);
    faults::register(suite);
}

/// A store on `mount`, as the factory would make it.
fn store(vault: &Vault, mount: &str, auth: VaultAuth) -> Result<VaultStore> {
    Ok(VaultStore::new(config(vault, mount, auth)?)?)
}

fn config(vault: &Vault, mount: &str, auth: VaultAuth) -> Result<VaultConfig> {
    let addresses = AddressPolicy {
        allow_loopback: true,
        ..AddressPolicy::default()
    };
    let mut transport = TransportOptions::new(Arc::new(addresses));
    transport.ca_pem = Some(vault.ca().into());
    Ok(VaultConfig {
        address: vault.url().parse()?,
        namespace: None,
        login_namespace: None,
        mount: mount.to_owned(),
        kv_version: KvVersion::Auto,
        transport,
        auth,
    })
}

/// A token that may do to `path` what `capabilities` say, and nothing else.
async fn token_for(case: &Case, rules: &[(&str, &[&str])]) -> Result<Login> {
    let policy = policy_for(case, rules).await?;
    case.vault()
        .await?
        .api()
        .create_token(&[&policy], &json!({ "ttl": "5m" }))
        .await
}

/// A policy of `rules`: a path and what may be done there.
async fn policy_for(case: &Case, rules: &[(&str, &[&str])]) -> Result<String> {
    let name = case.unique();
    let rules: serde_json::Map<_, _> = rules
        .iter()
        .map(|(path, may)| ((*path).to_owned(), json!({ "capabilities": may })))
        .collect();
    let policy = json!({ "path": rules }).to_string();
    case.vault().await?.api().write_policy(&name, &policy).await?;
    Ok(name)
}

/// A token that may read and list all of `mount`.
async fn reader(case: &Case, mount: &str) -> Result<VaultAuth> {
    let login = token_for(case, &[(&format!("{mount}/*"), &["read", "list"])]).await?;
    Ok(VaultAuth::Token(login.token.into()))
}

fn at(path: &str) -> RemoteRef {
    RemoteRef {
        place: Place::Path(path.into()),
        version: None,
    }
}

/// Gives the same token each time.
struct Fixed(String);

impl JwtSource for Fixed {
    fn mint(&self) -> BoxFuture<'_, Outcome<SecretBytes>> {
        Box::pin(async { Ok(self.0.as_str().into()) })
    }

    fn identity(&self) -> Vec<&[u8]> {
        vec![self.0.as_bytes()]
    }
}
