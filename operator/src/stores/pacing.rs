//! Calls in turns: one after the other as fast as a store may be asked, and again where it refuses one for being one
//! too many.
//!
//! Who owns the pace is the user of a door. A door that sends many requests for one call lets each of them wait for a turn
//! of its own, and repeats the one that was refused, not all of them.

use futures::future::BoxFuture;
use keyward_core::fault::Fault;
use tokio::time::Instant;

use super::Outcome;

/// Gives out the turns of one store.
pub trait Pacer: Send + Sync {
    /// Waits for the next turn.
    fn turn(&self) -> BoxFuture<'_, ()>;

    /// Takes in how a call ended that was sent in a turn. Says whether it may be sent again.
    fn ended(&self, call: Sent, fault: Option<&Fault>) -> bool;
}

/// When a call was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// This time.
    pub at: Instant,
    /// When it was first wanted: its caller's patience counts from there.
    pub wanted: Instant,
}

/// Every turn comes at once, and no refusal is waited out.
pub struct Unpaced;

impl Pacer for Unpaced {
    fn turn(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn ended(&self, _: Sent, _: Option<&Fault>) -> bool {
        false
    }
}

/// Sends a call when its turn comes.
///
/// # Errors
/// The call's own fault, where it may not be sent again.
pub async fn in_turn<T, F>(pacer: &dyn Pacer, call: impl Fn() -> F) -> Outcome<T>
where
    F: Future<Output = Outcome<T>>,
{
    let wanted = Instant::now();
    loop {
        pacer.turn().await;
        let sent = Sent {
            at: Instant::now(),
            wanted,
        };
        let outcome = call().await;
        if !pacer.ended(sent, outcome.as_ref().err()) {
            return outcome;
        }
    }
}
