//! `state.in-memory`: <https://docs.dapr.io/reference/components-reference/supported-state-stores/setup-inmemory/>.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::num::IntErrorKind;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use outrider_components::state::{
    BulkItem, Concurrency, DeleteRequest, Feature, GetRequest, Item, KeysLikePage, KeysLikeRequest,
    Operation, SetRequest, Store, TTL_EXPIRE_TIME, TTL_IN_SECONDS, expire_time, prefix,
};
use outrider_components::{Context, Error, Field, Metadata, Pairs};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::like;

/// There are no metadata fields.
pub const FIELDS: &[&[Field]] = &[];

struct Memory {
    shared: Arc<Shared>,
    purge: Mutex<JoinSet<()>>,
}

struct Shared {
    items: Mutex<Items>,
    /// Notified when an item expires before all others.
    next_expiry_changed: Notify,
}

struct Items {
    by_key: HashMap<String, Stored>,
    /// Keys by expiry, then by the number of their write.
    expiring: BTreeMap<(SystemTime, u64), String>,
    writes: u64,
    /// A random part of all etags, so that those of an earlier process never
    /// match.
    etag_prefix: u32,
}

struct Stored {
    value: Bytes,
    write: u64,
    expires: Option<SystemTime>,
}

/// Needs no configuration.
pub async fn connect(_: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    Ok(Arc::new(Memory::new()))
}

impl Memory {
    fn new() -> Memory {
        let shared = Arc::new(Shared {
            items: Mutex::new(Items {
                by_key: HashMap::new(),
                expiring: BTreeMap::new(),
                writes: 0,
                etag_prefix: RandomState::new().hash_one(SystemTime::now()) as u32,
            }),
            next_expiry_changed: Notify::new(),
        });
        let mut purge = JoinSet::new();
        purge.spawn(shared.clone().purge());
        Memory {
            shared,
            purge: Mutex::new(purge),
        }
    }
}

impl Shared {
    fn items(&self) -> MutexGuard<'_, Items> {
        self.items.lock().unwrap_or_else(|e| e.into_inner())
    }

    async fn purge(self: Arc<Shared>) {
        loop {
            let next = self.items().purge(SystemTime::now());
            let changed = self.next_expiry_changed.notified();
            match next {
                None => changed.await,
                Some(time) => {
                    let wait = time.duration_since(SystemTime::now()).unwrap_or_default();
                    // Not less, so that items that expire one after the other
                    // are removed together.
                    let wait = wait.max(Duration::from_millis(100));
                    let _ = tokio::time::timeout(wait, changed).await;
                }
            }
        }
    }
}

impl Items {
    /// The item under `key`, unless it has expired.
    fn live(&self, key: &str) -> Option<&Stored> {
        let stored = self.by_key.get(key)?;
        let expired = stored.expires.is_some_and(|time| time < SystemTime::now());
        (!expired).then_some(stored)
    }

    fn etag(&self, stored: &Stored) -> String {
        format!("{:08x}-{}", self.etag_prefix, stored.write)
    }

    fn get(&self, key: &str) -> Option<Item> {
        let stored = self.live(key)?;
        let metadata = stored.expires.map_or_else(Pairs::new, |time| {
            Pairs::from([(TTL_EXPIRE_TIME.to_owned(), expire_time(time))])
        });
        Some(Item {
            value: stored.value.clone(),
            etag: Some(self.etag(stored)),
            metadata,
            content_type: None,
        })
    }

    fn check(&self, key: &str, etag: Option<&str>, concurrency: Concurrency) -> Result<(), Error> {
        match (etag, self.live(key)) {
            (None, Some(_)) if concurrency == Concurrency::FirstWrite => Err(Error::etag_mismatch(
                "item already exists and no etag was passed",
            )),
            (None, _) => Ok(()),
            (Some(_), None) => Err(Error::etag_mismatch(&format!(
                "state not exist or expired for key={key}"
            ))),
            (Some(wanted), Some(stored)) => {
                let current = self.etag(stored);
                if current == wanted {
                    return Ok(());
                }
                Err(Error::etag_mismatch(&format!(
                    "state etag not match for key={key}: current={current}, expect={wanted}"
                )))
            }
        }
    }

