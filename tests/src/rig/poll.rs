//! Waiting for something to become true.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const EVERY: Duration = Duration::from_millis(20);

/// Asks until the answer is yes. `what` appears in the error.
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

/// Asks until there is an answer, and returns it. `what` appears in the error.
pub async fn some<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = probe().await {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s for {what}", within.as_secs());
        }
        tokio::time::sleep(EVERY).await;
    }
}
