//! Fetches what a store object refers to and builds the door: CAs, credentials, ServiceAccount tokens.
//!
//! Everything is looked up in one namespace, the store's credential home, which the caller decides. Nothing else is
//! ever read on behalf of a store.

use std::sync::Arc;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use keyward_crds::store as api;
use keyward_crds::{ConfigMapKey, SecretKey};
use url::Url;

use super::plan::{InsecureChoice, StoreObject};
use crate::cluster::{ApiAudiences, ClusterReader, ObjectKey, ServiceAccountTokens};
use crate::stores::barbican::config::{
    BarbicanConfig, CredentialRef, DomainRef, Interface, KeystoneAuth, Limits, ProjectRef, UserRef,
};
use crate::stores::barbican::{BarbicanSessions, BarbicanStore, clouds};
use crate::stores::transport::{Addresses, Identity, TransportOptions};
use crate::stores::vault::{KvVersion, VaultAuth, VaultConfig, VaultSessions, VaultStore};
use crate::stores::{JwtSource, Outcome, Store};

/// Builds doors.
#[derive(Clone)]
pub struct DoorBuilder {
    /// Asked for tokens of ServiceAccounts.
    pub client: kube::Client,
    /// Asked for Secrets and ConfigMaps.
    pub reader: ClusterReader,
    /// Audiences that are the API server's own.
    pub audiences: Arc<ApiAudiences>,
    /// Where stores may be.
    pub addresses: Arc<Addresses>,
    /// The sessions that Vault stores share.
    pub vaults: Arc<VaultSessions>,
    /// The sessions that Barbican stores share.
    pub barbicans: Arc<BarbicanSessions>,
}

impl DoorBuilder {
    /// Builds the door of `store` with the credentials of namespace `home`.
    ///
    /// # Errors
    /// `CredentialMissing` names what is not there; anything else is the door's own fault.
    pub async fn build(&self, store: &StoreObject, home: &ObjectKey) -> Outcome<Box<dyn Store>> {
        match (&store.vault, &store.barbican) {
            (Some(vault), _) => Ok(Box::new(self.vault(store, vault, home).await?)),
            (None, Some(barbican)) => Ok(Box::new(self.barbican(store, barbican, home).await?)),
            (None, None) => Err(Fault::new(
                Class::Permanent,
                Reason::SpecInvalid,
                "the store names neither vault nor barbican",
            )),
        }
    }

    async fn vault(
        &self,
        store: &StoreObject,
        spec: &api::VaultStore,
        home: &ObjectKey,
    ) -> Outcome<VaultStore> {
        let mut transport = self
            .transport(store, spec.ca.as_ref(), spec.server_name.clone(), home)
            .await?;
        let auth = &spec.auth;
        let login = if let Some(kubernetes) = &auth.kubernetes {
            VaultAuth::Kubernetes {
                mount: kubernetes.mount.clone(),
                role: kubernetes.role.clone(),
                jwt: self
                    .tokens(
                        store,
                        home,
                        &kubernetes.service_account_ref.name,
                        &kubernetes.audience,
                    )
                    .await?,
            }
        } else if let Some(app_role) = &auth.app_role {
            VaultAuth::AppRole {
                mount: app_role.mount.clone(),
                role_id: app_role.role_id.clone(),
                secret_id: self.secret_text(home, &app_role.secret_id_ref).await?,
            }
        } else if let Some(token) = &auth.token {
            VaultAuth::Token(self.secret_text(home, &token.token_ref).await?)
        } else if let Some(jwt) = &auth.jwt {
            VaultAuth::Jwt {
                mount: jwt.mount.clone(),
                role: Some(jwt.role.clone()),
                jwt: self.jwt(store, jwt, home).await?,
            }
        } else if let Some(userpass) = &auth.userpass {
            VaultAuth::Userpass {
                mount: userpass.mount.clone(),
                username: userpass.username.clone(),
                password: self.secret_text(home, &userpass.password_ref).await?,
            }
        } else if let Some(cert) = &auth.cert {
            transport.identity = Some(self.identity(home, &cert.certificate_ref.name).await?);
            VaultAuth::Cert {
                mount: cert.mount.clone(),
                role: cert.role.clone(),
            }
        } else {
            return Err(Fault::new(
                Class::Permanent,
                Reason::SpecInvalid,
                "spec.vault.auth names no way to log in",
            ));
        };
        self.vaults.open(VaultConfig {
            address: parse_url(&spec.address)?,
            namespace: spec.namespace.clone(),
            login_namespace: auth.namespace.clone(),
            mount: spec.mount.clone(),
            kv_version: match spec.kv_version {
                api::KvVersion::Auto => KvVersion::Auto,
                api::KvVersion::V1 => KvVersion::V1,
                api::KvVersion::V2 => KvVersion::V2,
            },
            transport,
            auth: login,
        })
    }

