//! Questions to stores with their last answers: one request under way for each, and everybody who asks meanwhile waits
//! for it.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyward_core::fault::Fault;
use tokio::time::Instant;

use crate::stores::Outcome;

/// How long an answer may serve; longer than the intervals that objects are looked at in.
pub(super) const FORGOTTEN: Duration = Duration::from_hours(25);

/// What was asked of stores, by door and question.
pub(super) struct Questions<Q, A>(pub(super) Mutex<HashMap<(u64, Q), Question<A>>>);

/// A question to a store: whoever locks it asks, and everybody else waits for the answer.
pub(super) type Question<A> = Arc<tokio::sync::Mutex<Asked<A>>>;

/// What became of a question.
pub(super) struct Asked<A> {
    /// The last answer, and when it was asked for.
    pub(super) answer: Option<(A, Instant)>,
    /// Apart, because it is rare and large.
    failure: Option<Box<(Fault, Instant)>>,
}

/// The answer to a question, as of `since` or later, and when it was asked.
pub(super) async fn ask<A: Clone>(
    question: &Question<A>,
    since: Instant,
    store: impl AsyncFnOnce() -> Outcome<A>,
) -> Outcome<(A, Instant)> {
    let asked = Instant::now();
    let mut state = question.lock().await;
    if let Some(answer) = state.answer.as_ref().filter(|(_, at)| *at >= since) {
        return Ok(answer.clone());
    }
    state.shared_failure(asked)?;
    let started = Instant::now();
    match store().await {
        Ok(answer) => Ok(state.answer.insert((answer, started)).clone()),
        Err(fault) => Err(state.fail(fault)),
    }
}

impl<Q, A> Default for Questions<Q, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Q: Clone + Eq + Hash, A> Questions<Q, A> {
    /// A question to a store.
    pub(super) fn of(&self, store: u64, question: &Q) -> Question<A> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry((store, question.clone())).or_default())
    }

    /// Forgets what was asked through doors that are out of use, and what nobody has asked for long.
    pub(super) fn forget(&self, live: &HashSet<u64>, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(store, _), asked| {
            let in_use = Arc::strong_count(asked) > 1;
            let fresh = |asked: &Asked<A>| asked.last().is_some_and(|at| now < at + FORGOTTEN);
            live.contains(store) && (in_use || asked.try_lock().is_ok_and(|asked| fresh(&asked)))
        });
    }
}

impl<A> Default for Asked<A> {
    fn default() -> Self {
        Self {
            answer: None,
            failure: None,
        }
    }
}

impl<A> Asked<A> {
    /// When it was asked last.
    fn last(&self) -> Option<Instant> {
        let answered = self.answer.as_ref().map(|(_, at)| *at);
        let failed = self.failure.as_ref().map(|failure| failure.1);
        answered.max(failed)
    }

    /// A failure of a request that was under way while the caller waited is the caller's answer too.
    pub(super) fn shared_failure(&self, asked: Instant) -> Outcome<()> {
        match self.failure.as_deref() {
            Some((fault, at)) if *at >= asked => Err(fault.clone()),
            _ => Ok(()),
        }
    }

    /// Notes a failure.
    pub(super) fn fail(&mut self, fault: Fault) -> Fault {
        self.failure = Some(Box::new((fault.clone(), Instant::now())));
        fault
    }
}
