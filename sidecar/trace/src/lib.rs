//! Distributed tracing: the context of a call in W3C form, the spans that this
//! sidecar makes, which of them are sampled, and the collectors that get them.
//! <https://docs.dapr.io/operations/observability/tracing/>
//!
//! A span that begins with a request writes its context into the headers of
//! that request. All that comes after passes headers on, so nothing on the way
//! has to know of spans.

pub mod baggage;
pub mod context;
mod export;
mod parent;
mod sampler;
mod settings;
mod span;
pub mod state;
mod traced;
mod tracer;

pub use context::{
    BINARY, BINARY_NOTHING, Context, NOTHING, TRACEPARENT, TRACESTATE, is_valid, of_binary,
    to_binary,
};
pub use export::{Counts, Exporting};
pub use parent::Parent;
pub use settings::{Error, Settings};
pub use span::{Kind, Name, Recording, Span, cut};
pub use traced::{Traced, Wire};
pub use tracer::Tracer;
