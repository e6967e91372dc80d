//! HTTP middleware: the components, and the chains that the Configuration
//! makes of them.
//! <https://docs.dapr.io/operations/components/middleware/>

pub mod chains;

use futures_util::future::BoxFuture;
use outrider_components::middleware as component;
use outrider_components::{Error as Cause, Missing, Registry, Table};
use outrider_metrics::Metrics;
use outrider_resiliency as resiliency;

use crate::components::block::{ComponentBlock, ToConnect};
use crate::components::instance::Instance;
use crate::components::start::Error;

const SCOPE: &str = "dapr.middleware.http";

/// A middleware that is in use.
pub struct Middleware {
    instance: Instance<dyn component::Middleware>,
}

impl ComponentBlock for Middleware {
    type Trait = dyn component::Middleware;
    type Settings = ();

    const CATEGORY: &'static str = "middleware";
    // No policy applies to middleware: there is no call of it that could be
    // repeated.
    const COMPONENT_TYPE: resiliency::Block = resiliency::Block::Binding;

    fn table(registry: &Registry) -> &Table<dyn component::Middleware> {
        &registry.middleware
    }

    fn not_registered(resource: &outrider_crds::Component, _: Missing) -> Error {
        let (name, spec) = (&resource.metadata.name, &resource.spec);
        let (kind, version) = (&spec.component_type, &spec.version);
        let cause = format!(
            "process component {name} error: HTTP middleware {kind}/{version} has not been registered"
        );
        Error::create(resource, cause)
    }

    fn not_connected(resource: &outrider_crds::Component, cause: &Cause) -> Error {
        let (name, spec) = (&resource.metadata.name, &resource.spec);
        let (kind, version) = (&spec.component_type, &spec.version);
        let cause = format!(
            "process component {name} error: error creating HTTP middleware {kind}/{version}: {cause}"
        );
        Error::create(resource, cause)
    }

    fn settings(_: &ToConnect<'_>) -> Result<(), String> {
        Ok(())
    }

    fn capabilities(_: &dyn component::Middleware) -> Vec<&'static str> {
        Vec::new()
    }

    fn new(instance: Instance<dyn component::Middleware>, (): (), _: &Metrics) -> Self {
        let shown = &instance.description;
        let (kind, version, name) = (&shown.component_type, &shown.version, &shown.name);
        tracing::info!(target: SCOPE, "Adding {kind}/{version} {name} middleware");
        Self { instance }
    }

    fn instance(&self) -> &Instance<dyn component::Middleware> {
        &self.instance
    }

    fn close(middleware: &dyn component::Middleware) -> BoxFuture<'_, Result<(), Cause>> {
        middleware.close()
    }
}
