//! The kinds as people meet them: applied and listed with kubectl.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator;
use keyward_tests::rig::kubernetes::{Kubernetes, Options, Parts};
use keyward_tests::rig::vault::Kv;
use serde_json::json;
use tokio::process::Command;

use crate::scene::{SOON, Scene};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        definitions_are_applied_on_either_side,
        objects_are_listed_with_their_columns,
    );
}

async fn definitions_are_applied_on_either_side(case: Case) -> Result<()> {
    // A control plane without the kinds: taking them away from another one takes long.
    let bare = Options {
        parts: Parts::ApiServer,
        kinds: Vec::new(),
    };
    let kubernetes = Kubernetes::start(case.run().await?, &case.unique(), &bare).await?;
    let manifests = operator::workspace().join("crds/manifests").display().to_string();
    let made = kubectl(&case, &kubernetes, &["apply", "-f", &manifests]).await?;
    assert_eq!(made.matches(" created").count(), 3, "{made}");
    let same = kubectl(&case, &kubernetes, &["apply", "-f", &manifests]).await?;
    assert_eq!(same.matches(" unchanged").count(), 3, "{same}");
    let taken = ["apply", "--server-side", "--force-conflicts", "-f", &manifests];
    let taken = kubectl(&case, &kubernetes, &taken).await?;
    assert_eq!(taken.matches(" serverside-applied").count(), 3, "{taken}");
    Ok(())
}

async fn objects_are_listed_with_their_columns(case: Case) -> Result<()> {
    let scene = Scene::new(&case, Kv::V2).await?;
    scene.write("apps/db", &json!({"password": "first"})).await?;
    scene.synced_path("db", "apps/db").await?;
    scene.synced_path("lost", "apps/nothing").await?;
    let _operator = scene.operator().await?;
    scene.ready("db").await?;
    scene.reason("lost", "RemoteNotFound").await?;
    scene.store_reason("vault", "StoreReady").await?;

    let get = async |what: &[&str]| {
        let mut arguments = vec!["get", "-n", &scene.namespace];
        arguments.extend(what);
        kubectl(&case, scene.kubernetes, &arguments).await
    };
    let secrets = get(&["kwss"]).await?;
    let mut lines = secrets.lines();
    let header: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(
        header,
        [
            "NAME", "READY", "REASON", "SECRET", "KEYS", "CHANGED", "ROLLOUT", "AGE"
        ]
    );
    let db: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(db[..5], ["db", "True", "Synced", "db", "1"], "{secrets}");
    let lost: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(lost[..3], ["lost", "False", "RemoteNotFound"], "{secrets}");
    let wide = get(&["kwss", "lost", "-o", "wide"]).await?;
    ensure!(
        wide.contains("MESSAGE") && wide.contains("apps/nothing"),
        "{wide}"
    );

    let stores = get(&["kwst"]).await?;
    let mut lines = stores.lines();
    let header: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, ["NAME", "READY", "REASON", "INSECURE", "AGE"]);
    let vault: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(vault[..3], ["vault", "True", "StoreReady"], "{stores}");

    let all = get(&["keyward"]).await?;
    for name in [
        "syncedsecret.keyward.dev/db",
        "syncedsecret.keyward.dev/lost",
        "secretstore.keyward.dev/vault",
    ] {
        ensure!(all.contains(name), "{all}");
    }
    get(&["kwcst"]).await?;
    Ok(())
}

/// Runs kubectl with all rights, and returns what it printed.
async fn kubectl(case: &Case, kubernetes: &Kubernetes, arguments: &[&str]) -> Result<String> {
    let kubeconfig = case.run().await?.subfolder(&case.unique())?.join("kubeconfig");
    kubernetes.admin().save(&kubeconfig)?;
    let command = Command::new(kubernetes.kubectl())
        .args(arguments)
        .env("KUBECONFIG", &kubeconfig)
        .env("HOME", kubeconfig.parent().unwrap_or(&kubeconfig))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(SOON, command)
        .await
        .with_context(|| format!("kubectl {arguments:?} takes too long"))??;
    ensure!(
        output.status.success(),
        "kubectl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
