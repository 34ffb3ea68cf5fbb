//! Stores of every kind, each with a login of its own, some of which are refused.

use anyhow::{Context as _, Result};
use keyward_tests::rig::openstack::{
    Container, ContainerKind, CredentialTerms, KeyManager, NewSecret, SecretKind, Tenant,
};
use keyward_tests::rig::tls::{Authority, Identity};
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use super::planted::Planted;
use crate::scene::Scene;

/// What there is to read from, and what is refused.
#[derive(Default)]
pub struct Stores {
    /// Sources that can be read, each with a name for the object that does.
    pub sources: Vec<(String, Value)>,
    /// Stores that never get in: their names and reasons.
    pub refused: Vec<(&'static str, &'static str)>,
    /// Cluster stores that never get in.
    pub refused_clusterwide: Vec<(&'static str, &'static str)>,
}

/// The Secret with the login of a store, so named that no object of the store's name would take it for its own.
fn name_of_login(store: &str) -> String {
    format!("login-of-{store}")
}

impl Stores {
    /// Makes all of them.
    pub async fn make(scene: &Scene<'_>, planted: &mut Planted) -> Result<Self> {
        let mut stores = Self::default();
        stores.of_vault(scene, planted).await?;
        stores.by_key_or_token(scene, planted).await?;
        stores.of_version_1(scene, planted).await?;
        stores.of_barbican(scene, planted).await?;
        stores.of_clouds_files(scene, planted).await?;
        Ok(stores)
    }

    fn reads(&mut self, name: &str, source: Value) {
        self.sources.push((name.to_owned(), source));
    }

    /// By secret id, password and token, at the mount of the scene.
    async fn of_vault(&mut self, scene: &Scene<'_>, planted: &mut Planted) -> Result<()> {
        let (api, policy) = (scene.vault.api(), open_policy(scene).await?);
        let value = planted.plant_unwritten("a value of Vault");
        scene.write("open/value", &json!({ "value": value })).await?;

        let (approle, userpass) = (scene.case.unique(), scene.case.unique());
        api.enable_auth(&approle, "approle").await?;
        let role = json!({"token_policies": [policy]});
        let (role_id, secret_id) = api.create_approle(&approle, "reader", &role).await?;
        planted.add("a secret id", &secret_id);
        let wrong = planted.plant("a wrong secret id");
        for (name, secret_id) in [("approle", secret_id), ("wrong-secret-id", wrong)] {
            let login = json!({"name": name_of_login(name), "key": "login"});
            let auth = json!({"appRole": {"mount": approle, "roleId": role_id, "secretIdRef": login}});
            vault_store(scene, name, &json!({"login": secret_id}), &auth).await?;
        }

        api.enable_auth(&userpass, "userpass").await?;
        let password = planted.plant("a password of Vault");
        api.create_user(&userpass, "reader", &password, &[&policy])
            .await?;
        let wrong = planted.plant("a wrong password of Vault");
        for (name, password) in [("userpass", password), ("wrong-password", wrong)] {
            let login = json!({"name": name_of_login(name), "key": "login"});
            let auth = json!({"userpass": {"mount": userpass, "username": "reader", "passwordRef": login}});
            vault_store(scene, name, &json!({"login": password}), &auth).await?;
        }

        let token = api.create_token(&[&policy], &json!({})).await?.token;
        planted.add("a token", &token);
        let login = |name: &str| json!({"name": name_of_login(name), "key": "login"});
        for name in ["token", "wrong-ca"] {
            let auth = json!({"token": {"tokenRef": login(name)}});
            vault_store(scene, name, &json!({"login": token}), &auth).await?;
        }
        let mut distrustful = scene.vault_with(&json!({"token": {"tokenRef": login("wrong-ca")}}));
        let stranger = Authority::new("another authority")?;
        distrustful["vault"]["ca"] = json!({"inline": stranger.certificate()});
        scene.store("wrong-ca", &distrustful).await?;

        for store in ["approle", "userpass", "token", "vault"] {
            let source = json!({"storeRef": {"name": store}, "path": "open/value"});
            self.reads(store, source);
        }
        self.refused.extend([
            ("wrong-ca", "TlsFailed"),
            ("wrong-password", "CredentialRejected"),
            ("wrong-secret-id", "CredentialRejected"),
        ]);

        let wrong = planted.plant("a wrong token of a cluster store");
        scene.credential("login-of-all", &json!({"login": wrong})).await?;
        let mut of_all = scene.cluster_spec(&json!([{"name": "all", "selector": {}, "paths": ["**"]}]));
        of_all["vault"]["auth"] = json!({"token": {"tokenRef": {"name": "login-of-all", "key": "login"}}});
        scene.cluster_store("of-all", &of_all).await?;
        self.refused_clusterwide.push(("of-all", "CredentialRejected"));
        Ok(())
    }

