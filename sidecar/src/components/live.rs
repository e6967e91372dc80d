//! The components in use, of all building blocks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use outrider_components::secrets;
use tokio_util::sync::CancellationToken;

use super::block::{InUse, Running};
use super::instance::{Component, Instance};
use super::map::Map;

const SCOPE: &str = "dapr.runtime.processor";
/// How long calls on a component that was replaced may take to end, and how
/// often is looked whether they have.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const IDLE_CHECK: Duration = Duration::from_millis(20);

/// Secret stores in use, which other components may need.
pub type SecretStores = Map<Instance<dyn secrets::Store>>;

/// All components in use.
pub struct Live {
    blocks: Vec<Arc<dyn InUse>>,
    pub secrets: Arc<SecretStores>,
    /// Why components are not in use as their resources want them, by name.
    failed: Mutex<BTreeMap<String, String>>,
}

/// Closes a component when the last call on it has ended, or the time for that
/// is over.
pub async fn retire(running: Box<dyn Running>, stopping: CancellationToken) {
    let idle = async {
        while running.holders() > 1 {
            tokio::time::sleep(IDLE_CHECK).await;
        }
    };
    let component = running.component();
    tokio::select! {
        biased;
        () = idle => {}
        () = stopping.cancelled() => {}
        () = tokio::time::sleep(DRAIN_LIMIT) => {
            tracing::warn!(target: SCOPE, "component {component} is closed, although calls on it have not ended within {}s", DRAIN_LIMIT.as_secs());
        }
    }
    if let Err(error) = running.close().await {
        tracing::warn!(target: SCOPE, "error closing component {component}: {error}");
    }
}

impl Live {
    /// `blocks` are the building blocks that have components.
    pub fn new(blocks: Vec<Arc<dyn InUse>>, secrets: Arc<SecretStores>) -> Self {
        Self {
            blocks,
            secrets,
            failed: Mutex::default(),
        }
    }

    /// The components of the block whose types begin with `category`.
    pub fn category(&self, category: &str) -> Option<&Arc<dyn InUse>> {
        self.blocks
            .iter()
            .find(|block| block.category() == category)
    }

    /// Takes a component into use. What had its name until now is returned,
    /// and may still have calls.
    pub fn install(&self, running: Box<dyn Running>) -> Option<Box<dyn Running>> {
        let (name, category) = (running.component().name.clone(), running.category());
        let before = running.install();
        let mut others = self.blocks.iter().filter(|b| b.category() != category);
        let before = before.or_else(|| others.find_map(|block| block.clone().take(&name)));
        self.recovered(&name);
        before
    }

    /// Takes a component out of use.
    pub fn take(&self, name: &str) -> Option<Box<dyn Running>> {
        let mut blocks = self.blocks.iter();
        blocks.find_map(|block| block.clone().take(name))
    }

    pub fn has(&self, name: &str) -> bool {
        self.blocks.iter().any(|block| block.has(name))
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
        let all = self.running();
        all.iter()
            .map(|running| running.component().clone())
            .collect()
    }

    fn running(&self) -> Vec<Box<dyn Running>> {
        let all = self.blocks.iter().flat_map(|block| block.clone().all());
        let mut all: Vec<_> = all.collect();
        all.sort_by(|a, b| a.component().name.cmp(&b.component().name));
        all
    }

    /// Closes every component, side by side.
    pub async fn close(&self) {
        let all = self.running();
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use outrider_components::secrets::{Feature, GetRequest};
    use outrider_components::{Error, Pairs};
    use outrider_resiliency::{Block as PolicyBlock, Resiliency};

    use super::*;
    use crate::components::block::running;
    use crate::components::instance::Policies;

    fn live() -> Live {
        let secrets = Arc::<SecretStores>::default();
        Live::new(vec![secrets.clone()], secrets)
    }

    /// Says when it is closed.
    #[derive(Default)]
    struct Store(AtomicBool);

    #[async_trait::async_trait]
    impl secrets::Store for Store {
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

    fn store(kind: &str, live: &Live) -> (Arc<Store>, Box<dyn Running>) {
        let store = Arc::new(Store::default());
        let component = Component {
            name: "s".to_owned(),
            kind: kind.to_owned(),
            version: "v1".to_owned(),
            capabilities: Vec::new(),
        };
        let policies = Policies {
            resiliency: Resiliency::default(),
            block: PolicyBlock::SecretStore,
        };
        let inner: Arc<dyn secrets::Store> = store.clone();
        let instance = Instance::new(component, inner, policies, Default::default());
        (store, running(Arc::new(instance), &live.secrets))
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_was_replaced_is_closed_after_its_last_call() {
        let live = live();
        let (first, running) = store("secretstores.a", &live);
        assert!(live.install(running).is_none());
        let call = live.secrets.get("s").unwrap();
        let (_, second) = store("secretstores.b", &live);
        let before = live.install(second).unwrap();
        assert_eq!(live.components()[0].kind, "secretstores.b");

        let retiring = retire(before, CancellationToken::new());
        tokio::pin!(retiring);
        let early = tokio::time::timeout(DRAIN_LIMIT / 2, &mut retiring).await;
        assert!(early.is_err() && !first.0.load(Ordering::SeqCst));
        drop(call);
        retiring.await;
        assert!(first.0.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_ends_does_not_keep_a_component_open() {
        for stops in [false, true] {
            let live = live();
            let (first, running) = store("secretstores.a", &live);
            live.install(running);
            let _call = live.secrets.get("s").unwrap();
            let stopping = CancellationToken::new();
            if stops {
                stopping.cancel();
            }
            retire(live.take("s").unwrap(), stopping).await;
            assert!(first.0.load(Ordering::SeqCst));
        }
    }
}
