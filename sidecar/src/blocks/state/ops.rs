//! What each operation means.

use std::sync::Arc;

use outrider_components::state::{
    self, BulkError, BulkItem, DeleteRequest, Feature, GetRequest, Item, Matches, Query, SetRequest,
};
use outrider_components::{Error as Cause, Pairs};

use super::outbox::Outbox;
use super::{Api, Store, bulk, error};
use crate::blocks::error::Result;
use outrider_metrics::component::Operation;
use outrider_trace::Parent;

impl Api {
    /// The store of this name. Its absence is reported before anything else that
    /// may be wrong with a request.
    pub fn store(&self, name: &str) -> Result<Arc<Store>> {
        let stores = self.stores.load();
        match stores.get(name) {
            Some(store) => Ok(store.clone()),
            None if stores.is_empty() => Err(error::not_configured(name, &self.app_id)),
            None => Err(error::not_found(name, &self.app_id)),
        }
    }
}

impl Store {
    /// The stored form of a client's key.
    fn stored(&self, key: &str) -> Result<String> {
        let stored = self.prefix.apply(key);
        stored.ok_or_else(|| error::illegal_key(key, self.instance.name()))
    }

    /// What is written in place of a value.
    fn encrypt(&self, request: &mut SetRequest) -> std::result::Result<(), Cause> {
        if let Some(keys) = &self.keys {
            request.value = keys.encrypt(&request.value)?;
        }
        Ok(())
    }

    /// An item that was read, with the value that was saved.
    fn readable(&self, item: Option<Item>) -> std::result::Result<Option<Item>, Cause> {
        let Some(keys) = &self.keys else {
            return Ok(item);
        };
        let decrypted = item.map(|mut item| {
            item.value = keys.decrypt(&item.value)?;
            Ok(item)
        });
        decrypted.transpose()
    }

    pub async fn get(&self, mut request: GetRequest) -> Result<Option<Item>> {
        let key = std::mem::take(&mut request.key);
        request.key = self.stored(&key)?;
        let getting = self.instance.call(|store| store.get(&request));
        let got = self.instance.count(Operation::Get, getting).await;
        got.and_then(|item| self.readable(item))
            .map_err(|cause| error::get(&key, self.instance.name(), &cause))
    }

    /// One outcome for every key, in any order. `parallelism` below 1 means
    /// that all may be asked for at once.
    pub async fn bulk_get(
        &self,
        mut requests: Vec<GetRequest>,
        parallelism: i64,
    ) -> Result<Vec<BulkItem>> {
        for request in &mut requests {
            request.key = self.stored(&request.key)?;
        }
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let parallelism = usize::try_from(parallelism)
            .ok()
            .filter(|n| *n > 0)
            .unwrap_or(requests.len());
        let getting = self
            .instance
            .call(|store| store.bulk_get(&requests, parallelism));
        let mut items = self
            .instance
            .count(Operation::BulkGet, getting)
            .await
            .map_err(|cause| error::bulk_get(&cause))?;
        for item in &mut items {
            item.key = self.prefix.strip(&item.key).to_owned();
            if self.keys.is_some() {
                let result = std::mem::replace(&mut item.result, Ok(None));
                item.result = result.and_then(|item| self.readable(item));
            }
        }
        Ok(items)
    }

    /// Saves all items or reports the first that could not be saved; a store
    /// without transactions may have saved some of the others.
    pub async fn save(&self, mut requests: Vec<SetRequest>) -> Result<()> {
        for request in &mut requests {
            request.key = self.stored(&request.key)?;
            self.encrypt(request)
                .map_err(|cause| error::save(self.instance.name(), &cause))?;
        }
        if requests.is_empty() {
            return Ok(());
        }
        let saving = async {
            match requests.as_slice() {
                [one] => self.instance.call(|store| store.set(one)).await,
                many => bulk::set(&self.instance, many).await.map_err(joined),
            }
        };
        self.instance
            .count(Operation::Set, saving)
            .await
            .map_err(|cause| error::save(self.instance.name(), &cause))
    }

