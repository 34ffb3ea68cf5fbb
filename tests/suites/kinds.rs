//! What the API server makes of our definitions: the examples are accepted, and each rule refuses what breaks it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use keyward_crds::{ClusterSecretStore, SecretStore, SyncedSecret};
use keyward_tests::harness::{Case, Suite};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::tests!(
        suite,
        the_examples_are_accepted,
        each_rule_of_a_store_refuses_what_breaks_it,
        each_rule_of_a_cluster_store_refuses_what_breaks_it,
        each_rule_of_a_synced_secret_refuses_what_breaks_it,
        what_is_left_out_gets_its_default,
    );
}

async fn the_examples_are_accepted(case: Case) -> Result<()> {
    let server = Asked::new(&case).await?;
    let mut accepted = 0;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?
            .replace("${VAULT_ADDRESS}", "https://vault.example.com:8200")
            .replace("${KEYSTONE_URL}", "https://keystone.example.com/v3")
            .replace(
                "${API_CERTIFICATE_CONTAINER}",
                "0a1b2c3d-0000-4000-8000-000000000001",
            );
        for document in serde_saphyr::from_multiple::<Value>(&text)? {
            let kind = document["kind"].as_str().unwrap_or_default();
            if document["apiVersion"] == "keyward.dev/v1alpha1" {
                let answer = server.ask(kind, &document["spec"]).await?;
                answer.with_context(|| format!("{}: {}", path.display(), document["metadata"]["name"]))?;
                accepted += 1;
            }
        }
    }
    ensure!(accepted > 8, "only {accepted} examples");
    Ok(())
}

async fn each_rule_of_a_store_refuses_what_breaks_it(case: Case) -> Result<()> {
    let vault = |auth: Value| json!({"vault": {"address": "https://v", "mount": "kv", "auth": auth}});
    let token = json!({"token": {"tokenRef": {"name": "s", "key": "k"}}});
    let with = |field: &str, value: Value| {
        let mut spec = vault(token.clone());
        spec["vault"][field] = value;
        spec
    };
    let insecure = |insecure: Value| {
        let mut spec = vault(token.clone());
        spec["insecure"] = insecure;
        spec
    };
    let barbican = |barbican: Value| json!({ "barbican": barbican });
    let clouds = json!({"secretRef": {"name": "s", "key": "clouds.yaml"}});
    let application = json!({"applicationCredential": {"id": "i", "secretRef": {"name": "s", "key": "k"}}});
    let skipping = |mut spec: Value| {
        spec["insecure"] = json!({
            "skipTlsVerify": true, "reason": "a lab without certificates", "expires": "2030-01-01T00:00:00Z",
        });
        spec
    };
    let account = json!({"name": "reader"});
    refuses(
        &case,
        "SecretStore",
        &vault(token.clone()),
        vec![
            (json!({}), "exactly one of vault, barbican"),
            (vault(json!({})), "exactly one of kubernetes, appRole, token"),
            (
                vault(json!({"token": token["token"], "cert": {"certificateRef": {"name": "s"}}})),
                "exactly one of kubernetes, appRole, token",
            ),
            (
                vault(json!({"kubernetes": {"role": "r", "serviceAccountRef": account}})),
                "audience",
            ),
            (
                vault(json!({"jwt": {"role": "r", "serviceAccountRef": account}})),
                "serviceAccountRef and audience go together",
            ),
            (
                vault(json!({"jwt": {"role": "r"}})),
                "exactly one of tokenRef, serviceAccountRef",
            ),
            (with("address", json!("vault.example.com")), "spec.vault.address"),
            (with("address", json!("https://user@v")), "spec.vault.address"),
            (
                with("address", json!("http://v")),
                "an http:// address needs `insecure.plainHttp`",
            ),
            (
                skipping(with("address", json!("http://v"))),
                "an http:// address needs `insecure.plainHttp`",
            ),
            (
                barbican(json!({"authUrl": "http://k/v3", "auth": application})),
                "an http:// address needs `insecure.plainHttp`",
            ),
            (
                barbican(json!({"cloudsYaml": clouds, "endpointOverride": "http://b"})),
                "an http:// address needs `insecure.plainHttp`",
            ),
            (with("mount", json!("/kv")), "spec.vault.mount"),
            (with("kvVersion", json!("V3")), "spec.vault.kvVersion"),
            (
                with("ca", json!({})),
                "exactly one of inline, configMapRef, secretRef",
            ),
            (
                insecure(json!({"reason": "a lab without certificates", "expires": "2030-01-01T00:00:00Z"})),
                "name at least one insecure choice",
            ),
            (
                insecure(json!({"plainHttp": true, "reason": "short", "expires": "2030-01-01T00:00:00Z"})),
                "spec.insecure.reason",
            ),
            (
                insecure(json!({"plainHttp": true, "reason": "a lab without certificates"})),
                "spec.insecure.expires",
            ),
            (barbican(json!({})), "either cloudsYaml, or authUrl and auth"),
            (
                barbican(json!({"cloudsYaml": clouds, "authUrl": "https://k/v3"})),
                "cloudsYaml stands alone",
            ),
            (
                barbican(json!({"authUrl": "https://k/v3", "auth": {}})),
                "exactly one of applicationCredential, password",
            ),
        ],
    )
    .await
}

