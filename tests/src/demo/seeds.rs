//! What the stores hold: an OpenStack-like set of passwords, keys and certificates, made anew for each demo.
//!
//! The values are never printed. Each is known here, so that the demo can compare what arrives with what was put in.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::fleet::{Fleet, KUBERNETES_AUTH};
use crate::rig::openstack::{
    Container, ContainerKind, CredentialTerms, NewSecret, OpenStack, Role, SecretKind,
};
use crate::rig::tls::Authority;
use crate::rig::vault::{Kv, Vault};

/// What each password begins with: wherever this is found, a value has leaked.
pub const MARK: &str = "planted-";

/// The namespace of the control plane's services.
pub const OPENSTACK: &str = "openstack";

/// The namespace of a team that shares a store with others.
pub const TEAM: &str = "team-a";

/// The audience of ServiceAccount tokens for Vault.
const AUDIENCE: &str = "vault";

/// The ServiceAccount that stores log in as.
const READER: &str = "vault-reader";

/// A namespace, and the name of a Secret in it.
pub type Place = (&'static str, &'static str);

/// The values of a Secret by their keys.
pub type Values = BTreeMap<String, Vec<u8>>;

/// What was put into the stores.
pub struct Seeds {
    /// What the tokens of the examples stand for.
    pub tokens: Vec<(&'static str, String)>,
    /// The secret of the application credential, which is not in Git.
    pub credential: String,
    /// What each Secret has to hold.
    pub expected: BTreeMap<Place, Values>,
}

/// Puts everything that `docs/examples` reads into both stores.
pub async fn sow(fleet: &Fleet) -> Result<Seeds> {
    let mut expected = BTreeMap::new();
    let (vault, openstack) = tokio::try_join!(sow_vault(&fleet.vault), sow_barbican(&fleet.openstack))?;
    expected.extend(vault);
    expected.extend(openstack.expected);
    let tokens = vec![
        ("VAULT_ADDRESS", fleet.vault.url().to_owned()),
        ("VAULT_CA", one_line(fleet.vault.ca())),
        ("KEYSTONE_URL", fleet.openstack.auth_url()),
        ("OPENSTACK_CA", one_line(fleet.openstack.ca())),
        ("APPLICATION_CREDENTIAL_ID", openstack.credential_id),
        ("API_CERTIFICATE_CONTAINER", openstack.container),
    ];
    Ok(Seeds {
        tokens,
        credential: openstack.credential,
        expected,
    })
}

/// A password that nobody has seen.
#[must_use]
pub fn password() -> String {
    format!("{MARK}{}", Uuid::new_v4().simple())
}

/// Sets the password of a service and says what the Secret will hold.
pub async fn set_service_password(vault: &Vault, service: &str, password: &str) -> Result<()> {
    write(
        vault,
        OPENSTACK,
        &format!("services/{service}"),
        &json!({"password": password}),
    )
    .await
}

/// Sets the database login of Keystone, and returns the connection line that has to follow from it.
pub async fn set_database_password(vault: &Vault, password: &str) -> Result<String> {
    let login = json!({"username": "keystone", "password": password});
    write(vault, OPENSTACK, "databases/keystone", &login).await?;
    Ok(format!(
        "mysql+pymysql://keystone:{password}@mariadb.openstack.svc/keystone"
    ))
}

async fn sow_vault(vault: &Vault) -> Result<BTreeMap<Place, Values>> {
    let mut expected = BTreeMap::new();
    for (mount, namespace) in [(OPENSTACK, OPENSTACK), ("shared", TEAM)] {
        vault.api().mount_kv(mount, Kv::V2).await?;
        let rules = format!("path \"{mount}/*\" {{ capabilities = [\"read\", \"list\"] }}");
        vault.api().write_policy(mount, &rules).await?;
        let role = json!({
            "bound_service_account_names": [READER],
            "bound_service_account_namespaces": [namespace],
            "audience": AUDIENCE,
            "token_policies": [mount],
            "token_ttl": "1h",
        });
        vault.api().create_role(KUBERNETES_AUTH, mount, &role).await?;
    }

    let mut passwords = Values::new();
    for service in ["glance", "neutron", "nova"] {
        let password = password();
        set_service_password(vault, service, &password).await?;
        passwords.insert(service.to_owned(), password.into_bytes());
    }
    expected.insert((OPENSTACK, "service-passwords"), passwords);

    let connection = set_database_password(vault, &password()).await?;
    let connection = Values::from([("connection".to_owned(), connection.into_bytes())]);
    expected.insert((OPENSTACK, "keystone-database"), connection);

    let authority = Authority::new("horizon authority")?;
    let horizon = authority.server("horizon", &["horizon.example.com"])?;
    let chain = authority.certificate();
    let pair = json!({"certificate": horizon.certificate, "chain": chain, "key": horizon.key});
    write(vault, OPENSTACK, "tls/horizon", &pair).await?;
    let bundle = format!("{}{chain}", horizon.certificate);
    expected.insert((OPENSTACK, "horizon-tls"), pair_of(&bundle, &horizon.key));

    for team in [TEAM, "team-b"] {
        // The other team's value is there and Vault would give it: the refusal is Keyward's.
        let password = password();
        write(
            vault,
            "shared",
            &format!("teams/{team}/mail"),
            &json!({"password": password}),
        )
        .await?;
        if team == TEAM {
            let mail = Values::from([("password".to_owned(), password.into_bytes())]);
            expected.insert((TEAM, "mail"), mail);
        }
    }
    Ok(expected)
}

/// What was put into Barbican.
struct Project {
    credential_id: String,
    credential: String,
    container: String,
    expected: BTreeMap<Place, Values>,
}

async fn sow_barbican(openstack: &OpenStack) -> Result<Project> {
    let tenant = openstack.tenant(Role::Member).await?;
    let secrets = tenant.key_manager();

    // Every byte there is, so that nothing can have taken it for text.
    let key: Vec<u8> = (0..=u8::MAX).collect();
    let volume = NewSecret::named("cinder-volume-key").kind(SecretKind::Symmetric);
    secrets.store(&volume, &key).await?;

    let api = Authority::new("api authority")?.server("api", &["api.example.com"])?;
    let certificate = NewSecret::named("api-certificate").kind(SecretKind::Certificate);
    let certificate = secrets.store(&certificate, api.certificate.as_bytes()).await?;
    let private = NewSecret::named("api-private-key").kind(SecretKind::Private);
    let private = secrets.store(&private, api.key.as_bytes()).await?;
    let container = Container {
        name: "api",
        kind: ContainerKind::Certificate,
        secrets: &[("certificate", &certificate), ("private_key", &private)],
    };
    let container = secrets.create_container(&container).await?;

    let credential = tenant.application_credential(&CredentialTerms::default()).await?;
    let volume_key = Values::from([("volume.key".to_owned(), key)]);
    Ok(Project {
        credential_id: credential.id,
        credential: credential.secret,
        container,
        expected: BTreeMap::from([
            ((OPENSTACK, "volume-key"), volume_key),
            (
                (OPENSTACK, "api-certificate"),
                pair_of(&api.certificate, &api.key),
            ),
        ]),
    })
}

async fn write(vault: &Vault, mount: &str, path: &str, data: &Value) -> Result<()> {
    vault
        .api()
        .write_secret(mount, Kv::V2, path, data)
        .await
        .map(drop)
}

/// The keys of a Secret of type `kubernetes.io/tls`.
fn pair_of(certificate: &str, key: &str) -> Values {
    Values::from([
        ("tls.crt".to_owned(), certificate.as_bytes().to_vec()),
        ("tls.key".to_owned(), key.as_bytes().to_vec()),
    ])
}

/// PEM as it stands in a quoted string of YAML.
fn one_line(pem: &str) -> String {
    pem.replace('\n', "\\n")
}
