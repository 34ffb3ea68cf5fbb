//! Values and credentials are planted in both stores, and looked for wherever the operator speaks: in no form may any
//! of them be there.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use keyward_crds::{SecretStore, SyncedSecret};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::Settings;
use keyward_tests::rig::openstack::{CredentialTerms, NewSecret};
use keyward_tests::rig::tls::Authority;
use keyward_tests::rig::vault::Kv;
use kube::api::{Api, DeleteParams, ListParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::scene::Scene;

/// More than a Secret holds.
const TOO_LARGE: usize = 1_100_000;

/// So much of a planted text, from either end, is enough to recognise it.
const RECOGNISABLE: usize = 16;

pub fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(suite, no_planted_value_or_credential_is_ever_told);
}

async fn no_planted_value_or_credential_is_ever_told(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let mut planted = Planted::default();
    vault_stores(&scene, &mut planted).await?;
    barbican_stores(&scene, &mut planted).await?;
    let mut settings = Settings::inside(&scene.namespace);
    "trace".clone_into(&mut settings.log);
    let operator = scene.operator_with(&settings).await?;

    let value = planted.plant("a value of Vault");
    scene.write("open/value", &json!({ "value": value })).await?;
    for store in ["approle", "userpass", "token", "vault"] {
        scene
            .synced(store, &from(store, "open/value", &json!({})))
            .await?;
    }
    for name in ["barbican-password", "barbican-credential"] {
        let source = json!({"storeRef": {"name": name}, "name": "value", "key": "value"});
        scene.synced(name, &json!({"sources": [source]})).await?;
    }
    let failures = failing_objects(&scene, &mut planted).await?;
    for store in [
        "approle",
        "userpass",
        "token",
        "vault",
        "barbican-password",
        "barbican-credential",
    ] {
        scene.ready(store).await?;
    }
    for (name, reason) in &failures {
        scene.reason(name, reason).await?;
    }
    for (store, reason) in [
        ("wrong-ca", "TlsFailed"),
        ("wrong-password", "CredentialRejected"),
        ("wrong-secret-id", "CredentialRejected"),
        ("wrong-keystone-password", "CredentialRejected"),
    ] {
        scene.store_reason(store, reason).await?;
    }

    // A new value, a hand edit and a deletion are told of by events.
    let value = planted.plant("a second value of Vault");
    scene.write("open/value", &json!({ "value": value })).await?;
    scene.refresh("approle").await?;
    scene.holds("approle", &[("value", &value)]).await?;
    let secrets: Api<Secret> = scene.api();
    secrets.delete("approle", &DeleteParams::default()).await?;
    scene.holds("approle", &[("value", &value)]).await?;
    scene.event("approle", "DriftRepaired").await?;

    let written = everything::<Secret>(&scene).await?;
    for (what, value) in planted.values() {
        ensure!(
            planted.told_in(&written).contains(&what),
            "{what} would be found: {} letters",
            value.len()
        );
    }
    let mut spoken = vec![
        ("/metrics", operator.get("/metrics").await?),
        ("/state", operator.get("/state/syncedsecrets").await?),
        ("events", everything::<Event>(&scene).await?),
        ("SyncedSecrets", everything::<SyncedSecret>(&scene).await?),
        ("SecretStores", everything::<SecretStore>(&scene).await?),
    ];
    operator.stop().await?;
    let log = operator.process().read_log()?;
    ensure!(log.contains("\"TRACE\""), "everything was logged");
    spoken.push(("the log", log));
    for (place, text) in &spoken {
        assert_eq!(planted.told_in(text), Vec::<&str>::new(), "in {place}");
        for (what, beginning) in [("a token of Vault", "hvs."), ("a JWT", "eyJhbGciOi")] {
            assert!(
                !text.contains(beginning),
                "{what} is in {place}: {}",
                around(text, beginning)
            );
        }
    }
    Ok(())
}

