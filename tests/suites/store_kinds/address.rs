//! Where stores may be is the administrator's to say: what is refused is never connected to.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use keyward_crds::SecretStore;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::Settings;
use keyward_tests::rig::kubernetes::Parts;
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use kube::api::Api;
use serde_json::{Value, json};

use super::store_message;
use crate::scene::{self, FIRST, SOON, Scene, ready_of};
use crate::told::Failure;

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        loopback_and_link_local_are_refused_by_default,
        the_api_server_is_refused_even_where_loopback_is_allowed,
        networks_that_the_administrator_denies_are_refused,
    );
    keyward_tests::tests!(
        suite,
        every_address_of_the_api_server_is_refused_as_soon_as_it_is_known,
    );
}

async fn loopback_and_link_local_are_refused_by_default(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let port = port_of(scene.vault.url())?;
    let refused = [
        ("by-address", format!("https://127.0.0.1:{port}"), "loopback"),
        ("by-name", format!("https://localhost:{port}"), "loopback"),
        ("another-way", format!("https://127.1.2.3:{port}"), "loopback"),
        ("in-ipv6", format!("https://[::1]:{port}"), "loopback"),
        (
            "as-ipv4-in-ipv6",
            format!("https://[::ffff:127.0.0.1]:{port}"),
            "loopback",
        ),
        ("as-a-number", format!("https://2130706433:{port}"), "loopback"),
        ("metadata", "https://169.254.169.254".to_owned(), "link-local"),
        ("link-local", "https://[fe80::1]:8200".to_owned(), "link-local"),
        ("unspecified", format!("https://0.0.0.0:{port}"), "unspecified"),
    ];
    for (name, address, _) in &refused {
        scene.store(name, &at(&scene, address)).await?;
        scene.synced_from(name, name, "apps/db").await?;
    }
    let mark = scene.vault.audit().mark()?;
    let settings = Settings {
        arguments: Vec::new(),
        ..Settings::inside(&scene.namespace)
    };
    let operator = scene.operator_with(&settings).await?;
    for (name, _, words) in &refused {
        scene
            .store_told(&operator, name, "AddressRefused", words)
            .await
            .with_context(|| (*name).to_owned())?;
        let refused = Failure::new(name, "AddressRefused", words).of_store();
        scene.suffers(&operator, &refused).await?;
    }
    let asked = scene.asked_of_vault(mark)?;
    ensure!(asked.is_empty(), "{asked:?}");
    Ok(())
}

async fn the_api_server_is_refused_even_where_loopback_is_allowed(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    let port = port_of(scene.kubernetes.url())?;
    let refused = [
        ("by-address", scene.kubernetes.url().to_owned()),
        ("by-name", format!("https://localhost:{port}")),
    ];
    for (name, address) in &refused {
        scene.store(name, &at(&scene, address)).await?;
        scene.synced_from(name, name, "apps/db").await?;
    }
    scene.synced_path("db", "apps/db").await?;
    let mark = scene.kubernetes.audit().mark().await?;
    let operator = scene.operator().await?;
    scene.ready("db").await?;
    for (name, address) in &refused {
        let words = "denies to stores";
        scene.store_told(&operator, name, "AddressRefused", words).await?;
        // A store in use that is sent there leaves what it gave before.
        scene.store("vault", &at(&scene, address)).await?;
        let sent_away = Failure::new("db", "AddressRefused", words)
            .of_store()
            .keeps(&FIRST);
        scene
            .survives(&operator, &sent_away, async || {
                scene.store("vault", &scene.vault_spec()).await
            })
            .await?;
    }
    let asked = scene.kubernetes.audit().since(mark).await?;
    let led_astray: Vec<_> = asked
        .iter()
        .filter(|request| request.uri.starts_with("/v1/"))
        .collect();
    ensure!(led_astray.is_empty(), "{led_astray:?}");
    Ok(())
}

async fn every_address_of_the_api_server_is_refused_as_soon_as_it_is_known(case: Case) -> Result<()> {
    // Addresses that are nobody's: an attempt to connect fails, in whatever way the network here has for it.
    let (old, new) = ("198.51.100.7", "198.51.100.8");
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    let leads_to = async |address: &str| {
        let slices: Api<EndpointSlice> = Api::namespaced(kubernetes.client(), "default");
        let slice = json!({
            "kind": "EndpointSlice", "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}], "ports": [{"name": "https", "port": 6443}],
        });
        scene::apply(&slices, "kubernetes", slice).await
    };
    let in_its_way = async |name: &str, address: &str| {
        let status = scene.store_reason(name, "AddressRefused").await?;
        let message = store_message(&status)?;
        ensure!(
            message.contains(&format!("lies in {address} port 6443")),
            "{message}"
        );
        anyhow::Ok(())
    };
    let asked = async |name: &str| {
        poll::until(&format!("{name} to be asked, and to fail"), SOON, async || {
            let store = scene.api::<SecretStore>().get(name).await;
            let status = store.ok().and_then(|store| store.status).unwrap_or_default();
            ready_of(&status.conditions).is_some_and(|ready| ready.reason != "AddressRefused")
        })
        .await
    };
    leads_to(old).await?;
    for (name, address) in [("first", old), ("second", new), ("beside", old)] {
        let port = if name == "beside" { 8200 } else { 6443 };
        scene
            .store(name, &at(&scene, &format!("https://{address}:{port}")))
            .await?;
    }
    let _operator = scene.operator().await?;
    in_its_way("first", old).await?;
    asked("second").await?;
    asked("beside").await?;
    // It moves while the operator runs.
    leads_to(new).await?;
    in_its_way("second", new).await?;
    asked("first").await
}

async fn networks_that_the_administrator_denies_are_refused(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    let mut settings = Settings::inside(&scene.namespace);
    settings
        .arguments
        .extend(["--deny-network".to_owned(), "127.0.0.0/8".to_owned()]);
    let mark = scene.vault.audit().mark()?;
    let _operator = scene.operator_with(&settings).await?;
    let status = scene.store_reason("vault", "AddressRefused").await?;
    let message = store_message(&status)?;
    ensure!(message.contains("127.0.0.0/8"), "{message}");
    let asked = scene.asked_of_vault(mark)?;
    ensure!(asked.is_empty(), "{asked:?}");
    Ok(())
}

/// The spec of the store that works, at another address.
fn at(scene: &Scene<'_>, address: &str) -> Value {
    let mut spec = scene.vault_spec();
    spec["vault"]["address"] = address.into();
    spec
}

fn port_of(url: &str) -> Result<&str> {
    let port = url.rsplit(':').next();
    port.context("the address has no port")
}
