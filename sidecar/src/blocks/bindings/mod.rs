//! Bindings, in both directions.
//! <https://docs.dapr.io/developing-applications/building-blocks/bindings/>

pub mod decode;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod read;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use outrider_components::bindings::{self as component, Directions};
use outrider_components::{Error as Cause, Missing, Registry, Table};
use outrider_metrics::Metrics;
use outrider_metrics::component::Binding as Counted;
use outrider_resiliency as resiliency;

use crate::blocks::descriptor::{self, Method, Route};
use crate::components::block::{ComponentBlock, ToConnect};
use crate::components::instance::Instance;
use crate::components::map::Map;
use crate::components::start::Error;

const SCOPE: &str = "dapr.runtime.processor.binding";

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[Route {
        name: "InvokeBinding",
        verbs: descriptor::POST_OR_PUT,
        versions: &[descriptor::V1],
        path: "bindings/{}",
        group: "bindings",
        answer: |apis, request, names| Box::pin(http::invoke(&apis.bindings, request, names.first)),
    }],
    methods: &[Method::new("InvokeBinding", descriptor::V1, "bindings")],
    errors: &[("ERR_INVOKE_OUTPUT_BINDING", "binding")],
};

/// Operations on the bindings of this sidecar.
#[derive(Clone)]
pub struct Api {
    pub bindings: Arc<Map<Binding>>,
}

/// A binding that is in use.
pub struct Binding {
    pub instance: Instance<component::Binding>,
    pub settings: Settings,
    pub metrics: Counted,
}

/// What the sidecar itself reads of a binding's metadata.
pub struct Settings {
    /// The application's path for its events.
    pub route: String,
    /// Whether events are read without asking the application first.
    pub reads_unasked: bool,
}

impl ComponentBlock for Binding {
    type Trait = component::Binding;
    type Settings = Settings;

    const CATEGORY: &'static str = "bindings";
    const COMPONENT_TYPE: resiliency::Block = resiliency::Block::Binding;

    fn table(registry: &Registry) -> &Table<component::Binding> {
        &registry.bindings
    }

    fn not_registered(resource: &outrider_crds::Component, _: Missing) -> Error {
        Error::NoBinding(resource.log_name())
    }

    fn settings(new: &ToConnect<'_>) -> Result<Settings, String> {
        let directions = Directions::of(&new.metadata);
        let route = new.metadata.text("route");
        Ok(Settings {
            route: route.unwrap_or(&new.resource.metadata.name).to_owned(),
            reads_unasked: directions.named && directions.input,
        })
    }

    fn capabilities(binding: &component::Binding) -> Vec<&'static str> {
        let input = binding.input.as_ref().map(|_| "INPUT_BINDING");
        let output = binding.output.as_ref().map(|_| "OUTPUT_BINDING");
        input.into_iter().chain(output).collect()
    }

    fn new(instance: Instance<component::Binding>, settings: Settings, metrics: &Metrics) -> Self {
        let (inner, shown) = (instance.direct(), &instance.description);
        if inner.input.is_some() {
            tracing::info!(target: SCOPE, "successful init for input binding ({shown})");
        }
        if inner.output.is_some() {
            tracing::info!(target: SCOPE, "successful init for output binding ({shown})");
        }
        let metrics = metrics.binding(instance.name());
        Self {
            instance,
            settings,
            metrics,
        }
    }

    fn instance(&self) -> &Instance<component::Binding> {
        &self.instance
    }

    fn close(binding: &component::Binding) -> BoxFuture<'_, Result<(), Cause>> {
        Box::pin(binding.close())
    }
}
