//! Choices that weaken a store: refused unless the administrator allows them, reported while in use, ended in time.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use keyward::runtime::clock::now;
use keyward::store::SECURE_SETTINGS;
use keyward_crds::StoreStatus;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::{Operator, Settings};
use keyward_tests::rig::poll;
use keyward_tests::rig::tls::Authority;
use keyward_tests::rig::vault::Kv;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::store_message;
use crate::scene::{FIRST, SOON, Scene};
use crate::told::{Failure, Kind};

/// A reason as people give one.
pub(super) const REASON: &str = "the proxy of the lab has no certificate yet";

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        insecure_choices_are_refused_unless_the_administrator_allows_them,
        an_insecure_choice_in_use_is_reported,
        an_insecure_choice_ends_at_its_expiry,
    );
}

async fn insecure_choices_are_refused_unless_the_administrator_allows_them(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let stores = weakened(&scene, "http://127.0.0.1:1", in_an_hour())?;
    for (name, _, spec) in &stores {
        scene.store(name, spec).await?;
    }
    let mark = scene.vault.audit().mark()?;
    let operator = scene.operator().await?;
    scene.store_reason("vault", "StoreReady").await?;
    for (name, field, _) in &stores {
        let status = scene.store_reason(name, "InsecureRefused").await?;
        let message = store_message(&status)?;
        ensure!(message.contains(field), "{message}");
        ensure!(
            insecure_message(&status).is_none(),
            "what is refused is not in use"
        );
        scene
            .passed_on(&operator, Kind::SecretStore, name, "InsecureRefused")
            .await?;
        counted(&operator, field, false).await?;
    }
    let logins = scene.asked_of_vault(mark)?;
    assert_eq!(
        logins.iter().filter(|request| request.is_login()).count(),
        1,
        "only `vault` may log in"
    );
    Ok(())
}

async fn an_insecure_choice_in_use_is_reported(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let proxy = plain_http(scene.vault.url(), scene.vault.ca()).await?;
    let audience = json!({
        "bound_service_account_names": ["reader"],
        "bound_service_account_namespaces": [scene.namespace],
        "token_policies": [format!("{}-reader", scene.mount)],
    });
    scene
        .vault
        .api()
        .create_role(&scene.auth_mount(), "api-server", &audience)
        .await?;
    let stores = weakened(&scene, &format!("http://{proxy}"), in_an_hour())?;
    for (name, _, spec) in &stores {
        scene.store(name, spec).await?;
        scene.synced_from(name, name, "apps/db").await?;
    }
    let operator = scene.operator_with(&permissive(&scene)).await?;
    for (name, field, _) in &stores {
        scene.ready(name).await.with_context(|| (*name).to_owned())?;
        let status = scene.store_reason(name, "StoreReady").await?;
        let message = insecure_message(&status).context("there is no Insecure condition")?;
        ensure!(message.contains(REASON), "{message}");
        ensure!(message.contains(SECURE_SETTINGS), "{message}");
        let implied = match *field {
            "plainHttp" => "read every value",
            "skipTlsVerify" => "pose as the store",
            _ => "against this cluster",
        };
        ensure!(message.contains(implied), "{message}");
        scene.event_about(Kind::SecretStore, name, "Insecure").await?;
        counted(&operator, field, true).await?;
    }
    // Back at the secure setting, nothing of it remains.
    let (name, field, _) = &stores[0];
    scene.store(name, &scene.vault_spec()).await?;
    poll::until("the condition to go", SOON, || async {
        scene
            .store_reason(name, "StoreReady")
            .await
            .is_ok_and(|status| insecure_message(&status).is_none())
    })
    .await?;
    counted(&operator, field, false).await?;
    Ok(())
}

