//! What is said of a failure, in all its places, and that it harms nothing and passes by itself.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::events::v1::Event;
use keyward_crds::{StoreStatus, SyncedSecret};
use keyward_tests::operator::Operator;
use keyward_tests::rig::poll;
use kube::api::{Api, ListParams};

use crate::scene::{SOON, Scene, ready_of};

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
        }
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
        self.suffers(operator, failure).await?;
        mend().await?;
        let after = || format!("after {:?} of {}", failure.reasons, failure.object);
        self.ready(failure.object).await.with_context(after)
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
        let status = self.store_reason(name, reason).await?;
        let ready = ready_of(&status.conditions).context("there is a Ready condition")?;
        ensure!(
            ready.status == "False" && ready.message.contains(words),
            "store {name} does not say `{words}`: {}",
            ready.message
        );
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