    /// Returns whether the item expires before all others.
    fn set(&mut self, key: &str, value: Bytes, ttl: Option<Duration>) -> bool {
        let stored = Stored {
            value,
            write: self.writes,
            expires: ttl.and_then(|ttl| SystemTime::now().checked_add(ttl)),
        };
        self.writes += 1;
        let mut is_next = false;
        if let Some(expires) = stored.expires {
            let first = self.expiring.first_key_value().map(|((time, _), _)| *time);
            is_next = first.is_none_or(|first| expires < first);
            self.expiring
                .insert((expires, stored.write), key.to_owned());
        }
        let replaced = match self.by_key.get_mut(key) {
            Some(slot) => Some(std::mem::replace(slot, stored)),
            None => self.by_key.insert(key.to_owned(), stored),
        };
        self.remove_expiry(replaced);
        is_next
    }

    fn delete(&mut self, key: &str) {
        let removed = self.by_key.remove(key);
        self.remove_expiry(removed);
    }

    fn remove_expiry(&mut self, removed: Option<Stored>) {
        if let Some(Stored {
            write,
            expires: Some(expires),
            ..
        }) = removed
        {
            self.expiring.remove(&(expires, write));
        }
    }

    /// Removes expired items, and returns when the next one expires.
    fn purge(&mut self, now: SystemTime) -> Option<SystemTime> {
        while let Some(first) = self.expiring.first_entry() {
            let expires = first.key().0;
            if expires >= now {
                return Some(expires);
            }
            let key = first.remove();
            self.by_key.remove(&key);
        }
        None
    }
}

/// The time to live, if the request has one; 0 and less mean for ever.
fn ttl(metadata: &Pairs) -> Result<Option<Duration>, Error> {
    let Some(text) = metadata.get(TTL_IN_SECONDS).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let seconds: i64 = text.parse().map_err(|error: std::num::ParseIntError| {
        let reason = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        Error::invalid(format!(
            "strconv.Atoi: parsing {}: {reason}",
            outrider_kit::quote::go(text)
        ))
    })?;
    Ok(u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs))
}

