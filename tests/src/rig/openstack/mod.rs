//! A real Keystone and a real Barbican: HTTPS with a certificate authority of their own, a lock-out policy, and an
//! access log each, by which requests are counted.

mod access_log;
mod config;
mod environment;
mod key_manager;
mod servers;
mod session;
mod state;
mod tenant;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

pub use self::access_log::{AccessLog, LoginAttempt, Request, What};
pub use self::key_manager::{Container, ContainerKind, KeyManager, NewSecret, SecretKind};
pub use self::servers::Service;
pub use self::session::{Answer, Login, Session};
pub use self::tenant::{AccessRule, ApplicationCredential, CredentialTerms, Role, Tenant};
pub use super::journal::Mark;

use self::environment::Environment;
use self::servers::Servers;
use self::state::Identity;
use super::http;
use super::run::Run;

/// The name of the user who may do everything in Keystone, and of the user's project.
const ADMINISTRATOR: &str = "admin";

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a token is good for.
    pub token_lifetime: Duration,
    /// How long Barbican trusts its last look at a token. Clouds leave it at five minutes.
    pub token_cache: Duration,
    /// After how many wrong passwords a user is locked out.
    pub lockout_after: u32,
    /// For how long a user is locked out.
    pub lockout_duration: Duration,
    /// How many processes serve Barbican. Keystone is always one: its cache is in memory.
    pub barbican_workers: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token_lifetime: Duration::from_hours(1),
            token_cache: Duration::from_secs(2),
            lockout_after: 6,
            lockout_duration: Duration::from_mins(30),
            barbican_workers: 2,
        }
    }
}

/// Where the servers are. Enough to use them from another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// Keystone's address, without a path.
    pub keystone: String,
    /// Barbican's address, without a path.
    pub barbican: String,
    /// The folder that holds their state, certificates and logs.
    pub folder: PathBuf,
}

impl Connection {
    /// The variables that the `openstack` command and its libraries read, to be the administrator.
    pub fn variables(&self) -> Result<Vec<(&'static str, String)>> {
        let identity = Identity::load(&self.folder)?;
        Ok(vec![
            ("OS_AUTH_URL", format!("{}/v3", self.keystone)),
            ("OS_CACERT", servers::ca_file(&self.folder).display().to_string()),
            ("OS_REGION_NAME", identity.region),
            ("OS_IDENTITY_API_VERSION", "3".to_owned()),
            ("OS_USERNAME", ADMINISTRATOR.to_owned()),
            ("OS_PASSWORD", identity.admin_password),
            ("OS_PROJECT_NAME", ADMINISTRATOR.to_owned()),
            ("OS_USER_DOMAIN_ID", "default".to_owned()),
            ("OS_PROJECT_DOMAIN_ID", "default".to_owned()),
        ])
    }
}

/// Servers that the rig did not start, stand-ins for example: what there is to know of them.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere<'a> {
    /// Keystone's address, without a path.
    pub keystone: &'a str,
    /// Barbican's address, without a path.
    pub barbican: &'a str,
    /// The certificate authorities of both, PEM.
    pub ca: &'a str,
    /// The only region.
    pub region: &'a str,
    /// The password of the user `admin`.
    pub admin_password: &'a str,
    /// The role of [`Role::Member`].
    pub member_role_id: &'a str,
    /// The role of [`Role::Reader`].
    pub reader_role_id: &'a str,
}

/// Running servers.
pub struct OpenStack {
    connection: Connection,
    ca: String,
    identity: Identity,
    http: reqwest::Client,
    admin: Arc<Session>,
    servers: Option<Servers>,
}

impl OpenStack {
    /// Starts Keystone and Barbican as part of `run`, in a folder called `name`, and waits until both answer.
    pub async fn start(run: &Run, name: &str, options: &Options) -> Result<Self> {
        let (servers, connection) = Servers::start(run, name, options).await?;
        let mut openstack = Self::connect(connection)?;
        openstack.servers = Some(servers);
        Ok(openstack)
    }

    /// Uses servers that another process started.
    pub fn connect(connection: Connection) -> Result<Self> {
        let identity = Identity::load(&connection.folder)?;
        let ca = servers::ca_file(&connection.folder);
        let ca = std::fs::read_to_string(&ca).with_context(|| format!("read {}", ca.display()))?;
        Self::at(connection, ca, identity)
    }

