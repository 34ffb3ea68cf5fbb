//! A project's secrets and containers in Barbican, as a test sees them.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::session::{Answer, JSON, Session};

const BYTES: &str = "application/octet-stream";

/// Access to the secrets of one project.
pub struct KeyManager {
    session: Arc<Session>,
    url: String,
}

/// A secret to be stored.
#[derive(Clone, Debug)]
pub struct NewSecret {
    name: String,
    kind: SecretKind,
    expires: Option<DateTime<Utc>>,
}

/// What Barbican is told that a secret is. It does not check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// Anything.
    Opaque,
    /// A password.
    Passphrase,
    /// A key for both directions.
    Symmetric,
    /// The public half of a pair.
    Public,
    /// The private half of a pair.
    Private,
    /// A certificate.
    Certificate,
}

/// A container to be made.
#[derive(Clone, Debug)]
pub struct Container<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it may hold.
    pub kind: ContainerKind,
    /// The name of each secret within it, and the secret's id.
    pub secrets: &'a [(&'a str, &'a str)],
}

/// What a container holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// Secrets of any name.
    Generic,
    /// `certificate`, `private_key`, `intermediates`, `private_key_passphrase`.
    Certificate,
    /// `public_key`, `private_key`, `private_key_passphrase`.
    Rsa,
}

impl NewSecret {
    /// An opaque secret that never expires. Names need not be unique.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: SecretKind::Opaque,
            expires: None,
        }
    }

    /// Says what it is.
    #[must_use]
    pub fn kind(mut self, kind: SecretKind) -> Self {
        self.kind = kind;
        self
    }

    /// Lets it expire; Barbican wants that to be in the future.
    #[must_use]
    pub fn expires(mut self, at: DateTime<Utc>) -> Self {
        self.expires = Some(at);
        self
    }

    fn body(&self) -> Value {
        let mut body = json!({"name": self.name, "secret_type": self.kind.name()});
        if let Some(at) = self.expires {
            body["expiration"] = at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into();
        }
        body
    }
}

impl SecretKind {
    fn name(self) -> &'static str {
        match self {
            Self::Opaque => "opaque",
            Self::Passphrase => "passphrase",
            Self::Symmetric => "symmetric",
            Self::Public => "public",
            Self::Private => "private",
            Self::Certificate => "certificate",
        }
    }
}

impl ContainerKind {
    fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Certificate => "certificate",
            Self::Rsa => "rsa",
        }
    }
}

impl KeyManager {
    pub(super) fn new(session: Arc<Session>, barbican: &str) -> Self {
        Self {
            session,
            url: format!("{barbican}/v1"),
        }
    }

    /// Stores a secret with its payload in one request, and returns its id. At most 15,000 bytes.
    pub async fn store(&self, secret: &NewSecret, payload: &[u8]) -> Result<String> {
        let mut body = secret.body();
        body["payload"] = STANDARD.encode(payload).into();
        body["payload_content_type"] = BYTES.into();
        body["payload_content_encoding"] = "base64".into();
        self.create("secrets", &body).await
    }

    /// Stores a secret and then its payload, and returns its id. At most 20,000 bytes, and at least one.
    pub async fn store_in_two_steps(&self, secret: &NewSecret, payload: &[u8]) -> Result<String> {
        let id = self.store_without_payload(secret).await?;
        self.set_payload(&id, payload).await?.ok("store a payload")?;
        Ok(id)
    }

    /// Stores a secret that has no payload yet, and returns its id.
    pub async fn store_without_payload(&self, secret: &NewSecret) -> Result<String> {
        self.create("secrets", &secret.body()).await
    }

    /// Gives a secret its payload. That can be done once.
    pub async fn set_payload(&self, id: &str, payload: &[u8]) -> Result<Answer> {
        self.session
            .request(
                Method::PUT,
                &self.secret(id),
                &[("content-type", BYTES)],
                payload.to_vec(),
            )
            .await
    }

    /// Asks for the payload of a secret.
    pub async fn payload(&self, id: &str) -> Result<Answer> {
        let url = format!("{}/payload", self.secret(id));
        self.session
            .request(Method::GET, &url, &[("accept", BYTES)], Vec::new())
            .await
    }

    /// Asks for what is known of a secret.
    pub async fn describe(&self, id: &str) -> Result<Answer> {
        self.session.get(&self.secret(id)).await
    }

    /// Asks for the user metadata of a secret.
    pub async fn metadata(&self, id: &str) -> Result<Answer> {
        self.session.get(&format!("{}/metadata", self.secret(id))).await
    }

    /// Asks for a page of the list of secrets, with a query such as `name=a&limit=2`.
    pub async fn list(&self, query: &str) -> Result<Answer> {
        self.session.get(&format!("{}/secrets?{query}", self.url)).await
    }

    /// Deletes a secret.
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.session
            .bare(Method::DELETE, &self.secret(id))
            .await?
            .ok("delete a secret")
            .map(drop)
    }

    /// Replaces the user metadata of a secret. Barbican makes the keys lower-case.
    pub async fn set_metadata(&self, id: &str, metadata: &[(&str, &str)]) -> Result<()> {
        let metadata: Map<String, Value> = metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect();
        let url = format!("{}/metadata", self.secret(id));
        let body = json!({"metadata": metadata}).to_string().into_bytes();
        let answer = self
            .session
            .request(Method::PUT, &url, &[("content-type", JSON)], body)
            .await?;
        answer.ok("set the metadata of a secret").map(drop)
    }

    /// Makes a container and returns its id.
    pub async fn create_container(&self, container: &Container<'_>) -> Result<String> {
        let secrets: Vec<Value> = container
            .secrets
            .iter()
            .map(|(name, id)| json!({"name": name, "secret_ref": self.secret(id)}))
            .collect();
        let body = json!({"name": container.name, "type": container.kind.name(), "secret_refs": secrets});
        self.create("containers", &body).await
    }

    /// Asks for a container.
    pub async fn describe_container(&self, id: &str) -> Result<Answer> {
        self.session.get(&format!("{}/containers/{id}", self.url)).await
    }

    /// Deletes a container; its secrets stay.
    pub async fn delete_container(&self, id: &str) -> Result<()> {
        let url = format!("{}/containers/{id}", self.url);
        self.session
            .bare(Method::DELETE, &url)
            .await?
            .ok("delete a container")
            .map(drop)
    }

    /// Posts to a collection and returns the id at the end of the only reference in the answer.
    async fn create(&self, collection: &str, body: &Value) -> Result<String> {
        let created = self
            .session
            .post(&format!("{}/{collection}", self.url), body)
            .await?;
        let created = created.ok(&format!("create one of {collection}"))?.json()?;
        let reference = created
            .as_object()
            .and_then(|fields| fields.values().next())
            .and_then(Value::as_str);
        let id = reference.and_then(|reference| reference.rsplit('/').next());
        Ok(id
            .context("the answer names nothing that was created")?
            .to_owned())
    }

    fn secret(&self, id: &str) -> String {
        format!("{}/secrets/{id}", self.url)
    }
}
