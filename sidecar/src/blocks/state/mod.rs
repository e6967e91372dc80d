//! Key and value state.
//! <https://docs.dapr.io/developing-applications/building-blocks/state-management/>

mod bulk;
pub mod decode;
pub mod encryption;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod outbox;
pub mod prefix;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use outrider_components::{Error as Cause, Registry, Table, state};
use outrider_kit::boolean::truthy;
use outrider_metrics::Metrics;
use outrider_metrics::component::Operations;
use outrider_resiliency as resiliency;

use crate::blocks::actors;
use crate::blocks::descriptor::{self, Method, Route};
use crate::components::block::{ComponentBlock, ToConnect};
use crate::components::instance::Instance;
use crate::components::map::Map;
use encryption::Keys;
use outbox::Outbox;

const SCOPE: &str = "dapr.runtime.processor.state";
/// Metadata of the store that has the state of actors.
const FOR_ACTORS: &str = "actorStateStore";

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[
        Route {
            name: "GetBulkState",
            verbs: descriptor::POST_OR_PUT,
            versions: &[descriptor::V1],
            path: "state/{}/bulk",
            group: "state",
            answer: |apis, request, names| {
                Box::pin(http::bulk_get(&apis.state, request, names.first))
            },
        },
        Route {
            name: "ExecuteStateTransaction",
            verbs: descriptor::POST_OR_PUT,
            versions: &[descriptor::V1],
            path: "state/{}/transaction",
            group: "state",
            answer: |apis, request, names| {
                Box::pin(http::transact(&apis.state, request, names.first))
            },
        },
        Route {
            name: "QueryStateAlpha1",
            verbs: descriptor::POST_OR_PUT,
            versions: &[descriptor::V1_ALPHA1],
            path: "state/{}/query",
            group: "state",
            answer: |apis, request, names| Box::pin(http::query(&apis.state, request, names.first)),
        },
        Route {
            name: "SaveState",
            verbs: descriptor::POST_OR_PUT,
            versions: &[descriptor::V1],
            path: "state/{}",
            group: "state",
            answer: |apis, request, names| Box::pin(http::save(&apis.state, request, names.first)),
        },
        Route {
            name: "GetState",
            verbs: descriptor::GET,
            versions: &[descriptor::V1],
            path: "state/{}/{}",
            group: "state",
            answer: |apis, request, names| {
                Box::pin(http::get(&apis.state, request, names.first, names.second))
            },
        },
        Route {
            name: "DeleteState",
            verbs: descriptor::DELETE,
            versions: &[descriptor::V1],
            path: "state/{}/{}",
            group: "state",
            answer: |apis, request, names| {
                Box::pin(http::delete(
                    &apis.state,
                    request,
                    names.first,
                    names.second,
                ))
            },
        },
    ],
    methods: &[
        Method::new("GetState", descriptor::V1, "state"),
        Method::new("GetBulkState", descriptor::V1, "state"),
        Method::new("SaveState", descriptor::V1, "state"),
        Method::new("QueryStateAlpha1", descriptor::V1_ALPHA1, "state"),
        Method::new("DeleteState", descriptor::V1, "state"),
        Method::new("DeleteBulkState", descriptor::V1, "state"),
        Method::new("ExecuteStateTransaction", descriptor::V1, "state"),
    ],
    errors: &[
        ("ERR_STATE_", "state"),
        ("ERR_NOT_SUPPORTED_STATE_OPERATION", "state"),
        ("ERR_PUBLISH_OUTBOX", "pubsub"),
    ],
};

/// Operations on the state stores of this sidecar.
pub struct Api {
    pub app_id: String,
    pub stores: Arc<Map<Store>>,
    pub outbox: Arc<Outbox>,
}

/// A state store that is in use.
pub struct Store {
    pub instance: Instance<dyn state::Store>,
    pub prefix: prefix::Prefix,
    /// None where values are kept as they are.
    pub keys: Option<Keys>,
    /// Where what transactions write is published, if it is.
    pub outbox: Option<outbox::Settings>,
    /// Whether it has the state of actors.
    pub is_for_actors: bool,
}

/// What is read of a store's properties besides its own.
pub struct Settings {
    prefix: prefix::Prefix,
    keys: Option<Keys>,
    outbox: Option<outbox::Settings>,
    is_for_actors: bool,
}

/// The encryption keys among the properties of a store.
fn keys(new: &ToConnect<'_>) -> Result<Option<Keys>, String> {
    let values = new.metadata.iter().map(|(_, value)| value);
    let properties = new.resource.spec.metadata.iter().zip(values);
    Keys::of(&new.resource.metadata.name, properties)
}

impl ComponentBlock for Store {
    type Trait = dyn state::Store;
    type Settings = Settings;

    const CATEGORY: &'static str = "state";
    const COMPONENT_TYPE: resiliency::Block = resiliency::Block::StateStore;

    fn table(registry: &Registry) -> &Table<dyn state::Store> {
        &registry.state
    }

    fn check(new: &ToConnect<'_>) -> Result<(), String> {
        if keys(new)?.is_some() {
            let name = &new.resource.metadata.name;
            tracing::info!(target: SCOPE, "Automatic encryption enabled for state store {name}");
            tracing::info!(target: SCOPE, "WARNING: Automatic state store encryption should never be used to store more than 4 billion items in the state store (including updates). Storing more items than that can cause the private key to be exposed.");
        }
        Ok(())
    }

    fn check_beside(in_use: &Map<Self>, new: &ToConnect<'_>) -> Result<(), String> {
        let name = &new.resource.metadata.name;
        if !new.metadata.get(FOR_ACTORS).is_some_and(truthy) {
            return Ok(());
        }
        let stores = in_use.load();
        let mut others = stores
            .iter()
            .filter(|(other, store)| store.is_for_actors && *other != name);
        let Some((other, _)) = others.next() else {
            return Ok(());
        };
        tracing::error!(target: SCOPE, "{other} is already the actor state store, only one actor state store is allowed: {name} is not used");
        Err(format!(
            "detected duplicate actor state store: {other} and {name}"
        ))
    }

    fn settings(new: &ToConnect<'_>) -> Result<Settings, String> {
        let prefix = prefix::Prefix::new(
            new.metadata.get("keyPrefix"),
            &new.context.app_id,
            &new.context.namespace,
            &new.resource.metadata.name,
        )?;
        Ok(Settings {
            prefix,
            keys: keys(new)?,
            outbox: outbox::Settings::of(&new.metadata),
            is_for_actors: new.metadata.get(FOR_ACTORS).is_some_and(truthy),
        })
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

    fn new(instance: Instance<dyn state::Store>, settings: Settings, _: &Metrics) -> Self {
        let is_able = actors::state::is_able(instance.direct().features());
        if settings.is_for_actors && !is_able {
            tracing::warn!(target: SCOPE, "state store {} does not have the state of actors, although {FOR_ACTORS} says so: it has no transactions, or no etags", instance.name());
        }
        Self {
            is_for_actors: settings.is_for_actors && is_able,
            instance,
            prefix: settings.prefix,
            keys: settings.keys,
            outbox: settings.outbox,
        }
    }

    fn instance(&self) -> &Instance<dyn state::Store> {
        &self.instance
    }

    fn close(store: &dyn state::Store) -> BoxFuture<'_, Result<(), Cause>> {
        store.close()
    }
}
