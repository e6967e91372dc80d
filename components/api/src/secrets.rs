//! Secret stores: <https://docs.dapr.io/developing-applications/building-blocks/secrets/>.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::{Error, Pairs};

/// What a secret store can do beyond reading secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// One secret may hold several keys, each with a value of its own.
    MultipleKeyValuesPerSecret,
}

impl Feature {
    /// The feature of this name.
    pub fn named(name: &str) -> Option<Feature> {
        let only = Feature::MultipleKeyValuesPerSecret;
        (name == only.name()).then_some(only)
    }

    /// The name that the metadata API reports.
    pub fn name(self) -> &'static str {
        match self {
            Feature::MultipleKeyValuesPerSecret => "MULTIPLE_KEY_VALUES_PER_SECRET",
        }
    }
}

/// Reads one secret.
#[derive(Debug, Clone, Default)]
pub struct GetRequest {
    /// The secret's name.
    pub name: String,
    /// The client's metadata, such as `namespace` or `version_id`.
    pub metadata: Pairs,
}

impl GetRequest {
    /// Reads the secret called `name`.
    pub fn new(name: impl Into<String>) -> GetRequest {
        GetRequest {
            name: name.into(),
            metadata: Pairs::new(),
        }
    }
}

/// A connected secret store.
#[async_trait]
pub trait Store: Send + Sync {
    /// What the store can do, in the order in which it is reported.
    fn features(&self) -> &[Feature];

    /// The keys and values of one secret.
    async fn get(&self, request: &GetRequest) -> Result<Pairs, Error>;

    /// Every secret that the store may read, by name.
    async fn bulk_get(&self, metadata: &Pairs) -> Result<HashMap<String, Pairs>, Error>;

    /// Whether the backing service answers.
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends background work and connections. No other call comes after it.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
