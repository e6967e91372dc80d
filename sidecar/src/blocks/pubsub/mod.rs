//! Publish and subscribe.
//! <https://docs.dapr.io/developing-applications/building-blocks/pubsub/>

pub mod decode;
pub mod envelope;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod scope;
pub mod subscribe;

use std::sync::Arc;

use outrider_components::pubsub;

use crate::components::live;
use outrider_metrics::component::Topics;

/// Operations on the brokers of this sidecar.
pub struct Api {
    pub app_id: String,
    pub brokers: Arc<live::Map<Broker>>,
    pub subscriber: subscribe::Subscriber,
}

/// A broker that is in use.
pub struct Broker {
    pub component: live::Component,
    pub broker: Arc<dyn pubsub::Broker>,
    pub scopes: scope::Scopes,
    /// Put before the names of topics: the namespace, for components that
    /// keep namespaces apart.
    pub prefix: String,
    pub metrics: Topics,
}
