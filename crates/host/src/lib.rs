//! The skeleton that every process shares: runtime, tasks with an owner,
//! signals, readiness, health and metrics listeners.

pub mod crypto;
pub mod health;
pub mod listen;
pub mod metrics;
mod page;
mod readiness;
mod runtime;
pub mod server;
pub mod signal;
mod tasks;

pub use readiness::{Readiness, Target};
pub use runtime::{Workers, main};
pub use tasks::Tasks;

/// The release whose wire behaviour this one is compatible with; clients,
/// charts and log pipelines see it.
pub const VERSION: &str = "1.18.4";
/// Our own version.
pub const OUTRIDER_VERSION: &str = env!("CARGO_PKG_VERSION");
