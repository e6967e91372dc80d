//! The middleware that requests pass, in both directions.

use std::sync::Arc;

use outrider_call::pipeline::Pipeline;
use outrider_crds::configuration::Spec;
use outrider_host::Tasks;

use crate::blocks::Components;
use crate::blocks::middleware::chains::Chains;
use crate::components::live::Live;

/// None where the Configuration lists none.
pub struct Pipelines {
    /// To the HTTP API.
    pub server: Option<Pipeline>,
    /// To the application, and to hosts outside the mesh.
    pub app: Option<Pipeline>,
}

impl Pipelines {
    /// Makes them of the components in use; a task keeps them so.
    pub fn new(spec: &Spec, components: &Components, live: &Arc<Live>, tasks: &Tasks) -> Self {
        let mut chains = Chains::new(components.middleware.clone(), live.clone());
        let pipelines = Self {
            server: chains.add("server", spec.http_pipeline.as_ref()),
            app: chains.add("app", spec.app_http_pipeline.as_ref()),
        };
        let (changes, stopping) = (live.changes(), tasks.stopping());
        tasks.spawn("middleware", async move {
            stopping.run_until_cancelled(chains.follow(changes)).await;
        });
        pipelines
    }
}
