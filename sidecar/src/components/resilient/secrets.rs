//! Secret stores.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::secrets::{Feature, GetRequest, Store};
use outrider_components::{Error, Pairs};
use outrider_resiliency::{Block, Resiliency};

use super::{Call, Guard, run};

struct Resilient {
    inner: Arc<dyn Store>,
    guard: Guard,
}

/// The store, under the policies of `name`.
pub fn wrap(inner: Arc<dyn Store>, resiliency: &Resiliency, name: &str) -> Arc<dyn Store> {
    let guard = Guard::new(resiliency, name, Block::SecretStore);
    Arc::new(Resilient { inner, guard })
}

#[async_trait]
impl Store for Resilient {
    fn features(&self) -> &[Feature] {
        self.inner.features()
    }

    fn get<'s, 'r, 'c>(&'s self, request: &'r GetRequest) -> Call<'c, Result<Pairs, Error>>
    where
        's: 'c,
        'r: 'c,
        Self: 'c,
    {
        match self.guard.policy() {
            None => self.inner.get(request),
            Some(policy) => Box::pin(run(policy, || self.inner.get(request))),
        }
    }

    fn bulk_get<'s, 'r, 'c>(
        &'s self,
        metadata: &'r Pairs,
    ) -> Call<'c, Result<HashMap<String, Pairs>, Error>>
    where
        's: 'c,
        'r: 'c,
        Self: 'c,
    {
        match self.guard.policy() {
            None => self.inner.bulk_get(metadata),
            Some(policy) => Box::pin(run(policy, || self.inner.bulk_get(metadata))),
        }
    }

    async fn ping(&self) -> Result<(), Error> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<(), Error> {
        self.inner.close().await
    }
}
