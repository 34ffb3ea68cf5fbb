//! A store that worked and is misled by an edit: the Secret stays, the cause is told, and it is mended by another edit.

use anyhow::{Context as _, Result};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::rig::openstack::NewSecret;
use keyward_tests::rig::tls::Authority;
use serde_json::{Value, json};

use super::{Cloud, copy_of, next_second};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        a_store_that_is_misled_keeps_its_secrets_until_it_is_put_right,
    );
}

/// A change of a store, the reason that is told, and words of the message.
struct Misled {
    name: &'static str,
    field: &'static str,
    value: Value,
    reason: &'static str,
    words: String,
}

async fn a_store_that_is_misled_keeps_its_secrets_until_it_is_put_right(case: Case) -> Result<()> {
    let cloud = Cloud::new(&case).await?;
    let (scene, keys) = (&cloud.scene, cloud.tenant.key_manager());
    let first = keys.store(&NewSecret::named("db"), b"first").await?;
    let base = cloud.by_credential("login").await?;
    let region = cloud.servers.region().to_owned();
    let cases = [
        Misled {
            name: "ca",
            field: "ca",
            value: json!({"inline": Authority::new("stranger")?.certificate()}),
            reason: "TlsFailed",
            words: "certificate".to_owned(),
        },
        Misled {
            name: "region",
            field: "region",
            value: "elsewhere".into(),
            reason: "StoreProtocol",
            words: region,
        },
        Misled {
            name: "override",
            field: "endpointOverride",
            value: "https://127.0.0.1:1".into(),
            reason: "StoreUnavailable",
            words: "127.0.0.1:1".to_owned(),
        },
    ];
    let operator = scene.operator().await?;
    for Misled { name, .. } in &cases {
        cloud.copied_by(name, &base).await?;
    }
    for Misled { name, .. } in &cases {
        let copied = scene
            .holds_in(name, &copy_of(name), &[("password", "first")])
            .await;
        copied.context(*name)?;
        scene.ready(name).await?;
    }
    for case in &cases {
        let mut spec = base.clone();
        spec["barbican"][case.field] = case.value.clone();
        scene.store(case.name, &spec).await?;
    }
    for case in &cases {
        let told = scene.told(&operator, case.name, case.reason, &case.words).await;
        told.context(case.name)?;
        scene.store_reason(case.name, case.reason).await?;
    }
    next_second(&first, &cloud).await?;
    keys.store(&NewSecret::named("db"), b"second").await?;
    for Misled { name, .. } in &cases {
        scene.refreshed(&operator, name).await?;
        scene
            .holds_in(name, &copy_of(name), &[("password", "first")])
            .await?;
    }
    for Misled { name, .. } in &cases {
        scene.store(name, &base).await?;
    }
    for Misled { name, .. } in &cases {
        let copied = scene
            .holds_in(name, &copy_of(name), &[("password", "second")])
            .await;
        copied.context(*name)?;
        scene.ready(name).await?;
        scene.store_reason(name, "StoreReady").await?;
    }
    Ok(())
}
