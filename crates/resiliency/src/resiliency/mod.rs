//! What is known from resources, and how it changes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, Origin};
use crate::policy::Policy;
use crate::read::{self, Contents};
use crate::set::Set;
use crate::{Block, BuiltIn, Direction, SCOPE};

/// The policies in use. Cloning shares them; a change is seen by the next
/// call.
#[derive(Debug, Clone)]
pub struct Resiliency {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    set: ArcSwap<Set>,
    names: ArcSwap<Vec<String>>,
    metrics: Option<Arc<Metrics>>,
    stop: CancellationToken,
}

/// A resource that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The name of the resource.
    pub name: String,
    /// What is wrong with it.
    pub cause: String,
}

impl Default for Resiliency {
    fn default() -> Self {
        Self::new(None, CancellationToken::new())
    }
}

impl Resiliency {
    /// Nothing but the built-in policies. Once `stop` is cancelled, no policy
    /// begins a further attempt.
    pub fn new(metrics: Option<Metrics>, stop: CancellationToken) -> Self {
        let metrics = metrics.map(Arc::new);
        let set = Set::new(Contents::default(), metrics.clone());
        Self {
            inner: Arc::new(Inner {
                set: ArcSwap::from_pointee(set),
                names: ArcSwap::default(),
                metrics,
                stop,
            }),
        }
    }

    /// Uses these resources from now on, instead of those before. They have
    /// one set of names in common, in which later ones go before earlier ones.
    /// A resource with an error is logged and left out; those are returned.
    /// All breakers are closed again.
    pub fn replace(&self, resources: &[outrider_crds::Resiliency]) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        let mut contents = Contents::default();
        for resource in resources {
            let origin = Arc::new(Origin {
                name: resource.metadata.name.clone(),
                namespace: resource.metadata.namespace.clone(),
            });
            let name = &origin.name;
            tracing::info!(target: SCOPE, "Loading Resiliency configuration: {name}");
            match read::read(resource, &origin) {
                Ok(read) => {
                    contents.extend(read);
                    if let Some(metrics) = &self.inner.metrics {
                        metrics.loaded(&origin);
                    }
                }
                Err(error) => {
                    tracing::error!(target: SCOPE, "Could not read resiliency policy {name}: {error}");
                    left_out.push(LeftOut {
                        name: name.clone(),
                        cause: error.to_string(),
                    });
                }
            }
        }
        let set = Set::new(contents, self.inner.metrics.clone());
        self.inner.set.store(Arc::new(set));
        let names = resources.iter().map(|r| r.metadata.name.clone()).collect();
        self.inner.names.store(Arc::new(names));
        left_out
    }

    /// The names of the resources in use.
    pub fn names(&self) -> Vec<String> {
        self.inner.names.load().to_vec()
    }

    /// What applies to calls of an app. `endpoint` returns what shares a
    /// breaker, such as `<app>:<method>`; it is called only if a policy applies.
    pub fn app(&self, id: &str, endpoint: impl FnOnce() -> String) -> Option<Policy> {
        self.stopping(self.inner.set.load().app(id, endpoint))
    }

    /// Whether resources say how often calls of an app are tried, so that
    /// [`BuiltIn::Service`] does not.
    pub fn stands_in_for_built_in(&self, app: &str) -> bool {
        self.inner.set.load().stands_in_for_built_in(app)
    }

    /// What applies before an actor is locked: retries and the breaker.
    pub fn actor_before_lock(&self, kind: &str, id: &str) -> Option<Policy> {
        self.stopping(self.inner.set.load().actor_before_lock(kind, id))
    }

    /// What applies while an actor is locked: the timeout.
    pub fn actor_after_lock(&self, kind: &str, id: &str) -> Option<Policy> {
        self.stopping(self.inner.set.load().actor_after_lock(kind, id))
    }

    /// What applies to calls of a component.
    pub fn component(&self, name: &str, block: Block, direction: Direction) -> Option<Policy> {
        self.stopping(self.inner.set.load().component(name, block, direction))
    }

    /// Retries of the runtime itself.
    pub fn built_in(&self, name: BuiltIn) -> Policy {
        self.inner.set.load().built_in(name).until(&self.inner.stop)
    }

    fn stopping(&self, policy: Option<Policy>) -> Option<Policy> {
        policy.map(|policy| policy.until(&self.inner.stop))
    }
}

#[cfg(test)]
mod tests;
