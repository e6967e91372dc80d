//! Conversations with language models.
//! <https://docs.dapr.io/developing-applications/building-blocks/conversation/>

pub mod alpha1;
pub mod alpha2;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod redact;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use outrider_components::conversation as component;
use outrider_components::{Error as Cause, Registry, Table};
use outrider_metrics::Metrics;
use outrider_metrics::component::Conversation as Counted;
use outrider_resiliency as resiliency;

use crate::blocks::descriptor::{self, Method, Route, V1_ALPHA1, V1_ALPHA2};
use crate::components::block::{ComponentBlock, ToConnect};
use crate::components::instance::Instance;
use crate::components::map::Map;

const GROUP: &str = "conversation";

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[
        Route {
            name: "Converse",
            verbs: descriptor::POST,
            versions: &[V1_ALPHA1],
            path: "conversation/{}/converse",
            group: GROUP,
            answer: |apis, request, names| {
                Box::pin(http::alpha1(&apis.conversation, request, names.first))
            },
        },
        Route {
            name: "Converse",
            verbs: descriptor::POST,
            versions: &[V1_ALPHA2],
            path: "conversation/{}/converse",
            group: GROUP,
            answer: |apis, request, names| {
                Box::pin(http::alpha2(&apis.conversation, request, names.first))
            },
        },
    ],
    methods: &[
        Method::new("ConverseAlpha1", V1_ALPHA1, GROUP),
        Method::new("ConverseAlpha2", V1_ALPHA2, GROUP),
    ],
    errors: &[("ERR_CONVERSATION_", "conversation")],
};

/// Operations on the language models of this sidecar.
pub struct Api {
    pub models: Arc<Map<Model>>,
}

/// A language model that is in use.
pub struct Model {
    pub instance: Instance<dyn component::Conversation>,
    pub metrics: Counted,
}

impl ComponentBlock for Model {
    type Trait = dyn component::Conversation;
    type Settings = ();

    const CATEGORY: &'static str = "conversation";
    const COMPONENT_TYPE: resiliency::Block = resiliency::Block::Conversation;

    fn table(registry: &Registry) -> &Table<dyn component::Conversation> {
        &registry.conversation
    }

    fn settings(_: &ToConnect<'_>) -> Result<(), String> {
        Ok(())
    }

    fn capabilities(_: &dyn component::Conversation) -> Vec<&'static str> {
        Vec::new()
    }

    fn new(instance: Instance<dyn component::Conversation>, (): (), metrics: &Metrics) -> Self {
        let metrics = metrics.conversation(instance.name());
        Self { instance, metrics }
    }

    fn instance(&self) -> &Instance<dyn component::Conversation> {
        &self.instance
    }

    fn close(model: &dyn component::Conversation) -> BoxFuture<'_, Result<(), Cause>> {
        model.close()
    }
}
