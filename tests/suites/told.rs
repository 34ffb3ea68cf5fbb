//! What is said of a failure, in all its places, and that it harms nothing and passes by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::api::events::v1::Event;
use keyward::runtime::clock;
use keyward_crds::{StoreStatus, SyncedSecret};
use keyward_tests::operator::Operator;
use keyward_tests::rig::poll;
use kube::api::{Api, ListParams};

use crate::scene::{SOON, Scene, ready_of};

/// Longer than it takes to mend anything and to see it, also on a slow machine.
pub const A_WHILE: TimeDelta = TimeDelta::seconds(10);

/// So long may it take until an object is tried so rarely.
const RESTS_WITHIN: Duration = Duration::from_mins(2);

/// Whom an event regards, and whom a metric counts. Objects of two kinds may share a name.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    SyncedSecret,
    SecretStore,
    ClusterSecretStore,
}

/// A failure that a `SyncedSecret` goes through.
pub struct Failure<'a> {
    object: &'a str,
    secret: &'a str,
    reasons: Vec<&'a str>,
    words: &'a str,
    kept: Option<BTreeMap<String, Vec<u8>>>,
    at_once: bool,
}

impl<'a> Failure<'a> {
    /// A failure for this reason, of which the condition says these words. There is no Secret yet, and none is made.
    pub fn new(object: &'a str, reason: &'a str, words: &'a str) -> Self {
        Self {
            object,
            secret: object,
            reasons: vec![reason],
            words,
            kept: None,
            at_once: false,
        }
    }

    /// The end of it wakes the object, long before it would be tried again by itself.
    pub fn ends_at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// It is the store that does not work: whoever tries it says why, and whoever looks after that says that it is not ready.
    pub fn of_store(mut self) -> Self {
        self.reasons.push("StoreNotReady");
        self
    }

    /// There is a Secret, and it goes on holding these texts.
    pub fn keeps(mut self, texts: &[(&str, &str)]) -> Self {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let kept = texts.iter().map(|(key, text)| ((*key).to_owned(), bytes(text)));
        self.kept = Some(kept.collect());
        self
    }

    /// The Secret has another name than its object.
    pub fn in_secret(mut self, name: &'a str) -> Self {
        self.secret = name;
        self
    }
}

/// Expects that an object became ready before it was planned to be tried: then somebody woke it.
pub fn woken_before(planned: DateTime<Utc>, object: &SyncedSecret) -> Result<()> {
    let status = object.status.as_ref().context("there is a status")?;
    let ready = ready_of(&status.conditions).context("there is a Ready condition")?;
    let since = ready.last_transition_time.0.to_string();
    ensure!(
        since.parse::<DateTime<Utc>>()? < planned,
        "it was ready at {since}, and nobody woke it: it was planned for {planned}"
    );
    Ok(())
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::SyncedSecret => "SyncedSecret",
            Self::SecretStore => "SecretStore",
            Self::ClusterSecretStore => "ClusterSecretStore",
        }
    }
}

