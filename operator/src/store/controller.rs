//! Keeps the condition of each store object true: one pass tries the store and writes what it found, if that is new.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyward_core::backoff::{delay_after, store_tried_after};
use keyward_core::fault::Fault;
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

/// No store is looked at again sooner.
const SOONEST: Duration = Duration::from_secs(1);

/// Where the book says what to use in place of an insecure choice.
pub const SECURE_SETTINGS: &str = concat!(
    env!("CARGO_PKG_REPOSITORY"),
    "/blob/main/docs/how-to/secure-a-store.md#insecure-choices"
);

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
    known: Mutex<HashMap<StoreKey, Known>>,
}

/// What is remembered of a store object between passes.
#[derive(Default)]
struct Known {
    /// Of which object: another one may come by the name.
    uid: String,
    /// Its status as last written.
    status: Option<StoreStatus>,
    /// Failures in a row.
    failures: u32,
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
            known: Mutex::default(),
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
        if outcome.as_ref().is_err_and(|fault| !fault.is_worth_telling(1)) {
            return Some(Instant::now() + SOONEST);
        }
        let failures = self.failures_of(key, &slot, outcome.is_err());
        if let Err(fault) = self.write(key, &slot, outcome.as_ref().err()).await {
            tracing::warn!(store = %key, reason = %fault.reason.as_str(), "{fault}");
            return Some(Instant::now() + delay_after(&fault, failures, rand::random()));
        }
        Some(Instant::now() + self.next_check(key, &slot, outcome.err(), failures).await)
    }

    async fn try_store(&self, slot: &Slot, store: &StoreObject) -> Outcome<()> {
        self.registry.check_insecure(store)?;
        match &store.credentials {
            CredentialHome::Consumer => self.try_readers(slot).await,
            CredentialHome::Namespace(_) => {
                let door = self.registry.door(slot, store, &store.home_for("")).await?;
                door.check().await
            }
        }
    }

    /// A store without a credential of its own is as good as its readers find it. What is wrong with the credential that
    /// one of them brings is told at that one.
    async fn try_readers(&self, slot: &Slot) -> Outcome<()> {
        let of_the_store = |fault: &Fault| !fault.reason.is_of_the_credential();
        for door in self.registry.doors_of(slot).await {
            let tried = match door {
                Ok(door) if door.failing().as_ref().is_some_and(of_the_store) => door.check().await,
                Ok(_) => Ok(()),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = tried
                && of_the_store(&fault)
            {
                return Err(fault);
            }
        }
        Ok(())
    }

    /// How often in a row the store has failed by now.
    fn failures_of(&self, key: &StoreKey, slot: &Slot, failed: bool) -> u32 {
        self.remember(key, slot, |known| {
            known.failures = if failed {
                known.failures.saturating_add(1)
            } else {
                0
            };
            known.failures
        })
    }

    async fn next_check(&self, key: &StoreKey, slot: &Slot, fault: Option<Fault>, failures: u32) -> Duration {
        let Some(fault) = fault else {
            let expiry = until_expiry(slot).unwrap_or(IDLE_CHECK);
            return expiry.clamp(SOONEST, IDLE_CHECK);
        };
        match fault.reason {
            // The session says when it logs in again.
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
            _ => store_tried_after(&fault, failures, rand::random()),
        }
    }

    async fn write(&self, key: &StoreKey, slot: &Slot, fault: Option<&Fault>) -> Outcome<()> {
        let known = self.remember(key, slot, |known| known.status.clone());
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
        self.remember(key, slot, |known| known.status = Some(new));
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
            "{}; given reason: {}; ends at {}; the secure setting: {SECURE_SETTINGS}",
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
            let status = known.get(key).and_then(|known| known.status.as_ref());
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

    /// Looks at what is remembered of this very object.
    fn remember<T>(&self, key: &StoreKey, slot: &Slot, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known();
        let known = known.entry(key.clone()).or_default();
        if known.uid != slot.identity.uid {
            *known = Known {
                uid: slot.identity.uid.clone(),
                ..Known::default()
            };
        }
        change(known)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<StoreKey, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
