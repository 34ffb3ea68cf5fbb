//! Many objects of one store, each of a path of its own, looked at in one list.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use keyward::runtime::clock;
use keyward_crds::SyncedSecret;
use keyward_tests::operator::Operator;
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Vault;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::scene::{Scene, message_of, ready_of};
use crate::told::A_WHILE;

/// How long all of them may take, on a machine that runs other tests beside.
const WITHIN: Duration = Duration::from_mins(2);

/// Requests that a test sends at once.
const AT_ONCE: usize = 8;

/// Objects `<name>-0`, `<name>-1` and so on, each of path `<name>/<number>` with one field `value`.
pub struct Many<'a> {
    scene: &'a Scene<'a>,
    name: &'static str,
    count: usize,
}

impl<'a> Many<'a> {
    /// Objects that are neither declared nor have a value yet.
    pub fn new(scene: &'a Scene<'a>, name: &'static str, count: usize) -> Self {
        Self { scene, name, count }
    }

    /// Declares the objects, of this store. `rest` is added to the spec of each.
    pub async fn declare(&self, store: &str, rest: &Value) -> Result<()> {
        self.declare_each(store, |_| rest.clone()).await
    }

    /// Declares the objects, of this store; `rest` says what is added to the spec of each.
    pub async fn declare_each(&self, store: &str, rest: impl Fn(usize) -> Value) -> Result<()> {
        self.each(async |number| {
            let mut spec = rest(number);
            spec["sources"] = json!([{"storeRef": {"name": store}, "path": self.path(number)}]);
            self.scene.synced(&self.object(number), &spec).await
        })
        .await
    }

    /// Writes a value to each path.
    pub async fn write(&self, value: &str) -> Result<()> {
        self.write_to(self.scene.vault, &self.scene.mount, value).await
    }

    /// Writes a value to each path of a mount of the scene's version in another store.
    pub async fn write_to(&self, vault: &Vault, mount: &str, value: &str) -> Result<()> {
        let data = json!({ "value": value });
        let (api, kv) = (vault.api(), self.scene.kv);
        self.each(async |number| {
            api.write_secret(mount, kv, &self.path(number), &data)
                .await
                .map(drop)
        })
        .await
    }

    /// Asks for a refresh of each. Returns the id of the request.
    pub async fn refresh(&self) -> Result<String> {
        let id = self.scene.case.unique();
        self.each(async |number| {
            self.scene
                .annotate(&self.object(number), keyward_crds::REFRESH_ANNOTATION, &id)
                .await
        })
        .await?;
        Ok(id)
    }

    /// Waits until each Secret holds `value`, and no other key.
    pub async fn hold(&self, value: &str) -> Result<()> {
        let api: Api<Secret> = self.scene.api();
        let held = poll::until("the Secrets' values", WITHIN, async || {
            api.list(&ListParams::default())
                .await
                .is_ok_and(|secrets| self.holding(&secrets.items, value) == self.count)
        })
        .await;
        if held.is_err() {
            let secrets = api.list(&ListParams::default()).await?.items;
            let count = self.holding(&secrets, value);
            bail!(
                "{count} of {} hold the value: {}",
                self.count,
                self.reasons().await?
            );
        }
        Ok(())
    }

    /// How many of the Secrets hold `value` and no other key.
    pub async fn count_holding(&self, value: &str) -> Result<usize> {
        let api: Api<Secret> = self.scene.api();
        Ok(self.holding(&api.list(&ListParams::default()).await?.items, value))
    }

    /// Waits until the operator has looked at the source of each since then.
    pub async fn looked_since(&self, operator: &Operator, moment: DateTime<Utc>) -> Result<()> {
        for number in 0..self.count {
            let object = self.object(number);
            self.scene.looked_since(operator, &object, moment).await?;
        }
        Ok(())
    }

    /// Waits until most of those that fail are not going to be tried for a while by themselves. Returns when each is.
    pub async fn waiting_long(&self, operator: &Operator) -> Result<BTreeMap<String, DateTime<Utc>>> {
        poll::some("tries that are far away", WITHIN, async || {
            let planned = self.times(operator, "nextRefresh").await.ok()?;
            let late = clock::now() + A_WHILE;
            let far = planned.values().filter(|next| **next > late).count();
            (far > self.count / 2).then_some(planned)
        })
        .await
    }

