//! Who somebody is towards the API server: a kubeconfig, as an object, a file and a client.

use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::rig::tls::{self, Identity};

/// Access to the API server as one user.
#[derive(Clone)]
pub struct Access {
    kubeconfig: Value,
}

impl Access {
    pub(super) fn certificate(url: &str, ca: &str, user: &str, identity: &Identity) -> Self {
        let user_data = json!({
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key),
        });
        Self::new(url, ca, user, &user_data)
    }

    pub(super) fn token(url: &str, ca: &str, token: &str) -> Self {
        Self::new(url, ca, "bearer", &json!({ "token": token }))
    }

    fn new(url: &str, ca: &str, user: &str, user_data: &Value) -> Self {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "rig",
                "cluster": { "server": url, "certificate-authority-data": STANDARD.encode(ca) },
            }],
            "users": [{ "name": user, "user": user_data }],
            "contexts": [{ "name": "rig", "context": { "cluster": "rig", "user": user } }],
            "current-context": "rig",
        });
        Self { kubeconfig }
    }

    /// The kubeconfig as text.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        format!("{:#}", self.kubeconfig)
    }

    /// Writes the kubeconfig to a file that only its owner can read.
    pub fn save(&self, path: &Path) -> Result<()> {
        tls::write_private(path, self.kubeconfig().as_bytes())
    }

    /// A client that the audit log knows by `user_agent`.
    pub async fn client(&self, user_agent: &str) -> Result<kube::Client> {
        let kubeconfig: Kubeconfig =
            serde_json::from_value(self.kubeconfig.clone()).context("read the rig's own kubeconfig")?;
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // Otherwise it is the one of the user's environment, and none leads to loopback.
        config.proxy_url = None;
        config
            .headers
            .push((USER_AGENT, HeaderValue::from_str(user_agent)?));
        Ok(kube::Client::try_from(config)?)
    }
}
