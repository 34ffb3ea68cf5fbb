//! When a lease may be taken. Plain data; every instant is handed in.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

/// A lease as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub holder: String,
    pub duration: Duration,
    pub acquire_time: Option<String>,
    pub transitions: i64,
    pub resource_version: String,
}

/// A record and since when it has been unchanged, as this process saw it.
#[derive(Debug, Clone)]
pub(super) struct Observation {
    pub record: Record,
    since: Instant,
}

/// What a candidate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    Wait,
}

impl Record {
    /// The first record of a lease.
    pub(super) fn fresh(identity: &str, duration: Duration) -> Self {
        Self {
            holder: identity.into(),
            duration,
            acquire_time: None,
            transitions: 0,
            resource_version: String::new(),
        }
    }

    pub(super) fn parse(lease: &Value) -> Self {
        let spec = &lease["spec"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            holder: text(&spec["holderIdentity"]).unwrap_or_default(),
            duration: Duration::from_secs(spec["leaseDurationSeconds"].as_u64().unwrap_or(0)),
            acquire_time: text(&spec["acquireTime"]),
            transitions: spec["leaseTransitions"].as_i64().unwrap_or(0),
            resource_version: text(&lease["metadata"]["resourceVersion"]).unwrap_or_default(),
        }
    }

    /// The record after `identity` has taken the lease.
    pub(super) fn taken_by(&self, identity: &str, duration: Duration) -> Self {
        let same = self.holder == identity;
        Self {
            holder: identity.into(),
            duration,
            acquire_time: self.acquire_time.clone().filter(|_| same),
            transitions: self.transitions + i64::from(!same),
            resource_version: self.resource_version.clone(),
        }
    }

    /// The record after its holder has given the lease up.
    pub(super) fn released(&self) -> Self {
        Self {
            holder: String::new(),
            duration: Duration::from_secs(1),
            ..self.clone()
        }
    }
}

impl Observation {
    /// Takes in a record that was read at `now`.
    pub(super) fn update(before: Option<Self>, record: Record, now: Instant) -> Self {
        match before {
            Some(before) if before.record == record => before,
            _ => Self { record, since: now },
        }
    }

    pub(super) fn judge(&self, identity: &str, now: Instant) -> Verdict {
        let free = self.record.holder.is_empty() || self.record.holder == identity;
        let expired = now.duration_since(self.since) >= self.record.duration;
        if free || expired {
            Verdict::Take
        } else {
            Verdict::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(holder: &str, version: &str) -> Record {
        Record::parse(&json!({
            "metadata": {"resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "acquireTime": "t", "leaseTransitions": 4},
        }))
    }

    #[test]
    fn a_lease_expires_by_not_changing() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let seen = Observation::update(None, record("a", "1"), start);
        assert_eq!(seen.judge("b", at(14)), Verdict::Wait);
        let seen = Observation::update(Some(seen), record("a", "2"), at(14));
        assert_eq!(
            seen.judge("b", at(28)),
            Verdict::Wait,
            "a renewal starts the time anew"
        );
        let seen = Observation::update(Some(seen), record("a", "2"), at(28));
        assert_eq!(seen.judge("b", at(29)), Verdict::Take);
    }

    #[test]
    fn a_free_lease_and_our_own_are_taken_at_once() {
        let now = Instant::now();
        let seen = |holder| Observation::update(None, record(holder, "1"), now);
        assert_eq!(seen("").judge("b", now), Verdict::Take);
        assert_eq!(seen("b").judge("b", now), Verdict::Take);
        assert_eq!(seen("a").judge("b", now), Verdict::Wait);
    }

    #[test]
    fn transitions_count_changes_of_holder() {
        let taken = record("a", "1").taken_by("b", Duration::from_secs(15));
        assert_eq!((taken.transitions, taken.acquire_time), (5, None));
        let kept = record("b", "1").taken_by("b", Duration::from_secs(15));
        assert_eq!((kept.transitions, kept.acquire_time.as_deref()), (4, Some("t")));
    }
}