    /// Expects that most were looked at before they were planned to be: then somebody woke them.
    pub async fn woken_before(
        &self,
        operator: &Operator,
        planned: &BTreeMap<String, DateTime<Utc>>,
    ) -> Result<()> {
        let looks = self.times(operator, "lastCheck").await?;
        let woken = looks
            .iter()
            .filter(|(name, look)| planned.get(*name) > Some(*look));
        let woken = woken.count();
        ensure!(
            woken > self.count / 2,
            "{woken} of {} were woken: looked at {looks:?}, planned for {planned:?}",
            self.count
        );
        Ok(())
    }

    /// A time that the operator knows of each of the objects.
    async fn times(&self, operator: &Operator, field: &str) -> Result<BTreeMap<String, DateTime<Utc>>> {
        let all: Vec<Value> = serde_json::from_str(&operator.get("/state/syncedsecrets").await?)?;
        let times = all.iter().filter_map(|state| {
            let name = state["name"].as_str().filter(|name| self.is_mine(name))?;
            Some((name.to_owned(), state[field].as_str()?.parse().ok()?))
        });
        Ok(times.collect())
    }

    /// Waits until the `Ready` condition of each has this reason.
    pub async fn reason(&self, reason: &str) -> Result<()> {
        self.until(reason, |object| reason_of(object) == reason).await
    }

    /// Waits until a failure of each is told: its condition has this reason and these words, an event regards it, and the
    /// operator has counted it.
    pub async fn told(&self, operator: &Operator, reason: &str, words: &str) -> Result<()> {
        self.until(reason, |object| {
            reason_of(object) == reason && message_of(object).is_ok_and(|message| message.contains(words))
        })
        .await?;
        for number in 0..self.count {
            self.scene.event(&self.object(number), reason).await?;
        }
        let labels = format!("kind=\"SyncedSecret\",reason=\"{reason}\"");
        let each = f64::from(u32::try_from(self.count)?);
        operator.counted("keyward_failures_total", &labels, each).await
    }

    /// Waits until each is as `wanted` says.
    pub async fn until(&self, what: &str, wanted: impl Fn(&SyncedSecret) -> bool) -> Result<()> {
        let count = async || {
            Some(
                self.objects()
                    .await
                    .ok()?
                    .iter()
                    .filter(|object| wanted(object))
                    .count(),
            )
        };
        let done = poll::until(what, WITHIN, async || count().await == Some(self.count)).await;
        if done.is_err() {
            let count = count().await.unwrap_or_default();
            bail!("{count} of {} were {what}: {}", self.count, self.reasons().await?);
        }
        Ok(())
    }

    /// The objects.
    pub async fn objects(&self) -> Result<Vec<SyncedSecret>> {
        let api: Api<SyncedSecret> = self.scene.api();
        let all = api.list(&ListParams::default()).await?;
        Ok(all
            .into_iter()
            .filter(|object| self.is_mine(&object.name_any()))
            .collect())
    }

    async fn reasons(&self) -> Result<String> {
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for object in self.objects().await? {
            *reasons.entry(reason_of(&object).to_owned()).or_default() += 1;
        }
        serde_json::to_string(&reasons).context("reasons are text")
    }

    fn holding(&self, secrets: &[Secret], value: &str) -> usize {
        let holds = |secret: &Secret| {
            secret.data.as_ref().is_some_and(|data| {
                data.len() == 1 && data.get("value").is_some_and(|held| held.0 == value.as_bytes())
            })
        };
        secrets
            .iter()
            .filter(|secret| self.is_mine(&secret.name_any()) && holds(secret))
            .count()
    }

    fn is_mine(&self, name: &str) -> bool {
        let number = name
            .strip_prefix(self.name)
            .and_then(|rest| rest.strip_prefix('-'));
        number.is_some_and(|number| number.parse::<usize>().is_ok())
    }

    /// The name of an object.
    pub fn object(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    fn path(&self, number: usize) -> String {
        format!("{}/{number}", self.name)
    }

    async fn each(&self, job: impl AsyncFn(usize) -> Result<()>) -> Result<()> {
        let job = &job;
        futures::stream::iter(0..self.count)
            .map(|number| job(number))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }
}

/// The reason of the object's `Ready` condition, or nothing.
pub fn reason_of(object: &SyncedSecret) -> &str {
    object
        .status
        .as_ref()
        .and_then(|status| ready_of(&status.conditions))
        .map_or("", |ready| &ready.reason)
}
