//! The components in use, of all building blocks.

use std::sync::Arc;
use std::time::Duration;

use outrider_components::secrets;
use outrider_crds::Component;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::SCOPE;
use super::block::{ComponentMap, Installed};
use super::instance::{Description, Instance};
use super::map::Map;
use super::status::Table;

/// How long calls on a component that was replaced may take to end, and how
/// often is looked whether they have.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const IDLE_CHECK: Duration = Duration::from_millis(20);

/// Secret stores in use, which other components may need.
pub type SecretStores = Map<Instance<dyn secrets::Store>>;

/// All components in use.
pub struct Live {
    blocks: Vec<Arc<dyn ComponentMap>>,
    pub secrets: Arc<SecretStores>,
    /// How resources are doing, of all kinds.
    pub status: Arc<Table>,
    changes: watch::Sender<()>,
}

/// Closes a component when the last call on it has ended, or the time for that
/// is over.
pub async fn retire(running: Box<dyn Installed>, stopping: CancellationToken) {
    let idle = async {
        while running.holders() > 1 {
            tokio::time::sleep(IDLE_CHECK).await;
        }
    };
    let shown = running.description();
    tokio::select! {
        biased;
        () = idle => {}
        () = stopping.cancelled() => {}
        () = tokio::time::sleep(DRAIN_LIMIT) => {
            tracing::warn!(target: SCOPE, "component {shown} is closed, although calls on it have not ended within {}s", DRAIN_LIMIT.as_secs());
        }
    }
    if let Err(error) = running.close().await {
        tracing::warn!(target: SCOPE, "error closing component {shown}: {error}");
    }
}

impl Live {
    /// `blocks` are the building blocks that have components.
    pub fn new(blocks: Vec<Arc<dyn ComponentMap>>, secrets: Arc<SecretStores>) -> Self {
        Self {
            blocks,
            secrets,
            status: Arc::default(),
            changes: watch::Sender::new(()),
        }
    }

    /// Changes when other components are in use, or are not although they are
    /// wanted.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Tells those who follow [`Live::changes`] that a component which is wanted
    /// is not in use.
    pub fn missing(&self) {
        self.changes.send_replace(());
    }

    /// The components of the block whose types begin with `category`.
    pub fn category(&self, category: &str) -> Option<&Arc<dyn ComponentMap>> {
        self.blocks
            .iter()
            .find(|block| block.category() == category)
    }

    /// Takes a component into use. What had its name until now is returned,
    /// and may still have calls.
    pub fn install(&self, running: Box<dyn Installed>) -> Option<Box<dyn Installed>> {
        let (name, category) = (running.description().name.clone(), running.category());
        let before = running.install();
        let mut others = self.blocks.iter().filter(|b| b.category() != category);
        let before = before.or_else(|| others.find_map(|block| block.clone().take(&name)));
        self.status.running::<Component>(&name);
        self.changes.send_replace(());
        before
    }

    /// Takes a component out of use.
    pub fn take(&self, name: &str) -> Option<Box<dyn Installed>> {
        let mut blocks = self.blocks.iter();
        let taken = blocks.find_map(|block| block.clone().take(name));
        self.changes.send_replace(());
        taken
    }

    pub fn has(&self, name: &str) -> bool {
        self.blocks.iter().any(|block| block.has(name))
    }

    /// Every component, by name.
    pub fn components(&self) -> Vec<Description> {
        let all = self.running();
        all.iter()
            .map(|running| running.description().clone())
            .collect()
    }

    fn running(&self) -> Vec<Box<dyn Installed>> {
        let all = self.blocks.iter().flat_map(|block| block.clone().all());
        let mut all: Vec<_> = all.collect();
        all.sort_by(|a, b| a.description().name.cmp(&b.description().name));
        all
    }

    /// Closes every component, side by side.
    pub async fn close(&self) {
        let all = self.running();
        for running in &all {
            tracing::info!(target: SCOPE, "Shutting down component {}", running.description());
        }
        let closing = all.iter().map(async |running| {
            if let Err(error) = running.close().await {
                tracing::warn!(target: SCOPE, "error closing component {}: {error}", running.description());
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
    use crate::components::block::entry;
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

    fn store(kind: &str, live: &Live) -> (Arc<Store>, Box<dyn Installed>) {
        let store = Arc::new(Store::default());
        let description = Description {
            name: "s".to_owned(),
            component_type: kind.to_owned(),
            version: "v1".to_owned(),
            capabilities: Vec::new(),
        };
        let policies = Policies {
            resiliency: Resiliency::default(),
            block: PolicyBlock::SecretStore,
        };
        let inner: Arc<dyn secrets::Store> = store.clone();
        let instance = Instance::new(description, inner, policies, Default::default());
        (store, entry(Arc::new(instance), &live.secrets))
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_was_replaced_is_closed_after_its_last_call() {
        let live = live();
        let (first, running) = store("secretstores.a", &live);
        assert!(live.install(running).is_none());
        let call = live.secrets.get("s").unwrap();
        let (_, second) = store("secretstores.b", &live);
        let before = live.install(second).unwrap();
        assert_eq!(live.components()[0].component_type, "secretstores.b");

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
