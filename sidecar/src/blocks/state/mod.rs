//! Key and value state.
//! <https://docs.dapr.io/developing-applications/building-blocks/state-management/>

pub mod decode;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod prefix;

use std::sync::Arc;

use outrider_components::state;

use crate::components::live;
use outrider_metrics::component::Operations;

/// Operations on the state stores of this sidecar.
pub struct Api {
    pub app_id: String,
    pub stores: Arc<live::Map<Store>>,
}

/// A state store that is in use.
pub struct Store {
    pub component: live::Component,
    pub store: Arc<dyn state::Store>,
    pub prefix: prefix::Prefix,
    pub metrics: Operations,
}
