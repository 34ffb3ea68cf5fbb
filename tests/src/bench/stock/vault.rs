//! Values in a mount of the key-value engine.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Asked, StoreMark, place_name, value};
use crate::bench::ground::{AUDIENCE, AUTH_MOUNT, Ground, MOUNT, READER, ROLE, each};
use crate::bench::shape::Shape;
use crate::rig::vault::{Kv, StoreRequest};

/// A mount.
pub struct VaultStock {
    mount: String,
    version: Kv,
    keys: usize,
    pub(super) filled: usize,
}

/// How the floor reads from it.
#[derive(Serialize, Deserialize)]
pub struct VaultTask {
    /// The server's address.
    pub url: String,
    /// Its authority, PEM.
    pub ca: String,
    /// What stands between `/v1/` and a path.
    pub folder: String,
    /// Whether an answer holds the value below a second `data`.
    pub versioned: bool,
    /// Where it knows ServiceAccounts.
    pub auth_mount: String,
    /// As what.
    pub role: String,
    /// The ServiceAccount that logs in.
    pub account: String,
    /// The audience of its token.
    pub audience: String,
}

impl VaultStock {
    /// A new and empty mount.
    pub(super) async fn new(ground: &Ground, shape: &Shape) -> Result<Self> {
        let mount = Self::mount_of(shape);
        let version = if shape.engine.is_versioned() {
            Kv::V2
        } else {
            Kv::V1
        };
        ground.vault.api().mount_kv(&mount, version).await?;
        Ok(Self {
            mount,
            version,
            keys: shape.keys,
            filled: 0,
        })
    }

    /// The mount that holds the values of such objects.
    #[must_use]
    pub fn mount_of(shape: &Shape) -> String {
        format!("{MOUNT}-{}-{}", shape.engine.name(), shape.keys)
    }

    pub(super) async fn fill(&mut self, ground: &Ground, count: usize) -> Result<()> {
        let missing = self.filled..count.max(self.filled);
        each(missing.clone(), async |place| {
            self.write(ground, place, &format!("first-{place}")).await
        })
        .await?;
        self.filled = missing.end;
        Ok(())
    }

    /// Writes a value whose fields begin with `start`.
    pub async fn write(&self, ground: &Ground, place: usize, start: &str) -> Result<()> {
        let data = value(self.keys, start);
        let api = ground.vault.api();
        api.write_secret(&self.mount, self.version, &path(place), &data)
            .await
            .map(drop)
    }

    /// The spec of a store object that finds it at this address.
    #[must_use]
    pub fn spec(&self, ground: &Ground, address: &str) -> Value {
        json!({"vault": {
            "address": address, "mount": self.mount, "ca": {"inline": ground.vault.ca()},
            "auth": {"kubernetes": {
                "mount": AUTH_MOUNT, "role": ROLE, "audience": AUDIENCE, "serviceAccountRef": {"name": READER},
            }},
        }})
    }

    pub(super) fn source(place: usize) -> Value {
        json!({"path": path(place)})
    }

    pub(super) fn task(&self, ground: &Ground, address: &str) -> VaultTask {
        let versioned = self.version == Kv::V2;
        VaultTask {
            url: address.to_owned(),
            ca: ground.vault.ca().to_owned(),
            folder: format!("{}/{}", self.mount, if versioned { "data/" } else { "" }),
            versioned,
            auth_mount: AUTH_MOUNT.to_owned(),
            role: ROLE.to_owned(),
            account: READER.to_owned(),
            audience: AUDIENCE.to_owned(),
        }
    }

    pub(super) fn mark(ground: &Ground) -> Result<StoreMark> {
        Ok(StoreMark {
            first: ground.vault.audit().mark()?,
            second: None,
        })
    }

    pub(super) fn asked(&self, ground: &Ground, mark: StoreMark) -> Result<Vec<Asked>> {
        let requests = ground.vault.audit().since(mark.first)?;
        let asked = requests.iter().filter(|request| request.display_name != "root");
        Ok(asked
            .map(|request| Asked {
                kind: kind_of(request, &self.mount),
                at: request.at,
            })
            .collect())
    }
}

fn path(place: usize) -> String {
    format!("apps/{}", place_name(place))
}

fn kind_of(request: &StoreRequest, mount: &str) -> &'static str {
    let path = request.path.as_str();
    let below = path.strip_prefix(mount).and_then(|rest| rest.strip_prefix('/'));
    match below {
        _ if request.throttled => "refused",
        _ if request.is_login() => "login",
        Some(rest) if rest.starts_with("metadata/") => "metadata",
        Some(_) if request.operation == "list" => "list",
        Some(_) => "value",
        None if path.starts_with("sys/internal/ui/mounts") => "mount",
        None if path.starts_with("auth/token/") => "token",
        None => "other",
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn requests_are_told_apart() {
        for (operation, path, kind) in [
            ("update", "auth/k8s/login", "login"),
            ("read", "sys/internal/ui/mounts/kv", "mount"),
            ("read", "kv/data/a", "value"),
            ("read", "kv/a", "value"),
            ("read", "kv/metadata/a", "metadata"),
            ("list", "kv/a", "list"),
            ("update", "auth/token/renew-self", "token"),
            ("read", "kv2/data/a", "other"),
        ] {
            let request = StoreRequest {
                operation: operation.to_owned(),
                path: path.to_owned(),
                mount_type: String::new(),
                display_name: String::new(),
                remote_port: 0,
                throttled: false,
                failed: false,
                at: DateTime::UNIX_EPOCH,
            };
            assert_eq!(kind_of(&request, "kv"), kind, "{operation} {path}");
        }
    }
}
