//! What is in use right now. Requests read without a lock; a change swaps the
//! whole map.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::blocks::invoke::external::Endpoint;
use crate::blocks::pubsub;
use crate::blocks::secrets;
use crate::blocks::state;

const SCOPE: &str = "dapr.runtime.processor";
/// How long calls on a component that was replaced may take to end, and how
/// often is looked whether they have.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const IDLE_CHECK: Duration = Duration::from_millis(20);

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

    /// Puts a thing into use; those who hold the one before may finish with it.
    pub fn insert(&self, name: &str, value: Arc<T>) -> Option<Arc<T>> {
        let before = self.inner.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.insert(name.to_owned(), value.clone());
            map
        });
        before.get(name).cloned()
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
    /// Why components are not in use as their resources want them, by name.
    failed: Mutex<BTreeMap<String, String>>,
}

/// A started component that is not in the maps.
pub enum Running {
    State(Arc<state::Store>),
    PubSub(Arc<pubsub::Broker>),
    Secrets(Arc<secrets::Store>),
}

impl Running {
    fn component(&self) -> &Component {
        match self {
            Self::State(store) => &store.component,
            Self::PubSub(broker) => &broker.component,
            Self::Secrets(store) => &store.component,
        }
    }

    fn holders(&self) -> usize {
        match self {
            Self::State(store) => Arc::strong_count(store),
            Self::PubSub(broker) => Arc::strong_count(broker),
            Self::Secrets(store) => Arc::strong_count(store),
        }
    }

    async fn close(&self) -> Result<(), outrider_components::Error> {
        match self {
            Self::State(store) => store.store.close().await,
            Self::PubSub(broker) => broker.broker.close().await,
            Self::Secrets(store) => store.store.close().await,
        }
    }

    /// Closes it when the last call on it has ended, or the time for that is
    /// over.
    pub async fn retire(self, stopping: CancellationToken) {
        let idle = async {
            while self.holders() > 1 {
                tokio::time::sleep(IDLE_CHECK).await;
            }
        };
        let component = self.component();
        tokio::select! {
            biased;
            () = idle => {}
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(DRAIN_LIMIT) => {
                tracing::warn!(target: SCOPE, "component {component} is closed, although calls on it have not ended within {}s", DRAIN_LIMIT.as_secs());
            }
        }
        if let Err(error) = self.close().await {
            tracing::warn!(target: SCOPE, "error closing component {component}: {error}");
        }
    }
}

impl Live {
    /// Takes a component into use. What had its name until now is returned,
    /// and may still have calls.
    pub fn install(&self, running: Running) -> Option<Running> {
        let name = running.component().name.clone();
        let others = match running {
            Running::State(store) => {
                let before = self.state.insert(&name, store).map(Running::State);
                before.or_else(|| self.take_pubsub(&name).or_else(|| self.take_secrets(&name)))
            }
            Running::PubSub(broker) => {
                let before = self.pubsub.insert(&name, broker).map(Running::PubSub);
                before.or_else(|| self.take_state(&name).or_else(|| self.take_secrets(&name)))
            }
            Running::Secrets(store) => {
                let before = self.secrets.insert(&name, store).map(Running::Secrets);
                before.or_else(|| self.take_state(&name).or_else(|| self.take_pubsub(&name)))
            }
        };
        self.recovered(&name);
        others
    }

    /// Takes a component out of use.
    pub fn take(&self, name: &str) -> Option<Running> {
        let state = self.take_state(name);
        let pubsub = || self.take_pubsub(name);
        state.or_else(pubsub).or_else(|| self.take_secrets(name))
    }

    fn take_state(&self, name: &str) -> Option<Running> {
        self.state.remove(name).map(Running::State)
    }

    fn take_pubsub(&self, name: &str) -> Option<Running> {
        self.pubsub.remove(name).map(Running::PubSub)
    }

    fn take_secrets(&self, name: &str) -> Option<Running> {
        self.secrets.remove(name).map(Running::Secrets)
    }

    pub fn has(&self, name: &str) -> bool {
        self.state.get(name).is_some()
            || self.pubsub.get(name).is_some()
            || self.secrets.get(name).is_some()
    }

    /// Keeps why a component could not be started.
    pub fn failed(&self, name: &str, cause: &str) {
        self.failures().insert(name.to_owned(), cause.to_owned());
    }

    pub fn recovered(&self, name: &str) {
        self.failures().remove(name);
    }

    pub fn failures(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.failed.lock().unwrap_or_else(|e| e.into_inner())
    }

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
        let mut all: Vec<Running> = Vec::new();
        all.extend(self.state.load().values().cloned().map(Running::State));
        all.extend(self.pubsub.load().values().cloned().map(Running::PubSub));
        all.extend(self.secrets.load().values().cloned().map(Running::Secrets));
        all.sort_by(|a, b| a.component().name.cmp(&b.component().name));
        for running in &all {
            tracing::info!(target: SCOPE, "Shutting down component {}", running.component());
        }
        let closing = all.iter().map(async |running| {
            if let Err(error) = running.close().await {
                tracing::warn!(target: SCOPE, "error closing component {}: {error}", running.component());
            }
        });
        futures_util::future::join_all(closing).await;
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use outrider_components::secrets::{Feature, GetRequest};
    use outrider_components::{Error, Pairs};

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

    /// Says when it is closed.
    #[derive(Default)]
    struct Store(AtomicBool);

    #[async_trait::async_trait]
    impl outrider_components::secrets::Store for Store {
        fn features(&self) -> &[Feature] {
            &[]
        }

        async fn get(&self, _: &GetRequest) -> Result<Pairs, Error> {
            Ok(Pairs::new())
        }

        async fn bulk_get(&self, _: &Pairs) -> Result<HashMap<String, Pairs>, Error> {
            Ok(HashMap::new())
        }

        async fn close(&self) -> Result<(), Error> {
            self.0.store(true, Ordering::SeqCst);
            Ok(())
        }
    }

    fn running(kind: &str) -> (Arc<Store>, Arc<secrets::Store>) {
        let store = Arc::new(Store::default());
        let component = Component {
            name: "s".to_owned(),
            kind: kind.to_owned(),
            version: "v1".to_owned(),
            capabilities: Vec::new(),
        };
        let running = secrets::Store {
            component,
            store: store.clone(),
            metrics: Default::default(),
        };
        (store, Arc::new(running))
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_was_replaced_is_closed_after_its_last_call() {
        let live = Live::default();
        let (store, first) = running("secretstores.a");
        assert!(live.install(Running::Secrets(first)).is_none());
        let call = live.secrets.get("s").unwrap();
        let second = Running::Secrets(running("secretstores.b").1);
        let before = live.install(second).unwrap();
        assert_eq!(live.components()[0].kind, "secretstores.b");

        let retiring = before.retire(CancellationToken::new());
        tokio::pin!(retiring);
        let early = tokio::time::timeout(DRAIN_LIMIT / 2, &mut retiring).await;
        assert!(early.is_err() && !store.0.load(Ordering::SeqCst));
        drop(call);
        retiring.await;
        assert!(store.0.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_ends_does_not_keep_a_component_open() {
        for stops in [false, true] {
            let live = Live::default();
            let (store, first) = running("secretstores.a");
            live.install(Running::Secrets(first));
            let _call = live.secrets.get("s").unwrap();
            let stopping = CancellationToken::new();
            if stops {
                stopping.cancel();
            }
            live.take("s").unwrap().retire(stopping).await;
            assert!(store.0.load(Ordering::SeqCst));
        }
    }
}
