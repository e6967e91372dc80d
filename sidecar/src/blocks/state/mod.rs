//! Key and value state.
//! <https://docs.dapr.io/developing-applications/building-blocks/state-management/>

mod bulk;
pub mod decode;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod prefix;

use std::sync::Arc;

use outrider_components::{Error as Cause, Registry, Table, state};
use outrider_metrics::Metrics;
use outrider_metrics::component::Operations;
use outrider_resiliency as resiliency;

use crate::components::block::{Block, New};
use crate::components::instance::{Call, Instance};
use crate::components::map::Map;

/// Operations on the state stores of this sidecar.
pub struct Api {
    pub app_id: String,
    pub stores: Arc<Map<Store>>,
}

/// A state store that is in use.
pub struct Store {
    pub instance: Instance<dyn state::Store>,
    pub prefix: prefix::Prefix,
}

impl Block for Store {
    type Trait = dyn state::Store;
    type Settings = prefix::Prefix;

    const CATEGORY: &'static str = "state";
    const POLICIES: resiliency::Block = resiliency::Block::StateStore;

    fn table(registry: &Registry) -> &Table<dyn state::Store> {
        &registry.state
    }

    fn settings(new: &New<'_>) -> Result<prefix::Prefix, String> {
        prefix::Prefix::new(
            new.metadata.get("keyPrefix"),
            &new.context.app_id,
            &new.context.namespace,
            &new.resource.metadata.name,
        )
    }

    fn capabilities(store: &dyn state::Store) -> Vec<&'static str> {
        use state::Feature;
        let features = store.features();
        let mut names: Vec<_> = features.iter().map(|feature| feature.name()).collect();
        if features.contains(&Feature::Etag) && features.contains(&Feature::Transactional) {
            names.push("ACTOR");
        }
        names
    }

    fn operations(metrics: &Metrics, name: &str) -> Operations {
        metrics.state(name)
    }

    fn new(instance: Instance<dyn state::Store>, prefix: prefix::Prefix, _: &Metrics) -> Self {
        Self { instance, prefix }
    }

    fn instance(&self) -> &Instance<dyn state::Store> {
        &self.instance
    }

    fn close(store: &dyn state::Store) -> Call<'_, Result<(), Cause>> {
        store.close()
    }
}
