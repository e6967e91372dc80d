//! What every component of a building block has to do, whatever is behind it.
//! A component says what it can; the suite runs that, and fails by panicking.

pub mod pubsub;
pub mod secrets;
pub mod server;
pub mod state;

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Waits until `condition` holds.
pub async fn eventually<F: Future<Output = bool>>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> F,
) {
    let deadline = Instant::now() + within;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A name that no other run has used.
fn unique(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().simple())
}
