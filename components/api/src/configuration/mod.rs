//! Configuration stores: <https://docs.dapr.io/developing-applications/building-blocks/configuration/>.

mod changes;
pub mod listener;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Error, Pairs};

pub use self::changes::{Changes, Read};
pub use crate::subscription::Subscription;

/// The value of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// The value; empty where the key is gone.
    pub value: String,
    /// The version, where the store has one.
    pub version: String,
    /// What the store says besides.
    pub metadata: Pairs,
}

/// Items by key.
pub type Items = BTreeMap<String, Item>;

/// Names some keys, or all with an empty list.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The keys.
    pub keys: Vec<String>,
    /// The client's metadata.
    pub metadata: Pairs,
}

impl Request {
    /// Whether a key is among those that are asked for.
    pub fn asks_for(&self, key: &str) -> bool {
        self.keys.is_empty() || self.keys.iter().any(|asked| asked == key)
    }
}

/// Takes the changes of one subscription.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Passes changed items on. Returns when they have arrived or are given up.
    async fn handle(&self, items: Items);
}

/// A connected configuration store.
#[async_trait]
pub trait Store: Send + Sync {
    /// The items that there are of those that are asked for.
    async fn get(&self, request: &Request) -> Result<Items, Error>;

    /// Passes changes to `handler` until the subscription is dropped. Those of
    /// different subscriptions do not wait for each other.
    async fn subscribe(
        &self,
        request: &Request,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error>;

    /// Whether the backing service answers.
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends background work and connections. No other call comes after it.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
