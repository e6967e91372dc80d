//! What each operation means.

use std::collections::HashMap;
use std::sync::Arc;

use outrider_components::Pairs;
use outrider_components::secrets::GetRequest;

use super::{Api, Store, error};
use crate::blocks::error::Result;
use outrider_metrics::component::Operation;

impl Api {
    fn store(&self, name: &str) -> Result<Arc<Store>> {
        let stores = self.stores.load();
        match stores.get(name) {
            Some(store) => Ok(store.clone()),
            None if stores.is_empty() => Err(error::not_configured()),
            None => Err(error::not_found(name)),
        }
    }

    fn allows(&self, store: &str, secret: &str) -> bool {
        self.scopes
            .get(store)
            .is_none_or(|scope| scope.allows(secret))
    }

    /// The keys and values of one secret.
    pub async fn get(&self, store: &str, secret: &str, metadata: Pairs) -> Result<Pairs> {
        let found = self.store(store)?;
        if !self.allows(store, secret) {
            return Err(error::denied(secret, store));
        }
        let request = GetRequest {
            name: secret.to_owned(),
            metadata,
        };
        let getting = found.call(|store| store.get(&request));
        found
            .count(Operation::Get, getting)
            .await
            .map_err(|cause| error::get(secret, store, &cause))
    }

    /// Every secret that the application may see.
    pub async fn bulk_get(&self, store: &str, metadata: &Pairs) -> Result<HashMap<String, Pairs>> {
        let found = self.store(store)?;
        let getting = found.call(|store| store.bulk_get(metadata));
        let mut all = found
            .count(Operation::BulkGet, getting)
            .await
            .map_err(|cause| error::bulk_get(store, &cause))?;
        all.retain(|secret, _| self.allows(store, secret));
        Ok(all)
    }
}
