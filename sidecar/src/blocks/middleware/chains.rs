//! What becomes of the lists of handlers in the Configuration: of each a chain
//! of the components that are in use.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_call::pipeline::{Chain, Missing, Pipeline};
use outrider_components::middleware::{self as component, Next, Outcome, Request};
use outrider_crds::Component;
use outrider_crds::configuration::{self, Handler};
use tokio::sync::watch;

use super::{Middleware, SCOPE};
use crate::components::live::Live;
use crate::components::map::Map;

/// The version of a handler, or of a component, that gives none.
const VERSION: &str = "v1";

/// A pipeline for each list of the Configuration that is not empty.
pub struct Chains {
    lists: Vec<List>,
    components: Arc<Map<Middleware>>,
    live: Arc<Live>,
}

struct List {
    /// As log lines call it.
    name: &'static str,
    handlers: Vec<Handler>,
    pipeline: Pipeline,
    /// What there is for each handler.
    found: Vec<Found>,
}

/// A component in a chain, which keeps it open.
struct InUse(Arc<Middleware>);

#[async_trait]
impl component::Middleware for InUse {
    async fn handle(&self, request: Request, next: Next<'_>) -> Outcome {
        self.0.instance.direct().handle(request, next).await
    }
}

/// What there is for a handler.
enum Found {
    InUse(Arc<Middleware>),
    /// There is such a component, but it is not in use.
    Missing(String),
    /// There is none of this name, type and version.
    None(String),
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::InUse(one), Self::InUse(other)) => Arc::ptr_eq(one, other),
            (Self::Missing(one), Self::Missing(other)) | (Self::None(one), Self::None(other)) => {
                one == other
            }
            _ => false,
        }
    }
}

impl Found {
    fn of(handler: &Handler, components: &Map<Middleware>, live: &Live) -> Self {
        let named = components.get(&handler.name);
        let shown = named.as_ref().map(|named| &named.instance.description);
        let fits = shown.is_some_and(|shown| {
            shown.component_type == handler.handler_type
                && version(&shown.version) == version(&handler.version)
        });
        if let Some(middleware) = named.filter(|_| fits) {
            return Self::InUse(middleware);
        }
        match live.status.trouble_of::<Component>(&handler.name) {
            Some(cause) => Self::Missing(cause.to_string()),
            None => Self::None("there is no component of this name, type and version".to_owned()),
        }
    }

    /// Warns of what is not as the Configuration wants it.
    fn warn(&self, list: &str, handler: &Handler) {
        let (name, kind) = (&handler.name, &handler.handler_type);
        match self {
            Self::InUse(_) => {}
            Self::Missing(why) => {
                tracing::warn!(target: SCOPE, "pipeline {list}: {name} ({kind}) is not in use, and requests are refused until it is: {why}");
            }
            Self::None(why) => {
                tracing::warn!(target: SCOPE, "pipeline {list}: {name} ({kind}) is left out: {why}");
            }
        }
    }
}

fn version(given: &str) -> &str {
    match given {
        "" => VERSION,
        given => given,
    }
}

impl Chains {
    pub fn new(components: Arc<Map<Middleware>>, live: Arc<Live>) -> Self {
        Self {
            lists: Vec::new(),
            components,
            live,
        }
    }

    /// The pipeline of a list, which changes with the components as long as
    /// [`Chains::follow`] runs. None if the list is empty.
    pub fn add(
        &mut self,
        name: &'static str,
        list: Option<&configuration::Pipeline>,
    ) -> Option<Pipeline> {
        let handlers = list.map(|list| list.handlers.clone()).unwrap_or_default();
        if handlers.is_empty() {
            return None;
        }
        let pipeline = Pipeline::default();
        self.lists.push(List {
            name,
            handlers,
            pipeline: pipeline.clone(),
            found: Vec::new(),
        });
        self.build();
        Some(pipeline)
    }

    /// Keeps the chains as the components in use have them.
    pub async fn follow(mut self, mut changes: watch::Receiver<()>) {
        while !self.lists.is_empty() {
            self.build();
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn build(&mut self) {
        for list in &mut self.lists {
            let handlers = list.handlers.iter();
            let found: Vec<_> = handlers
                .map(|handler| Found::of(handler, &self.components, &self.live))
                .collect();
            if found != list.found {
                list.build(found);
            }
        }
    }
}

impl List {
    fn build(&mut self, found: Vec<Found>) {
        tracing::info!(target: SCOPE, "Building pipeline {}", self.name);
        let mut before = std::mem::replace(&mut self.found, found).into_iter();
        let mut chain = Chain::new();
        for (found, handler) in self.found.iter().zip(&self.handlers) {
            if before.next().as_ref() != Some(found) {
                found.warn(self.name, handler);
            }
            let name = handler.name.clone();
            match found {
                Found::InUse(middleware) => chain.push(Arc::new(InUse(middleware.clone()))),
                Found::Missing(_) => chain.push(Arc::new(Missing { name })),
                Found::None(_) => {}
            }
        }
        self.pipeline.set(chain);
    }
}
