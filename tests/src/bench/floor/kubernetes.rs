//! The floor's requests to the API server: those that the operator makes, and nothing done with the answers.

use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use keyward::runtime::clock;
use keyward_crds::{MANAGED_BY, MANAGED_BY_LABEL, OWNER_ANNOTATION};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

/// Objects of one page of a listing.
const PAGE: usize = 500;

/// Seconds after which a watch ends.
const WATCH_SECONDS: u32 = 200;

/// The field manager of what the floor writes.
const FIELD_MANAGER: &str = "floor";

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const METADATA_WATCH: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const JSON: &str = "application/json";

/// The objects.
const OBJECTS: &str = "/apis/keyward.dev/v1alpha1/syncedsecrets";

/// The kinds that are watched beside the objects, and whether as a whole.
const OTHERS: [(&str, bool); 9] = [
    ("/apis/keyward.dev/v1alpha1/secretstores", true),
    ("/apis/keyward.dev/v1alpha1/clustersecretstores", true),
    ("/api/v1/secrets", false),
    ("/api/v1/configmaps", false),
    ("/api/v1/serviceaccounts", false),
    ("/api/v1/namespaces", false),
    ("/apis/apps/v1/deployments", true),
    ("/apis/apps/v1/statefulsets", true),
    ("/apis/apps/v1/daemonsets", true),
];

/// The API server, for one namespace.
pub(super) struct Cluster {
    client: kube::Client,
    namespace: String,
}

/// As much of an object as the floor needs.
pub(super) struct Object {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) source: Source,
}

/// Where the value of an object is.
#[derive(Deserialize, PartialEq, Eq, Hash)]
pub(super) struct Source {
    #[serde(default)]
    pub(super) path: String,
    #[serde(default)]
    pub(super) name: String,
    pub(super) key: Option<String>,
}

impl Cluster {
    /// Connects as the bearer of the token in the file.
    pub(super) async fn connect(kubeconfig: &Path, namespace: &str) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        Ok(Self {
            client: kube::Client::try_from(config)?,
            namespace: namespace.to_owned(),
        })
    }

    /// Lists every kind in pages and leaves a watch open for each. Returns the objects.
    pub(super) async fn list_and_watch_everything(&self) -> Result<Vec<Object>> {
        let others = OTHERS
            .iter()
            .map(|(path, whole)| self.follow::<IgnoredAny>(path, *whole));
        let others = futures::future::try_join_all(others);
        let (objects, _) = futures::future::try_join(self.follow::<Declared>(OBJECTS, true), others).await?;
        objects.into_iter().map(Declared::into_object).collect()
    }

    /// A token of a ServiceAccount for a store.
    pub(super) async fn token(&self, account: &str, audience: &str) -> Result<String> {
        let path = format!(
            "/api/v1/namespaces/{}/serviceaccounts/{account}/token",
            self.namespace
        );
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": 600},
        });
        let request = Request::post(path)
            .header(CONTENT_TYPE, JSON)
            .body(body.to_string().into_bytes())?;
        let answer: Value = self.client.request(request).await?;
        let token = answer["status"]["token"].as_str();
        Ok(token
            .context("the token request was answered without a token")?
            .to_owned())
    }

    /// Applies a Secret and returns its uid.
    pub(super) async fn apply_secret(&self, name: &str, fields: &Value) -> Result<String> {
        let fields = fields.as_object().context("a value is an object")?;
        let data: serde_json::Map<_, _> = fields
            .iter()
            .map(|(key, value)| {
                (
                    key.clone(),
                    STANDARD.encode(value.as_str().unwrap_or_default()).into(),
                )
            })
            .collect();
        let body = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
            "metadata": {
                "namespace": self.namespace, "name": name,
                "labels": {MANAGED_BY_LABEL: MANAGED_BY}, "annotations": {OWNER_ANNOTATION: name},
            },
        });
        let path = format!(
            "/api/v1/namespaces/{}/secrets/{name}?fieldManager={FIELD_MANAGER}&force=false",
            self.namespace
        );
        let written = self.patch(&path, "application/apply-patch+yaml", &body).await?;
        Ok(written.metadata.uid)
    }

    /// Writes a status as large as the operator's.
    pub(super) async fn patch_status(&self, object: &Object, secret: &str, message: &str) -> Result<()> {
        let now = clock::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let status = json!({
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Synced", "message": message,
                "lastTransitionTime": now, "observedGeneration": 1,
            }],
            "secret": {
                "name": object.name, "uid": secret, "resourceVersion": "1234567", "keys": 1, "generation": 1,
                "fingerprint": "f".repeat(64), "values": "f".repeat(64), "changedAt": now,
            },
            "versions": [{"source": 0, "number": 1, "created": now}],
        });
        let change = json!([
            {"op": "test", "path": "/metadata/uid", "value": object.uid},
            {"op": "add", "path": "/status", "value": status},
        ]);
        let path = format!(
            "/apis/keyward.dev/v1alpha1/namespaces/{}/syncedsecrets/{}/status?fieldManager={FIELD_MANAGER}",
            self.namespace, object.name
        );
        self.patch(&path, "application/json-patch+json", &change)
            .await
            .map(drop)
    }

    async fn patch(&self, path: &str, media_type: &str, body: &Value) -> Result<Written> {
        let request = Request::patch(path)
            .header(ACCEPT, METADATA)
            .header(CONTENT_TYPE, media_type)
            .body(body.to_string().into_bytes())?;
        Ok(self.client.request(request).await?)
    }

    async fn follow<T: DeserializeOwned>(&self, path: &str, whole: bool) -> Result<Vec<T>> {
        let (list_type, watch_type) = if whole {
            (JSON, JSON)
        } else {
            (METADATA_LIST, METADATA_WATCH)
        };
        let (mut items, mut next) = (Vec::new(), String::new());
        let version = loop {
            let page = format!("{path}?limit={PAGE}&continue={next}");
            let request = Request::get(page).header(ACCEPT, list_type).body(Vec::new())?;
            let page: Page<T> = self.client.request(request).await?;
            items.extend(page.items);
            next = page.metadata.next;
            if next.is_empty() {
                break page.metadata.resource_version;
            }
        };
        let watch = format!(
            "{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}"
        );
        let request = Request::get(watch).header(ACCEPT, watch_type).body(Vec::new())?;
        let stream = self.client.request_stream(request).await?;
        tokio::spawn(async move {
            // It ends with the process, or with its own time limit.
            let _ = futures::io::copy(stream, &mut futures::io::sink()).await;
        });
        Ok(items)
    }
}

#[derive(Deserialize)]
struct Page<T> {
    metadata: PageMeta,
    items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct Declared {
    metadata: Meta,
    spec: Spec,
}

#[derive(Deserialize)]
struct Written {
    metadata: Meta,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    name: String,
    uid: String,
}

#[derive(Deserialize)]
struct Spec {
    sources: Vec<Source>,
}

impl Declared {
    fn into_object(self) -> Result<Object> {
        let source = self.spec.sources.into_iter().next();
        Ok(Object {
            name: self.metadata.name,
            uid: self.metadata.uid,
            source: source.context("an object has a source")?,
        })
    }
}
