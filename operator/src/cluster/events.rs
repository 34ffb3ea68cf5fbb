//! Events (`events.k8s.io/v1`): for people who look at an object, never for programs.
//!
//! Events are queued without waiting and sent by one task. A full queue or a failing API server loses events, counts
//! them, and never delays or fails what they report on. What is sent anew and what only counts up is decided by
//! [`series::Series`].

mod series;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, SecondsFormat, Utc};
use http::Method;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use kube::{Client, Resource};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::ObjectKey;
use super::call::{JSON, MERGE_PATCH, METADATA_ONLY, Question, call, segment};
use super::conditions::clip;
use crate::runtime::clock;
use series::{Next, Series};

/// Events that may wait to be sent.
const QUEUE: usize = 1024;

/// The longest note that the API server accepts, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Who reports, as `reportingController`.
const CONTROLLER: &str = "keyward.dev/operator";

/// Queues events. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    queue: Sender<Event>,
    dropped: Arc<AtomicU64>,
}

/// Sends what was queued; run it as one task.
pub struct EventSender {
    client: Client,
    instance: String,
    queue: Receiver<Event>,
    dropped: Arc<AtomicU64>,
    series: Series,
}

/// The object that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// Its API version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
}

/// How an event is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// For the record.
    Normal,
    /// Somebody should look.
    Warning,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Event {
    regarding: Regarding,
    kind: EventKind,
    reason: Reason,
    note: String,
}

/// A recorder and the task that sends for it. `instance` names this process, such as its pod.
#[must_use]
pub fn events(client: Client, instance: &str) -> (EventRecorder, EventSender) {
    let (sender, receiver) = channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let recorder = EventRecorder {
        queue: sender,
        dropped: Arc::clone(&dropped),
    };
    let sender = EventSender {
        client,
        instance: clip(instance, 128).to_owned(),
        queue: receiver,
        dropped,
        series: Series::default(),
    };
    (recorder, sender)
}

impl Regarding {
    /// An object of kind `K`.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()>>(key: ObjectKey, uid: impl Into<String>) -> Self {
        Self {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            key,
            uid: uid.into(),
        }
    }
}

impl EventRecorder {
    /// Queues an event, or counts it as dropped when the queue is full.
    pub fn publish(&self, regarding: Regarding, kind: EventKind, reason: Reason, note: &str) {
        let event = Event {
            regarding,
            kind,
            reason,
            note: clip(note, LONGEST_NOTE).to_owned(),
        };
        if self.queue.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that were lost since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl EventSender {
    /// Sends until `stop` is cancelled or every recorder is gone, and then what is still queued.
    pub async fn run_until(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let event = tokio::select! {
                event = self.queue.recv() => event,
                () = stop.cancelled() => self.queue.try_recv().ok(),
            };
            match event {
                Some(event) => self.send(event).await,
                None => return Ok(()),
            }
        }
    }

    async fn send(&mut self, event: Event) {
        let (now, clock) = (Instant::now(), clock::now());
        let sent = match self.series.next(now, &event) {
            Next::Create => self.create(&event, clock).await,
            Next::CountUp { name, count } => self.count_up(&event, &name, count, clock).await,
            Next::Nothing => return,
        };
        if let Err(fault) = sent {
            if fault.class == Class::Absent {
                // The event has expired at the server: the next one starts anew.
                self.series.forget(&event);
            }
            self.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%fault, "an event was not recorded");
        }
    }

    async fn create(&mut self, event: &Event, clock: DateTime<Utc>) -> Result<(), Fault> {
        let name = format!(
            "{}.{:016x}",
            clip(&event.regarding.key.name, 230),
            rand::random::<u64>()
        );
        let question = Question {
            what: "recording an event",
            method: Method::POST,
            path: path_of(&event.regarding.key),
            accept: METADATA_ONLY,
            body: Some((JSON, body(&document(event, &name, &self.instance, clock)))),
        };
        call(&self.client, question).await?;
        self.series.created(event, name);
        Ok(())
    }

    async fn count_up(
        &self,
        event: &Event,
        name: &str,
        count: u32,
        clock: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let patch = json!({"series": {"count": count, "lastObservedTime": micros(clock)}});
        let question = Question {
            what: "counting up an event",
            method: Method::PATCH,
            path: format!("{}/{}", path_of(&event.regarding.key), segment(name)),
            accept: METADATA_ONLY,
            body: Some((MERGE_PATCH, body(&patch))),
        };
        call(&self.client, question).await?;
        Ok(())
    }
}

