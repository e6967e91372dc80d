//! Configuration.
//! <https://docs.dapr.io/developing-applications/building-blocks/configuration/>

mod deliver;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod subscriptions;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use outrider_call::channel::Channel;
use outrider_components::configuration as component;
use outrider_components::{Error as Cause, Registry, Table};
use outrider_metrics::Metrics;
use outrider_metrics::component::Operations;
use outrider_resiliency as resiliency;

use self::subscriptions::Subscriptions;
use crate::blocks::descriptor::{self, Method, Route, V1, V1_ALPHA1};
use crate::components::block::{ComponentBlock, ToConnect};
use crate::components::instance::Instance;
use crate::components::map::Map;

const SCOPE: &str = "dapr.runtime.configuration";
const GROUP: &str = "configuration";

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[
        Route {
            name: "GetConfiguration",
            verbs: descriptor::GET,
            versions: &[V1, V1_ALPHA1],
            path: "configuration/{}",
            group: GROUP,
            answer: |apis, request, names| {
                Box::pin(http::get(&apis.configuration, request, names.first))
            },
        },
        Route {
            name: "SubscribeConfiguration",
            verbs: descriptor::GET,
            versions: &[V1, V1_ALPHA1],
            path: "configuration/{}/subscribe",
            group: GROUP,
            answer: |apis, request, names| {
                Box::pin(http::subscribe(&apis.configuration, request, names.first))
            },
        },
        Route {
            name: "UnsubscribeConfiguration",
            verbs: descriptor::GET,
            versions: &[V1, V1_ALPHA1],
            path: "configuration/{}/{}/unsubscribe",
            group: GROUP,
            answer: |apis, _, names| {
                Box::pin(http::unsubscribe(
                    &apis.configuration,
                    names.first,
                    names.second,
                ))
            },
        },
    ],
    methods: &[
        Method::new("GetConfiguration", V1, GROUP),
        Method::new("GetConfigurationAlpha1", V1_ALPHA1, GROUP),
        Method::new("SubscribeConfiguration", V1, GROUP),
        Method::new("SubscribeConfigurationAlpha1", V1_ALPHA1, GROUP),
        Method::new("UnsubscribeConfiguration", V1, GROUP),
        Method::new("UnsubscribeConfigurationAlpha1", V1_ALPHA1, GROUP),
    ],
    errors: &[("ERR_CONFIGURATION_", "configuration")],
};

/// Operations on the configuration stores of this sidecar.
pub struct Api {
    pub stores: Arc<Map<Store>>,
    pub subscriptions: Subscriptions,
    /// The application, which gets the changes of subscriptions over HTTP.
    pub channel: Option<Arc<Channel>>,
    pub resiliency: resiliency::Resiliency,
}

/// A configuration store that is in use.
pub type Store = Instance<dyn component::Store>;

impl ComponentBlock for Store {
    type Trait = dyn component::Store;
    type Settings = ();

    const CATEGORY: &'static str = "configuration";
    const COMPONENT_TYPE: resiliency::Block = resiliency::Block::Configuration;

    fn table(registry: &Registry) -> &Table<dyn component::Store> {
        &registry.configuration
    }

    fn settings(_: &ToConnect<'_>) -> Result<(), String> {
        Ok(())
    }

    fn capabilities(_: &dyn component::Store) -> Vec<&'static str> {
        Vec::new()
    }

    fn operations(metrics: &Metrics, name: &str) -> Operations {
        metrics.configuration(name)
    }

    fn new(instance: Store, (): (), _: &Metrics) -> Self {
        instance
    }

    fn instance(&self) -> &Store {
        self
    }

    fn close(store: &dyn component::Store) -> BoxFuture<'_, Result<(), Cause>> {
        store.close()
    }
}
