//! Waiting for conditions, never for time to pass.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// What a condition of a test may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// Asks again until there is an answer. `what` names the condition in the
/// error.
pub async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("not so after {LONG:?}: {what}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
