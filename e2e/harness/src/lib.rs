//! Runs the real binaries for tests from outside: it starts processes and
//! applications for them, and calls them through their sockets.
//!
//! The binaries are those in `OUTRIDER_BIN_DIR`, or else the ones that cargo
//! built beside the test. Sidecars find each other through a database of each
//! test. For binaries that do not know this, set `OUTRIDER_NAMES=mdns` and run
//! one test at a time, since app ids are then those of the whole network.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use outrider_harness::{Daprd, HttpApp};
//!
//! let app = HttpApp::start(axum::Router::new()).await?;
//! let daprd = Daprd::builder().app_id("cart").app(&app).start().await?;
//! let answer = daprd.http().get("/v1.0/metadata").await?;
//! assert_eq!(answer.json()?["id"], "cart");
//! # Ok(())
//! # }
//! ```

mod app;
mod daprd;
pub mod http;
mod injector;
mod kubernetes;
mod operator;
mod pair;
mod placement;
pub mod pluggable;
pub mod port;
mod process;
mod redis;
mod scheduler;
mod sentry;
mod unverified;
pub mod wait;

pub use app::authority::Authority;
pub use app::grpc::{GrpcApp, feed};
pub use app::http::{HttpApp, Seen};
pub use daprd::{Builder, Daprd};
pub use injector::Injector;
pub use kubernetes::Kubernetes;
pub use operator::Operator;
pub use pair::{Pair, invocation};
pub use placement::Placement;
pub use process::{Process, Signal, binary};
pub use redis::Redis;
pub use scheduler::Scheduler;
pub use sentry::Sentry;
pub use unverified::{UnverifiedClient, channel};
