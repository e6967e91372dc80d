//! Secrets.
//! <https://docs.dapr.io/developing-applications/building-blocks/secrets/>

pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod scope;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use outrider_components::{Error as Cause, Registry, Table, secrets};
use outrider_metrics::Metrics;
use outrider_metrics::component::Operations;
use outrider_resiliency as resiliency;

use crate::blocks::descriptor::{self, Method, Route};
use crate::components::block::{ComponentBlock, ToConnect};
use crate::components::instance::Instance;
use crate::components::live::SecretStores;

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[
        Route {
            name: "GetBulkSecret",
            verbs: descriptor::GET,
            versions: &[descriptor::V1],
            path: "secrets/{}/bulk",
            group: "secrets",
            answer: |apis, request, names| {
                Box::pin(http::bulk_get(&apis.secrets, request, names.first))
            },
        },
        Route {
            name: "GetSecret",
            verbs: descriptor::GET,
            versions: &[descriptor::V1],
            path: "secrets/{}/{}",
            group: "secrets",
            answer: |apis, request, names| {
                Box::pin(http::get(&apis.secrets, request, names.first, names.second))
            },
        },
    ],
    methods: &[
        Method::new("GetSecret", descriptor::V1, "secrets"),
        Method::new("GetBulkSecret", descriptor::V1, "secrets"),
    ],
    errors: &[
        ("ERR_SECRET_", "secret"),
        ("ERR_PERMISSION_DENIED", "secret"),
    ],
};

/// Operations on the secret stores of this sidecar.
pub struct Api {
    pub stores: Arc<SecretStores>,
    /// By store.
    pub scopes: HashMap<String, scope::Scope>,
}

/// A secret store that is in use.
pub type Store = Instance<dyn secrets::Store>;

impl ComponentBlock for Store {
    type Trait = dyn secrets::Store;
    type Settings = ();

    const CATEGORY: &'static str = "secretstores";
    const COMPONENT_TYPE: resiliency::Block = resiliency::Block::SecretStore;

    fn table(registry: &Registry) -> &Table<dyn secrets::Store> {
        &registry.secrets
    }

    fn settings(_: &ToConnect<'_>) -> Result<(), String> {
        Ok(())
    }

    fn capabilities(store: &dyn secrets::Store) -> Vec<&'static str> {
        let features = store.features();
        features.iter().map(|feature| feature.name()).collect()
    }

    fn operations(metrics: &Metrics, name: &str) -> Operations {
        metrics.secrets(name)
    }

    fn new(instance: Store, (): (), _: &Metrics) -> Self {
        instance
    }

    fn instance(&self) -> &Store {
        self
    }

    fn close(store: &dyn secrets::Store) -> BoxFuture<'_, Result<(), Cause>> {
        store.close()
    }
}
