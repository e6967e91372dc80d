//! Publish and subscribe.
//! <https://docs.dapr.io/developing-applications/building-blocks/pubsub/>

mod bulk;
pub mod decode;
pub mod envelope;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod scope;
pub mod subscribe;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use outrider_components::{Error as Cause, Registry, Table, pubsub};
use outrider_metrics::Metrics;
use outrider_metrics::component::Topics;
use outrider_resiliency as resiliency;
use outrider_trace::Tracer;

use crate::blocks::descriptor::{self, Method, Route};
use crate::components::block::{ComponentBlock, ToConnect};
use crate::components::instance::Instance;
use crate::components::map::Map;

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[
        Route {
            name: "BulkPublishEvent",
            verbs: descriptor::POST_OR_PUT,
            versions: &[descriptor::V1, descriptor::V1_ALPHA1],
            path: "publish/bulk/{}/{*}",
            group: "publish",
            answer: |apis, request, names| {
                Box::pin(http::bulk_publish(
                    &apis.pubsub,
                    request,
                    names.first,
                    names.second,
                ))
            },
        },
        Route {
            name: "PublishEvent",
            verbs: descriptor::POST_OR_PUT,
            versions: &[descriptor::V1],
            path: "publish/{}/{*}",
            group: "publish",
            answer: |apis, request, names| {
                Box::pin(http::publish(
                    &apis.pubsub,
                    request,
                    names.first,
                    names.second,
                ))
            },
        },
    ],
    methods: &[
        Method::new("PublishEvent", descriptor::V1, "publish"),
        Method::new("BulkPublishEvent", descriptor::V1, "publish"),
        Method::new("BulkPublishEventAlpha1", descriptor::V1_ALPHA1, "publish"),
        Method::new(
            "SubscribeTopicEventsAlpha1",
            descriptor::V1_ALPHA1,
            "subscribe",
        ),
    ],
    errors: &[
        ("ERR_PUBSUB_", "pubsub"),
        ("ERR_TOPIC_NAME_EMPTY", "pubsub"),
    ],
};

/// Operations on the brokers of this sidecar.
pub struct Api {
    pub app_id: String,
    pub brokers: Arc<Map<Broker>>,
    pub subscriber: subscribe::Subscriber,
    pub tracer: Tracer,
}

/// A broker that is in use. Deliveries have their policies where they are
/// made.
pub struct Broker {
    pub instance: Instance<dyn pubsub::Broker>,
    pub scopes: scope::Scopes,
    /// Put before the names of topics: the namespace, for components that
    /// keep namespaces apart.
    pub prefix: String,
    pub metrics: Topics,
}

impl ComponentBlock for Broker {
    type Trait = dyn pubsub::Broker;
    /// Scopes, and the prefix of topics.
    type Settings = (scope::Scopes, String);

    const CATEGORY: &'static str = "pubsub";
    const COMPONENT_TYPE: resiliency::Block = resiliency::Block::PubSub;

    fn table(registry: &Registry) -> &Table<dyn pubsub::Broker> {
        &registry.pubsub
    }

    fn settings(new: &ToConnect<'_>) -> Result<Self::Settings, String> {
        let scopes = scope::Scopes::new(&new.metadata, &new.context.app_id);
        let mut items = new.resource.spec.metadata.iter();
        let namespaced =
            items.any(|item| outrider_crds::property::text(&item.value).contains("{namespace}"));
        let prefix = namespaced.then(|| new.context.namespace.clone());
        Ok((scopes, prefix.unwrap_or_default()))
    }

    fn capabilities(broker: &dyn pubsub::Broker) -> Vec<&'static str> {
        let features = broker.features();
        features.iter().map(|feature| feature.name()).collect()
    }

    fn new(
        instance: Instance<dyn pubsub::Broker>,
        (scopes, prefix): Self::Settings,
        metrics: &Metrics,
    ) -> Self {
        let metrics = metrics.topics(instance.name());
        Self {
            instance,
            scopes,
            prefix,
            metrics,
        }
    }

    fn instance(&self) -> &Instance<dyn pubsub::Broker> {
        &self.instance
    }

    fn close(broker: &dyn pubsub::Broker) -> BoxFuture<'_, Result<(), Cause>> {
        broker.close()
    }
}
