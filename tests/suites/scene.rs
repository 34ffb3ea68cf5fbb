//! What most tests of the operator begin with: a namespace, a mount, a store that works, and an operator of its own
//! that sees nothing else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyward_crds::{
    ACKNOWLEDGE_ANNOTATION, ClusterSecretStore, SERVICE_ACCOUNT_CONSENT, SecretStore, StoreStatus,
    SyncedSecret,
};
use keyward_tests::harness::Case;
use keyward_tests::operator::{Operator, Settings};
use keyward_tests::rig::kubernetes::{ApiRequest, Kubernetes};
use keyward_tests::rig::openstack::{OpenStack, Tenant};
use keyward_tests::rig::vault::{Kv, StoreRequest, Vault};
use keyward_tests::rig::{Mark, poll};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

/// How long anything may take that should happen at once.
pub const SOON: Duration = Duration::from_mins(1);

/// The audience of tokens for the rig's Vault.
pub const AUDIENCE: &str = "vault.test";

/// The field manager of what a person or a pipeline would write.
pub const AUTHOR: &str = "author";

/// From one look to the next, of what is looked at [`often`].
const TURN: Duration = Duration::from_secs(5);

/// What [`Scene::with_db`] begins with.
pub const FIRST: [(&str, &str); 1] = [("password", "first")];

/// A namespace of a test, with what it needs to use a Vault.
pub struct Scene<'a> {
    /// The test.
    pub case: &'a Case,
    /// The control plane.
    pub kubernetes: &'a Kubernetes,
    /// The store.
    pub vault: &'a Vault,
    /// The namespace.
    pub namespace: String,
    /// A key-value mount.
    pub mount: String,
    /// Its version.
    pub kv: Kv,
}

impl<'a> Scene<'a> {
    /// A namespace and a mount on the shared servers, and a store `vault` that logs in as ServiceAccount `reader`.
    pub async fn new(case: &'a Case, kv: Kv) -> Result<Scene<'a>> {
        Self::with(case, case.vault().await?, kv).await
    }

    /// The same with a Vault of the test's own.
    pub async fn with(case: &'a Case, vault: &'a Vault, kv: Kv) -> Result<Scene<'a>> {
        Self::on(case, case.kubernetes().await?, vault, kv).await
    }

