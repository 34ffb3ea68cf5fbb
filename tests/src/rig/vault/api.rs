//! The store's API as the tests use it on the store's own side: mounts, policies, logins and secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::{http, poll};

/// A new mount of version 2 upgrades itself before it answers.
const MOUNTED_WITHIN: Duration = Duration::from_mins(1);

/// The store's API for one token.
#[derive(Clone)]
pub struct VaultApi {
    client: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// The two generations of the key-value engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kv {
    /// Values only.
    V1,
    /// Values with versions and metadata.
    V2,
}

/// What a login gave.
#[derive(Clone)]
pub struct Login {
    /// The token.
    pub token: String,
    /// What names the token without being it.
    pub accessor: String,
}

/// The server's answer to one request.
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body, or null if there is none.
    pub body: Value,
}

impl VaultApi {
    /// The API at `url`, which shows a certificate of `ca` (PEM).
    pub fn new(url: &str, ca: &str, token: Option<&str>) -> Result<Self> {
        Ok(Self {
            client: http::client(ca)?,
            url: url.to_owned(),
            token: token.map(ToOwned::to_owned),
        })
    }

    /// Sends a request to a path below `/v1/` and returns whatever the server answers.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let mut request = self.client.request(method, format!("{}/v1/{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("X-Vault-Token", token);
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await?;
        let status = answer.status();
        let bytes = answer.bytes().await?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).context("the answer is not JSON")?
        };
        Ok(Answer { status, body })
    }

    /// Writes to a path.
    pub async fn write(&self, path: &str, body: &Value) -> Result<()> {
        self.put(path, body).await.map(drop)
    }

    /// Writes to a path and returns the whole answer.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.expect_success(Method::PUT, path, Some(body)).await
    }

    /// Reads a path: the answer's `data`.
    pub async fn read(&self, path: &str) -> Result<Value> {
        Ok(self.expect_success(Method::GET, path, None).await?["data"].take())
    }

    /// Deletes a path.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.expect_success(Method::DELETE, path, None).await.map(drop)
    }

    /// What the server says of its seal, sealed or not.
    pub async fn seal_status(&self) -> Result<Value> {
        self.expect_success(Method::GET, "sys/seal-status", None).await
    }

    /// Mounts an engine, `transit` say.
    pub async fn mount(&self, mount: &str, engine: &str) -> Result<()> {
        self.write(&format!("sys/mounts/{mount}"), &json!({ "type": engine }))
            .await
    }

    /// Mounts a key-value engine. Waits until it can be used.
    pub async fn mount_kv(&self, mount: &str, version: Kv) -> Result<()> {
        let number = if version == Kv::V1 { "1" } else { "2" };
        self.write(
            &format!("sys/mounts/{mount}"),
            &json!({ "type": "kv", "options": { "version": number } }),
        )
        .await?;
        if version == Kv::V1 {
            return Ok(());
        }
        let config = format!("{mount}/config");
        poll::until(&config, MOUNTED_WITHIN, async || self.read(&config).await.is_ok()).await
    }

    /// Lets a mount answer so many requests in a second and refuse the others with 429, and the audit device see those.
    pub async fn limit_rate(&self, mount: &str, per_second: u32) -> Result<()> {
        self.write(
            "sys/quotas/config",
            &json!({ "enable_rate_limit_audit_logging": true }),
        )
        .await?;
        self.write(
            &format!("sys/quotas/rate-limit/{mount}"),
            &json!({ "path": format!("{mount}/"), "rate": per_second }),
        )
        .await
    }

    /// Takes that limit away.
    pub async fn unlimit_rate(&self, mount: &str) -> Result<()> {
        self.delete(&format!("sys/quotas/rate-limit/{mount}")).await
    }

    /// Removes a mount with all it holds.
    pub async fn unmount(&self, mount: &str) -> Result<()> {
        self.delete(&format!("sys/mounts/{mount}")).await
    }

    /// Writes a policy, in HCL or JSON.
    pub async fn write_policy(&self, name: &str, rules: &str) -> Result<()> {
        self.write(&format!("sys/policies/acl/{name}"), &json!({ "policy": rules }))
            .await
    }

    /// Writes a secret and returns its version, which is 1 for ever in a mount of version 1.
    pub async fn write_secret(&self, mount: &str, version: Kv, path: &str, data: &Value) -> Result<u64> {
        match version {
            Kv::V1 => self.write(&format!("{mount}/{path}"), data).await.map(|()| 1),
            Kv::V2 => {
                let answer = self
                    .put(&format!("{mount}/data/{path}"), &json!({ "data": data }))
                    .await?;
                answer["data"]["version"]
                    .as_u64()
                    .context("the write was answered without a version")
            }
        }
    }

    /// Soft-deletes the newest version of a secret in a mount of version 2.
    pub async fn delete_secret(&self, mount: &str, path: &str) -> Result<()> {
        self.delete(&format!("{mount}/data/{path}")).await
    }

    /// Takes back the soft deletion of versions.
    pub async fn undelete_secret(&self, mount: &str, path: &str, versions: &[u64]) -> Result<()> {
        self.write(
            &format!("{mount}/undelete/{path}"),
            &json!({ "versions": versions }),
        )
        .await
    }

    /// Destroys versions for good.
    pub async fn destroy_secret(&self, mount: &str, path: &str, versions: &[u64]) -> Result<()> {
        self.write(
            &format!("{mount}/destroy/{path}"),
            &json!({ "versions": versions }),
        )
        .await
    }

    /// Removes a secret with its metadata, as if it had never been.
    pub async fn delete_metadata(&self, mount: &str, path: &str) -> Result<()> {
        self.delete(&format!("{mount}/metadata/{path}")).await
    }

    /// Sets the custom metadata of a secret.
    pub async fn set_custom_metadata(
        &self,
        mount: &str,
        path: &str,
        custom: &BTreeMap<&str, &str>,
    ) -> Result<()> {
        self.write(
            &format!("{mount}/metadata/{path}"),
            &json!({ "custom_metadata": custom }),
        )
        .await
    }

    /// Enables an auth method: `approle`, `cert`, `jwt`, `kubernetes` or `userpass`.
    pub async fn enable_auth(&self, mount: &str, method: &str) -> Result<()> {
        self.write(&format!("sys/auth/{mount}"), &json!({ "type": method }))
            .await
    }

    /// Makes a token with policies. `settings` may hold what `auth/token/create` takes, `ttl` say.
    pub async fn create_token(&self, policies: &[&str], settings: &Value) -> Result<Login> {
        let mut body = settings.clone();
        body["policies"] = json!(policies);
        login_in(&self.put("auth/token/create", &body).await?)
    }

    /// Makes a role of approle and returns its role id and a secret id.
    pub async fn create_approle(
        &self,
        mount: &str,
        role: &str,
        settings: &Value,
    ) -> Result<(String, String)> {
        let path = format!("auth/{mount}/role/{role}");
        self.write(&path, settings).await?;
        let role_id = self.read(&format!("{path}/role-id")).await?["role_id"].take();
        let secret_id = self.put(&format!("{path}/secret-id"), &json!({})).await?["data"]["secret_id"].take();
        match (role_id, secret_id) {
            (Value::String(role_id), Value::String(secret_id)) => Ok((role_id, secret_id)),
            _ => bail!("the role was answered without ids"),
        }
    }

    /// Makes a user of userpass.
    pub async fn create_user(
        &self,
        mount: &str,
        name: &str,
        password: &str,
        policies: &[&str],
    ) -> Result<()> {
        let body = json!({ "password": password, "token_policies": policies });
        self.write(&format!("auth/{mount}/users/{name}"), &body).await
    }

    /// Makes a role of cert auth that takes client certificates signed by `ca` (PEM) with this common name.
    pub async fn create_cert_role(
        &self,
        mount: &str,
        role: &str,
        ca: &str,
        common_name: &str,
        policies: &[&str],
    ) -> Result<()> {
        let body = json!({
            "certificate": ca,
            "allowed_common_names": [common_name],
            "token_policies": policies,
        });
        self.write(&format!("auth/{mount}/certs/{role}"), &body).await
    }

    /// Makes a role of kubernetes or jwt auth: `settings` as the method's role takes them.
    pub async fn create_role(&self, mount: &str, role: &str, settings: &Value) -> Result<()> {
        self.write(&format!("auth/{mount}/role/{role}"), settings).await
    }

    /// Logs in: `path` below `auth/`, `approle/login` say.
    pub async fn login(&self, path: &str, body: &Value) -> Result<Login> {
        login_in(&self.put(&format!("auth/{path}"), body).await?)
    }

    /// Whether a token is still known to the server.
    pub async fn is_alive(&self, accessor: &str) -> Result<bool> {
        let body = json!({ "accessor": accessor });
        let answer = self
            .send(Method::PUT, "auth/token/lookup-accessor", Some(&body))
            .await?;
        // The status of an unknown accessor differs between versions; root is never refused for want of rights.
        match answer.status {
            StatusCode::OK => Ok(true),
            status if status.is_client_error() => Ok(false),
            status => bail!("looking a token up was answered with {status}"),
        }
    }

    /// Ends a token by its accessor.
    pub async fn revoke(&self, accessor: &str) -> Result<()> {
        self.write("auth/token/revoke-accessor", &json!({ "accessor": accessor }))
            .await
    }

    async fn expect_success(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let answer = self.send(method.clone(), path, body).await?;
        if !answer.status.is_success() {
            bail!(
                "{method} {path} was answered with {}: {}",
                answer.status,
                answer.body["errors"]
            );
        }
        Ok(answer.body)
    }
}

fn login_in(answer: &Value) -> Result<Login> {
    let text = |name: &str| answer["auth"][name].as_str().map(ToOwned::to_owned);
    let (token, accessor) = text("client_token")
        .zip(text("accessor"))
        .context("the login was answered without a token")?;
    Ok(Login { token, accessor })
}
