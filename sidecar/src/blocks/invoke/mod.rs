//! Calls from one application to another.
//! <https://docs.dapr.io/developing-applications/building-blocks/service-invocation/>

pub mod address;
pub mod error;
pub mod external;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod proxy;
mod replay;

use std::sync::Arc;

use crate::components::map::Map;
use outrider_call::channel::Channel;
use outrider_call::headers::Caller;
use outrider_metrics::service::Calls;
use outrider_resiliency::Resiliency;

use crate::blocks::descriptor::{self, Method};
use outrider_peer::reach::Sidecars;
use outrider_trace::Tracer;

/// The building block. Its routes are all that no other block has.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[],
    methods: &[Method::new("InvokeService", descriptor::V1, GROUP)],
    errors: &[("ERR_DIRECT_INVOKE", "service-invocation")],
};

/// What lists of allowed APIs call it.
pub const GROUP: &str = "invoke";

/// What invocation needs.
pub struct Api {
    pub app_id: String,
    pub namespace: String,
    /// The two as headers.
    pub caller: Caller,
    /// None without an application.
    pub channel: Option<Arc<Channel>>,
    pub sidecars: Sidecars,
    /// Hosts outside the mesh, by the names of their resources.
    pub endpoints: Arc<Map<external::Endpoint>>,
    pub external: external::Client,
    pub calls: Calls,
    pub tracer: Tracer,
    pub resiliency: Resiliency,
}
