//! Resources of a sidecar in Kubernetes, which come from the operator.

mod client;
mod events;
pub mod reports;
pub mod stream;

pub use client::{Error, Operator, retry_until_answered};
pub use events::{Event, Events};

/// Of log lines about what the operator sends.
pub(super) const SCOPE: &str = "dapr.runtime.loader.operator";