    async fn barbican(
        &self,
        store: &StoreObject,
        spec: &api::BarbicanStore,
        home: &ObjectKey,
    ) -> Outcome<BarbicanStore> {
        let mut transport = self.transport(store, spec.ca.as_ref(), None, home).await?;
        let endpoint = spec.endpoint_override.as_deref().map(parse_url).transpose()?;
        let interface = spec.interface.map(|interface| match interface {
            api::Interface::Public => Interface::Public,
            api::Interface::Internal => Interface::Internal,
            api::Interface::Admin => Interface::Admin,
        });
        let config = if let Some(file) = &spec.clouds_yaml {
            let text = self.secret(home, &file.secret_ref).await?;
            let skip = store.allows(InsecureChoice::SkipTlsVerify);
            let cloud = clouds::parse(&text, file.cloud.as_deref(), skip)?;
            transport.verify &= cloud.verify;
            BarbicanConfig {
                auth_url: cloud.auth_url,
                auth: cloud.auth,
                region: spec.region.clone().or(cloud.region),
                interface: interface.unwrap_or(cloud.interface),
                endpoint: endpoint.or(cloud.endpoint),
                transport,
                limits: Limits::default(),
            }
        } else {
            let (Some(auth_url), Some(auth)) = (&spec.auth_url, &spec.auth) else {
                return Err(Fault::new(
                    Class::Permanent,
                    Reason::SpecInvalid,
                    "spec.barbican lacks authUrl or auth",
                ));
            };
            BarbicanConfig {
                auth_url: parse_url(auth_url)?,
                auth: self.keystone_auth(auth, home).await?,
                region: spec.region.clone(),
                interface: interface.unwrap_or_default(),
                endpoint,
                transport,
                limits: Limits::default(),
            }
        };
        self.barbicans.open(config)
    }

    async fn keystone_auth(&self, auth: &api::KeystoneAuth, home: &ObjectKey) -> Outcome<KeystoneAuth> {
        if let Some(credential) = &auth.application_credential {
            return Ok(KeystoneAuth::ApplicationCredential {
                credential: CredentialRef::Id(credential.id.clone()),
                secret: self.secret_text(home, &credential.secret_ref).await?,
            });
        }
        let Some(password) = &auth.password else {
            return Err(Fault::new(
                Class::Permanent,
                Reason::SpecInvalid,
                "spec.barbican.auth names no way to log in",
            ));
        };
        Ok(KeystoneAuth::Password {
            user: UserRef::Name {
                name: password.username.clone(),
                domain: DomainRef::Name(password.user_domain.clone()),
            },
            password: self.secret_text(home, &password.password_ref).await?,
            project: ProjectRef::Name {
                name: password.project.clone(),
                domain: DomainRef::Name(password.project_domain.clone()),
            },
        })
    }

    async fn transport(
        &self,
        store: &StoreObject,
        ca: Option<&api::CaSource>,
        server_name: Option<String>,
        home: &ObjectKey,
    ) -> Outcome<TransportOptions> {
        let ca_pem = match ca {
            None => None,
            Some(api::CaSource {
                inline: Some(pem), ..
            }) => Some(pem.clone().into_bytes()),
            Some(api::CaSource {
                config_map_ref: Some(reference),
                ..
            }) => Some(self.config_map(home, reference).await?.into_bytes()),
            Some(api::CaSource {
                secret_ref: Some(reference),
                ..
            }) => Some(self.secret(home, reference).await?.expose().to_vec()),
            Some(_) => {
                return Err(Fault::new(
                    Class::Permanent,
                    Reason::SpecInvalid,
                    "spec: ca names no source",
                ));
            }
        };
        let mut options = TransportOptions::new(Arc::clone(&self.addresses));
        options.ca_pem = ca_pem;
        options.server_name = server_name;
        options.verify = !store.allows(InsecureChoice::SkipTlsVerify);
        options.plain_http_allowed = store.allows(InsecureChoice::PlainHttp);
        Ok(options)
    }

    async fn jwt(
        &self,
        store: &StoreObject,
        jwt: &api::JwtAuth,
        home: &ObjectKey,
    ) -> Outcome<Arc<dyn JwtSource>> {
        match (&jwt.token_ref, &jwt.service_account_ref, &jwt.audience) {
            (Some(reference), ..) => Ok(Arc::new(StoredJwt(self.secret_text(home, reference).await?))),
            (None, Some(account), Some(audience)) => self.tokens(store, home, &account.name, audience).await,
            _ => Err(Fault::new(
                Class::Permanent,
                Reason::SpecInvalid,
                "spec.vault.auth.jwt names no token",
            )),
        }
    }

    async fn tokens(
        &self,
        store: &StoreObject,
        home: &ObjectKey,
        account: &str,
        audience: &str,
    ) -> Outcome<Arc<dyn JwtSource>> {
        let source = ServiceAccountTokens::new(
            self.client.clone(),
            home.sibling(account),
            audience.to_owned(),
            &self.audiences,
            store.allows(InsecureChoice::ApiServerAudience),
        )?;
        Ok(Arc::new(source.seen_now().await?))
    }

