//! Counts what was asked of the store, from its audit log.

use std::path::PathBuf;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::rig::journal::{Journal, Mark};

/// The audit log of a server. Each request is in it before its answer is sent.
pub struct AuditLog {
    journal: Journal,
}

/// A request that the server has answered, refused ones and logins included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRequest {
    /// `read`, `list`, `create`, `update`, `delete`, `patch`.
    pub operation: String,
    /// The path below `/v1/`, mount first.
    pub path: String,
    /// The engine or method of the mount: `kv`, `kubernetes`, `system`, `token`.
    pub mount_type: String,
    /// The display name of the token. It tells who asked.
    pub display_name: String,
    /// The client's port: requests of one port came over one connection.
    pub remote_port: u16,
    /// Whether the server refused or failed.
    pub failed: bool,
    /// Whether it was refused for being one too many.
    pub throttled: bool,
    /// When it was answered.
    pub at: DateTime<Utc>,
}

impl AuditLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            journal: Journal::new(path),
        }
    }

    /// The present end of the log.
    pub fn mark(&self) -> Result<Mark> {
        self.journal.end()
    }

    /// The requests since `mark`, in the order of their answers.
    pub fn since(&self, mark: Mark) -> Result<Vec<StoreRequest>> {
        let entries: Vec<Entry> = self.journal.since(mark)?;
        // There is an entry for the request and one for its answer; only the latter knows the mount. What a quota refuses
        // gets no further than the first.
        Ok(entries
            .into_iter()
            .filter(|entry| entry.kind == "response" || entry.is_throttled())
            .map(StoreRequest::from)
            .collect())
    }
}

impl StoreRequest {
    /// Whether this is a login at some auth method.
    #[must_use]
    pub fn is_login(&self) -> bool {
        self.path.starts_with("auth/") && self.path.split('/').any(|part| part == "login")
    }

    /// Whether this read the value of a secret in a mount of version 2.
    #[must_use]
    pub fn is_value_read(&self, mount: &str) -> bool {
        let path = self.path.strip_prefix(mount);
        self.operation == "read" && path.is_some_and(|path| path.starts_with("/data/"))
    }
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    time: DateTime<Utc>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    auth: Auth,
    request: Request,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    display_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    operation: String,
    path: String,
    mount_type: String,
    remote_port: u16,
}

impl Entry {
    fn is_throttled(&self) -> bool {
        self.error.contains("rate limit quota exceeded")
    }
}

impl From<Entry> for StoreRequest {
    fn from(entry: Entry) -> Self {
        Self {
            throttled: entry.is_throttled(),
            operation: entry.request.operation,
            path: entry.request.path,
            mount_type: entry.request.mount_type,
            display_name: entry.auth.display_name,
            remote_port: entry.request.remote_port,
            failed: !entry.error.is_empty(),
            at: entry.time,
        }
    }
}
