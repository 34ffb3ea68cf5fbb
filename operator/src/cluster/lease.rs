//! Leader election: at most one process works at a time.
//!
//! The rules are those of Kubernetes' own components. A lease has expired when its record has not changed for its
//! duration, measured on this process's own monotonic clock: no two clocks are compared. Every write carries the
//! resourceVersion it was planned on. Who cannot renew within the deadline, counted from before the last renewal
//! that worked was sent, stops, and does so before anybody else can take over. What to do is decided by
//! [`election`]; this module asks and writes.

mod election;

use std::time::Duration;

use anyhow::bail;
use chrono::{DateTime, SecondsFormat, Utc};
use http::Method;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::ObjectKey;
use super::call::{Answer, JSON, Question, call, segment};
use crate::runtime::clock;
use election::{Observation, Record, Verdict};

/// How the election is timed. Renewing must fail well before the lease expires.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTiming {
    /// How long a lease holds without being renewed.
    pub duration: Duration,
    /// How long the holder tries to renew before it gives up; shorter than `duration`.
    pub renew_deadline: Duration,
    /// How often the lease is looked at.
    pub retry: Duration,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// One candidate for one lease.
pub struct Candidate {
    client: Client,
    key: ObjectKey,
    identity: String,
    timing: LeaseTiming,
}

/// The lease, held.
pub struct Leadership {
    candidate: Candidate,
    stored: Record,
    /// Before the last write that worked was sent.
    renewed_at: Instant,
}

impl Candidate {
    /// A candidate that calls itself `identity`, which must differ between processes.
    #[must_use]
    pub fn new(client: Client, key: ObjectKey, identity: String, timing: LeaseTiming) -> Self {
        Self {
            client,
            key,
            identity,
            timing,
        }
    }

    /// Waits until the lease is ours. API failures are logged and waited out.
    pub async fn acquire(self) -> Leadership {
        let mut observed: Option<Observation> = None;
        let mut reported = String::new();
        loop {
            match self.try_acquire(&mut observed).await {
                Ok(Some((stored, renewed_at))) => {
                    tracing::info!(lease = %self.key, "this process leads");
                    return Leadership {
                        candidate: self,
                        stored,
                        renewed_at,
                    };
                }
                Ok(None) => {
                    let holder = observed.as_ref().map_or("", |seen| &seen.record.holder);
                    if holder != reported {
                        tracing::info!(lease = %self.key, holder, "another process leads");
                        holder.clone_into(&mut reported);
                    }
                }
                Err(fault) => tracing::warn!(lease = %self.key, %fault, "the lease could not be acquired"),
            }
            sleep(self.timing.retry).await;
        }
    }

    async fn try_acquire(
        &self,
        observed: &mut Option<Observation>,
    ) -> Result<Option<(Record, Instant)>, Fault> {
        let started = Instant::now();
        let Some(record) = self.read().await? else {
            let fresh = Record::fresh(&self.identity, self.timing.duration);
            let stored = self.write(&fresh, None).await?;
            return Ok(Some((stored, started)));
        };
        let seen = Observation::update(observed.take(), record, Instant::now());
        let verdict = seen.judge(&self.identity, Instant::now());
        let record = seen.record.clone();
        *observed = Some(seen);
        match verdict {
            Verdict::Wait => Ok(None),
            Verdict::Take => {
                let started = Instant::now();
                let next = record.taken_by(&self.identity, self.timing.duration);
                let stored = self.write(&next, Some(&record.resource_version)).await?;
                Ok(Some((stored, started)))
            }
        }
    }