    /// By client certificate and by a stored JWT.
    async fn by_key_or_token(&mut self, scene: &Scene<'_>, planted: &mut Planted) -> Result<()> {
        let (api, policy) = (scene.vault.api(), open_policy(scene).await?);
        let (cert, jwt) = (scene.case.unique(), scene.case.unique());
        api.enable_auth(&cert, "cert").await?;
        api.create_cert_role(&cert, "reader", scene.vault.ca(), "right", &[&policy])
            .await?;
        for (name, identity) in [("cert", "right"), ("wrong-cert", "other")] {
            let identity = scene.vault.client_identity(identity)?;
            planted.add(format!("the client key of {name}"), line_of(&identity)?);
            let login = json!({"tls.crt": identity.certificate, "tls.key": identity.key});
            let auth = json!({"cert": {
                "mount": cert, "role": "reader", "certificateRef": {"name": name_of_login(name)},
            }});
            vault_store(scene, name, &login, &auth).await?;
        }

        api.enable_auth(&jwt, "jwt").await?;
        let keys = json!({"jwt_validation_pubkeys": scene.kubernetes.token_keys()?});
        api.write(&format!("auth/{jwt}/config"), &keys).await?;
        let role = json!({
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["right"], "token_policies": [policy],
        });
        api.create_role(&jwt, "reader", &role).await?;
        for (name, audience) in [("jwt", "right"), ("wrong-jwt", "other")] {
            let token = scene
                .kubernetes
                .token(&scene.namespace, "reader", &[audience])
                .await?;
            let signature = token.rsplit('.').next().context("a JWT has a signature")?;
            planted.add(format!("the JWT of {name}"), signature);
            let auth = json!({"jwt": {
                "mount": jwt, "role": "reader", "tokenRef": {"name": name_of_login(name), "key": "login"},
            }});
            vault_store(scene, name, &json!({"login": token}), &auth).await?;
        }
        for store in ["cert", "jwt"] {
            self.reads(store, json!({"storeRef": {"name": store}, "path": "open/value"}));
        }
        self.refused.extend([
            ("wrong-cert", "CredentialRejected"),
            ("wrong-jwt", "CredentialRejected"),
        ]);
        Ok(())
    }

    /// A mount of version 1, by the scene's own login.
    async fn of_version_1(&mut self, scene: &Scene<'_>, planted: &mut Planted) -> Result<()> {
        let mount = scene.case.kv_mount(Kv::V1).await?;
        let rules = format!("path \"{mount}/*\" {{ capabilities = [\"read\"] }}");
        scene.allow_reader("version-1").await?;
        scene.allow_policy("version-1", &rules).await?;
        let mut spec = scene.vault_spec();
        spec["vault"]["mount"] = mount.as_str().into();
        spec["vault"]["auth"]["kubernetes"]["role"] = "version-1".into();
        spec["vault"]["auth"]["kubernetes"]["serviceAccountRef"]["name"] = "version-1".into();
        scene.store("version-1", &spec).await?;
        let value = planted.plant("a value of version 1");
        let odd = planted.plant_unwritten("a value of version 1 that nothing can read");
        let api = scene.vault.api();
        api.write_secret(&mount, Kv::V1, "value", &json!({ "value": value }))
            .await?;
        let odd = json!({"value": format!("!{odd}!")});
        api.write_secret(&mount, Kv::V1, "odd", &odd).await?;
        self.reads(
            "version-1",
            json!({"storeRef": {"name": "version-1"}, "path": "value"}),
        );
        Ok(())
    }

    /// By password and application credential: text, bytes that are no text, and the parts of a container.
    async fn of_barbican(&mut self, scene: &Scene<'_>, planted: &mut Planted) -> Result<()> {
        let tenant = scene.case.tenant().await?;
        let keys = tenant.key_manager();
        let value = planted.plant("a value of Barbican");
        keys.store(&NewSecret::named("value"), value.as_bytes()).await?;
        let bytes = planted.plant("bytes of Barbican");
        let no_text = [&[0xff], bytes.as_bytes(), &[0xff]].concat();
        keys.store(&NewSecret::named("bytes"), &no_text).await?;
        let odd = planted.plant_unwritten("a value of Barbican that nothing can read");
        keys.store(&NewSecret::named("odd"), format!("!{odd}!").as_bytes())
            .await?;
        let container = container(&keys, planted).await?;

        let credential = tenant.application_credential(&CredentialTerms::default()).await?;
        planted.add("a password of Keystone", &tenant.password);
        planted.add("a secret of an application credential", &credential.secret);
        let wrong = planted.plant("a wrong password of Keystone");
        let by_credential = json!({"applicationCredential": {
            "id": credential.id,
            "secretRef": {"name": name_of_login("barbican-credential"), "key": "login"},
        }});
        for (name, login, auth) in [
            (
                "barbican-password",
                &tenant.password,
                by_password(&tenant, "barbican-password"),
            ),
            (
                "wrong-keystone-password",
                &wrong,
                by_password(&tenant, "wrong-keystone-password"),
            ),
            ("barbican-credential", &credential.secret, by_credential),
        ] {
            scene
                .credential(&name_of_login(name), &json!({ "login": login }))
                .await?;
            let openstack = scene.case.openstack().await?;
            let spec = json!({"barbican": {
                "authUrl": openstack.auth_url(), "ca": {"inline": openstack.ca()}, "auth": auth,
            }});
            scene.store(name, &spec).await?;
        }
        for store in ["barbican-password", "barbican-credential"] {
            let source = json!({"storeRef": {"name": store}, "name": "value", "key": "value"});
            self.reads(store, source);
        }
        let of = json!({"name": "barbican-credential"});
        self.reads("bytes", json!({"storeRef": of, "name": "bytes", "key": "value"}));
        self.reads("container", json!({"storeRef": of, "container": container}));
        self.refused
            .push(("wrong-keystone-password", "CredentialRejected"));
        Ok(())
    }