    pub async fn delete(&self, mut request: DeleteRequest) -> Result<()> {
        let key = std::mem::take(&mut request.key);
        request.key = self.stored(&key)?;
        let deleting = self.instance.call(|store| store.delete(&request));
        self.instance
            .count(Operation::Delete, deleting)
            .await
            .map_err(|cause| error::delete(&key, &cause))
    }

    pub async fn bulk_delete(&self, mut requests: Vec<DeleteRequest>) -> Result<()> {
        for request in &mut requests {
            request.key = self.stored(&request.key)?;
        }
        if requests.is_empty() {
            return Ok(());
        }
        let deleting = async {
            match requests.as_slice() {
                [one] => self.instance.call(|store| store.delete(one)).await,
                many => bulk::delete(&self.instance, many).await.map_err(joined),
            }
        };
        self.instance
            .count(Operation::BulkDelete, deleting)
            .await
            .map_err(|cause| error::bulk_delete(self.instance.name(), &cause))
    }

    /// Searches items. Their keys come without the prefix.
    pub async fn query(&self, document: &[u8], metadata: Pairs) -> Result<Matches> {
        let name = self.instance.name();
        if !self.instance.direct().can_query() {
            return Err(error::no_queries(name));
        }
        if self.keys.is_some() {
            return Err(error::query(name, "cannot query encrypted store"));
        }
        let mut query = Query::parse(document).map_err(|cause| {
            error::query(name, format!("failed to parse JSON query body: {cause}"))
        })?;
        query.metadata = metadata;
        let searching = self.instance.call(|store| store.query(&query));
        let mut found = self
            .instance
            .count(Operation::Query, searching)
            .await
            .map_err(|cause| error::query_refused(name, &cause))?;
        for item in &mut found.items {
            item.key = self.prefix.strip(&item.key).to_owned();
        }
        Ok(found)
    }

    /// Refused before the request is even decoded, where the store has no
    /// transactions.
    pub fn check_transactional(&self) -> Result<()> {
        if self
            .instance
            .direct()
            .features()
            .contains(&Feature::Transactional)
        {
            Ok(())
        } else {
            Err(error::no_transactions(self.instance.name()))
        }
    }

    /// `outbox` publishes what is written where the store says so; `trace` is
    /// only asked then.
    pub async fn transact(
        &self,
        mut operations: Vec<state::Operation>,
        metadata: &Pairs,
        outbox: &Outbox,
        trace: impl FnOnce() -> Parent,
    ) -> Result<()> {
        for operation in &mut operations {
            let key = match operation {
                state::Operation::Upsert(request) => &mut request.key,
                state::Operation::Delete(request) => &mut request.key,
            };
            *key = self.stored(key)?;
        }
        if operations.is_empty() {
            return Ok(());
        }
        if let Some(most) = self
            .instance
            .direct()
            .max_operations()
            .await
            .filter(|most| operations.len() > *most)
        {
            return Err(error::too_many(
                self.instance.name(),
                operations.len(),
                most,
            ));
        }
        // Events carry what was saved; markers are not encrypted.
        let mut markers = outbox.no_markers();
        if let Some(settings) = &self.outbox {
            markers = Box::pin(outbox.publish(settings, &mut operations, &trace()))
                .await
                .map_err(|cause| error::outbox(&outbox.app_id, &cause))?;
            if operations.is_empty() {
                return Ok(());
            }
        }
        for operation in &mut operations {
            if let state::Operation::Upsert(request) = operation {
                self.encrypt(request)
                    .map_err(|cause| error::transaction(&cause))?;
            }
        }
        operations.extend(markers.operations());
        let transacting = self
            .instance
            .call(|store| store.transact(&operations, metadata));
        self.instance
            .count(Operation::Transaction, transacting)
            .await
            .map_err(|cause| error::transaction(&cause))?;
        markers.committed();
        Ok(())
    }
}

/// Several failures as one, of the kind that the caller can do most about.
fn joined(error: BulkError) -> Cause {
    let text = error.to_string();
    match error {
        BulkError::Whole(cause) => cause,
        BulkError::Items(items) => {
            let kinds = || items.iter().map(|item| &item.error);
            match kinds().find(|e| e.is_etag()).or_else(|| kinds().next()) {
                Some(first) => Cause::new(first.kind(), text),
                None => Cause::internal(text),
            }
        }
    }
}
