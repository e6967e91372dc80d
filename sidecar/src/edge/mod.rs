//! What clients and other sidecars connect to, and what every request passes
//! before it reaches a building block.

pub mod allow;
pub mod cors;
pub mod grpc;
pub mod http;
pub mod internal;
pub mod log;
pub mod pipeline;
pub mod public;
pub mod router;
pub mod service;
pub mod spans;
pub mod userinfo;

use outrider_call::pipeline::Pipeline;
use outrider_trace::Tracer;

use crate::blocks;

/// The APIs, and what holds for all requests.
pub struct Apis {
    pub blocks: blocks::Apis,
    pub http_metrics: outrider_metrics::http::Server,
    pub grpc_metrics: outrider_metrics::grpc::Server,
    pub cors: Option<cors::Cors>,
    /// None if calls are not logged.
    pub log: Option<log::Log>,
    pub allowed: allow::Allowed,
    /// Asked of every caller.
    pub token: Option<String>,
    pub tracer: Tracer,
    /// What requests of the HTTP API pass, where the Configuration has any.
    pub pipeline: Option<Pipeline>,
    /// Bytes that a request body may have.
    pub max_body: Option<usize>,
}