    /// Files with a right password, with a wrong one, and with one that cannot be read for what is around it.
    async fn of_clouds_files(&mut self, scene: &Scene<'_>, planted: &mut Planted) -> Result<()> {
        let (openstack, tenant) = (scene.case.openstack().await?, scene.case.tenant().await?);
        let value = planted.plant("a value of another project");
        let keys = tenant.key_manager();
        keys.store(&NewSecret::named("value"), value.as_bytes()).await?;
        planted.add("a password in a clouds file", &tenant.password);
        let wrong = planted.plant("a wrong password in a clouds file");
        let broken = planted.plant("a password in a broken clouds file");
        let file = |password: &str| {
            json!({"clouds": {"cloud": {"auth": {
                "auth_url": openstack.auth_url(), "username": tenant.user, "password": password,
                "project_name": tenant.project, "user_domain_name": "Default", "project_domain_name": "Default",
            }}}})
            .to_string()
        };
        for (name, text) in [
            ("clouds", file(&tenant.password)),
            ("wrong-clouds", file(&wrong)),
            (
                "broken-clouds",
                format!("clouds:\n  cloud:\n    auth: {{password: {broken}\n"),
            ),
        ] {
            scene
                .credential(&name_of_login(name), &json!({ "login": text }))
                .await?;
            let login = json!({"secretRef": {"name": name_of_login(name), "key": "login"}});
            let spec = json!({"barbican": {"ca": {"inline": openstack.ca()}, "cloudsYaml": login}});
            scene.store(name, &spec).await?;
        }
        self.reads(
            "clouds",
            json!({"storeRef": {"name": "clouds"}, "name": "value", "key": "value"}),
        );
        self.refused.extend([
            ("wrong-clouds", "CredentialRejected"),
            ("broken-clouds", "SpecInvalid"),
        ]);
        Ok(())
    }
}

/// Lets a token read what is open, and nothing else.
async fn open_policy(scene: &Scene<'_>) -> Result<String> {
    let policy = format!("{}-open", scene.mount);
    let rules = ["data", "metadata"].map(|kind| {
        format!(
            "path \"{}/{kind}/open/*\" {{ capabilities = [\"read\"] }}",
            scene.mount
        )
    });
    let api = scene.vault.api();
    api.write_policy(&policy, &rules.join("\n")).await?;
    Ok(policy)
}

async fn vault_store(scene: &Scene<'_>, name: &str, login: &Value, auth: &Value) -> Result<()> {
    scene.credential(&name_of_login(name), login).await?;
    scene.store(name, &scene.vault_with(auth)).await
}

fn by_password(tenant: &Tenant, store: &str) -> Value {
    json!({"password": {
        "username": tenant.user, "project": tenant.project,
        "passwordRef": {"name": name_of_login(store), "key": "login"},
    }})
}

async fn container(keys: &KeyManager, planted: &mut Planted) -> Result<String> {
    let certificate = planted.plant("a part of a container");
    let private = planted.plant("a private part of a container");
    let named = |kind| NewSecret::named("part").kind(kind);
    let certificate = keys
        .store(&named(SecretKind::Certificate), certificate.as_bytes())
        .await?;
    let private = keys
        .store(&named(SecretKind::Private), private.as_bytes())
        .await?;
    keys.create_container(&Container {
        name: "pair",
        kind: ContainerKind::Certificate,
        secrets: &[("certificate", &certificate), ("private_key", &private)],
    })
    .await
}

/// A line from within a key: its first says no more than what sort of key it is.
fn line_of(identity: &Identity) -> Result<&str> {
    identity
        .key
        .lines()
        .nth(2)
        .context("a key has more than two lines")
}