    /// The same with a control plane of the test's own as well.
    pub async fn on(
        case: &'a Case,
        kubernetes: &'a Kubernetes,
        vault: &'a Vault,
        kv: Kv,
    ) -> Result<Scene<'a>> {
        let namespace = case.unique();
        kubernetes.create_namespace(&namespace).await?;
        let mount = case.unique();
        vault.api().mount_kv(&mount, kv).await?;
        let scene = Scene {
            case,
            kubernetes,
            vault,
            namespace,
            mount,
            kv,
        };
        scene.allow_reader("reader").await?;
        scene
            .vault
            .enable_kubernetes_auth(&scene.auth_mount(), kubernetes)
            .await?;
        scene
            .allow_policy(
                "reader",
                &format!(
                    "path \"{}/*\" {{ capabilities = [\"read\", \"list\"] }}",
                    scene.mount
                ),
            )
            .await?;
        scene.store("vault", &scene.vault_spec()).await?;
        Ok(scene)
    }

    /// Where the kubernetes method of this scene is mounted.
    pub fn auth_mount(&self) -> String {
        format!("k8s-{}", self.mount)
    }

    /// Makes a ServiceAccount that lends itself to Keyward.
    pub async fn allow_reader(&self, name: &str) -> Result<()> {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "annotations": {SERVICE_ACCOUNT_CONSENT: "true"}},
        });
        let api: Api<ServiceAccount> = self.api();
        api.patch(name, &PatchParams::apply(AUTHOR).force(), &Patch::Apply(&account))
            .await?;
        Ok(())
    }

    /// Lets a ServiceAccount of the namespace log in with a policy of these rules.
    pub async fn allow_policy(&self, account: &str, rules: &str) -> Result<()> {
        let policy = format!("{}-{account}", self.mount);
        self.vault.api().write_policy(&policy, rules).await?;
        let role = json!({
            "bound_service_account_names": [account],
            "bound_service_account_namespaces": [self.namespace],
            "audience": AUDIENCE,
            "token_policies": [policy],
            "token_ttl": "1h",
        });
        self.vault
            .api()
            .create_role(&self.auth_mount(), account, &role)
            .await
    }

    /// The spec of a store that works.
    pub fn vault_spec(&self) -> Value {
        json!({"vault": {
            "address": self.vault.url(),
            "mount": self.mount,
            "ca": {"inline": self.vault.ca()},
            "auth": {"kubernetes": {
                "mount": self.auth_mount(), "role": "reader", "audience": AUDIENCE,
                "serviceAccountRef": {"name": "reader"},
            }},
        }})
    }

    /// The same scene as another namespace sees it.
    pub fn seen_from(&self, namespace: &str) -> Scene<'a> {
        Scene {
            namespace: namespace.to_owned(),
            mount: self.mount.clone(),
            ..*self
        }
    }

    /// The spec of a store of Barbican that works, by the password of a project's user, which is put into a Secret.
    pub async fn barbican_spec(&self, servers: &OpenStack, tenant: &Tenant) -> Result<Value> {
        self.credential("keystone-login", &json!({"password": tenant.password}))
            .await?;
        Ok(json!({"barbican": {
            "authUrl": servers.auth_url(), "ca": {"inline": servers.ca()},
            "auth": {"password": {
                "username": tenant.user, "project": tenant.project,
                "passwordRef": {"name": "keystone-login", "key": "password"},
            }},
        }}))
    }

    /// Starts an operator for this namespace alone, and waits until it works.
    pub async fn operator(&self) -> Result<Operator> {
        self.operator_with(&Settings::inside(&self.namespace)).await
    }

    /// Starts an operator with these settings, and waits until it works.
    pub async fn operator_with(&self, settings: &Settings) -> Result<Operator> {
        let operator = self.start(settings).await?;
        operator.leads().await?;
        Ok(operator)
    }

    /// Starts an operator that stands by while another holds the lease.
    pub async fn standby(&self) -> Result<Operator> {
        self.start(&Settings::inside(&self.namespace)).await
    }

    async fn start(&self, settings: &Settings) -> Result<Operator> {
        let run = self.case.run().await?;
        Operator::start(run, self.kubernetes, &self.case.unique(), settings).await
    }

    /// Writes a secret to the store.
    pub async fn write(&self, path: &str, data: &Value) -> Result<u64> {
        self.vault
            .api()
            .write_secret(&self.mount, self.kv, path, data)
            .await
    }

    /// Ends every login at the scene's own auth method, as an administrator would.
    pub async fn revoke_logins(&self) -> Result<()> {
        let prefix = format!("sys/leases/revoke-prefix/auth/{}", self.auth_mount());
        self.vault.api().write(&prefix, &json!({})).await
    }

    /// Applies a Secret that Keyward has nothing to do with, such as a credential.
    pub async fn credential(&self, name: &str, texts: &Value) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name}, "stringData": texts,
        });
        self.api::<Secret>()
            .patch(name, &PatchParams::apply(AUTHOR).force(), &Patch::Apply(&secret))
            .await?;
        Ok(())
    }

    /// Applies a `SecretStore`.
    pub async fn store(&self, name: &str, spec: &Value) -> Result<()> {
        let api: Api<SecretStore> = self.api();
        apply(&api, name, json!({"kind": "SecretStore", "spec": spec})).await
    }

    /// Applies a `ClusterSecretStore`.
    pub async fn cluster_store(&self, name: &str, spec: &Value) -> Result<()> {
        let api: Api<ClusterSecretStore> = Api::all(self.kubernetes.client());
        apply(&api, name, json!({"kind": "ClusterSecretStore", "spec": spec})).await
    }

    /// Applies a `SyncedSecret`.
    pub async fn synced(&self, name: &str, spec: &Value) -> Result<()> {
        apply(
            &self.api::<SyncedSecret>(),
            name,
            json!({"kind": "SyncedSecret", "spec": spec}),
        )
        .await
    }

    /// Applies a `SyncedSecret` of one path of store `vault`.
    pub async fn synced_path(&self, name: &str, path: &str) -> Result<()> {
        self.synced(
            name,
            &json!({"sources": [{"storeRef": {"name": "vault"}, "path": path}]}),
        )
        .await
    }

    /// A scene with its operator, where object `db` holds [`FIRST`] of path `apps/db`. `more` joins its spec.
    pub async fn with_db(case: &'a Case, kv: Kv, more: &Value) -> Result<(Scene<'a>, Operator)> {
        let scene = Self::new(case, kv).await?;
        scene.write("apps/db", &json!({"password": "first"})).await?;
        let operator = scene.operator().await?;
        scene.synced("db", &often_with(&[path("apps/db")], more)).await?;
        scene.holds("db", &FIRST).await?;
        scene.ready("db").await?;
        Ok((scene, operator))
    }

    /// Sets an annotation of a `SyncedSecret`.
    pub async fn annotate(&self, name: &str, annotation: &str, value: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        self.api::<SyncedSecret>()
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }

    /// Asks for a refresh now.
    pub async fn refresh(&self, name: &str) -> Result<()> {
        self.annotate(name, keyward_crds::REFRESH_ANNOTATION, &self.case.unique())
            .await
    }

    /// Makes a status say that a higher version of a later time was accepted from a source, as it does where the store
    /// was put back to an older state.
    pub async fn accepted(&self, name: &str, source: usize, number: u64) -> Result<()> {
        let at = |field: &str| format!("/status/versions/{source}/{field}");
        let patch = json!([
            {"op": "add", "path": at("number"), "value": number},
            {"op": "add", "path": at("created"), "value": "2099-01-01T00:00:00Z"},
        ]);
        let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
        self.api::<SyncedSecret>()
            .patch_status(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Deletes a `SyncedSecret`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.api::<SyncedSecret>()
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Waits until the object's `Ready` condition has this reason, and returns the object.
    pub async fn reason(&self, name: &str, reason: &str) -> Result<SyncedSecret> {
        self.until(name, reason, |object| {
            object
                .status
                .as_ref()
                .and_then(|status| ready_of(&status.conditions))
                .is_some_and(|ready| ready.reason == reason)
        })
        .await
    }

    /// Waits until the object is synced at its present generation.
    pub async fn ready(&self, name: &str) -> Result<SyncedSecret> {
        self.until(name, "Synced at its present generation", |object| {
            let Some(status) = &object.status else {
                return false;
            };
            status.observed_generation == object.metadata.generation
                && ready_of(&status.conditions).is_some_and(|ready| ready.status == "True")
        })
        .await
    }

    /// Waits until the object is as `wanted` says.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&SyncedSecret) -> bool,
    ) -> Result<SyncedSecret> {
        let api: Api<SyncedSecret> = self.api();
        let found = poll::some(what, SOON, || async {
            let object = api.get_opt(name).await.ok()??;
            wanted(&object).then_some(object)
        })
        .await;
        if found.is_err() {
            let now = api.get_opt(name).await?.and_then(|object| object.status);
            let now = serde_json::to_string(&now)?;
            bail!("SyncedSecret {name} never was {what}; its status is {now}");
        }
        found
    }

    /// The present status of a `SecretStore`, once its `Ready` condition has this reason.
    pub async fn store_reason(&self, name: &str, reason: &str) -> Result<StoreStatus> {
        let api: Api<SecretStore> = self.api();
        poll::some(&format!("store {name} with {reason}"), SOON, || async {
            let status = api.get_opt(name).await.ok()??.status?;
            ready_of(&status.conditions)
                .is_some_and(|ready| ready.reason == reason)
                .then_some(status)
        })
        .await
    }

    /// Changes a Secret as a person would.
    pub async fn edit(&self, name: &str, change: &Value) -> Result<()> {
        let params = PatchParams {
            field_manager: Some("by-hand".into()),
            ..PatchParams::default()
        };
        self.api::<Secret>()
            .patch(name, &params, &Patch::Merge(change))
            .await?;
        Ok(())
    }

    /// The values of a Secret; `None` where there is none.
    pub async fn values(&self, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
        let secret = self.api::<Secret>().get_opt(name).await?;
        Ok(secret.map(|secret| {
            let data = secret.data.unwrap_or_default();
            data.into_iter().map(|(key, value)| (key, value.0)).collect()
        }))
    }

    /// Waits until the Secret that is called as its `SyncedSecret` holds exactly these texts.
    pub async fn holds(&self, name: &str, wanted: &[(&str, &str)]) -> Result<()> {
        self.holds_in(name, name, wanted).await
    }

    /// Waits until the Secret `name` of a `SyncedSecret` holds exactly these texts.
    pub async fn holds_in(&self, object: &str, name: &str, wanted: &[(&str, &str)]) -> Result<()> {
        let wanted: BTreeMap<String, Vec<u8>> = wanted
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let held = poll::until("the Secret's values", SOON, || async {
            self.values(name)
                .await
                .is_ok_and(|values| values.as_ref() == Some(&wanted))
        })
        .await;
        if held.is_err() {
            let keys = self
                .values(name)
                .await?
                .map(|values| values.into_keys().collect::<Vec<_>>());
            let status = self
                .api::<SyncedSecret>()
                .get_opt(object)
                .await?
                .and_then(|object| object.status);
            bail!(
                "Secret {name} has keys {keys:?} and other values than wanted; status {}",
                serde_json::to_string(&status)?
            );
        }
        Ok(())
    }

    /// The ends of both audit logs: of the store and of the API server. The store's is looked at last: of its requests the
    /// number of turns is counted, and looking at the other's takes time.
    pub async fn marks(&self) -> Result<(Mark, Mark)> {
        let cluster = self.kubernetes.audit().mark().await?;
        Ok((self.vault.audit().mark()?, cluster))
    }

    /// What the operator of this namespace has asked of the API server since `mark`, but for its lease and its watches.
    pub async fn asked_of_kubernetes(&self, mark: Mark) -> Result<Vec<ApiRequest>> {
        let user = format!("system:serviceaccount:{}:keyward", self.namespace);
        let requests = self.kubernetes.audit().since(mark).await?;
        Ok(requests
            .into_iter()
            .filter(|request| request.user == user)
            .filter(|request| request.verb != "watch" && request.resource != "leases")
            .collect())
    }

    /// What has been asked since `mark` of this scene's mount and of its way to log in.
    pub fn asked_of_vault(&self, mark: Mark) -> Result<Vec<StoreRequest>> {
        let requests = self.vault.audit().since(mark)?;
        Ok(requests
            .into_iter()
            .filter(|request| request.path.contains(&self.mount))
            .filter(|request| request.display_name != "root")
            .collect())
    }

    /// Waits until the operator has looked at an object's sources once more than it has by now.
    pub async fn looked_again(&self, operator: &Operator, name: &str) -> Result<()> {
        let before = self.state(operator, name, "lastCheck").await;
        poll::until(&format!("another look for {name}"), SOON, || async {
            let now = self.state(operator, name, "lastCheck").await;
            !now.is_null() && now != before
        })
        .await
    }

    /// Waits until the operator has looked at an object's sources since then.
    pub async fn looked_since(&self, operator: &Operator, name: &str, moment: DateTime<Utc>) -> Result<()> {
        poll::until(&format!("a look for {name}"), SOON, || async {
            let look = self.state(operator, name, "lastCheck").await;
            let look = look.as_str().map(DateTime::parse_from_rfc3339);
            look.is_some_and(|look| look.is_ok_and(|look| look >= moment))
        })
        .await
    }

    /// Asks for a refresh now and waits until the operator has tried, with or without success: it has set another
    /// time for the next look.
    pub async fn refreshed(&self, operator: &Operator, name: &str) -> Result<()> {
        let before = self.state(operator, name, "nextRefresh").await;
        self.refresh(name).await?;
        poll::until(&format!("another attempt for {name}"), SOON, || async {
            let now = self.state(operator, name, "nextRefresh").await;
            !now.is_null() && now != before
        })
        .await
    }

    /// Waits until this operator has tried an object, with or without success. What an earlier one wrote says nothing.
    pub async fn tried(&self, operator: &Operator, name: &str) -> Result<()> {
        poll::until(&format!("an attempt for {name}"), SOON, || async {
            !self.state(operator, name, "nextRefresh").await.is_null()
        })
        .await
    }

    /// What the operator knows of an object; null where it does not know the object yet.
    pub async fn state(&self, operator: &Operator, name: &str, field: &str) -> Value {
        let state = operator.state(&self.namespace, name).await;
        state.map_or(Value::Null, |mut state| state[field].take())
    }

    /// A typed API of the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.kubernetes.client(), &self.namespace)
    }
}

