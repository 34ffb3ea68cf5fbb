//! What went wrong at a door, already classified: the one error type that crosses from the edge into decisions.
//!
//! A fault says what was tried, what came back in our own words, and what to do next. It never carries a value,
//! a token or the body of an upstream answer; the upstream request id is the join key to the other side's logs.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::reason::Reason;
use crate::shown::on_one_line;

/// So many conflicts in a row are no longer a coincidence.
const LASTING: u32 = 5;

/// How a fault should be treated, independent of which system produced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Worth trying again soon: a timeout, a reset, a 5xx.
    Transient,
    /// The other side asked for fewer calls.
    Throttled,
    /// A policy or a rejected credential: nothing changes until somebody changes something.
    Denied,
    /// The store is sealed or not initialised: a human acts, and everything resumes by itself.
    Sealed,
    /// What was asked for is not there. Never by itself a ground to delete anything.
    Absent,
    /// What we planned on has changed: plan again.
    Conflict,
    /// The request itself is wrong: nothing changes until the spec does.
    Permanent,
    /// It is unknown whether the effect took place: look before acting.
    Ambiguous,
}

/// A classified failure at a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How to treat it.
    pub class: Class,
    /// The entry of the fixed list that the user will see.
    pub reason: Reason,
    /// What was tried and what came back, lower case, without values.
    pub message: Cow<'static, str>,
    /// What to do next; empty when waiting is all there is to do.
    pub advice: Cow<'static, str>,
    /// The other side's request id, where it gave one.
    pub request_id: Option<String>,
    /// How long the other side asked us to wait.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault with neither advice nor request id yet. Whatever names are in its message, it stays one line.
    pub fn new(class: Class, reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            reason,
            message: on_one_line(message.into()),
            advice: Cow::Borrowed(""),
            request_id: None,
            retry_after: None,
        }
    }

    /// Adds what the user should do next.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.advice = on_one_line(advice.into());
        self
    }

    /// Adds the other side's request id, where it looks like one: whoever answers chooses it.
    #[must_use]
    pub fn with_request_id(mut self, id: Option<String>) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        self.request_id = id.filter(|id| (1..=128).contains(&id.len()) && id.chars().all(plain));
        self
    }

    /// Adds how long the other side asked us to wait.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// Says what it is about, unless it says so already.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        let what = on_one_line(what.to_owned().into());
        if !self.message.contains(&*what) {
            self.message = format!("{what}: {}", self.message).into();
        }
        self
    }

    /// Whether anybody should hear of it, the last of `failures` in a row: where something moved underneath, the next
    /// attempt plans anew, and there is nothing to tell unless that goes on and on.
    #[must_use]
    pub fn is_worth_telling(&self, failures: u32) -> bool {
        self.class != Class::Conflict || failures >= LASTING
    }

    /// Whether time alone may cure it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self.class,
            Class::Transient | Class::Throttled | Class::Sealed | Class::Conflict | Class::Ambiguous
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_cause_and_remedy() {
        let fault = Fault::new(
            Class::Denied,
            Reason::RemoteDenied,
            "reading `apps/db` was denied by the store",
        )
        .advise("grant `read` on the path to the role");
        assert_eq!(
            fault.to_string(),
            "reading `apps/db` was denied by the store; grant `read` on the path to the role"
        );
        assert!(!fault.may_pass() && fault.is_worth_telling(1));
        let moved = Fault::new(Class::Conflict, Reason::Conflict, "it changed");
        assert!(moved.may_pass() && !moved.is_worth_telling(LASTING - 1));
        assert!(moved.is_worth_telling(LASTING), "it does not get through");
    }

    #[test]
    fn what_it_is_about_is_said_once() {
        let fault = Fault::new(Class::Transient, Reason::StoreUnavailable, "the store timed out");
        let about = fault.about("path `apps/db`");
        assert_eq!(about.message, "path `apps/db`: the store timed out");
        assert_eq!(about.clone().about("path `apps/db`"), about);
    }

    #[test]
    fn no_name_in_it_begins_another_line() {
        let fault = Fault::new(
            Class::Absent,
            Reason::RemoteNotFound,
            "`a\n2026 INFO ready` is not there",
        )
        .advise("write `a\r`")
        .about("secret `a\n2026 INFO ready`");
        assert_eq!(
            fault.to_string(),
            r"secret `a\n2026 INFO ready`: `a\n2026 INFO ready` is not there; write `a\r`"
        );
        for (id, kept) in [("req-1.a_B", true), ("", false), ("a b", false), ("a\nb", false)] {
            let fault = fault.clone().with_request_id(Some(id.to_owned()));
            assert_eq!(fault.request_id.is_some(), kept, "{id}");
        }
    }
}