/// Events about objects of the cluster live in `default`.
fn namespace_of(key: &ObjectKey) -> &str {
    if key.namespace.is_empty() {
        "default"
    } else {
        &key.namespace
    }
}

fn path_of(key: &ObjectKey) -> String {
    format!(
        "/apis/events.k8s.io/v1/namespaces/{}/events",
        segment(namespace_of(key))
    )
}

fn document(event: &Event, name: &str, instance: &str, clock: DateTime<Utc>) -> Value {
    let regarding = &event.regarding;
    let mut object = json!({
        "apiVersion": regarding.api_version,
        "kind": regarding.kind,
        "name": &*regarding.key.name,
        "uid": regarding.uid,
    });
    if !regarding.key.namespace.is_empty() {
        object["namespace"] = (&*regarding.key.namespace).into();
    }
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": namespace_of(&regarding.key), "name": name},
        "eventTime": micros(clock),
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
        "action": "Reconcile",
        "type": match event.kind {
            EventKind::Normal => "Normal",
            EventKind::Warning => "Warning",
        },
        "reason": event.reason.as_str(),
        "note": event.note,
        "regarding": object,
    })
}

fn micros(clock: DateTime<Utc>) -> String {
    clock.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn body(document: &Value) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(document.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use keyward_crds::{ClusterSecretStore, SyncedSecret};

    use super::super::call::tests::scripted;
    use super::*;

    fn db() -> Regarding {
        Regarding::of::<SyncedSecret>(ObjectKey::new("apps", "db"), "u1")
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeat_counts_up_the_event_it_repeats() {
        let (client, seen) = scripted(|_| (201, json!({"metadata": {}})));
        let (recorder, sender) = events(client, "keyward-0");
        for _ in 0..2 {
            recorder.publish(
                db(),
                EventKind::Warning,
                Reason::StoreSealed,
                "the store is sealed",
            );
        }
        recorder.publish(
            db(),
            EventKind::Normal,
            Reason::SecretUpdated,
            "2 keys were written",
        );
        drop(recorder);
        sender.run_until(CancellationToken::new()).await.unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[0].path, "/apis/events.k8s.io/v1/namespaces/apps/events");
        assert_eq!(seen[0].body["reason"], "StoreSealed");
        assert_eq!(seen[0].body["regarding"]["kind"], "SyncedSecret");
        let name = seen[0].body["metadata"]["name"].as_str().unwrap();
        assert_eq!(
            seen[1].path,
            format!("/apis/events.k8s.io/v1/namespaces/apps/events/{name}")
        );
        assert_eq!(seen[1].body["series"]["count"], 2);
        assert_eq!(seen[2].body["type"], "Normal");
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_counts() {
        let (client, _) = scripted(|_| (201, json!({"metadata": {}})));
        let (recorder, sender) = events(client, "keyward-0");
        for _ in 0..QUEUE + 3 {
            recorder.publish(db(), EventKind::Normal, Reason::Synced, "");
        }
        assert_eq!(recorder.dropped(), 3);
        drop(sender);
    }

    #[tokio::test]
    async fn a_failing_server_fails_nobody() {
        let (client, _) = scripted(|_| (500, Value::Null));
        let (recorder, sender) = events(client, "keyward-0");
        let store = Regarding::of::<ClusterSecretStore>(ObjectKey::of_cluster("vault"), "u1");
        recorder.publish(store, EventKind::Warning, Reason::Insecure, &"x".repeat(5000));
        let dropped = Arc::clone(&recorder.dropped);
        drop(recorder);
        sender.run_until(CancellationToken::new()).await.unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn objects_of_the_cluster_are_reported_in_default() {
        let event = Event {
            regarding: Regarding::of::<ClusterSecretStore>(ObjectKey::of_cluster("vault"), "u1"),
            kind: EventKind::Warning,
            reason: Reason::Insecure,
            note: String::new(),
        };
        let document = document(&event, "vault.1", "keyward-0", DateTime::UNIX_EPOCH);
        assert_eq!(document["metadata"]["namespace"], "default");
        assert_eq!(document["regarding"].get("namespace"), None);
        assert_eq!(document["eventTime"], "1970-01-01T00:00:00.000000Z");
    }
}
