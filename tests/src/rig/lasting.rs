//! The servers that `rig up` leaves running: how other programs find them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::run::{self, Lasting, Run};
use super::{kubernetes, openstack, tls, vault};

const FILE: &str = "connections.json";

/// How to reach each server that runs.
#[derive(Default, Serialize, Deserialize)]
pub struct Connections {
    /// The control plane.
    pub kubernetes: Option<kubernetes::Connection>,
    /// Keystone and Barbican.
    pub openstack: Option<openstack::Connection>,
    /// The store.
    pub vault: Option<vault::Connection>,
}

/// Lets the servers of `run` live on, and writes down how to reach them.
pub fn leave(run: &Run, connections: &Connections) -> Result<()> {
    tls::write_private(
        &run.folder().join(FILE),
        serde_json::to_string(connections)?.as_bytes(),
    )?;
    run.detach()
}

/// The servers that an earlier `rig up` left running, if any.
pub fn find() -> Result<Option<Connections>> {
    run::lasting(Lasting::Rig)?
        .map(|folder| read(&folder.join(FILE)))
        .transpose()
}

fn read(path: &Path) -> Result<Connections> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
}
