//! One side of the contract: a real Vault or `OpenBao`, or the stand-in, with what a case does to it.

use std::sync::Arc;

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward::stores::transport::{Identity, TransportOptions};
use keyward::stores::vault::{KvVersion, VaultAuth, VaultConfig, VaultStore};
use keyward_core::address::AddressPolicy;
use keyward_stand_ins::http::Seen;
use keyward_stand_ins::vault::{Product, ROOT_TOKEN, UNSEAL_KEY, Vault as StandIn};
use keyward_tests::harness::Case;
use keyward_tests::rig::tls::Authority;
use keyward_tests::rig::vault::{Kv, Login, Mark, StoreRequest, Vault, VaultApi};
use serde_json::{Value, json};

/// A server to hold against the contract.
pub(super) struct Server {
    case: Case,
    side: Side,
    api: VaultApi,
    url: String,
    ca: String,
}

enum Side {
    /// A real server that other tests use too.
    Shared,
    /// A real server of the test's own.
    Private(Box<Vault>),
    /// With the authority of client certificates.
    StandIn(Box<(StandIn, Authority)>),
}

/// A place in the list of requests.
#[derive(Clone, Copy)]
pub(super) enum Point {
    Audited(Mark),
    Seen(usize),
}

/// A request that the server has got.
#[derive(Debug)]
pub(super) struct Asked {
    /// `read`, `list`, or something that changes.
    pub(super) operation: String,
    /// Below `/v1/`.
    pub(super) path: String,
}

/// A way to log in by tokens of Kubernetes, of which one is for another audience.
pub(super) struct TokenLogins {
    pub(super) mount: String,
    pub(super) right: String,
    pub(super) wrong: String,
}

impl Server {
    /// The real server that all tests share.
    pub(super) async fn real(case: Case) -> Result<Self> {
        let vault = case.vault().await?;
        let (api, url, ca) = (vault.api().clone(), vault.url().to_owned(), vault.ca().to_owned());
        Ok(Self {
            case,
            side: Side::Shared,
            api,
            url,
            ca,
        })
    }

    /// A stand-in of the test's own.
    pub(super) async fn stand_in(case: Case, product: Product) -> Result<Self> {
        let stand_in = StandIn::tls(product).await;
        let url = stand_in.url().as_str().trim_end_matches('/').to_owned();
        let ca = String::from_utf8(stand_in.ca().to_vec())?;
        Ok(Self {
            case,
            side: Side::StandIn(Box::new((stand_in, Authority::new("clients")?))),
            api: VaultApi::new(&url, &ca, Some(ROOT_TOKEN))?,
            url,
            ca,
        })
    }

    /// A server that the case may disturb.
    pub(super) async fn private(self) -> Result<Self> {
        if matches!(self.side, Side::StandIn(..)) {
            return Ok(self);
        }
        let vault = self.case.private_vault().await?;
        Ok(Self {
            api: vault.api().clone(),
            url: vault.url().to_owned(),
            ca: vault.ca().to_owned(),
            side: Side::Private(Box::new(vault)),
            case: self.case,
        })
    }

    /// The server's API, as root.
    pub(super) fn api(&self) -> &VaultApi {
        &self.api
    }

    /// The server's API for the bearer of `token`, or for nobody.
    pub(super) fn api_as(&self, token: Option<&str>) -> Result<VaultApi> {
        VaultApi::new(&self.url, &self.ca, token)
    }

    /// A name that no other test has.
    pub(super) fn unique(&self) -> String {
        self.case.unique()
    }

    /// A new key-value mount.
    pub(super) async fn kv_mount(&self, version: Kv) -> Result<String> {
        let name = self.unique();
        self.api.mount_kv(&name, version).await?;
        Ok(name)
    }

    /// A store on `mount`, as the factory would make it.
    pub(super) fn store(&self, mount: &str, auth: VaultAuth) -> Result<VaultStore> {
        Ok(VaultStore::new(self.config(mount, auth)?)?)
    }

    pub(super) fn config(&self, mount: &str, auth: VaultAuth) -> Result<VaultConfig> {
        config(&self.url, &self.ca, mount, auth)
    }

    /// A policy of `rules`: a path and what may be done there.
    pub(super) async fn policy(&self, rules: &[(&str, &[&str])]) -> Result<String> {
        let name = self.unique();
        let rules: serde_json::Map<_, _> = rules
            .iter()
            .map(|(path, may)| ((*path).to_owned(), json!({ "capabilities": may })))
            .collect();
        let policy = json!({ "path": rules }).to_string();
        self.api.write_policy(&name, &policy).await?;
        Ok(name)
    }

    /// A token that may do what `rules` say and nothing else.
    pub(super) async fn token(&self, rules: &[(&str, &[&str])]) -> Result<Login> {
        let policy = self.policy(rules).await?;
        self.api.create_token(&[&policy], &json!({ "ttl": "5m" })).await
    }

    /// A token that may read and list all of `mount`.
    pub(super) async fn reader(&self, mount: &str) -> Result<VaultAuth> {
        let login = self.token(&[(&format!("{mount}/*"), &["read", "list"])]).await?;
        Ok(VaultAuth::Token(login.token.into()))
    }

    /// A certificate that [`Self::client_ca`] has signed.
    pub(super) async fn client_identity(&self, name: &str) -> Result<Identity> {
        let identity = match &self.side {
            Side::StandIn(own) => own.1.client(name, None)?,
            _ => self.vault().await?.client_identity(name)?,
        };
        Ok(Identity {
            certificate_pem: identity.certificate.into_bytes(),
            key_pem: identity.key.into(),
        })
    }

