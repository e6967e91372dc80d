//! What is in use right now. Requests read without a lock; a change swaps the
//! whole map.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::api::invoke::external::Endpoint;
use crate::api::{pubsub, secrets, state};

/// Things by name.
pub struct Map<T> {
    inner: ArcSwap<HashMap<String, Arc<T>>>,
}

impl<T> Default for Map<T> {
    fn default() -> Self {
        Self {
            inner: ArcSwap::default(),
        }
    }
}

impl<T> Map<T> {
    pub fn load(&self) -> arc_swap::Guard<Arc<HashMap<String, Arc<T>>>> {
        self.inner.load()
    }

    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.inner.load().get(name).cloned()
    }

    pub fn insert(&self, name: &str, value: Arc<T>) {
        self.inner.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.insert(name.to_owned(), value.clone());
            map
        });
    }

    /// Takes a thing out of use; those who hold it may finish with it.
    pub fn remove(&self, name: &str) -> Option<Arc<T>> {
        let before = self.inner.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.remove(name);
            map
        });
        before.get(name).cloned()
    }
}

/// What the metadata API tells of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    pub name: String,
    /// Such as `state.redis`.
    pub kind: String,
    pub version: String,
    pub capabilities: Vec<&'static str>,
}

/// All resources in use.
#[derive(Default)]
pub struct Live {
    pub state: Arc<Map<state::Store>>,
    pub pubsub: Arc<Map<pubsub::Broker>>,
    pub secrets: Arc<Map<secrets::Store>>,
    pub http_endpoints: Arc<Map<Endpoint>>,
}

impl Live {
    /// Every component, by name.
    pub fn components(&self) -> Vec<Component> {
        let mut all: Vec<Component> = Vec::new();
        all.extend(self.state.load().values().map(|s| s.component.clone()));
        all.extend(self.pubsub.load().values().map(|s| s.component.clone()));
        all.extend(self.secrets.load().values().map(|s| s.component.clone()));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub fn http_endpoint_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.http_endpoints.load().keys().cloned().collect();
        names.sort();
        names
    }

    /// Closes every component, side by side.
    pub async fn close(&self) {
        type Closing = Pin<
            Box<dyn Future<Output = (Component, Result<(), outrider_components::Error>)> + Send>,
        >;
        let mut closing: Vec<Closing> = Vec::new();
        for entry in self.state.load().values().cloned() {
            closing.push(Box::pin(async move {
                (entry.component.clone(), entry.store.close().await)
            }));
        }
        for entry in self.pubsub.load().values().cloned() {
            closing.push(Box::pin(async move {
                (entry.component.clone(), entry.broker.close().await)
            }));
        }
        for entry in self.secrets.load().values().cloned() {
            closing.push(Box::pin(async move {
                (entry.component.clone(), entry.store.close().await)
            }));
        }
        for component in self.components() {
            tracing::info!(target: "dapr.runtime.processor", "Shutting down component {component}");
        }
        for (component, result) in futures_util::future::join_all(closing).await {
            if let Err(error) = result {
                tracing::warn!(target: "dapr.runtime.processor", "error closing component {component}: {error}");
            }
        }
    }
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.version.is_empty() { "" } else { "/" };
        write!(f, "{} ({}{slash}{})", self.name, self.kind, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_changes_under_its_readers() {
        let map = Map::default();
        map.insert("a", Arc::new(1));
        let before = map.load();
        assert_eq!(map.remove("a").as_deref(), Some(&1));
        assert!(map.get("a").is_none());
        assert!(before.contains_key("a"));
    }
}
