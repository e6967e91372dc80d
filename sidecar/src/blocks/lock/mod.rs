//! Locks.
//! <https://docs.dapr.io/developing-applications/building-blocks/distributed-lock/>

mod decode;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
mod prefix;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use outrider_components::lock as component;
use outrider_components::{Error as Cause, Registry, Table};
use outrider_metrics::Metrics;
use outrider_resiliency as resiliency;

use self::prefix::Prefix;
use crate::blocks::descriptor::{self, Method, Route, V1_ALPHA1};
use crate::components::block::{ComponentBlock, ToConnect};
use crate::components::instance::Instance;
use crate::components::map::Map;

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[
        Route {
            name: "TryLock",
            verbs: descriptor::POST,
            versions: &[V1_ALPHA1],
            path: "lock/{}",
            group: "lock",
            answer: |apis, request, names| {
                Box::pin(http::try_lock(&apis.lock, request, names.first))
            },
        },
        Route {
            name: "Unlock",
            verbs: descriptor::POST,
            versions: &[V1_ALPHA1],
            path: "unlock/{}",
            group: "unlock",
            answer: |apis, request, names| Box::pin(http::unlock(&apis.lock, request, names.first)),
        },
    ],
    methods: &[
        Method::new("TryLockAlpha1", V1_ALPHA1, "lock"),
        Method::new("UnlockAlpha1", V1_ALPHA1, "unlock"),
    ],
    errors: &[
        ("ERR_LOCK_", "lock"),
        ("ERR_TRY_LOCK", "lock"),
        ("ERR_UNLOCK", "lock"),
    ],
};

/// Operations on the lock stores of this sidecar.
pub struct Api {
    pub stores: Arc<Map<Store>>,
}

/// A lock store that is in use.
pub struct Store {
    pub instance: Instance<dyn component::Store>,
    pub prefix: Prefix,
}

impl ComponentBlock for Store {
    type Trait = dyn component::Store;
    type Settings = Prefix;

    const CATEGORY: &'static str = "lock";
    const COMPONENT_TYPE: resiliency::Block = resiliency::Block::Lock;

    fn table(registry: &Registry) -> &Table<dyn component::Store> {
        &registry.lock
    }

    fn settings(new: &ToConnect<'_>) -> Result<Prefix, String> {
        let (app_id, name) = (&new.context.app_id, &new.resource.metadata.name);
        Prefix::new(new.metadata.get("keyPrefix"), app_id, name)
            .map_err(|illegal| format!("failed to save lock keyprefix: {illegal}"))
    }

    fn capabilities(_: &dyn component::Store) -> Vec<&'static str> {
        Vec::new()
    }

    fn new(instance: Instance<dyn component::Store>, prefix: Prefix, _: &Metrics) -> Self {
        Self { instance, prefix }
    }

    fn instance(&self) -> &Instance<dyn component::Store> {
        &self.instance
    }

    fn close(store: &dyn component::Store) -> BoxFuture<'_, Result<(), Cause>> {
        store.close()
    }
}