impl Scene<'_> {
    /// Waits for all that is promised of a failure: the condition says its cause in our words, an event and a metric go with
    /// it, and the last good Secret stays.
    pub async fn suffers(&self, operator: &Operator, failure: &Failure<'_>) -> Result<SyncedSecret> {
        let Failure {
            object,
            secret,
            reasons,
            words,
            kept,
            at_once: _,
        } = failure;
        let told = self.told_one(operator, object, reasons, words).await?;
        let held = self.values(secret).await?;
        ensure!(
            &held == kept,
            "with {reasons:?} there is another Secret {secret} than before: it has keys {:?}",
            held.map(|held| held.into_keys().collect::<Vec<_>>())
        );
        Ok(told)
    }

    /// The same, and that it passes without a human's hand: `mend` takes the cause away where it lies, and then the object is
    /// synced again.
    pub async fn survives(
        &self,
        operator: &Operator,
        failure: &Failure<'_>,
        mend: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<SyncedSecret> {
        let after = || format!("after {:?} of {}", failure.reasons, failure.object);
        self.suffers(operator, failure).await?;
        let planned = if failure.at_once {
            Some(self.rests(operator, failure.object).await?)
        } else {
            None
        };
        mend().await?;
        let object = self.ready(failure.object).await.with_context(after)?;
        if let Some(planned) = planned {
            woken_before(planned, &object).with_context(after)?;
        }
        Ok(object)
    }

    /// Waits until an object that fails is not going to be tried for a while by itself. Returns when it is.
    pub async fn rests(&self, operator: &Operator, name: &str) -> Result<DateTime<Utc>> {
        poll::some(
            &format!("a try of {name} that is far away"),
            RESTS_WITHIN,
            || async {
                let next = self.state(operator, name, "nextRefresh").await;
                let next = next.as_str()?.parse().ok()?;
                (next > clock::now() + A_WHILE).then_some(next)
            },
        )
        .await
    }

    /// Waits until a failure is told in all its places: the condition has this reason and these words, an event has the
    /// reason, and the operator has counted it.
    pub async fn told(
        &self,
        operator: &Operator,
        name: &str,
        reason: &str,
        words: &str,
    ) -> Result<SyncedSecret> {
        self.told_one(operator, name, &[reason], words).await
    }

    async fn told_one(
        &self,
        operator: &Operator,
        name: &str,
        reasons: &[&str],
        words: &str,
    ) -> Result<SyncedSecret> {
        let object = self
            .until(name, &format!("{reasons:?} with `{words}`"), |object| {
                let status = object.status.as_ref();
                let ready = status.and_then(|status| ready_of(&status.conditions));
                ready.is_some_and(|ready| {
                    reasons.contains(&ready.reason.as_str())
                        && ready.status == "False"
                        && ready.message.contains(words)
                })
            })
            .await?;
        let status = object.status.as_ref().context("there is a status")?;
        let ready = ready_of(&status.conditions).context("there is a Ready condition")?;
        self.passed_on(operator, Kind::SyncedSecret, name, &ready.reason)
            .await?;
        Ok(object)
    }

    /// The same for a `SecretStore`.
    pub async fn store_told(
        &self,
        operator: &Operator,
        name: &str,
        reason: &str,
        words: &str,
    ) -> Result<StoreStatus> {
        let said = poll::until("a store's words", SOON, || async {
            let status = self.store_reason(name, reason).await;
            status.is_ok_and(|status| {
                ready_of(&status.conditions)
                    .is_some_and(|ready| ready.status == "False" && ready.message.contains(words))
            })
        });
        let said = said.await;
        let status = self.store_reason(name, reason).await?;
        if said.is_err() {
            bail!("store {name} does not say `{words}`: {:?}", status.conditions);
        }
        self.passed_on(operator, Kind::SecretStore, name, reason).await?;
        Ok(status)
    }

    /// Waits until an event and a metric have this reason.
    pub async fn passed_on(&self, operator: &Operator, kind: Kind, name: &str, reason: &str) -> Result<()> {
        self.event_about(kind, name, reason).await?;
        let labels = format!("kind=\"{}\",reason=\"{reason}\"", kind.name());
        operator.counted("keyward_failures_total", &labels, 1.0).await
    }

    /// Waits for an event of this reason about a `SyncedSecret`, and returns its note.
    pub async fn event(&self, name: &str, reason: &str) -> Result<String> {
        self.event_about(Kind::SyncedSecret, name, reason).await
    }

    /// The notes of all events of this reason about a `SyncedSecret`.
    pub async fn events(&self, name: &str, reason: &str) -> Result<Vec<String>> {
        self.events_about(Kind::SyncedSecret, name, reason).await
    }

    /// Waits for an event of this reason about an object, and returns its note.
    pub async fn event_about(&self, kind: Kind, name: &str, reason: &str) -> Result<String> {
        let event = poll::some("an event", SOON, || async {
            self.events_about(kind, name, reason).await.ok()?.pop()
        })
        .await;
        if event.is_err() {
            bail!("no event {reason} about {kind:?} {name}");
        }
        event
    }

    async fn events_about(&self, kind: Kind, name: &str, reason: &str) -> Result<Vec<String>> {
        // An event about an object without a namespace lies in this one.
        let namespace = match kind {
            Kind::ClusterSecretStore => "default",
            _ => &self.namespace,
        };
        let events: Api<Event> = Api::namespaced(self.kubernetes.client(), namespace);
        let about = |event: &Event| {
            let regarding = event.regarding.as_ref();
            event.reason.as_deref() == Some(reason)
                && regarding.is_some_and(|regarding| {
                    regarding.name.as_deref() == Some(name) && regarding.kind.as_deref() == Some(kind.name())
                })
        };
        let events = events.list(&ListParams::default()).await?;
        Ok(events
            .into_iter()
            .filter(about)
            .filter_map(|event| event.note)
            .collect())
    }
}
