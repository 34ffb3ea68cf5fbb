//! The two processes: their files, their arguments, and how to take them away and bring them back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal};

use super::environment::Environment;
use super::{Connection, Options, config, state, surroundings};
use crate::rig::keeper::Badge;
use crate::rig::process::{Launch, Server};
use crate::rig::run::Run;
use crate::rig::tls::{self, Authority};
use crate::rig::{http, ports};

const READY_WITHIN: Duration = Duration::from_mins(5);
const THREADS_OF_A_WORKER: &str = "4";

const SCRIPTS: [(&str, &str); 2] = [
    (
        "serve.py",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/openstack/serve.py")),
    ),
    (
        "access_log.py",
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/servers/openstack/access_log.py"
        )),
    ),
];

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Users, projects, tokens.
    Keystone,
    /// Secrets.
    Barbican,
}

/// The processes of one Keystone and one Barbican.
pub(super) struct Servers {
    keystone: Server,
    barbican: Server,
    http: reqwest::Client,
    connection: Connection,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Keystone => "keystone",
            Self::Barbican => "barbican",
        }
    }
}

/// The certificate authority of the servers in `folder`.
pub(super) fn ca_file(folder: &Path) -> PathBuf {
    folder.join(tls::CA_FILE)
}

/// The access log of a server in `folder`.
pub(super) fn access_log(folder: &Path, service: Service) -> PathBuf {
    folder.join(service.name()).join("access.log")
}

impl Servers {
    /// Starts both side by side and waits until both answer.
    pub(super) async fn start(run: &Run, name: &str, options: &Options) -> Result<(Self, Connection)> {
        let (keystone_port, barbican_port) = (ports::free()?, ports::free()?);
        let connection = Connection {
            keystone: format!("https://127.0.0.1:{keystone_port}"),
            barbican: format!("https://127.0.0.1:{barbican_port}"),
            folder: run.subfolder(name)?,
        };
        let authority = Authority::new("keyward rig openstack")?;
        authority.save(&connection.folder)?;
        authority
            .server("openstack", &["127.0.0.1", "localhost"])?
            .save(&connection.folder, "server")?;

        let environment = {
            let (connection, options, badge) = (connection.clone(), options.clone(), run.badge());
            let prepared = tokio::task::spawn_blocking(move || prepare(&connection, &options, &badge));
            prepared
                .await
                .context("the preparation of the servers panicked")??
        };
        let launch = |service: Service, port: u16, workers: u32| {
            let folder = &connection.folder;
            let home = folder.join(service.name());
            let launch = Launch::new(format!("{name}-{}", service.name()), environment.python());
            surroundings(&environment, &home)
                .into_iter()
                .fold(launch, |launch, (variable, value)| launch.env(variable, value))
                .arg(folder.join("serve.py"))
                .arg(service.name())
                .arg(format!("--port={port}"))
                .arg("--certificate")
                .arg(folder.join("server.crt"))
                .arg("--key")
                .arg(folder.join("server.key"))
                .arg("--access-log")
                .arg(access_log(folder, service))
                .arg("--write-lock")
                .arg(home.join("write.lock"))
                .arg("--database")
                .arg(home.join(format!("{}.db", service.name())))
                .arg(format!("--workers={workers}"))
                .arg(format!("--threads={THREADS_OF_A_WORKER}"))
        };
        let keystone = launch(Service::Keystone, keystone_port, 1)
            .arg(format!("--catalog=identity={}/v3", connection.keystone))
            .arg(format!("--catalog=key-manager={}", connection.barbican))
            .start(run)?;
        let barbican = launch(Service::Barbican, barbican_port, options.barbican_workers).start(run)?;
        let http = http::client(authority.certificate())?;
        let servers = Self {
            keystone,
            barbican,
            http,
            connection: connection.clone(),
        };
        tokio::try_join!(servers.ready(Service::Keystone), servers.ready(Service::Barbican))?;
        Ok((servers, connection))
    }

    pub(super) async fn stop(&self, service: Service) -> Result<()> {
        self.server(service).stop().await.map(drop)
    }

    pub(super) async fn restart(&self, service: Service) -> Result<()> {
        self.server(service).start()?;
        self.ready(service).await
    }

    pub(super) fn pause(&self, service: Service) -> Result<()> {
        self.signal(service, Signal::STOP)
    }

    pub(super) fn resume(&self, service: Service) -> Result<()> {
        self.signal(service, Signal::CONT)
    }

    /// Waits until a server answers; neither path needs a token.
    async fn ready(&self, service: Service) -> Result<()> {
        let url = match service {
            Service::Keystone => format!("{}/v3", self.connection.keystone),
            Service::Barbican => format!("{}/healthcheck", self.connection.barbican),
        };
        let probe = async || {
            self.http
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
        };
        self.server(service).ready(READY_WITHIN, probe).await
    }

    /// Reaches the workers too: a server is a process group of its own.
    fn signal(&self, service: Service, signal: Signal) -> Result<()> {
        let server = self.server(service);
        let group = server.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let group = group.with_context(|| format!("{} is not running", server.name()))?;
        rustix::process::kill_process_group(group, signal)
            .with_context(|| format!("send {signal:?} to {}", server.name()))
    }

    fn server(&self, service: Service) -> &Server {
        match service {
            Service::Keystone => &self.keystone,
            Service::Barbican => &self.barbican,
        }
    }
}

/// Puts everything in place that the servers read. Blocks, for a minute on the first use of this machine.
fn prepare(connection: &Connection, options: &Options, badge: &Badge) -> Result<Environment> {
    let environment = Environment::provide(badge)?;
    let folder = &connection.folder;
    let identity = state::restore(&environment, folder, badge)?;
    let ca = ca_file(folder);
    let urls = config::Urls {
        keystone: &connection.keystone,
        barbican: &connection.barbican,
        ca: &ca,
    };
    let (keystone, barbican) = (folder.join("keystone"), folder.join("barbican"));
    state::write(
        &keystone.join("keystone.conf"),
        &config::keystone(&keystone, urls.keystone, options),
    )?;
    state::write(
        &barbican.join(".barbican/barbican.conf"),
        &config::barbican(&barbican, &urls, options, &identity),
    )?;
    for (name, text) in SCRIPTS {
        state::write(&folder.join(name), text)?;
    }
    Ok(environment)
}
