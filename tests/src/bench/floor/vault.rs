//! The floor's requests to the store: one login, and one read for each path, over one connection.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::bench::stock::VaultTask;
use crate::rig::http;

/// A login.
pub(super) struct Session {
    client: reqwest::Client,
    /// What stands in front of every path.
    base: String,
    token: String,
    versioned: bool,
}

impl Session {
    /// Logs in with the token of a ServiceAccount.
    pub(super) async fn log_in(task: &VaultTask, jwt: &str) -> Result<Self> {
        let client = http::multiplexing_client(&task.ca)?;
        let url = format!("{}/v1/auth/{}/login", task.url, task.auth_mount);
        let body = json!({"role": task.role, "jwt": jwt}).to_string();
        let answer = client.post(url).body(body).send().await?.error_for_status()?;
        let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
        let token = answer["auth"]["client_token"].as_str();
        Ok(Self {
            client,
            base: format!("{}/v1/{}", task.url, task.folder),
            token: token.context("the login gave no token")?.to_owned(),
            versioned: task.versioned,
        })
    }

    /// Reads the fields of a value.
    pub(super) async fn read(&self, path: &str) -> Result<Value> {
        let request = self.client.get(format!("{}{path}", self.base));
        let answer = request.header("X-Vault-Token", &self.token).send().await?;
        let mut answer: Value = serde_json::from_slice(&answer.error_for_status()?.bytes().await?)?;
        let mut data = answer["data"].take();
        Ok(if self.versioned { data["data"].take() } else { data })
    }
}
