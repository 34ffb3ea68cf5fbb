//! Barbican through the operator, on the real Keystone and Barbican.

mod insecure;
mod lockout;
mod logins;
mod mended;
mod values;
mod versions;

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};
use keyward::runtime::clock;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::openstack::{CredentialTerms, NewSecret, OpenStack, Role, Tenant};
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use crate::scene::{SOON, Scene};

pub(super) fn register(suite: &mut Suite) {
    insecure::register(suite);
    lockout::register(suite);
    logins::register(suite);
    mended::register(suite);
    values::register(suite);
    versions::register(suite);
}

/// A scene with a project of its own, and what stores need to log in to it.
struct Cloud<'a> {
    scene: Scene<'a>,
    servers: &'a OpenStack,
    tenant: Tenant,
}

impl<'a> Cloud<'a> {
    async fn new(case: &'a Case) -> Result<Self> {
        Self::with(case, case.openstack().await?).await
    }

    async fn with(case: &'a Case, servers: &'a OpenStack) -> Result<Self> {
        Ok(Self {
            scene: Scene::new(case, Kv::V2).await?,
            servers,
            tenant: servers.tenant(Role::Member).await?,
        })
    }

    /// A project whose secret `db` is `first`; no store yet.
    async fn with_db(case: &'a Case) -> Result<Self> {
        let cloud = Self::new(case).await?;
        let keys = cloud.tenant.key_manager();
        keys.store(&NewSecret::named("db"), b"first").await?;
        Ok(cloud)
    }

    /// Makes a working store `barbican`, by application credential.
    async fn working(case: &'a Case) -> Result<Self> {
        let cloud = Self::new(case).await?;
        let spec = cloud.by_credential("login").await?;
        cloud.scene.store("barbican", &spec).await?;
        Ok(cloud)
    }

    /// The spec of a store by a new application credential, whose secret lies in a Secret of this name.
    async fn by_credential(&self, secret: &str) -> Result<Value> {
        let credential = self
            .tenant
            .application_credential(&CredentialTerms::default())
            .await?;
        self.scene
            .credential(secret, &json!({"secret": credential.secret}))
            .await?;
        Ok(self.spec(&json!({"applicationCredential": {
            "id": credential.id, "secretRef": {"name": secret, "key": "secret"},
        }})))
    }

    /// The spec of a store by the user's password, which lies in a Secret of this name.
    fn by_password(&self, secret: &str) -> Value {
        self.spec(&json!({"password": {
            "username": self.tenant.user, "project": self.tenant.project,
            "passwordRef": {"name": secret, "key": "password"},
        }}))
    }

    fn spec(&self, auth: &Value) -> Value {
        json!({"barbican": {
            "authUrl": self.servers.auth_url(), "ca": {"inline": self.servers.ca()}, "auth": auth,
        }})
    }

    /// Applies a store of this spec, and a `SyncedSecret` of its name by which it copies `db`.
    async fn copied_by(&self, name: &str, spec: &Value) -> Result<()> {
        self.scene.store(name, spec).await?;
        let source = json!({"storeRef": {"name": name}, "name": "db", "key": "password"});
        let target = json!({"sources": [source], "target": {"name": copy_of(name)}});
        self.scene.synced(name, &target).await
    }

    /// Applies a `SyncedSecret` of store `barbican`.
    async fn synced(&self, name: &str, wanted: &Value) -> Result<()> {
        let mut source = wanted.clone();
        source["storeRef"] = json!({"name": "barbican"});
        self.scene.synced(name, &json!({ "sources": [source] })).await
    }
}

/// Waits until the next secret is made in a later second than this one: Barbican orders by that.
async fn next_second(id: &str, cloud: &Cloud<'_>) -> Result<()> {
    let made = cloud.tenant.key_manager().describe(id).await?.json()?;
    let made = made["created"].as_str().context("it was created")?;
    let made: DateTime<Utc> = format!("{made}Z").parse()?;
    poll::until("the next second", SOON, || async {
        clock::now() >= made + TimeDelta::seconds(1)
    })
    .await
}

/// The Secret that [`Cloud::copied_by`] makes; a credential may have the store's own name.
fn copy_of(store: &str) -> String {
    format!("{store}-copy")
}