/// Stores of Vault, each with a login of its own; some are refused.
async fn vault_stores(scene: &Scene<'_>, planted: &mut Planted) -> Result<()> {
    let api = scene.vault.api();
    let policy = format!("{}-open", scene.mount);
    let rules = ["data", "metadata"].map(|kind| {
        format!(
            "path \"{}/{kind}/open/*\" {{ capabilities = [\"read\"] }}",
            scene.mount
        )
    });
    api.write_policy(&policy, &rules.join("\n")).await?;

    let (approle, userpass) = (scene.case.unique(), scene.case.unique());
    api.enable_auth(&approle, "approle").await?;
    let role = json!({"token_policies": [policy]});
    let (role_id, secret_id) = api.create_approle(&approle, "reader", &role).await?;
    planted.add("a secret id", &secret_id);
    let wrong = planted.plant("a wrong secret id");
    for (name, secret_id) in [("approle", secret_id), ("wrong-secret-id", wrong)] {
        let auth = json!({"appRole": {
            "mount": approle, "roleId": role_id, "secretIdRef": {"name": name, "key": "login"},
        }});
        vault_store(scene, name, &secret_id, &auth, scene.vault.ca()).await?;
    }

    api.enable_auth(&userpass, "userpass").await?;
    let password = planted.plant("a password of Vault");
    api.create_user(&userpass, "reader", &password, &[&policy])
        .await?;
    let wrong = planted.plant("a wrong password of Vault");
    for (name, password) in [("userpass", password), ("wrong-password", wrong)] {
        let auth = json!({"userpass": {
            "mount": userpass, "username": "reader", "passwordRef": {"name": name, "key": "login"},
        }});
        vault_store(scene, name, &password, &auth, scene.vault.ca()).await?;
    }

    let token = api.create_token(&[&policy], &json!({})).await?.token;
    planted.add("a token", &token);
    let stranger = Authority::new("another authority")?;
    for (name, ca) in [("token", scene.vault.ca()), ("wrong-ca", stranger.certificate())] {
        let auth = json!({"token": {"tokenRef": {"name": name, "key": "login"}}});
        vault_store(scene, name, &token, &auth, ca).await?;
    }
    Ok(())
}

async fn vault_store(scene: &Scene<'_>, name: &str, login: &str, auth: &Value, ca: &str) -> Result<()> {
    scene
        .credential(name_of_login(name).as_str(), &json!({ "login": login }))
        .await?;
    let mut auth = auth.clone();
    for method in auth
        .as_object_mut()
        .into_iter()
        .flatten()
        .map(|(_, method)| method)
    {
        for reference in method
            .as_object_mut()
            .into_iter()
            .flatten()
            .map(|(_, value)| value)
        {
            if reference.is_object() {
                reference["name"] = name_of_login(name).into();
            }
        }
    }
    let spec = json!({"vault": {
        "address": scene.vault.url(), "mount": scene.mount, "ca": {"inline": ca}, "auth": auth,
    }});
    scene.store(name, &spec).await
}

/// The Secret with the login of a store, so named that no object of the store's name would take it for its own.
fn name_of_login(store: &str) -> String {
    format!("login-of-{store}")
}

async fn barbican_stores(scene: &Scene<'_>, planted: &mut Planted) -> Result<()> {
    let openstack = scene.case.openstack().await?;
    let tenant = scene.case.tenant().await?;
    let value = planted.plant("a value of Barbican");
    tenant
        .key_manager()
        .store(&NewSecret::named("value"), value.as_bytes())
        .await?;
    let credential = tenant.application_credential(&CredentialTerms::default()).await?;
    planted.add("a password of Keystone", &tenant.password);
    planted.add("a secret of an application credential", &credential.secret);
    let wrong = planted.plant("a wrong password of Keystone");
    let password = |name: &str| {
        json!({"password": {
            "username": tenant.user, "project": tenant.project,
            "passwordRef": {"name": name_of_login(name), "key": "login"},
        }})
    };
    let by_credential = json!({"applicationCredential": {
        "id": credential.id,
        "secretRef": {"name": name_of_login("barbican-credential"), "key": "login"},
    }});
    for (name, login, auth) in [
        (
            "barbican-password",
            &tenant.password,
            password("barbican-password"),
        ),
        (
            "wrong-keystone-password",
            &wrong,
            password("wrong-keystone-password"),
        ),
        ("barbican-credential", &credential.secret, by_credential),
    ] {
        scene
            .credential(&name_of_login(name), &json!({ "login": login }))
            .await?;
        let spec = json!({"barbican": {
            "authUrl": openstack.auth_url(), "ca": {"inline": openstack.ca()}, "auth": auth,
        }});
        scene.store(name, &spec).await?;
    }
    Ok(())
}

