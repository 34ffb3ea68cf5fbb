//! Every way to log in to Vault, as a store object says it: right, wrong, missing, and put right.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use keyward_crds::SERVICE_ACCOUNT_CONSENT;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::vault::Kv;
use keyward_tests::rig::{Mark, poll};
use serde_json::{Map, Value, json};

use super::store_message;
use crate::scene::{AUDIENCE, SOON, Scene};
use crate::told::woken_before;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        each_way_logs_in_once,
        a_wrong_credential_is_said_and_a_corrected_one_is_taken_up_at_once,
        what_is_missing_is_named_and_taken_up_when_it_comes,
        a_service_account_is_used_only_with_its_consent,
        an_audience_of_the_api_server_is_refused,
    );
}

/// A way to log in to Vault with what a Secret holds.
struct Way {
    /// Name of the store and of its Secret.
    name: &'static str,
    /// Part of the path of its logins.
    mount: String,
    /// `spec.vault.auth`.
    auth: Value,
    /// What the Secret must hold; empty where there is none.
    right: Vec<(&'static str, String)>,
    /// The same keys with values that are refused.
    wrong: Vec<(&'static str, String)>,
}

impl Way {
    /// Applies its Secret with one set of values.
    async fn plant(&self, scene: &Scene<'_>, values: &[(&str, String)]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let texts: Map<String, Value> = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_str().into()))
            .collect();
        scene.credential(self.name, &Value::Object(texts)).await
    }
}

async fn each_way_logs_in_once(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let ways = ways(&scene).await?;
    let mark = scene.vault.audit().mark()?;
    for way in &ways {
        way.plant(&scene, &way.right).await?;
        scene.store(way.name, &scene.vault_with(&way.auth)).await?;
        copy_from(&scene, way.name).await?;
    }
    let _operator = scene.operator().await?;
    for way in &ways {
        scene
            .holds(&format!("{}-copy", way.name), &[("password", "first")])
            .await
            .context(way.name)?;
        scene
            .store_reason(way.name, "StoreReady")
            .await
            .context(way.name)?;
    }
    let requests = scene.vault.audit().since(mark)?;
    for way in ways.iter().filter(|way| !way.mount.is_empty()) {
        let logins = requests
            .iter()
            .filter(|request| request.is_login() && request.path.contains(&way.mount));
        // The scene's own store uses the same ServiceAccount and shares its session.
        assert_eq!(logins.count(), 1, "logins of {}", way.name);
    }
    Ok(())
}

async fn a_wrong_credential_is_said_and_a_corrected_one_is_taken_up_at_once(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let mut ways = ways(&scene).await?;
    ways.retain(|way| !way.wrong.is_empty());
    ensure!(ways.len() == 5, "every way but the ServiceAccounts' can be wrong");
    let mark = scene.vault.audit().mark()?;
    for way in &ways {
        way.plant(&scene, &way.wrong).await?;
        scene.store(way.name, &scene.vault_with(&way.auth)).await?;
        copy_from(&scene, way.name).await?;
    }
    let (operator, began) = (scene.operator().await?, Instant::now());
    for way in &ways {
        scene
            .store_told(&operator, way.name, "CredentialRejected", "login")
            .await
            .context(way.name)?;
        scene
            .told(&operator, way.name, "CredentialRejected", "login")
            .await
            .context(way.name)?;
    }
    let rejected = scene.vault.audit().since(mark)?;
    for way in ways.iter().filter(|way| !way.mount.is_empty()) {
        let tries = rejected
            .iter()
            .filter(|request| request.is_login() && request.path.contains(&way.mount))
            .count();
        // Vault locks users and roles out after a few; the others are tried again, with growing delays.
        let again = if way.name == "cert" {
            3 + began.elapsed().as_secs() / 10
        } else {
            0
        };
        let most = 1 + usize::try_from(again)?;
        ensure!((1..=most).contains(&tries), "{tries} logins of {}", way.name);
    }
    let mut planned = Vec::new();
    for way in &ways {
        planned.push(scene.rests(&operator, way.name).await?);
        way.plant(&scene, &way.right).await?;
    }
    for (way, planned) in ways.iter().zip(planned) {
        let object = scene.ready(way.name).await.context(way.name)?;
        woken_before(planned, &object).context(way.name)?;
        scene
            .store_reason(way.name, "StoreReady")
            .await
            .context(way.name)?;
    }
    Ok(())
}

async fn what_is_missing_is_named_and_taken_up_when_it_comes(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let token = reader_token(&scene).await?;
    let by_token = json!({"token": {"tokenRef": {"name": "late", "key": "token"}}});
    scene.store("late", &scene.vault_with(&by_token)).await?;
    let mut by_account = scene.vault_spec()["vault"]["auth"].clone();
    by_account["kubernetes"]["serviceAccountRef"]["name"] = "newcomer".into();
    by_account["kubernetes"]["role"] = "newcomer".into();
    scene.store("newcomer", &scene.vault_with(&by_account)).await?;
    let reads = format!("path \"{}/*\" {{ capabilities = [\"read\"] }}", scene.mount);
    scene.allow_policy("newcomer", &reads).await?;
    for store in ["late", "newcomer"] {
        copy_from(&scene, store).await?;
    }
    let _operator = scene.operator().await?;

    let status = scene.store_reason("late", "CredentialMissing").await?;
    let message = store_message(&status)?;
    let named = format!("Secret {}/late does not exist", scene.namespace);
    ensure!(message.contains(&named), "{message}");
    let status = scene.store_reason("newcomer", "CredentialMissing").await?;
    let message = store_message(&status)?;
    ensure!(
        message.contains("/newcomer") && message.contains("ServiceAccount"),
        "{message}"
    );

    scene.credential("late", &json!({"other": "x"})).await?;
    poll::until("the missing key to be named", SOON, || async {
        let status = scene.store_reason("late", "CredentialMissing").await;
        status.is_ok_and(|status| {
            store_message(&status).is_ok_and(|message| message.contains("has no key `token`"))
        })
    })
    .await?;
    scene.credential("late", &json!({"token": token})).await?;
    scene.allow_reader("newcomer").await?;
    scene.ready("late").await?;
    scene.ready("newcomer").await?;
    Ok(())
}

async fn a_service_account_is_used_only_with_its_consent(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    scene
        .kubernetes
        .create_service_account(&scene.namespace, "shy")
        .await?;
    let reads = format!("path \"{}/*\" {{ capabilities = [\"read\"] }}", scene.mount);
    scene.allow_policy("shy", &reads).await?;
    let mut auth = scene.vault_spec()["vault"]["auth"].clone();
    auth["kubernetes"]["serviceAccountRef"]["name"] = "shy".into();
    auth["kubernetes"]["role"] = "shy".into();
    scene.store("shy", &scene.vault_with(&auth)).await?;
    scene.synced_from("db", "shy", "apps/db").await?;
    let mark = scene.kubernetes.audit().mark().await?;
    let operator = scene.operator().await?;

    let status = scene.store_reason("shy", "CredentialNotGranted").await?;
    let message = store_message(&status)?;
    ensure!(message.contains(SERVICE_ACCOUNT_CONSENT), "{message}");
    scene
        .told(&operator, "db", "CredentialNotGranted", "does not lend itself")
        .await?;
    assert_eq!(tokens_of(&scene, mark, "shy").await?, 0, "no token is asked for");
    scene.allow_reader("shy").await?;
    scene.ready("db").await?;
    assert_eq!(tokens_of(&scene, mark, "shy").await?, 1);
    Ok(())
}

async fn an_audience_of_the_api_server_is_refused(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let audiences = [
        ("plain", "https://kubernetes.default.svc"),
        ("long", "https://kubernetes.default.svc.cluster.local"),
        ("spelled", "HTTPS://Kubernetes.default.svc/"),
    ];
    for (name, audience) in audiences {
        let mut auth = scene.vault_spec()["vault"]["auth"].clone();
        auth["kubernetes"]["audience"] = audience.into();
        scene.store(name, &scene.vault_with(&auth)).await?;
    }
    let by_jwt = json!({"jwt": {
        "role": "reader", "serviceAccountRef": {"name": "reader"}, "audience": "https://kubernetes.default.svc",
    }});
    scene.store("jwt", &scene.vault_with(&by_jwt)).await?;
    let mark = scene.kubernetes.audit().mark().await?;
    let _operator = scene.operator().await?;
    // This one's token is the only one that is asked for.
    scene.store_reason("vault", "StoreReady").await?;
    for name in ["plain", "long", "spelled", "jwt"] {
        let status = scene.store_reason(name, "InsecureRefused").await?;
        let message = store_message(&status)?;
        ensure!(message.contains("the API server's own"), "{message}");
    }
    assert_eq!(tokens_of(&scene, mark, "reader").await?, 1);
    Ok(())
}

/// Applies a `SyncedSecret` of a store's name that copies `apps/db` into a Secret of another name: the store's own
/// name belongs to its credential.
async fn copy_from(scene: &Scene<'_>, store: &str) -> Result<()> {
    let copy = json!({
        "sources": [{"storeRef": {"name": store}, "path": "apps/db"}],
        "target": {"name": format!("{store}-copy")},
    });
    scene.synced(store, &copy).await
}

/// How many tokens of a ServiceAccount of this namespace were asked for.
async fn tokens_of(scene: &Scene<'_>, mark: Mark, account: &str) -> Result<usize> {
    let requests = scene.asked_of_kubernetes(mark).await?;
    let tokens = requests
        .iter()
        .filter(|request| request.resource == "serviceaccounts/token" && request.name == account);
    Ok(tokens.count())
}

async fn reader_token(scene: &Scene<'_>) -> Result<String> {
    let policy = format!("{}-reader", scene.mount);
    let login = scene
        .vault
        .api()
        .create_token(&[&policy], &json!({"ttl": "1h"}))
        .await?;
    Ok(login.token)
}

/// Sets the methods that need it up in Vault, each at [`mount_of`]. Returns a role id of `AppRole` with its secret id.
async fn set_up(scene: &Scene<'_>) -> Result<(String, String)> {
    let (api, policy) = (scene.vault.api(), format!("{}-reader", scene.mount));
    for method in ["approle", "jwt", "userpass", "cert"] {
        api.enable_auth(&mount_of(scene, method), method).await?;
    }
    let jwt = mount_of(scene, "jwt");
    api.write(
        &format!("auth/{jwt}/config"),
        &json!({"jwt_validation_pubkeys": scene.kubernetes.token_keys()?}),
    )
    .await?;
    for role in ["stored", "minted"] {
        let settings = json!({
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": [role], "token_policies": [policy],
        });
        api.create_role(&jwt, role, &settings).await?;
    }
    api.create_user(&mount_of(scene, "userpass"), "someone", "right", &[&policy])
        .await?;
    let (cert, ca) = (mount_of(scene, "cert"), scene.vault.ca());
    api.create_cert_role(&cert, "app", ca, "right", &[&policy])
        .await?;
    let settings = json!({"token_policies": [policy]});
    api.create_approle(&mount_of(scene, "approle"), "app", &settings)
        .await
}

fn mount_of(scene: &Scene<'_>, method: &str) -> String {
    format!("{method}-{}", scene.mount)
}

/// Every way to log in, each at a mount of its own.
async fn ways(scene: &Scene<'_>) -> Result<Vec<Way>> {
    let (role_id, secret_id) = set_up(scene).await?;
    let mount = |method: &str| mount_of(scene, method);
    let jwt = async |audience: &str| {
        scene
            .kubernetes
            .token(&scene.namespace, "reader", &[audience])
            .await
    };
    let certificate = |name: &str| -> Result<Vec<(&'static str, String)>> {
        let identity = scene.vault.client_identity(name)?;
        Ok(vec![("tls.crt", identity.certificate), ("tls.key", identity.key)])
    };
    let one = |key: &'static str, value: &str| vec![(key, value.to_owned())];
    Ok(vec![
        Way {
            name: "kubernetes",
            mount: scene.auth_mount(),
            auth: json!({"kubernetes": {
                "mount": scene.auth_mount(), "role": "reader", "audience": AUDIENCE,
                "serviceAccountRef": {"name": "reader"},
            }}),
            right: Vec::new(),
            wrong: Vec::new(),
        },
        Way {
            name: "minted-jwt",
            mount: String::new(),
            auth: json!({"jwt": {
                "mount": mount("jwt"), "role": "minted", "audience": "minted",
                "serviceAccountRef": {"name": "reader"},
            }}),
            right: Vec::new(),
            wrong: Vec::new(),
        },
        Way {
            name: "stored-jwt",
            mount: String::new(),
            auth: json!({"jwt": {
                "mount": mount("jwt"), "role": "stored",
                "tokenRef": {"name": "stored-jwt", "key": "jwt"},
            }}),
            right: one("jwt", &jwt("stored").await?),
            wrong: one("jwt", &jwt("another").await?),
        },
        Way {
            name: "approle",
            mount: mount("approle"),
            auth: json!({"appRole": {
                "mount": mount("approle"), "roleId": role_id,
                "secretIdRef": {"name": "approle", "key": "secret-id"},
            }}),
            // As an editor leaves it behind.
            right: one("secret-id", &format!("{secret_id}\n")),
            wrong: one("secret-id", "wrong"),
        },
        Way {
            name: "token",
            mount: String::new(),
            auth: json!({"token": {"tokenRef": {"name": "token", "key": "token"}}}),
            right: one("token", &reader_token(scene).await?),
            wrong: one("token", "hvs.wrong"),
        },
        Way {
            name: "userpass",
            mount: mount("userpass"),
            auth: json!({"userpass": {
                "mount": mount("userpass"), "username": "someone",
                "passwordRef": {"name": "userpass", "key": "password"},
            }}),
            right: one("password", "right"),
            wrong: one("password", "wrong"),
        },
        Way {
            name: "cert",
            mount: mount("cert"),
            auth: json!({"cert": {
                "mount": mount("cert"), "role": "app", "certificateRef": {"name": "cert"},
            }}),
            right: certificate("right")?,
            wrong: certificate("other")?,
        },
    ])
}