#[async_trait]
impl Store for Memory {
    fn features(&self) -> &[Feature] {
        &[
            Feature::Etag,
            Feature::Transactional,
            Feature::Ttl,
            Feature::DeleteWithPrefix,
            Feature::KeysLike,
        ]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>, Error> {
        Ok(self.shared.items().get(&request.key))
    }

    async fn set(&self, request: &SetRequest) -> Result<(), Error> {
        let ttl = ttl(&request.metadata)?;
        let is_next = {
            let mut items = self.shared.items();
            items.check(&request.key, request.etag(), request.concurrency)?;
            items.set(&request.key, request.value.bytes().clone(), ttl)
        };
        if is_next {
            self.shared.next_expiry_changed.notify_one();
        }
        Ok(())
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        let mut items = self.shared.items();
        items.check(&request.key, request.etag(), request.concurrency)?;
        items.delete(&request.key);
        Ok(())
    }

    async fn bulk_get(&self, requests: &[GetRequest], _: usize) -> Result<Vec<BulkItem>, Error> {
        let items = self.shared.items();
        Ok(requests
            .iter()
            .map(|request| BulkItem {
                key: request.key.clone(),
                result: Ok(items.get(&request.key)),
            })
            .collect())
    }

    async fn transact(&self, operations: &[Operation], _: &Pairs) -> Result<(), Error> {
        let ttls = operations
            .iter()
            .map(|operation| match operation {
                Operation::Upsert(request) => ttl(&request.metadata),
                Operation::Delete(_) => Ok(None),
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let mut is_next = false;
        {
            let mut items = self.shared.items();
            for operation in operations {
                let (etag, concurrency) = match operation {
                    Operation::Upsert(request) => (request.etag(), request.concurrency),
                    Operation::Delete(request) => (request.etag(), request.concurrency),
                };
                items.check(operation.key(), etag, concurrency)?;
            }
            for (operation, ttl) in operations.iter().zip(ttls) {
                match operation {
                    Operation::Upsert(request) => {
                        is_next |= items.set(&request.key, request.value.bytes().clone(), ttl);
                    }
                    Operation::Delete(request) => items.delete(&request.key),
                }
            }
        }
        if is_next {
            self.shared.next_expiry_changed.notify_one();
        }
        Ok(())
    }

    async fn delete_with_prefix(&self, wanted: &str) -> Result<u64, Error> {
        let prefix = prefix(wanted)?;
        let mut items = self.shared.items();
        let keys: Vec<String> = items
            .by_key
            .keys()
            .filter(|key| {
                key.strip_prefix(&prefix)
                    .is_some_and(|rest| !rest.contains("||"))
            })
            .cloned()
            .collect();
        for key in &keys {
            items.delete(key);
        }
        Ok(keys.len() as u64)
    }

    /// The continuation is the number of the write of the next item.
    async fn keys_like(&self, request: &KeysLikeRequest) -> Result<KeysLikePage, Error> {
        let pattern = like::Pattern::new(request.pattern()?);
        let from = match &request.continuation {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                Error::invalid(format!(
                    "invalid continue token: strconv.ParseUint: parsing {}: invalid syntax",
                    outrider_kit::quote::go(text)
                ))
            })?,
        };
        let mut found: Vec<(u64, String)> = {
            let items = self.shared.items();
            items
                .by_key
                .iter()
                .filter(|(key, stored)| stored.write >= from && pattern.matches(key))
                .filter(|(key, _)| items.live(key).is_some())
                .map(|(key, stored)| (stored.write, key.clone()))
                .collect()
        };
        found.sort_unstable();
        let fits = request.page_size.map_or(usize::MAX, |size| size as usize);
        let continuation = found.get(fits).map(|(write, _)| write.to_string());
        found.truncate(fits);
        Ok(KeysLikePage {
            keys: found.into_iter().map(|(_, key)| key).collect(),
            continuation,
        })
    }

    async fn close(&self) -> Result<(), Error> {
        self.purge
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .abort_all();
        let mut items = self.shared.items();
        items.by_key = HashMap::new();
        items.expiring = BTreeMap::new();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use outrider_components::Kind;
    use outrider_components::state::Value;

    use super::*;

    fn set(key: &str) -> SetRequest {
        SetRequest::new(key, Value::Binary(Bytes::from_static(b"x")))
    }

    fn expiring(key: &str, seconds: &str) -> SetRequest {
        SetRequest {
            metadata: Pairs::from([(TTL_IN_SECONDS.to_owned(), seconds.to_owned())]),
            ..set(key)
        }
    }

    #[tokio::test]
    async fn expired_items_leave_memory_without_being_read() {
        let store = Memory::new();
        for key in ["a", "b"] {
            store.set(&expiring(key, "1")).await.expect("set");
        }
        store.set(&expiring("later", "1000")).await.expect("set");
        store
            .set(&expiring("b", "0"))
            .await
            .expect("b stays after all");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while store.shared.items().by_key.len() > 2 {
            assert!(tokio::time::Instant::now() < deadline, "purged in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let items = store.shared.items();
        assert!(items.by_key.contains_key("b") && items.by_key.contains_key("later"));
        assert_eq!(items.expiring.len(), 1);
    }

    #[tokio::test]
    async fn errors_of_writes_say_why() {
        let store = Memory::new();
        let with_etag = SetRequest {
            etag: Some("1".to_owned()),
            ..set("k")
        };
        let error = store.set(&with_etag).await.expect_err("nothing there");
        assert_eq!(error.kind(), Kind::EtagMismatch);
        assert_eq!(
            error.to_string(),
            "possible etag mismatch. error from state store: state not exist or expired for key=k"
        );
        let error = store
            .set(&expiring("k", "soon"))
            .await
            .expect_err("no number");
        assert_eq!(
            error.to_string(),
            r#"strconv.Atoi: parsing "soon": invalid syntax"#
        );
        store.set(&set("k")).await.expect("set");
        let first = SetRequest {
            concurrency: Concurrency::FirstWrite,
            ..set("k")
        };
        let error = store.set(&first).await.expect_err("is there");
        assert!(
            error
                .to_string()
                .ends_with("item already exists and no etag was passed")
        );
    }

    #[tokio::test]
    async fn closing_deletes_all_items() {
        let store = Memory::new();
        store.set(&expiring("k", "1000")).await.expect("set");
        store.close().await.expect("close");
        assert!(store.shared.items().by_key.is_empty());
        assert_eq!(store.get(&GetRequest::new("k")).await.expect("get"), None);
    }
}
