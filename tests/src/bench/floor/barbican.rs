//! The floor's requests to Barbican: one login, the pages of the project's list, and two reads for each secret: its user
//! metadata, which may say its generation, and its payload.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::bench::stock::BarbicanTask;
use crate::rig::openstack::{KeyManager, Login, OpenStack};

/// Secrets of one page, as many as Barbican gives.
const PAGE: usize = 100;

/// A login, and which secret has which name.
pub(super) struct Project {
    secrets: KeyManager,
    ids: HashMap<String, String>,
}

impl Project {
    /// Logs in and lists the project.
    pub(super) async fn open(task: &BarbicanTask) -> Result<Self> {
        let openstack = OpenStack::connect(task.connection.clone())?;
        let secrets = openstack.key_manager(Login::application_credential(&task.credential, &task.secret));
        let mut ids = HashMap::new();
        for page in 0.. {
            let query = format!("sort=created:desc&limit={PAGE}&offset={}", page * PAGE);
            let answer = secrets.list(&query).await?.ok("list secrets")?.json()?;
            let entries = answer["secrets"].as_array().context("a page is a list")?;
            for entry in entries {
                let (Some(name), Some(reference)) = (entry["name"].as_str(), entry["secret_ref"].as_str())
                else {
                    continue;
                };
                let id = reference.rsplit('/').next().unwrap_or_default();
                ids.insert(name.to_owned(), id.to_owned());
            }
            if entries.len() < PAGE {
                break;
            }
        }
        Ok(Self { secrets, ids })
    }

    /// Reads the metadata and the payload of a secret, under `key` or as the fields that it has.
    pub(super) async fn read(&self, name: &str, key: Option<&str>) -> Result<Value> {
        let id = self
            .ids
            .get(name)
            .with_context(|| format!("there is no secret {name}"))?;
        self.secrets
            .metadata(id)
            .await?
            .ok("read the metadata of a secret")?;
        let payload = self.secrets.payload(id).await?.ok("read a payload")?.body;
        Ok(match key {
            Some(key) => json!({key: String::from_utf8_lossy(&payload)}),
            None => serde_json::from_slice(&payload)?,
        })
    }
}