/// Objects that fail with a planted value in hand, each with the reason.
async fn failing_objects(
    scene: &Scene<'_>,
    planted: &mut Planted,
) -> Result<Vec<(&'static str, &'static str)>> {
    // Neither base64 nor a number, so that whoever tries to read it as such fails on it.
    let odd = planted.plant_unwritten("a value that nothing can read");
    scene
        .write("open/odd", &json!({"value": format!("!{odd}!")}))
        .await?;
    let large = planted.plant_unwritten("a value that is too large");
    let padded = large.clone() + &"x".repeat(TOO_LARGE);
    scene.write("open/large", &json!({ "value": padded })).await?;
    let secret = planted.plant_unwritten("a value outside the policy");
    scene.write("closed/value", &json!({ "value": secret })).await?;

    let template = |text: &str| json!({"target": {"template": {"data": {"out": text}}}});
    let objects = [
        (
            "template-name",
            "open/odd",
            template("{{ nobody }}"),
            "TemplateFailed",
        ),
        (
            "template-value",
            "open/odd",
            template("{{ value|b64decode }}"),
            "TemplateFailed",
        ),
        (
            "template-json",
            "open/odd",
            template("{{ value|fromjson }}"),
            "TemplateFailed",
        ),
        (
            "template-sum",
            "open/odd",
            template("{{ value + 1 }}"),
            "TemplateFailed",
        ),
        (
            "template-pem",
            "open/odd",
            template("{{ value|pem_key }}"),
            "TemplateFailed",
        ),
        (
            "template-long",
            "open/odd",
            template("{% for i in range(100000) %}{{ value }}{% endfor %}"),
            "TemplateLimit",
        ),
        ("size", "open/large", json!({}), "SecretTooLarge"),
        ("denied", "closed/value", json!({}), "RemoteDenied"),
    ];
    let mut reasons = Vec::new();
    for (name, path, rest, reason) in objects {
        scene.synced(name, &from("approle", path, &rest)).await?;
        reasons.push((name, reason));
    }
    for (name, decode) in [("decode-base64", "Base64"), ("decode-hex", "Hex")] {
        let source = json!({"storeRef": {"name": "approle"}, "path": "open/odd", "decode": decode});
        scene.synced(name, &json!({"sources": [source]})).await?;
        reasons.push((name, "DecodeFailed"));
    }
    let fields = json!([{"field": "value.inner"}]);
    let source = json!({"storeRef": {"name": "approle"}, "path": "open/odd", "fields": fields});
    scene.synced("field", &json!({"sources": [source]})).await?;
    reasons.push(("field", "FieldNotFound"));
    Ok(reasons)
}

fn from(store: &str, path: &str, rest: &Value) -> Value {
    let mut spec = rest.clone();
    spec["sources"] = json!([{"storeRef": {"name": store}, "path": path}]);
    spec
}

/// All objects of a kind in the scene's namespace, as the API server shows them.
async fn everything<K>(scene: &Scene<'_>) -> Result<String>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let all = scene.api::<K>().list(&ListParams::default()).await?;
    serde_json::to_string(&all.items).context("objects are JSON")
}

/// What was planted, by what it is.
#[derive(Default)]
struct Planted(Vec<Canary>);

struct Canary {
    what: &'static str,
    text: String,
    /// Whether a Secret holds it in the end.
    written: bool,
}

impl Planted {
    /// A text that is nowhere else.
    fn plant(&mut self, what: &'static str) -> String {
        let text = format!("canary{}", uuid::Uuid::new_v4().simple());
        self.add(what, &text);
        text
    }

    /// The same for a value that no Secret ever holds.
    fn plant_unwritten(&mut self, what: &'static str) -> String {
        let text = self.plant(what);
        if let Some(canary) = self.0.last_mut() {
            canary.written = false;
        }
        text
    }

    fn add(&mut self, what: &'static str, text: &str) {
        self.0.push(Canary {
            what,
            text: text.to_owned(),
            written: true,
        });
    }

    /// What Secrets hold: values, and the logins of stores.
    fn values(&self) -> impl Iterator<Item = (&'static str, &str)> {
        // Overwritten by the second one.
        let kept = self
            .0
            .iter()
            .filter(|canary| canary.written && canary.what != "a value of Vault");
        kept.map(|canary| (canary.what, canary.text.as_str()))
    }

    /// Which of them a text holds, as they are or in another form.
    fn told_in(&self, text: &str) -> Vec<&'static str> {
        let told = self
            .0
            .iter()
            .filter(|canary| forms(&canary.text).iter().any(|form| text.contains(form)));
        told.map(|canary| canary.what).collect()
    }
}

/// Forms in which a text could slip out: either end of it, base64 at each alignment, hexadecimal, as numbers.
fn forms(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let start = || bytes.iter().take(RECOGNISABLE);
    let hexadecimal: Vec<_> = start().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        text[..RECOGNISABLE].to_owned(),
        text[text.len() - RECOGNISABLE..].to_owned(),
        hexadecimal.concat(),
    ];
    let numbers: Vec<_> = start().map(ToString::to_string).collect();
    forms.extend([numbers.join(","), numbers.join(", ")]);
    for offset in 0..3 {
        // Whole groups of three bytes are the same wherever the text begins, but for its first bytes.
        let whole = (bytes.len() - offset) / 3 * 3;
        forms.push(STANDARD_NO_PAD.encode(&bytes[offset..offset + whole.min(RECOGNISABLE / 3 * 3)]));
    }
    forms
}

/// The place of a finding, for whoever has to mend it.
fn around<'a>(text: &'a str, found: &str) -> &'a str {
    let line = text.lines().find(|line| line.contains(found)).unwrap_or_default();
    let at = line.find(found).unwrap_or_default();
    let from = line.floor_char_boundary(at.saturating_sub(200));
    &line[from..at]
}
