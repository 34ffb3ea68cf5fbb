//! Waiting for something to become true.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, timeout_at};

const EVERY: Duration = Duration::from_millis(20);

/// Asks until the answer is yes, or the time is over, be it in the middle of a question. `what` appears in the error.
pub async fn until<F: Future<Output = bool>>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<()> {
    some(what, within, || {
        let answer = probe();
        async move { answer.await.then_some(()) }
    })
    .await
}

/// The same for an answer that is of use itself.
pub async fn some<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Ok(Some(answer)) = timeout_at(deadline, probe()).await {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s for {what}", within.as_secs());
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_without_an_answer_ends_in_time() {
        let within = Duration::from_millis(50);
        let error = until("an answer", within, std::future::pending::<bool>).await;
        assert_eq!(error.unwrap_err().to_string(), "waited 0 s for an answer");
    }
}