/// The `Ready` condition among these.
pub fn ready_of(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// All of one path of store `vault`.
pub fn path(path: &str) -> Value {
    json!({"storeRef": {"name": "vault"}, "path": path})
}

/// The spec of an object with these sources that is looked at as often as is allowed.
pub fn often(sources: &[Value]) -> Value {
    json!({"sources": sources, "refresh": {"interval": format!("{}s", TURN.as_secs())}})
}

/// How many turns of [`often`] can have begun since then, one that was late included. On a busy machine a test takes longer
/// than the turns that it waits for.
pub fn turns_since(moment: Instant) -> usize {
    usize::try_from(moment.elapsed().as_secs() / TURN.as_secs()).expect("a test ends") + 2
}

/// The same with further fields of the spec.
pub fn often_with(sources: &[Value], more: &Value) -> Value {
    let mut spec = often(sources);
    let fields = spec.as_object_mut().expect("a spec is an object");
    fields.extend(more.as_object().expect("fields are an object").clone());
    spec
}

/// The policies that remove whatever may be removed.
pub fn strictest() -> Value {
    json!({"whenGone": {"deleted": "DeleteSecret", "destroyed": "DeleteSecret"}})
}

/// The acknowledgement that a message asks for.
pub fn acknowledgement_in(message: &str) -> Result<&str> {
    message
        .split_once(&format!("{ACKNOWLEDGE_ANNOTATION}: "))
        .and_then(|(_, rest)| rest.split('`').next())
        .with_context(|| format!("the message names no acknowledgement: {message}"))
}

/// The message of the object's `Ready` condition.
pub fn message_of(object: &SyncedSecret) -> Result<&str> {
    let status = object.status.as_ref().context("there is no status")?;
    Ok(&ready_of(&status.conditions)
        .context("there is no Ready condition")?
        .message)
}

/// Applies an object that has a `kind` and whatever goes below it.
pub async fn apply<K>(api: &Api<K>, name: &str, mut object: Value) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    object["apiVersion"] = K::api_version(&()).into();
    object["metadata"] = json!({"name": name});
    api.patch(name, &PatchParams::apply(AUTHOR).force(), &Patch::Apply(&object))
        .await?;
    Ok(())
}