async fn an_insecure_choice_ends_at_its_expiry(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let operator = scene.operator_with(&permissive(&scene)).await?;
    scene.store_reason("vault", "StoreReady").await?;
    let mut spec = skipping(&scene, now() + TimeDelta::seconds(30))?;
    scene.store("brief", &spec).await?;
    scene.synced_from("db", "brief", "apps/db").await?;
    scene.ready("db").await?;
    // Nobody asks: the end comes by itself.
    let status = scene.store_reason("brief", "InsecureExpired").await?;
    ensure!(insecure_message(&status).is_none());
    scene
        .passed_on(&operator, Kind::SecretStore, "brief", "InsecureExpired")
        .await?;
    counted(&operator, "skipTlsVerify", false).await?;
    // Its readers hear of it at once, long before their next turn.
    let ended = Failure::new("db", "StoreNotReady", "ended at").keeps(&FIRST);
    scene.suffers(&operator, &ended).await?;
    scene.write("apps/db", &json!({"password": "second"})).await?;
    let mark = scene.vault.audit().mark()?;
    scene.refreshed(&operator, "db").await?;
    scene.holds("db", &[("password", "first")]).await?;
    let asked = scene.asked_of_vault(mark)?;
    ensure!(asked.iter().all(|request| !request.is_value_read(&scene.mount)));
    spec["insecure"]["expires"] = in_an_hour().to_rfc3339().into();
    scene.store("brief", &spec).await?;
    scene.holds("db", &[("password", "second")]).await
}

/// Waits until a metric says that a store makes this choice, or that none does: a status may be seen before it is counted.
pub(super) async fn counted(operator: &Operator, field: &str, in_use: bool) -> Result<()> {
    let label = format!("choice=\"{field}\"");
    poll::until(&format!("{label} in use to be {in_use}"), SOON, || async {
        let stores = operator.metric("keyward_insecure_stores", &label).await;
        stores.is_ok_and(|stores| (stores >= 1.0) == in_use)
    })
    .await
}

/// One store for each insecure choice: its name, the field, its spec.
fn weakened(
    scene: &Scene<'_>,
    plain: &str,
    expires: DateTime<Utc>,
) -> Result<[(&'static str, &'static str, Value); 3]> {
    let mut http = scene.vault_spec();
    http["vault"]["address"] = plain.into();
    http["vault"]["ca"] = Value::Null;
    http["insecure"] = exception("plainHttp", expires);
    let mut audience = scene.vault_spec();
    audience["vault"]["auth"]["kubernetes"]["audience"] = "https://kubernetes.default.svc".into();
    audience["vault"]["auth"]["kubernetes"]["role"] = "api-server".into();
    audience["insecure"] = exception("apiServerAudience", expires);
    Ok([
        ("plain", "plainHttp", http),
        ("unverified", "skipTlsVerify", skipping(scene, expires)?),
        ("audience", "apiServerAudience", audience),
    ])
}

/// A store that would refuse its server if it looked at its certificate.
fn skipping(scene: &Scene<'_>, expires: DateTime<Utc>) -> Result<Value> {
    let mut spec = scene.vault_spec();
    spec["vault"]["ca"] = json!({"inline": Authority::new("stranger")?.certificate()});
    spec["insecure"] = exception("skipTlsVerify", expires);
    Ok(spec)
}

pub(super) fn exception(field: &str, expires: DateTime<Utc>) -> Value {
    json!({"reason": REASON, "expires": expires.to_rfc3339(), field: true})
}

pub(super) fn permissive(scene: &Scene<'_>) -> Settings {
    let mut settings = Settings::inside(&scene.namespace);
    settings.arguments.extend([
        "--allow-insecure".to_owned(),
        "plain-http,skip-tls-verify,api-server-audience".to_owned(),
    ]);
    settings
}

pub(super) fn insecure_message(status: &StoreStatus) -> Option<&str> {
    let mut conditions = status.conditions.iter();
    let insecure = conditions.find(|condition| condition.type_ == "Insecure")?;
    (insecure.status == "True").then_some(insecure.message.as_str())
}

/// A listener that speaks plain http for a server that speaks TLS alone. It ends with the test.
pub(super) async fn plain_http(server: &str, ca: &str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let upstream = server.strip_prefix("https://").context("the server speaks TLS")?;
    let upstream: SocketAddr = upstream.parse()?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let server = TcpStream::connect(upstream).await?;
                let name = ServerName::from(upstream.ip());
                let mut server = tls.connect(name, server).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok(address)
}

pub(super) fn in_an_hour() -> DateTime<Utc> {
    now() + TimeDelta::hours(1)
}
