//! The server's process and its first steps: start, initialise, unseal, audit device.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::api::VaultApi;
use super::{Connection, Product};
use crate::rig::assets::{self, Program};
use crate::rig::process::{Launch, Server};
use crate::rig::run::Run;
use crate::rig::tls::Authority;
use crate::rig::{poll, ports};

const READY_WITHIN: Duration = Duration::from_mins(2);

/// A server process that belongs to this program.
pub(super) struct Instance {
    server: Server,
}

/// The file that the audit device of the server in `folder` writes to.
pub(super) fn audit_log(folder: &Path) -> PathBuf {
    folder.join("audit.log")
}

impl Instance {
    /// Starts a new server, initialises and unseals it, and turns its audit device on.
    pub(super) async fn start(run: &Run, name: &str, product: Product) -> Result<(Self, Connection)> {
        let program = match product {
            Product::Vault => Program::Vault,
            Product::OpenBao => Program::OpenBao,
        };
        let [program] = assets::provide_all(run, vec![program])
            .await?
            .try_into()
            .expect("one path for one program");
        let folder = run.subfolder(name)?;
        let authority = Authority::new("keyward rig vault")?;
        authority.save(&folder)?;
        authority
            .server("vault", &["127.0.0.1", "localhost"])?
            .save(&folder, "server")?;
        let address = format!("127.0.0.1:{}", ports::free()?);
        let url = format!("https://{address}");
        let config = folder.join("config.json");
        fs::write(
            &config,
            configuration(product, &folder, &address, &url).to_string(),
        )
        .with_context(|| format!("write {}", config.display()))?;

        let server = Launch::new(name, program)
            .arg("server")
            .arg(format!("-config={}", config.display()))
            .start(run)?;
        let instance = Self { server };
        let nobody = VaultApi::new(&url, authority.certificate(), None)?;
        instance.wait_until_it_answers(&nobody).await?;
        let (root_token, unseal_key) = initialise(&nobody).await?;
        let api = VaultApi::new(&url, authority.certificate(), Some(&root_token))?;
        unseal(&api, &unseal_key).await?;
        if product == Product::Vault {
            enable_audit(&api, &folder).await?;
        }
        Ok((
            instance,
            Connection {
                product,
                url,
                folder,
                root_token,
                unseal_key,
            },
        ))
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Starts the process again and waits until it answers; it is sealed then.
    pub(super) async fn start_again(&self, api: &VaultApi) -> Result<()> {
        self.server.start()?;
        self.wait_until_it_answers(api).await
    }

    async fn wait_until_it_answers(&self, api: &VaultApi) -> Result<()> {
        self.server
            .ready(READY_WITHIN, async || api.seal_status().await.is_ok())
            .await
    }
}

/// Unseals the server and waits until its mounts answer, which takes a moment longer.
pub(super) async fn unseal(api: &VaultApi, key: &str) -> Result<()> {
    api.write("sys/unseal", &json!({ "key": key })).await?;
    poll::until(
        "the server to work after it was unsealed",
        READY_WITHIN,
        async || api.read("sys/mounts").await.is_ok() && api.read("auth/token/lookup-self").await.is_ok(),
    )
    .await
}

/// What both products understand. `OpenBao` takes audit devices from its configuration alone.
fn configuration(product: Product, folder: &Path, address: &str, url: &str) -> Value {
    let mut configuration = json!({
        "api_addr": url,
        "disable_mlock": true,
        "storage": { "file": { "path": folder.join("storage") } },
        "listener": [{ "tcp": {
            "address": address,
            "tls_cert_file": folder.join("server.crt"),
            "tls_key_file": folder.join("server.key"),
        } }],
    });
    if product == Product::OpenBao {
        configuration["audit"] = json!([{ "file": { "file": { "options": audit_options(folder) } } }]);
    }
    configuration
}

fn audit_options(folder: &Path) -> Value {
    json!({ "file_path": audit_log(folder), "log_raw": "false" })
}

async fn enable_audit(api: &VaultApi, folder: &Path) -> Result<()> {
    api.write(
        "sys/audit/file",
        &json!({ "type": "file", "options": audit_options(folder) }),
    )
    .await
}

/// Returns the root token and the one unseal key.
async fn initialise(api: &VaultApi) -> Result<(String, String)> {
    let answer = api
        .put("sys/init", &json!({ "secret_shares": 1, "secret_threshold": 1 }))
        .await?;
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    text(&answer["root_token"])
        .zip(text(&answer["keys"][0]))
        .context("initialising gave no root token or key")
}