    async fn read(&self) -> Result<Option<Record>, Fault> {
        let question = Question {
            what: "reading the lease",
            method: Method::GET,
            path: self.path(),
            accept: JSON,
            body: None,
        };
        match self.ask(question).await {
            Ok(answer) => answer.parse::<Value>().map(|lease| Some(Record::parse(&lease))),
            Err(fault) if fault.class == Class::Absent => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn write(&self, record: &Record, version: Option<&str>) -> Result<Record, Fault> {
        let now = clock::now();
        let document = self.document(record, version, now);
        let question = Question {
            what: "writing the lease",
            method: if version.is_some() {
                Method::PUT
            } else {
                Method::POST
            },
            path: if version.is_some() {
                self.path()
            } else {
                self.collection()
            },
            accept: JSON,
            body: Some((JSON, Zeroizing::new(document.to_string().into_bytes()))),
        };
        let stored: Value = self.ask(question).await?.parse()?;
        Ok(Record::parse(&stored))
    }

    /// Asks within half the time there is for renewing: the next attempt has another connection, where one hangs.
    async fn ask(&self, question: Question<'_>) -> Result<Answer, Fault> {
        let (what, limit) = (question.what, self.timing.renew_deadline / 2);
        let Ok(answer) = timeout(limit, call(&self.client, question)).await else {
            let message = format!("{what}: no answer within {} s", limit.as_secs());
            return Err(Fault::new(Class::Ambiguous, Reason::ClusterUnavailable, message));
        };
        answer.map_err(Fault::from)
    }

    fn document(&self, record: &Record, version: Option<&str>, now: DateTime<Utc>) -> Value {
        let micros = |instant: DateTime<Utc>| instant.to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut metadata = json!({"namespace": &*self.key.namespace, "name": &*self.key.name});
        if let Some(version) = version {
            metadata["resourceVersion"] = version.into();
        }
        let acquired = record.acquire_time.clone().unwrap_or_else(|| micros(now));
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": record.holder,
                "leaseDurationSeconds": record.duration.as_secs().max(1),
                "acquireTime": acquired,
                "renewTime": micros(now),
                "leaseTransitions": record.transitions,
            },
        })
    }

    fn collection(&self) -> String {
        format!(
            "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
            segment(&self.key.namespace)
        )
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), segment(&self.key.name))
    }
}

