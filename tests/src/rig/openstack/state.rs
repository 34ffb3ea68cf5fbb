//! The first state of both servers: made once, kept in the cache as one archive, unpacked for each start.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::environment::Environment;
use super::{Options, config};
use crate::rig::cache;
use crate::rig::keeper::Badge;

const BOOTSTRAP: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/servers/openstack/bootstrap.py"
));

const ARCHIVE: &str = "state.tar";

/// What was decided when the state was made. The state is worthless outside this machine's loopback.
pub(super) struct Identity {
    /// The only region.
    pub(super) region: String,
    /// Of the user `admin`, who may do everything in Keystone.
    pub(super) admin_password: String,
    /// Of the user by whom Barbican checks tokens.
    pub(super) barbican_password: String,
    /// The role that may read, write and delete secrets.
    pub(super) member_role_id: String,
    /// The role that may do nothing in Barbican.
    pub(super) reader_role_id: String,
    /// Encrypts the project keys of Barbican.
    pub(super) kek: String,
}

#[derive(Deserialize)]
struct KeystoneIdentity {
    region: String,
    admin_password: String,
    barbican_password: String,
    member_role_id: String,
    reader_role_id: String,
}

#[derive(Deserialize)]
struct BarbicanIdentity {
    kek: String,
}

impl Identity {
    /// What the state in `folder` was made with.
    pub(super) fn load(folder: &Path) -> Result<Self> {
        let keystone: KeystoneIdentity = read(&folder.join("keystone/identity.json"))?;
        let barbican: BarbicanIdentity = read(&folder.join("barbican/identity.json"))?;
        Ok(Self {
            region: keystone.region,
            admin_password: keystone.admin_password,
            barbican_password: keystone.barbican_password,
            member_role_id: keystone.member_role_id,
            reader_role_id: keystone.reader_role_id,
            kek: barbican.kek,
        })
    }
}

/// Fills `folder` with the first state. Blocks, for some seconds if it has to be made by processes that wear `badge`.
pub(super) fn restore(environment: &Environment, folder: &Path, badge: &Badge) -> Result<Identity> {
    let settings = settings(Path::new("/"));
    let inputs = [
        ("environment", environment.identity().as_bytes()),
        ("bootstrap.py", BOOTSTRAP.as_bytes()),
        ("keystone.conf", settings.keystone.as_bytes()),
        ("barbican.conf", settings.barbican.as_bytes()),
    ];
    let entry = cache::provide("openstack-state", &inputs, |staging, progress| {
        progress.say("setting up Keystone and Barbican");
        let state = staging.join("state");
        bootstrap(environment, &state, badge)?;
        let mut archive = tar::Builder::new(File::create(staging.join(ARCHIVE))?);
        archive.append_dir_all(".", &state).context("archive the state")?;
        archive.finish().context("archive the state")?;
        fs::remove_dir_all(&state).context("remove the state that is archived")
    })?;
    let archive = File::open(entry.join(ARCHIVE)).context("open the archived state")?;
    tar::Archive::new(archive)
        .unpack(folder)
        .with_context(|| format!("unpack the state into {}", folder.display()))?;
    Identity::load(folder)
}

struct Settings {
    keystone: String,
    barbican: String,
}

/// The configuration while no server runs. Only what shapes the state matters.
fn settings(folder: &Path) -> Settings {
    let options = Options::default();
    let nobody = Identity {
        region: String::new(),
        admin_password: String::new(),
        barbican_password: String::new(),
        member_role_id: String::new(),
        reader_role_id: String::new(),
        kek: String::new(),
    };
    let urls = config::Urls {
        keystone: "",
        barbican: "",
        ca: Path::new(""),
    };
    Settings {
        keystone: config::keystone(&folder.join("keystone"), "", &options),
        barbican: config::barbican(&folder.join("barbican"), &urls, &options, &nobody),
    }
}

fn bootstrap(environment: &Environment, folder: &Path, badge: &Badge) -> Result<()> {
    let settings = settings(folder);
    for (path, text) in [
        ("keystone/keystone.conf", settings.keystone.as_str()),
        ("barbican/.barbican/barbican.conf", settings.barbican.as_str()),
        ("bootstrap.py", BOOTSTRAP),
    ] {
        write(&folder.join(path), text)?;
    }
    let mut running = Vec::new();
    for service in ["keystone", "barbican"] {
        let home = folder.join(service);
        let child = badge
            .command(environment.python())
            .arg(folder.join("bootstrap.py"))
            .arg(service)
            .arg("--database")
            .arg(home.join(format!("{service}.db")))
            .arg("--identity")
            .arg(home.join("identity.json"))
            .envs(super::surroundings(environment, &home))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start the set-up of {service}"))?;
        running.push((service, child));
    }
    // Both are waited for before either is judged, so that none is left behind.
    let ended: Vec<_> = running
        .into_iter()
        .map(|(service, child)| (service, child.wait_with_output()))
        .collect();
    for (service, output) in ended {
        let output = output.with_context(|| format!("wait for the set-up of {service}"))?;
        ensure!(
            output.status.success(),
            "the set-up of {service} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Writes a file into a folder that may not exist yet.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))
}
