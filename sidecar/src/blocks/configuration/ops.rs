//! What each operation means.

use std::sync::Arc;

use outrider_components::configuration::{Items, Request};
use outrider_metrics::component::Operation;

use super::subscriptions::NoSubscription;
use super::{Api, Store, error};
use crate::blocks::error::Result;

impl Api {
    pub fn store(&self, name: &str) -> Result<Arc<Store>> {
        let stores = self.stores.load();
        match stores.get(name) {
            Some(store) => Ok(store.clone()),
            None if stores.is_empty() => Err(error::not_configured()),
            None => Err(error::not_found(name)),
        }
    }

    /// The items that there are of those that are asked for.
    pub async fn get(&self, name: &str, request: &Request) -> Result<Items> {
        let store = self.store(name)?;
        let getting = store.call(|store| store.get(request));
        let got = store.count(Operation::Get, getting).await;
        got.map_err(|cause| error::get(&request.keys, name, cause))
    }

    /// Ends a subscription of a store.
    pub async fn unsubscribe(&self, name: &str, id: &str) -> Result<()> {
        let store = self.store(name)?;
        let ending = async { self.subscriptions.end(id, Some(name)) };
        let ended = store.count(Operation::Unsubscribe, ending).await;
        ended.map_err(|NoSubscription| {
            error::unsubscribe(id, format!("subscription with id {id} does not exist"))
        })
    }
}