    /// The authority of client certificates, PEM.
    pub(super) fn client_ca(&self) -> &str {
        match &self.side {
            Side::StandIn(own) => own.1.certificate(),
            _ => &self.ca,
        }
    }

    /// Enables the method `kubernetes` or `jwt`, with a role `app` for the audience `store`.
    pub(super) async fn token_logins(&self, method: &str, policy: &str) -> Result<TokenLogins> {
        let mount = self.unique();
        let (right, wrong, namespace) = match &self.side {
            Side::StandIn(..) => {
                self.api.enable_auth(&mount, method).await?;
                (unsigned("store"), unsigned("another"), "default".to_owned())
            }
            Side::Shared | Side::Private(_) => {
                let (kubernetes, namespace) = (self.case.kubernetes().await?, self.case.namespace().await?);
                kubernetes.create_service_account(&namespace, "app").await?;
                if method == "kubernetes" {
                    self.vault()
                        .await?
                        .enable_kubernetes_auth(&mount, kubernetes)
                        .await?;
                } else {
                    let keys = json!({ "jwt_validation_pubkeys": kubernetes.token_keys()? });
                    self.api.enable_auth(&mount, method).await?;
                    self.api.write(&format!("auth/{mount}/config"), &keys).await?;
                }
                let right = kubernetes.token(&namespace, "app", &["store"]).await?;
                (
                    right,
                    kubernetes.token(&namespace, "app", &["another"]).await?,
                    namespace,
                )
            }
        };
        let role = if method == "kubernetes" {
            json!({
                "bound_service_account_names": "app", "bound_service_account_namespaces": namespace,
                "audience": "store", "token_policies": [policy],
            })
        } else {
            json!({
                "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["store"], "token_policies": [policy],
            })
        };
        self.api.create_role(&mount, "app", &role).await?;
        Ok(TokenLogins { mount, right, wrong })
    }

    /// Takes the seal away and waits until the server works.
    pub(super) async fn unseal(&self) -> Result<()> {
        match &self.side {
            Side::StandIn(..) => self.api.write("sys/unseal", &json!({ "key": UNSEAL_KEY })).await,
            _ => self.vault().await?.unseal().await,
        }
    }

    /// The present end of the list of requests.
    pub(super) async fn mark(&self) -> Result<Point> {
        Ok(match &self.side {
            Side::StandIn(own) => Point::Seen(own.0.seen().len()),
            _ => Point::Audited(self.vault().await?.audit().mark()?),
        })
    }

    /// The requests since `point`. Not among them are those about health and seal, which a real server does not
    /// write down.
    pub(super) async fn since(&self, point: Point) -> Result<Vec<Asked>> {
        match (&self.side, point) {
            (Side::StandIn(own), Point::Seen(before)) => {
                Ok(own.0.seen()[before..].iter().filter_map(Asked::seen).collect())
            }
            (Side::Shared | Side::Private(_), Point::Audited(mark)) => {
                let audited = self.vault().await?.audit().since(mark)?;
                Ok(audited.into_iter().map(Asked::audited).collect())
            }
            _ => bail!("the point belongs to another server"),
        }
    }

    /// How many logins at `mount` there were since `point`.
    pub(super) async fn logins_since(&self, point: Point, mount: &str) -> Result<usize> {
        let login = format!("auth/{mount}/login");
        let asked = self.since(point).await?;
        Ok(asked
            .iter()
            .filter(|asked| asked.path.starts_with(&login))
            .count())
    }

    async fn vault(&self) -> Result<&Vault> {
        match &self.side {
            Side::Private(vault) => Ok(vault),
            Side::Shared => self.case.vault().await,
            Side::StandIn(..) => bail!("a stand-in has no real server behind it"),
        }
    }
}

impl Asked {
    fn audited(request: StoreRequest) -> Self {
        Self {
            operation: request.operation,
            path: request.path,
        }
    }

    fn seen(seen: &Seen) -> Option<Self> {
        let path = seen.path().strip_prefix("/v1/")?;
        let unwritten = ["sys/health", "sys/seal-status", "sys/unseal"];
        let operation = match seen.method.as_str() {
            "GET" => "read",
            "LIST" => "list",
            _ => "update",
        };
        (!unwritten.contains(&path)).then(|| Self {
            operation: operation.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Whether this read the value of a secret in a mount of version 2.
    pub(super) fn is_value_read(&self, mount: &str) -> bool {
        let path = self.path.strip_prefix(mount);
        self.operation == "read" && path.is_some_and(|path| path.starts_with("/data/"))
    }
}

/// What the factory would make for a server that this authority (PEM) has signed for.
pub(super) fn config(url: &str, ca: &str, mount: &str, auth: VaultAuth) -> Result<VaultConfig> {
    let addresses = AddressPolicy {
        allow_loopback: true,
        ..AddressPolicy::default()
    };
    let mut transport = TransportOptions::new(Arc::new(addresses.into()));
    transport.ca_pem = Some(ca.into());
    Ok(VaultConfig {
        address: url.parse()?,
        namespace: None,
        login_namespace: None,
        mount: mount.to_owned(),
        kv_version: KvVersion::Auto,
        transport,
        auth,
    })
}

/// A token of the shape that Kubernetes gives, which the stand-in does not check the signature of.
fn unsigned(audience: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "aud": [audience], "sub": "system:serviceaccount:default:app" });
    format!("{}.{}.none", part(json!({ "alg": "none" })), part(claims))
}