    async fn identity(&self, home: &ObjectKey, name: &str) -> Outcome<Identity> {
        let key = |key: &str| SecretKey {
            name: name.to_owned(),
            key: key.to_owned(),
        };
        Ok(Identity {
            certificate_pem: self.secret(home, &key("tls.crt")).await?.expose().to_vec(),
            key_pem: self.secret(home, &key("tls.key")).await?,
        })
    }

    /// A credential that is text: one line end, which editors and `echo` leave behind, is not part of it.
    async fn secret_text(&self, home: &ObjectKey, reference: &SecretKey) -> Outcome<SecretBytes> {
        let bytes = self.secret(home, reference).await?;
        let text = bytes.expose();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        Ok(SecretBytes::new(text.to_vec()))
    }

    async fn secret(&self, home: &ObjectKey, reference: &SecretKey) -> Outcome<SecretBytes> {
        let key = home.sibling(reference.name.as_str());
        let Some(mut secret) = self.reader.secret(&key).await? else {
            return Err(missing(format!("Secret {key} does not exist")));
        };
        match secret.data.remove(&reference.key) {
            Some(value) if !value.is_empty() => Ok(value),
            Some(_) => Err(missing(format!(
                "key `{}` of Secret {key} is empty",
                reference.key
            ))),
            None => Err(missing(format!("Secret {key} has no key `{}`", reference.key))),
        }
    }

    async fn config_map(&self, home: &ObjectKey, reference: &ConfigMapKey) -> Outcome<String> {
        let key = home.sibling(reference.name.as_str());
        let Some(mut map) = self.reader.config_map(&key).await? else {
            return Err(missing(format!("ConfigMap {key} does not exist")));
        };
        map.remove(&reference.key)
            .ok_or_else(|| missing(format!("ConfigMap {key} has no key `{}`", reference.key)))
    }
}

/// A JWT that somebody put into a Secret.
struct StoredJwt(SecretBytes);

impl JwtSource for StoredJwt {
    fn mint(&self) -> futures::future::BoxFuture<'_, Outcome<SecretBytes>> {
        Box::pin(async { Ok(self.0.duplicate()) })
    }

    fn identity(&self) -> Vec<&[u8]> {
        vec![b"stored", self.0.expose()]
    }
}

/// The objects that a store refers to, as names in its credential home.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Secrets.
    pub secrets: Vec<String>,
    /// ConfigMaps.
    pub config_maps: Vec<String>,
    /// ServiceAccounts.
    pub service_accounts: Vec<String>,
}

/// What `store` refers to.
#[must_use]
pub fn references(store: &StoreObject) -> References {
    let mut found = References::default();
    let ca = store.vault.as_ref().and_then(|vault| vault.ca.as_ref());
    let ca = ca.or_else(|| store.barbican.as_ref().and_then(|barbican| barbican.ca.as_ref()));
    if let Some(ca) = ca {
        found
            .secrets
            .extend(ca.secret_ref.iter().map(|reference| reference.name.clone()));
        found
            .config_maps
            .extend(ca.config_map_ref.iter().map(|reference| reference.name.clone()));
    }
    if let Some(vault) = &store.vault {
        let auth = &vault.auth;
        let secrets = [
            auth.app_role.as_ref().map(|auth| &auth.secret_id_ref.name),
            auth.token.as_ref().map(|auth| &auth.token_ref.name),
            auth.jwt
                .as_ref()
                .and_then(|auth| auth.token_ref.as_ref())
                .map(|reference| &reference.name),
            auth.userpass.as_ref().map(|auth| &auth.password_ref.name),
            auth.cert.as_ref().map(|auth| &auth.certificate_ref.name),
        ];
        found.secrets.extend(secrets.into_iter().flatten().cloned());
        let accounts = [
            auth.kubernetes
                .as_ref()
                .map(|auth| &auth.service_account_ref.name),
            auth.jwt
                .as_ref()
                .and_then(|auth| auth.service_account_ref.as_ref())
                .map(|account| &account.name),
        ];
        found
            .service_accounts
            .extend(accounts.into_iter().flatten().cloned());
    }
    if let Some(barbican) = &store.barbican {
        let auth = barbican.auth.as_ref();
        let secrets = [
            auth.and_then(|auth| auth.application_credential.as_ref())
                .map(|auth| &auth.secret_ref.name),
            auth.and_then(|auth| auth.password.as_ref())
                .map(|auth| &auth.password_ref.name),
            barbican.clouds_yaml.as_ref().map(|file| &file.secret_ref.name),
        ];
        found.secrets.extend(secrets.into_iter().flatten().cloned());
    }
    found
}

fn parse_url(text: &str) -> Outcome<Url> {
    Url::parse(text).map_err(|_| {
        Fault::new(
            Class::Permanent,
            Reason::SpecInvalid,
            format!("`{text}` is not an address"),
        )
    })
}

fn missing(message: String) -> Fault {
    Fault::new(Class::Absent, Reason::CredentialMissing, message)
        .advise("it is taken up as soon as it is there")
}