impl Leadership {
    /// Renews until `release` is cancelled, then gives the lease up. Cancel it only after all work has stopped.
    ///
    /// # Errors
    ///
    /// The lease was lost or could not be renewed in time: stop at once.
    pub async fn hold(mut self, release: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = release.cancelled() => {
                    self.give_up().await;
                    return Ok(());
                }
                () = sleep(self.candidate.timing.retry) => {}
            }
            let deadline = self.renewed_at + self.candidate.timing.renew_deadline;
            match timeout_at(deadline, self.renew()).await {
                Ok(Ok(())) => {}
                Ok(Err(lost @ Lost::Taken(_))) => bail!("{lost}"),
                Ok(Err(Lost::NotYet(fault))) if Instant::now() < deadline => {
                    tracing::warn!(%fault, "the lease was not renewed and is tried again");
                }
                Ok(Err(Lost::NotYet(_))) | Err(_) => bail!(
                    "the lease {} could not be renewed within {} s",
                    self.candidate.key,
                    self.candidate.timing.renew_deadline.as_secs()
                ),
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Lost> {
        let started = Instant::now();
        let version = self.stored.resource_version.clone();
        match self.candidate.write(&self.stored, Some(&version)).await {
            Ok(stored) => {
                self.stored = stored;
                self.renewed_at = started;
                Ok(())
            }
            Err(fault) if matches!(fault.class, Class::Conflict | Class::Ambiguous | Class::Absent) => {
                // Either somebody else wrote, or our own write took place unheard.
                match self.candidate.read().await {
                    Ok(Some(record)) if record.holder == self.candidate.identity => {
                        self.stored = record;
                        Err(Lost::NotYet(fault))
                    }
                    Ok(Some(record)) => Err(Lost::Taken(record.holder)),
                    Ok(None) => Err(Lost::Taken(String::new())),
                    Err(fault) => Err(Lost::NotYet(fault)),
                }
            }
            Err(fault) => Err(Lost::NotYet(fault)),
        }
    }

    async fn give_up(&self) {
        let released = self.stored.released();
        let version = &self.stored.resource_version;
        match self.candidate.write(&released, Some(version)).await {
            Ok(_) => tracing::info!(lease = %self.candidate.key, "the lease is given up"),
            Err(fault) => {
                tracing::warn!(lease = %self.candidate.key, %fault, "the lease was not given up and will expire");
            }
        }
    }
}

/// Why a renewal did not work.
enum Lost {
    /// Somebody else holds it, or it was deleted.
    Taken(String),
    /// It may work next time.
    NotYet(Fault),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken(holder) if holder.is_empty() => f.write_str("the lease was taken away"),
            Self::Taken(holder) => write!(f, "the lease was taken by `{holder}`"),
            Self::NotYet(fault) => write!(f, "{fault}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use http::Request;
    use keyward_stand_ins::kubernetes::ApiServer;
    use kube::client::Body;
    use tower::service_fn;

    use super::super::call::tests::client_of;
    use super::*;

    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/keyward/leases/keyward";

    fn candidate(server: &ApiServer, identity: &str) -> Candidate {
        Candidate::new(
            client_of(server),
            ObjectKey::new("keyward", "keyward"),
            identity.into(),
            LeaseTiming::default(),
        )
    }

    fn holder(server: &ApiServer) -> String {
        let state = server.state();
        let holder = &state.objects[LEASE].body["spec"]["holderIdentity"];
        holder.as_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_given_up_is_taken_at_once() {
        let server = ApiServer::default();
        let first = candidate(&server, "a").acquire().await;
        let release = CancellationToken::new();
        let holding = tokio::spawn(first.hold(release.clone()));
        let waiting = tokio::spawn(candidate(&server, "b").acquire());
        sleep(Duration::from_mins(1)).await;
        assert!(!waiting.is_finished(), "a renewed lease is not taken");
        assert_eq!(holder(&server), "a");
        release.cancel();
        holding.await.unwrap().unwrap();
        let before = Instant::now();
        let second = waiting.await.unwrap();
        assert!(before.elapsed() <= Duration::from_secs(2));
        assert_eq!(second.stored.transitions, 1);
        assert_eq!(holder(&server), "b");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_holder_is_succeeded_after_the_duration_and_not_before() {
        let server = ApiServer::default();
        drop(candidate(&server, "a").acquire().await);
        let before = Instant::now();
        candidate(&server, "b").acquire().await;
        assert!(before.elapsed() >= Duration::from_secs(15));
        assert!(before.elapsed() <= Duration::from_secs(18));
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_renew_stops_before_anybody_can_take_over() {
        let server = ApiServer::default();
        let first = candidate(&server, "a").acquire().await;
        let before = Instant::now();
        server.state().failing = true;
        let error = first.hold(CancellationToken::new()).await.unwrap_err();
        assert!(
            before.elapsed() < Duration::from_secs(12),
            "{:?}",
            before.elapsed()
        );
        assert!(error.to_string().contains("could not be renewed"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_does_not_cost_the_lease() {
        let server = ApiServer::default();
        let hangs = Arc::new(AtomicBool::new(false));
        let (client, hanging) = (client_of(&server), Arc::clone(&hangs));
        let service = service_fn(move |request: Request<Body>| {
            let hangs = request.method() == Method::PUT && hanging.swap(false, Ordering::Relaxed);
            let client = client.clone();
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                client.send(request).await
            }
        });
        let candidate = Candidate {
            client: Client::new(service, "default"),
            ..candidate(&server, "a")
        };
        let release = CancellationToken::new();
        let holding = tokio::spawn(candidate.acquire().await.hold(release.clone()));
        hangs.store(true, Ordering::Relaxed);
        sleep(Duration::from_mins(1)).await;
        assert!(!hangs.load(Ordering::Relaxed), "one request has hung");
        assert!(!holding.is_finished(), "the next one was in time");
        release.cancel();
        holding.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_taken_by_another_is_lost_at_once() {
        let server = ApiServer::default();
        let first = candidate(&server, "a").acquire().await;
        {
            let mut state = server.state();
            let lease = &mut state.objects.get_mut(LEASE).unwrap().body;
            lease["spec"]["holderIdentity"] = "b".into();
            lease["metadata"]["resourceVersion"] = "77".into();
        }
        let error = first.hold(CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "the lease was taken by `b`");
    }
}
