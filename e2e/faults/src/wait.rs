//! Waiting for conditions.

use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_millis(20);

/// Asks until it is so; whether it was within the limit.
pub async fn until<F: Future<Output = bool>>(
    limit: Duration,
    mut is_so: impl FnMut() -> F,
) -> bool {
    let asked = some(limit, || {
        let asked = is_so();
        async { asked.await.then_some(()) }
    });
    asked.await.is_some()
}

/// Asks until there is an answer, if there is one within the limit.
pub async fn some<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    mut ask: impl FnMut() -> F,
) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
