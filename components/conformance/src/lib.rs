//! One suite for each building block. It runs what a component says that it can
//! do, and panics where that fails.

pub mod bindings;
pub mod configuration;
pub mod conversation;
pub mod crypto;
pub mod lock;
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
