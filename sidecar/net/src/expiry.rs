//! Connections end before the certificates that they were made with.

use std::time::Duration;

use tokio::time::Instant;

/// `margin` before `end`, or a tenth of the time that is left.
pub fn before(end: Instant, margin: Duration) -> Instant {
    let left = end.saturating_duration_since(Instant::now());
    end - margin.min(left / 10)
}
