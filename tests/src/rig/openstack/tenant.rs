//! A project with its user, as one test needs it, and what an administrator may do to them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::OpenStack;
use super::key_manager::KeyManager;
use super::session::{JSON, Login, Session};
use crate::rig::poll;

/// How long Keystone may go on without a role that was given. It has been seen once; why is not known: there is one
/// worker, and whatever it caches of roles is dropped when one is given.
const ROLE_SEEN_WITHIN: Duration = Duration::from_mins(1);

/// What it says until then.
const ROLE_NOT_SEEN: &str = "Could not find role assignment";

/// What a user may do in the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Read, write and delete secrets.
    Member,
    /// Nothing that Barbican knows.
    Reader,
}

/// A project with one user in it. It is left behind: the servers are thrown away.
pub struct Tenant {
    /// The project's id.
    pub project_id: String,
    /// The project's name, in the domain `Default`.
    pub project: String,
    /// The user's id.
    pub user_id: String,
    /// The user's name, in the domain `Default`.
    pub user: String,
    /// The user's password.
    pub password: String,
    keystone: String,
    barbican: String,
    role_id: String,
    admin: Arc<Session>,
    session: Arc<Session>,
}

/// A credential that stands for a user in one project.
#[derive(Clone, Debug)]
pub struct ApplicationCredential {
    /// Its id, which is enough to log in.
    pub id: String,
    /// Its name, unique for its user.
    pub name: String,
    /// Its secret.
    pub secret: String,
}

/// What an application credential is limited to. By default, to nothing but its user's roles.
#[derive(Clone, Debug, Default)]
pub struct CredentialTerms {
    /// After this time it is refused, and so are its tokens.
    pub expires: Option<DateTime<Utc>>,
    /// If there are any, what is not listed is answered 401.
    pub access_rules: Vec<AccessRule>,
}

/// One thing that an application credential may do in Barbican.
#[derive(Clone, Debug)]
pub struct AccessRule {
    /// The HTTP method.
    pub method: String,
    /// A path; `**` stands for any rest of it.
    pub path: String,
}

impl AccessRule {
    /// All that reading secrets and containers takes.
    #[must_use]
    pub fn reading() -> Vec<Self> {
        [
            "/v1/secrets",
            "/v1/secrets/**",
            "/v1/containers",
            "/v1/containers/**",
        ]
        .map(|path| Self {
            method: "GET".to_owned(),
            path: path.to_owned(),
        })
        .to_vec()
    }
}

impl Tenant {
    pub(super) async fn create(openstack: &OpenStack, role: Role) -> Result<Self> {
        let admin = &openstack.admin;
        let keystone = openstack.auth_url();
        let unique = Uuid::new_v4().simple().to_string();
        let (project, user) = (format!("project-{unique}"), format!("user-{unique}"));
        let password = Uuid::new_v4().to_string();

        let body = json!({"project": {"name": project, "domain_id": "default"}});
        let created = admin.post(&format!("{keystone}/projects"), &body).await?;
        let project_id = created.ok("create a project")?.text("/project/id")?;
        let body = json!({"user": {"name": user, "domain_id": "default", "password": password}});
        let created = admin.post(&format!("{keystone}/users"), &body).await?;
        let user_id = created.ok("create a user")?.text("/user/id")?;

        let login = Login::password(&user, &password, &project);
        let tenant = Self {
            session: Arc::new(openstack.session(login)),
            admin: admin.clone(),
            barbican: openstack.connection.barbican.clone(),
            role_id: openstack.role_id(role).to_owned(),
            project_id,
            project,
            user_id,
            user,
            password,
            keystone,
        };
        tenant.grant_role().await?;
        Ok(tenant)
    }

    /// How the user logs in with the password.
    #[must_use]
    pub fn login(&self) -> Login {
        Login::password(&self.user, &self.password, &self.project)
    }

    /// The user's own session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The project's secrets, with the rights of its user.
    #[must_use]
    pub fn key_manager(&self) -> KeyManager {
        KeyManager::new(self.session.clone(), &self.barbican)
    }

    /// Makes an application credential of the user.
    pub async fn application_credential(&self, terms: &CredentialTerms) -> Result<ApplicationCredential> {
        let name = format!("credential-{}", Uuid::new_v4().simple());
        let rules: Vec<Value> = terms
            .access_rules
            .iter()
            .map(|rule| json!({"service": "key-manager", "method": rule.method, "path": rule.path}))
            .collect();
        let mut wanted = json!({"name": name});
        if !rules.is_empty() {
            wanted["access_rules"] = rules.into();
        }
        if let Some(expires) = terms.expires {
            wanted["expires_at"] = expires.format("%Y-%m-%dT%H:%M:%S").to_string().into();
        }
        let body = json!({"application_credential": wanted});
        let created = poll::some("an application credential", ROLE_SEEN_WITHIN, async || {
            let answer = self.session.post(&self.credentials(), &body).await;
            let is_late = answer
                .as_ref()
                .is_ok_and(|answer| String::from_utf8_lossy(&answer.body).contains(ROLE_NOT_SEEN));
            (!is_late).then_some(answer)
        })
        .await??;
        let created = created.ok("create an application credential")?;
        Ok(ApplicationCredential {
            id: created.text("/application_credential/id")?,
            secret: created.text("/application_credential/secret")?,
            name,
        })
    }

    /// Revokes an application credential. Barbican may accept its tokens until its cache ends.
    pub async fn revoke(&self, credential: &ApplicationCredential) -> Result<()> {
        let url = format!("{}/{}", self.credentials(), credential.id);
        self.session
            .bare(Method::DELETE, &url)
            .await?
            .ok("revoke an application credential")
            .map(drop)
    }

    /// Lets the user log in, or not.
    pub async fn set_enabled(&self, enabled: bool) -> Result<()> {
        self.change_user(&json!({"enabled": enabled})).await
    }

    /// Gives the user another password. Application credentials stay as they are. The tenant's own session
    /// keeps the old one.
    pub async fn set_password(&self, password: &str) -> Result<()> {
        self.change_user(&json!({"password": password})).await
    }

    /// Gives the user its role in the project back.
    pub async fn grant_role(&self) -> Result<()> {
        self.admin
            .bare(Method::PUT, &self.role())
            .await?
            .ok("grant the role")
            .map(drop)
    }

    /// Takes the user's role in the project away. Its application credentials die with it.
    pub async fn revoke_role(&self) -> Result<()> {
        self.admin
            .bare(Method::DELETE, &self.role())
            .await?
            .ok("revoke the role")
            .map(drop)
    }

    async fn change_user(&self, change: &Value) -> Result<()> {
        let url = format!("{}/users/{}", self.keystone, self.user_id);
        let body = json!({"user": change}).to_string().into_bytes();
        let answer = self
            .admin
            .request(Method::PATCH, &url, &[("content-type", JSON)], body)
            .await?;
        answer.ok("change the user").map(drop)
    }

    fn credentials(&self) -> String {
        format!("{}/users/{}/application_credentials", self.keystone, self.user_id)
    }

    fn role(&self) -> String {
        format!(
            "{}/projects/{}/users/{}/roles/{}",
            self.keystone, self.project_id, self.user_id, self.role_id
        )
    }
}

impl ApplicationCredential {
    /// How it logs in.
    #[must_use]
    pub fn login(&self) -> Login {
        Login::application_credential(&self.id, &self.secret)
    }
}