async fn each_rule_of_a_cluster_store_refuses_what_breaks_it(case: Case) -> Result<()> {
    let auth =
        json!({"kubernetes": {"role": "r", "audience": "vault", "serviceAccountRef": {"name": "reader"}}});
    let good = json!({
        "vault": {"address": "https://v", "mount": "kv", "auth": auth},
        "credentials": {"from": "Consumer"},
        "access": [{"name": "all", "namespaces": ["apps"], "paths": ["apps/**"]}],
    });
    let with = |field: &str, value: Value| {
        let mut spec = good.clone();
        spec[field] = value;
        spec
    };
    let mut stored = good.clone();
    stored["vault"]["auth"] = json!({"token": {"tokenRef": {"name": "s", "key": "k"}}});
    let mut trusted_by_reader = good.clone();
    trusted_by_reader["vault"]["ca"] = json!({"configMapRef": {"name": "ca", "key": "ca.crt"}});
    let mut plain = good.clone();
    plain["vault"]["address"] = json!("http://v");
    let mut ungranted = good.clone();
    ungranted["access"] = json!([]);
    refuses(
        &case,
        "ClusterSecretStore",
        &good,
        vec![
            (ungranted, "spec.access"),
            (
                with("access", json!([{"name": "all", "paths": ["**"]}])),
                "a rule names namespaces or a selector",
            ),
            (
                with(
                    "access",
                    json!([{"name": "all", "namespaces": ["apps"], "paths": []}]),
                ),
                "spec.access[0].paths",
            ),
            (
                with("credentials", json!({"from": "Namespace"})),
                "`namespace` goes with `from: Namespace`",
            ),
            (
                with("credentials", json!({"from": "Consumer", "namespace": "apps"})),
                "`namespace` goes with `from: Namespace`",
            ),
            (
                stored,
                "credentials from the consumer need a login by serviceAccountRef",
            ),
            (trusted_by_reader, "the CA must be inline"),
            (plain, "an http:// address needs `insecure.plainHttp`"),
        ],
    )
    .await
}

async fn each_rule_of_a_synced_secret_refuses_what_breaks_it(case: Case) -> Result<()> {
    let source = |more: Value| {
        let mut source = json!({"storeRef": {"name": "vault"}});
        for (name, value) in more.as_object().into_iter().flatten() {
            source[name] = value.clone();
        }
        json!({"sources": [source]})
    };
    let with = |field: &str, value: Value| {
        let mut spec = source(json!({"path": "a"}));
        spec[field] = value;
        spec
    };
    let one = "exactly one of path, name, uuid, container, find";
    let uuid = "0a1b2c3d-0000-4000-8000-000000000001";
    refuses(
        &case,
        "SyncedSecret",
        &source(json!({"path": "a"})),
        vec![
            (json!({"sources": []}), "spec.sources"),
            (source(json!({})), one),
            (source(json!({"path": "a", "name": "b"})), one),
            (
                source(json!({"name": "b", "version": 1})),
                "version goes with path",
            ),
            (source(json!({"path": "a", "version": 0})), "version"),
            (
                source(json!({"path": "a", "key": "k", "fields": [{"field": "f"}]})),
                "key takes the whole value",
            ),
            (source(json!({"path": "a", "key": "a/b"})), "sources[0].key"),
            (source(json!({"path": "a", "key": "."})), "sources[0].key"),
            (source(json!({"path": "a", "key": "..a"})), "sources[0].key"),
            (
                source(json!({"path": "a", "fields": [{"field": "f", "key": ".."}]})),
                "fields[0].key",
            ),
            (source(json!({"path": "a", "prefix": ".."})), "sources[0].prefix"),
            (
                source(json!({"container": uuid, "key": "k"})),
                "a container is its parts",
            ),
            (source(json!({"name": "b"})), "a secret of Barbican is bytes"),
            (source(json!({"uuid": uuid})), "a secret of Barbican is bytes"),
            (source(json!({"uuid": "not-a-uuid"})), "uuid"),
            (source(json!({"find": {}})), "name a prefix, a pattern or tags"),
            (source(json!({"find": {"prefix": "a", "max": 501}})), "max"),
            (
                source(json!({"find": {"prefix": "a"}, "fields": [{"field": "f"}]})),
                "find takes whole values",
            ),
            (
                with("target", json!({"type": "kubernetes.io/service-account-token"})),
                "a Secret of this type would give rights",
            ),
            (with("target", json!({"name": "Not_A_Name"})), "spec.target.name"),
            (
                with("target", json!({"adoption": {"policy": "TakeKeys"}})),
                "`keys` goes with `policy: TakeKeys`",
            ),
            (with("refresh", json!({"interval": "1s"})), "at least 5s"),
            (
                with("refresh", json!({"interval": "soon"})),
                "spec.refresh.interval",
            ),
            (with("consumers", json!([{"kind": "Job", "name": "j"}])), "kind"),
        ],
    )
    .await
}

