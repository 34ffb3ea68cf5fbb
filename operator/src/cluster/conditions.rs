//! Setting a `meta/v1` Condition by the rules of Kubernetes' API conventions, and only when it says something new.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyward_core::fault::Fault;
use keyward_core::reason::Reason;
use keyward_core::sync::told::Said;

use super::time::to_kubernetes;

/// The longest message in bytes; more would only be cut by whoever prints it.
const LONGEST_MESSAGE: usize = 1024;

/// Introduces the store's request id at the end of a message.
const REQUEST_ID: &str = " (request id ";

/// A condition as it should be.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// `Ready`, `RolledOut` or `Insecure`.
    pub type_: &'a str,
    /// Whether it holds; `None` is `Unknown`.
    pub status: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// The cause, in our words.
    pub message: &'a str,
    /// The store's id of the request that failed.
    pub request_id: Option<&'a str>,
    /// Generation of the spec it speaks of.
    pub generation: i64,
}

impl<'a> Wanted<'a> {
    /// A condition that says this of a spec's generation.
    #[must_use]
    pub fn of(type_: &'a str, said: &'a Said, generation: i64) -> Self {
        Self {
            type_,
            status: said.holds,
            reason: said.reason,
            message: &said.message,
            request_id: None,
            generation,
        }
    }

    /// A `Ready` that does not hold because of a fault, whose `message` this is.
    #[must_use]
    pub fn failing(fault: &'a Fault, message: &'a str, generation: i64) -> Self {
        Self {
            type_: "Ready",
            status: Some(false),
            reason: fault.reason,
            message,
            request_id: fault.request_id.as_deref(),
            generation,
        }
    }
}

/// Sets one condition and returns whether anything changed.
///
/// `lastTransitionTime` moves only when the status flips. While a failure goes on in the same words, the message
/// keeps the request id that it began with, so a failing object is written once and not at every attempt.
pub fn set(conditions: &mut Vec<Condition>, wanted: &Wanted<'_>, now: DateTime<Utc>) -> bool {
    let status = match wanted.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let words = clip(wanted.message, LONGEST_MESSAGE);
    let mut next = Condition {
        last_transition_time: to_kubernetes(now),
        message: with_request_id(words, wanted.request_id),
        observed_generation: Some(wanted.generation),
        reason: wanted.reason.as_str(),
        status: status.into(),
        type_: wanted.type_.into(),
    };
    let Some(current) = conditions
        .iter_mut()
        .find(|condition| condition.type_ == wanted.type_)
    else {
        conditions.push(next);
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        return true;
    };
    if current.status == next.status {
        next.last_transition_time = current.last_transition_time.clone();
        if current.reason == next.reason && without_request_id(&current.message) == words {
            next.message.clone_from(&current.message);
        }
    }
    let changed = *current != next;
    *current = next;
    changed
}

/// Removes a condition and returns whether it was there.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.type_ != type_);
    conditions.len() != before
}

/// Why a condition does not hold; `None` where it holds, is unknown, or is not there.
#[must_use]
pub fn failed_with(conditions: &[Condition], type_: &str) -> Option<Reason> {
    let known = conditions.iter().find(|condition| condition.type_ == type_)?;
    Reason::named(&known.reason).filter(|_| known.status == "False")
}

/// The first `limit` bytes of `text`, cut between characters.
#[must_use]
pub fn clip(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let end = (0..=limit)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    &text[..end]
}

/// The request id at the end of a condition's message.
#[must_use]
pub fn request_id(message: &str) -> Option<String> {
    let (_, id) = message.rsplit_once(REQUEST_ID)?;
    id.strip_suffix(')').map(str::to_owned)
}

fn with_request_id(words: &str, id: Option<&str>) -> String {
    match id {
        Some(id) => format!("{words}{REQUEST_ID}{})", clip(id, 128)),
        None => words.to_owned(),
    }
}

fn without_request_id(message: &str) -> &str {
    match message.rfind(REQUEST_ID) {
        Some(start) if message.ends_with(')') => &message[..start],
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::super::time::from_kubernetes;
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn failing(id: &'static str) -> Wanted<'static> {
        Wanted {
            type_: "Ready",
            status: Some(false),
            reason: Reason::StoreUnavailable,
            message: "the store timed out",
            request_id: Some(id),
            generation: 1,
        }
    }

    #[test]
    fn an_episode_keeps_its_first_request_id() {
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, &failing("r1"), at(0)));
        assert!(!set(&mut conditions, &failing("r2"), at(60)));
        assert_eq!(conditions[0].message, "the store timed out (request id r1)");
        let without = Wanted {
            request_id: None,
            ..failing("")
        };
        assert!(!set(&mut conditions, &without, at(61)));
        let sealed = Wanted {
            reason: Reason::StoreSealed,
            message: "the store is sealed",
            ..failing("r3")
        };
        assert!(set(&mut conditions, &sealed, at(70)));
        assert_eq!(conditions[0].message, "the store is sealed (request id r3)");
        assert_eq!(from_kubernetes(&conditions[0].last_transition_time), at(0));
    }

    #[test]
    fn the_transition_time_moves_with_the_status_alone() {
        let mut conditions = Vec::new();
        set(&mut conditions, &failing("r1"), at(0));
        let ready = Wanted {
            status: Some(true),
            reason: Reason::Synced,
            message: "",
            request_id: None,
            ..failing("")
        };
        assert!(set(&mut conditions, &ready, at(10)));
        assert_eq!(from_kubernetes(&conditions[0].last_transition_time), at(10));
        let newer = Wanted {
            generation: 2,
            ..ready
        };
        assert!(set(&mut conditions, &newer, at(20)));
        assert_eq!(from_kubernetes(&conditions[0].last_transition_time), at(10));
        assert!(!set(&mut conditions, &newer, at(30)));
        assert!(remove(&mut conditions, "Ready"));
        assert!(!remove(&mut conditions, "Ready"));
    }

    #[test]
    fn cuts_fall_between_characters() {
        assert_eq!(clip("häuser", 2), "h");
        assert_eq!(clip("häuser", 3), "hä");
        assert_eq!(clip("haus", 10), "haus");
    }
}
