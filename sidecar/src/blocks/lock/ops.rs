//! What each operation means.

use std::sync::Arc;
use std::time::Duration;

use outrider_components::lock::{TryLockRequest, UnlockRequest, Unlocked};

use super::{Api, Store, error};
use crate::blocks::error::Result;

impl Api {
    /// Takes a lock for some seconds. Returns whether it did.
    pub async fn try_lock(
        &self,
        store: &str,
        resource: &str,
        owner: &str,
        seconds: i32,
    ) -> Result<bool> {
        // Checked first, whatever else is wrong.
        let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
        let Some(seconds) = seconds else {
            return Err(error::wrong("ExpiryInSeconds is not positive", store));
        };
        let found = self.store(store, resource, owner)?;
        let request = TryLockRequest {
            resource: found.prefix.apply(resource).map_err(error::try_lock)?,
            owner: owner.to_owned(),
            expiry: Duration::from_secs(seconds),
        };
        let trying = found.instance.call(|store| store.try_lock(&request));
        trying.await.map_err(error::try_lock)
    }

    pub async fn unlock(&self, store: &str, resource: &str, owner: &str) -> Result<Unlocked> {
        let found = self.store(store, resource, owner)?;
        let request = UnlockRequest {
            resource: found.prefix.apply(resource).map_err(error::unlock)?,
            owner: owner.to_owned(),
        };
        let releasing = found.instance.call(|store| store.unlock(&request));
        releasing.await.map_err(error::unlock)
    }

    fn store(&self, name: &str, resource: &str, owner: &str) -> Result<Arc<Store>> {
        let stores = self.stores.load();
        if stores.is_empty() {
            return Err(error::not_configured());
        }
        if resource.is_empty() {
            return Err(error::wrong("ResourceId is empty", name));
        }
        if owner.is_empty() {
            return Err(error::wrong("LockOwner is empty", name));
        }
        stores
            .get(name)
            .cloned()
            .ok_or_else(|| error::not_found(name))
    }
}