    /// Uses servers of another kind. They have no access log, and are not started or stopped from here.
    pub fn elsewhere(place: &Elsewhere<'_>) -> Result<Self> {
        let connection = Connection {
            keystone: place.keystone.to_owned(),
            barbican: place.barbican.to_owned(),
            folder: PathBuf::new(),
        };
        let identity = Identity {
            region: place.region.to_owned(),
            admin_password: place.admin_password.to_owned(),
            barbican_password: String::new(),
            member_role_id: place.member_role_id.to_owned(),
            reader_role_id: place.reader_role_id.to_owned(),
            kek: String::new(),
        };
        Self::at(connection, place.ca.to_owned(), identity)
    }

    fn at(connection: Connection, ca: String, identity: Identity) -> Result<Self> {
        let http = http::client(&ca)?;
        let login = Login::password(ADMINISTRATOR, &identity.admin_password, ADMINISTRATOR);
        let admin = Arc::new(Session::new(&http, &connection.keystone, login));
        Ok(Self {
            connection,
            ca,
            identity,
            http,
            admin,
            servers: None,
        })
    }

    /// Where the servers are.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The certificate authority of both servers, PEM.
    #[must_use]
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// What clients are given as the address of Keystone.
    #[must_use]
    pub fn auth_url(&self) -> String {
        format!("{}/v3", self.connection.keystone)
    }

    /// The address of Barbican, as the catalog gives it for the interfaces `public`, `internal` and `admin`.
    #[must_use]
    pub fn key_manager_url(&self) -> &str {
        &self.connection.barbican
    }

    /// The only region of the catalog.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.identity.region
    }

    /// The session of the administrator of Keystone.
    #[must_use]
    pub fn admin(&self) -> &Session {
        &self.admin
    }

    /// Makes a project with one user in it, for one test: what it does is seen by no other.
    pub async fn tenant(&self, role: Role) -> Result<Tenant> {
        Tenant::create(self, role).await
    }

    /// A session of any user, right or wrong.
    #[must_use]
    pub fn session(&self, login: Login) -> Session {
        Session::new(&self.http, &self.connection.keystone, login)
    }

    /// Access to secrets as any user, right or wrong.
    #[must_use]
    pub fn key_manager(&self, login: Login) -> KeyManager {
        KeyManager::new(Arc::new(self.session(login)), &self.connection.barbican)
    }

    /// What was asked of a server.
    #[must_use]
    pub fn access_log(&self, service: Service) -> AccessLog {
        AccessLog::new(servers::access_log(&self.connection.folder, service))
    }

    /// Takes a server away; its state stays.
    pub async fn stop(&self, service: Service) -> Result<()> {
        self.servers()?.stop(service).await
    }

    /// Brings a server back and waits until it answers.
    pub async fn restart(&self, service: Service) -> Result<()> {
        self.servers()?.restart(service).await
    }

    /// Freezes a server: connections are accepted and nothing is answered.
    pub fn pause(&self, service: Service) -> Result<()> {
        self.servers()?.pause(service)
    }

    /// Lets a frozen server go on.
    pub fn resume(&self, service: Service) -> Result<()> {
        self.servers()?.resume(service)
    }

    fn servers(&self) -> Result<&Servers> {
        let servers = self.servers.as_ref();
        servers.context("these servers belong to another process: start private ones")
    }

    fn role_id(&self, role: Role) -> &str {
        match role {
            Role::Member => &self.identity.member_role_id,
            Role::Reader => &self.identity.reader_role_id,
        }
    }
}

/// The Python of this machine that the servers run with; how to get one where there is none.
pub fn look_for_python() -> Result<PathBuf> {
    environment::look_for_python()
}

/// The environment variables of everything that runs Python here, whatever the user has set for other work.
fn surroundings(environment: &Environment, home: &Path) -> Vec<(&'static str, OsString)> {
    vec![
        // Barbican looks for its configuration below the home folder alone.
        ("HOME", home.into()),
        ("OS_KEYSTONE_CONFIG_DIR", home.into()),
        ("OS_KEYSTONE_CONFIG_FILES", OsString::new()),
        ("XDG_CACHE_HOME", environment.warm_files().into()),
        ("PYTHONPATH", OsString::new()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
        ("NO_PROXY", "127.0.0.1".into()),
        ("no_proxy", "127.0.0.1".into()),
    ]
}
