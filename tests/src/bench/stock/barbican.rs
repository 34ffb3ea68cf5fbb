//! Secrets of a project of Barbican.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Asked, StoreMark, key_name, place_name, value};
use crate::bench::ground::{Ground, each};
use crate::bench::shape::Shape;
use crate::rig::openstack::{
    AccessLog, ApplicationCredential, Connection, CredentialTerms, NewSecret, Request, Role, Service, Tenant,
    What,
};

/// The Secret with the login of the store, and its key.
const LOGIN: (&str, &str) = ("barbican-login", "secret");

/// A project.
pub struct BarbicanStock {
    tenant: Tenant,
    credential: ApplicationCredential,
    connection: Connection,
    auth_url: String,
    ca: String,
    keystone: AccessLog,
    barbican: AccessLog,
    keys: usize,
    pub(super) filled: usize,
}

/// How the floor reads from it.
#[derive(Serialize, Deserialize)]
pub struct BarbicanTask {
    /// Where the servers are.
    pub connection: Connection,
    /// The id of the application credential.
    pub credential: String,
    /// Its secret.
    pub secret: String,
}

impl BarbicanStock {
    /// A new and empty project.
    pub(super) async fn new(ground: &Ground, shape: &Shape) -> Result<Self> {
        let openstack = ground.openstack().await?;
        let tenant = openstack.tenant(Role::Member).await?;
        let credential = tenant.application_credential(&CredentialTerms::default()).await?;
        Ok(Self {
            tenant,
            credential,
            connection: openstack.connection().clone(),
            auth_url: openstack.auth_url(),
            ca: openstack.ca().to_owned(),
            keystone: openstack.access_log(Service::Keystone),
            barbican: openstack.access_log(Service::Barbican),
            keys: shape.keys,
            filled: 0,
        })
    }

    pub(super) async fn fill(&mut self, count: usize) -> Result<()> {
        let missing = self.filled..count.max(self.filled);
        let secrets = self.tenant.key_manager();
        each(missing.clone(), async |place| {
            let fields = value(self.keys, &format!("first-{place}"));
            let payload = if self.keys == 1 {
                fields[key_name(0)]
                    .as_str()
                    .context("a value is a text")?
                    .to_owned()
            } else {
                fields.to_string()
            };
            let secret = NewSecret::named(&place_name(place));
            secrets.store(&secret, payload.as_bytes()).await.map(drop)
        })
        .await?;
        self.filled = missing.end;
        Ok(())
    }

    pub(super) fn spec(&self) -> (Value, Option<(&'static str, Value)>) {
        let (name, key) = LOGIN;
        let spec = json!({"barbican": {
            "authUrl": self.auth_url, "ca": {"inline": self.ca},
            "auth": {"applicationCredential": {
                "id": self.credential.id, "secretRef": {"name": name, "key": key},
            }},
        }});
        (spec, Some((name, json!({key: self.credential.secret}))))
    }

    /// One key is the payload as it is; several are the fields of a payload in JSON.
    pub(super) fn source(&self, place: usize) -> Value {
        let mut source = json!({"name": place_name(place)});
        if self.keys == 1 {
            source["key"] = key_name(0).into();
        } else {
            let fields = (0..self.keys).map(|key| json!({"field": key_name(key)}));
            source["fields"] = fields.collect();
        }
        source
    }

    pub(super) fn task(&self) -> BarbicanTask {
        BarbicanTask {
            connection: self.connection.clone(),
            credential: self.credential.id.clone(),
            secret: self.credential.secret.clone(),
        }
    }

    pub(super) fn mark(&self) -> Result<StoreMark> {
        Ok(StoreMark {
            first: self.keystone.mark()?,
            second: Some(self.barbican.mark()?),
        })
    }

    pub(super) fn asked(&self, mark: StoreMark) -> Result<Vec<Asked>> {
        let logins = self.keystone.logins(mark.first, &self.credential.id)?;
        let mut asked: Vec<Asked> = logins.iter().map(asked_of).collect();
        let second = mark.second.context("a mark of Barbican has two places")?;
        let requests = self.barbican.since(second)?;
        let own = requests
            .iter()
            .filter(|request| request.is_of(&self.tenant.project_id));
        asked.extend(own.map(asked_of));
        Ok(asked)
    }
}

fn asked_of(request: &Request) -> Asked {
    Asked {
        kind: match request.what() {
            What::Login => "login",
            What::SecretList => "list",
            What::Payload => "value",
            What::Secret | What::UserMetadata => "metadata",
            What::TokenCheck => "token",
            What::Versions => "versions",
            What::Container => "container",
            What::Change | What::Other => "other",
        },
        at: time_of(request.time),
    }
}

/// An instant from seconds since 1970.
fn time_of(seconds: f64) -> DateTime<Utc> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "microseconds since 1970 fit by far"
    )]
    DateTime::from_timestamp_micros((seconds * 1e6) as i64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_fractions() {
        assert_eq!(time_of(1.25), DateTime::from_timestamp_millis(1_250).unwrap());
    }
}
