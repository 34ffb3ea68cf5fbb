//! Keeps the condition of each store object true: one pass tries the store and writes what it found, if that is new.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_crds::synced_secret::StoreKind;
use keyward_crds::{ClusterSecretStore, SecretStore, StoreStatus};
use tokio::time::Instant;

use super::StoreKey;
use super::plan::{CredentialHome, InsecureChoice, StoreObject};
use super::registry::{Slot, StoreRegistry};
use crate::cluster::StatusWriter;
use crate::cluster::conditions::{self, Wanted};
use crate::cluster::events::{EventKind, EventRecorder, Regarding};
use crate::runtime::clock;
use crate::runtime::metrics::{Metrics, Outcome as Counted, Readiness};
use crate::stores::Outcome;

/// A store that nobody reads from is tried this often, so that its condition is never stale for long.
const IDLE_CHECK: Duration = Duration::from_mins(10);

/// What a pass needs.
pub struct StoreController {
    /// The stores.
    pub registry: Arc<StoreRegistry>,
    /// Writes conditions.
    pub status: StatusWriter,
    /// Publishes events.
    pub events: EventRecorder,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// As last written.
    statuses: Mutex<HashMap<StoreKey, StoreStatus>>,
}

impl StoreController {
    /// A controller over `registry`.
    #[must_use]
    pub fn new(
        registry: Arc<StoreRegistry>,
        status: StatusWriter,
        events: EventRecorder,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            registry,
            status,
            events,
            metrics,
            statuses: Mutex::default(),
        }
    }

    /// Tries a store and writes its condition. Returns when to come back.
    pub async fn reconcile(&self, key: &StoreKey) -> Option<Instant> {
        let Some(slot) = self.registry.slot(key) else {
            self.known().remove(key);
            return None;
        };
        let outcome = match &slot.object {
            Err(fault) => Err(fault.clone()),
            Ok(store) => self.try_store(&slot, store).await,
        };
        self.count(key, outcome.as_ref().err());
        if outcome.as_ref().is_err_and(|fault| !fault.is_worth_telling()) {
            return Some(Instant::now() + Duration::from_secs(1));
        }
        if let Err(fault) = self.write(key, &slot, outcome.as_ref().err()).await {
            tracing::warn!(store = %key, reason = %fault.reason.as_str(), "{fault}");
            return Some(Instant::now() + Duration::from_secs(2));
        }
        Some(Instant::now() + self.next_check(key, &slot, outcome.err()).await)
    }

    async fn try_store(&self, slot: &Slot, store: &StoreObject) -> Outcome<()> {
        match &store.credentials {
            // There is no credential to try it with; each reader brings its own.
            CredentialHome::Consumer => Ok(()),
            CredentialHome::Namespace(_) => {
                let door = self.registry.door(slot, store, &store.home_for("")).await?;
                door.check().await
            }
        }
    }

    async fn next_check(&self, key: &StoreKey, slot: &Slot, fault: Option<Fault>) -> Duration {
        let Some(fault) = fault else {
            return until_expiry(slot).map_or(IDLE_CHECK, |left| left.min(IDLE_CHECK));
        };
        match fault.reason {
            // The session says when it logs in again, if ever.
            Reason::CredentialRejected => fault.retry_after.unwrap_or(IDLE_CHECK),
            Reason::InsecureExpired => {
                // What was built under the exception ends with it, and so does the use of what was read through it.
                self.registry.end(key).await;
                IDLE_CHECK
            }
            Reason::CredentialMissing
            | Reason::CredentialNotGranted
            | Reason::InsecureRefused
            | Reason::SpecInvalid => IDLE_CHECK,
            _ if fault.class == Class::Transient && slot_is_unbuilt(&fault) => {
                self.registry.retry(key).await;
                Duration::from_secs(2)
            }
            _ => fault.retry_after.unwrap_or(Duration::from_secs(2)),
        }
    }

    async fn write(&self, key: &StoreKey, slot: &Slot, fault: Option<&Fault>) -> Outcome<()> {
        let known = self.known().get(key).cloned();
        let seen = slot.object.as_ref().ok().and_then(|store| store.status.clone());
        let old = known.or(seen);
        let mut new = old.clone().unwrap_or_default();
        let generation = slot.identity.generation;
        new.observed_generation = Some(generation);
        let now = clock::now();
        let message = fault.map_or_else(|| ready_message(slot), ToString::to_string);
        let changed = conditions::set(
            &mut new.conditions,
            &Wanted {
                type_: "Ready",
                status: Some(fault.is_none()),
                reason: fault.map_or(Reason::StoreReady, |fault| fault.reason),
                message: &message,
                request_id: fault.and_then(|fault| fault.request_id.as_deref()),
                generation,
            },
            now,
        );
        self.set_insecure(&mut new, slot, now);
        if old.as_ref() == Some(&new) {
            return Ok(());
        }
        let uid = &slot.identity.uid;
        match key.kind {
            StoreKind::SecretStore => {
                self.status
                    .write::<SecretStore, _>(&key.object, uid, None, old.as_ref(), &new)
                    .await?;
            }
            StoreKind::ClusterSecretStore => {
                self.status
                    .write::<ClusterSecretStore, _>(&key.object, uid, None, old.as_ref(), &new)
                    .await?;
            }
        }
        if changed && (fault.is_some() || old.is_some()) {
            self.publish(key, uid, fault, &message);
        }
        self.known().insert(key.clone(), new);
        Ok(())
    }

    fn set_insecure(&self, status: &mut StoreStatus, slot: &Slot, now: chrono::DateTime<chrono::Utc>) {
        let insecure = slot
            .object
            .as_ref()
            .ok()
            .filter(|store| self.registry.check_insecure(store).is_ok())
            .and_then(|store| Some((store, store.insecure.as_ref()?)));
        let Some((store, insecure)) = insecure else {
            conditions::remove(&mut status.conditions, "Insecure");
            return;
        };
        let implications: Vec<_> = store.insecure_choices().into_iter().map(implication).collect();
        let message = format!(
            "{}; given reason: {}; ends at {}; see docs/how-to/secure-a-store.md for the secure setting",
            implications.join("; "),
            insecure.reason,
            insecure.expires.to_rfc3339(),
        );
        let wanted = Wanted {
            type_: "Insecure",
            status: Some(true),
            reason: Reason::Insecure,
            message: &message,
            request_id: None,
            generation: slot.identity.generation,
        };
        if conditions::set(&mut status.conditions, &wanted, now) {
            let regarding = regarding(&store.key, &slot.identity.uid);
            self.events
                .publish(regarding, EventKind::Warning, Reason::Insecure, &message);
        }
    }

    fn publish(&self, key: &StoreKey, uid: &str, fault: Option<&Fault>, message: &str) {
        let (kind, reason) = match fault {
            Some(fault) => (EventKind::Warning, fault.reason),
            None => (EventKind::Normal, Reason::StoreReady),
        };
        self.events.publish(regarding(key, uid), kind, reason, message);
    }

    fn count(&self, key: &StoreKey, fault: Option<&Fault>) {
        let kind = name_of(key.kind);
        match fault {
            None => self.metrics.reconciled(kind, Counted::Success),
            Some(fault) => {
                self.metrics.reconciled(kind, Counted::Failure);
                self.metrics.failed(kind, fault.reason);
            }
        }
    }

    /// Sets the metrics of the stores' health and of insecure choices in use.
    pub fn measure(&self, metrics: &Metrics) {
        for choice in InsecureChoice::ALL {
            metrics.set_insecure(choice.as_str(), self.registry.insecure_stores(choice));
        }
        let stores: Vec<_> = self.registry.all();
        let known = self.known();
        let ready = |key: &StoreKey, slot: &Slot| {
            let status = known.get(key);
            let seen = slot.object.as_ref().ok().and_then(|store| store.status.as_ref());
            let conditions = &status.or(seen)?.conditions;
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
            Some(ready.status == "True")
        };
        for store_kind in [StoreKind::SecretStore, StoreKind::ClusterSecretStore] {
            for (wanted, label) in [
                (Some(true), Readiness::Ready),
                (Some(false), Readiness::NotReady),
                (None, Readiness::Unknown),
            ] {
                let of_kind = stores.iter().filter(|(key, _)| key.kind == store_kind);
                let count = of_kind.filter(|(key, slot)| ready(key, slot) == wanted).count();
                metrics.set_objects(name_of(store_kind), label, count);
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<StoreKey, StoreStatus>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kind, as metrics call it.
fn name_of(kind: StoreKind) -> &'static str {
    match kind {
        StoreKind::SecretStore => "SecretStore",
        StoreKind::ClusterSecretStore => "ClusterSecretStore",
    }
}

/// How long an exception under `insecure:` lasts; zero once it has ended.
fn until_expiry(slot: &Slot) -> Option<Duration> {
    let store = slot.object.as_ref().ok()?;
    let left = store.insecure.as_ref()?.expires - clock::now();
    Some(left.to_std().unwrap_or_default())
}

fn regarding(key: &StoreKey, uid: &str) -> Regarding {
    match key.kind {
        StoreKind::SecretStore => Regarding::of::<SecretStore>(key.object.clone(), uid),
        StoreKind::ClusterSecretStore => Regarding::of::<ClusterSecretStore>(key.object.clone(), uid),
    }
}

fn ready_message(slot: &Slot) -> String {
    match slot.object.as_ref().map(|store| &store.credentials) {
        Ok(CredentialHome::Consumer) => {
            "each reader logs in as its own ServiceAccount; tried when it reads".into()
        }
        _ => "login and read access work".into(),
    }
}

/// A fault at the API server while a door was being built: nothing is wrong with the store itself.
fn slot_is_unbuilt(fault: &Fault) -> bool {
    fault.reason == Reason::ClusterUnavailable
}

fn implication(choice: InsecureChoice) -> &'static str {
    match choice {
        InsecureChoice::PlainHttp => "everybody on the network path can read every value (plain http)",
        InsecureChoice::SkipTlsVerify => {
            "anybody on the network path can pose as the store (certificate not verified)"
        }
        InsecureChoice::ApiServerAudience => {
            "the store can use the ServiceAccount's token against this cluster (audience)"
        }
    }
}
