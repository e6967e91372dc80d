//! The API: one folder or file per building block. An operation is written
//! once in `ops.rs`; `http.rs` and `grpc.rs` decode and encode.

pub mod allow;
pub mod cors;
pub mod error;
pub mod health;
pub mod invoke;
pub mod json;
pub mod log;
pub mod metadata;
pub mod pubsub;
pub mod router;
pub mod secrets;
pub mod service;
pub mod shutdown;
pub mod state;
pub mod trace;

use crate::metrics;

/// Every block's operations, and what holds for all requests.
pub struct Apis {
    pub state: state::Api,
    pub secrets: secrets::Api,
    pub pubsub: pubsub::Api,
    pub invoke: invoke::Api,
    pub metadata: metadata::Api,
    pub health: health::Api,
    pub shutdown: shutdown::Api,
    pub http_metrics: metrics::http::Server,
    pub grpc_metrics: metrics::grpc::Server,
    pub cors: Option<cors::Cors>,
    /// None if calls are not logged.
    pub log: Option<log::Log>,
    pub allowed: allow::Allowed,
    /// Asked of every caller.
    pub token: Option<String>,
    /// Bytes that a request body may have.
    pub max_body: Option<usize>,
}
