//! Publish and subscribe.
//! <https://docs.dapr.io/developing-applications/building-blocks/pubsub/>

use std::sync::Arc;

use outrider_components::pubsub;

use crate::components::live;

/// A broker that is in use.
pub struct Broker {
    pub component: live::Component,
    pub broker: Arc<dyn pubsub::Broker>,
}