async fn what_is_left_out_gets_its_default(case: Case) -> Result<()> {
    let server = Asked::new(&case).await?;
    let spec = json!({"sources": [{"storeRef": {"name": "vault"}, "path": "a"}]});
    let kept = server.ask("SyncedSecret", &spec).await??;
    for (pointer, value) in [
        ("/spec/sources/0/storeRef/kind", json!("SecretStore")),
        ("/spec/sources/0/decode", json!("None")),
        ("/spec/target/type", json!("Opaque")),
        ("/spec/conflict", json!("Fail")),
        ("/spec/mode", json!("Sync")),
        ("/spec/refresh/interval", json!("1h")),
        ("/spec/refresh/policy", json!("Periodic")),
        ("/spec/whenGone/deleted", json!("Keep")),
        ("/spec/whenGone/destroyed", json!("Keep")),
    ] {
        ensure!(
            kept.pointer(pointer) == Some(&value),
            "{pointer} is {:?}",
            kept.pointer(pointer)
        );
    }
    Ok(())
}

/// A good spec is accepted, and each bad one refused with a message that says why.
async fn refuses(case: &Case, kind: &str, good: &Value, bad: Vec<(Value, &str)>) -> Result<()> {
    let server = Asked::new(case).await?;
    server
        .ask(kind, good)
        .await?
        .context("the good spec is refused")?;
    for (spec, why) in bad {
        match server.ask(kind, &spec).await? {
            Ok(_) => anyhow::bail!("accepted: {spec}"),
            Err(refusal) => ensure!(
                refusal.to_string().contains(why),
                "{spec}\nis refused without `{why}`: {refusal}"
            ),
        }
    }
    Ok(())
}

/// An API server that is asked and keeps nothing.
struct Asked {
    client: kube::Client,
    namespace: String,
}

impl Asked {
    async fn new(case: &Case) -> Result<Self> {
        Ok(Self {
            client: case.kubernetes().await?.client(),
            namespace: case.namespace().await?,
        })
    }

    /// What an object of this spec would become, or why it is refused.
    async fn ask(&self, kind: &str, spec: &Value) -> Result<Result<Value, kube::Error>> {
        let (resource, namespaced) = match kind {
            "SecretStore" => (ApiResource::erase::<SecretStore>(&()), true),
            "ClusterSecretStore" => (ApiResource::erase::<ClusterSecretStore>(&()), false),
            "SyncedSecret" => (ApiResource::erase::<SyncedSecret>(&()), true),
            _ => anyhow::bail!("{kind} is no kind of ours"),
        };
        let api: Api<DynamicObject> = if namespaced {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        };
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "keyward.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": "asked"},
            "spec": spec,
        }))?;
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        Ok(match api.create(&dry_run, &object).await {
            Ok(kept) => Ok(serde_json::to_value(kept)?),
            Err(kube::Error::Api(refusal)) => Err(kube::Error::Api(refusal)),
            Err(error) => return Err(error.into()),
        })
    }
}
