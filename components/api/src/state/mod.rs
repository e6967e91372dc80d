//! Key and value stores: <https://docs.dapr.io/developing-applications/building-blocks/state-management/>.

mod bulk;
mod query;
mod request;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use async_trait::async_trait;

use crate::{Error, Pairs};

pub use bulk::{BulkError, BulkItem, ItemError};
pub use query::{Match, Matches, Page, Query, Sorting};
pub use request::{
    Concurrency, Consistency, DeleteRequest, GetRequest, Item, KeysLikePage, KeysLikeRequest,
    Operation, SetRequest, TTL_EXPIRE_TIME, TTL_IN_SECONDS, Value,
};

/// What a store can do beyond reading and writing one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Items carry an etag, and writes can be bound to one.
    Etag,
    /// Several writes happen all or not at all.
    Transactional,
    /// Items can be searched by their content.
    QueryApi,
    /// Items can expire.
    Ttl,
    /// All items below one prefix can be deleted at once.
    DeleteWithPrefix,
    /// Items can be placed by a partition key.
    PartitionKey,
    /// Keys can be listed by a pattern.
    KeysLike,
}

impl Feature {
    /// All of them.
    const ALL: [Feature; 7] = [
        Feature::Etag,
        Feature::Transactional,
        Feature::QueryApi,
        Feature::Ttl,
        Feature::DeleteWithPrefix,
        Feature::PartitionKey,
        Feature::KeysLike,
    ];

    /// The feature of this name.
    pub fn named(name: &str) -> Option<Feature> {
        Feature::ALL.into_iter().find(|f| f.name() == name)
    }

    /// The name that the metadata API reports.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Etag => "ETAG",
            Feature::Transactional => "TRANSACTIONAL",
            Feature::QueryApi => "QUERY_API",
            Feature::Ttl => "TTL",
            Feature::DeleteWithPrefix => "DELETE_WITH_PREFIX",
            Feature::PartitionKey => "PARTITION_KEY",
            Feature::KeysLike => "KEYS_LIKE",
        }
    }
}

/// A connected state store. Its constructor is in the
/// [`Registry`](crate::Registry).
///
/// An empty etag in a request means the same as none. Operations whose feature a
/// store does not list in [`features`](Store::features) fail with
/// [`Kind::Unsupported`](crate::Kind::Unsupported).
#[async_trait]
pub trait Store: Send + Sync {
    /// What the store can do, in the order in which it is reported.
    fn features(&self) -> &[Feature];

    /// The item under a key, if there is one that has not expired.
    async fn get(&self, request: &GetRequest) -> Result<Option<Item>, Error>;

    /// Writes one item.
    async fn set(&self, request: &SetRequest) -> Result<(), Error>;

    /// Deletes one item. An item that does not exist is an error only if the
    /// request has an etag.
    async fn delete(&self, request: &DeleteRequest) -> Result<(), Error>;

    /// One answer per request, in the same order. A `parallelism` of zero
    /// leaves the number of reads at a time to the store.
    async fn bulk_get(
        &self,
        requests: &[GetRequest],
        parallelism: usize,
    ) -> Result<Vec<BulkItem>, Error> {
        Ok(bulk::get(self, requests, parallelism).await)
    }

    /// Writes several items, each on its own: some may fail.
    async fn bulk_set(&self, requests: &[SetRequest], parallelism: usize) -> Result<(), BulkError> {
        bulk::set(self, requests, parallelism).await
    }

    /// Deletes several items, each on its own: some may fail.
    async fn bulk_delete(
        &self,
        requests: &[DeleteRequest],
        parallelism: usize,
    ) -> Result<(), BulkError> {
        bulk::delete(self, requests, parallelism).await
    }

    /// Does all operations in their order, or none.
    async fn transact(&self, operations: &[Operation], metadata: &Pairs) -> Result<(), Error> {
        let _ = (operations, metadata);
        Err(Error::unsupported("the state store has no transactions"))
    }

    /// How many operations fit into one transaction; `None` means no limit.
    async fn max_operations(&self) -> Option<usize> {
        None
    }

    /// Whether items can be searched.
    fn can_query(&self) -> bool {
        false
    }

    /// Searches items.
    async fn query(&self, query: &Query) -> Result<Matches, Error> {
        let _ = query;
        Err(Error::unsupported("the state store cannot be searched"))
    }

    /// Deletes every item whose key is `prefix` followed by text without `||`,
    /// and returns their number. A missing `||` at the end of the prefix is
    /// added.
    async fn delete_with_prefix(&self, prefix: &str) -> Result<u64, Error> {
        let _ = prefix;
        Err(Error::unsupported(
            "the state store cannot delete by prefix",
        ))
    }

    /// One page of the keys that match a pattern, oldest first.
    async fn keys_like(&self, request: &KeysLikeRequest) -> Result<KeysLikePage, Error> {
        let _ = request;
        Err(Error::unsupported("the state store cannot list keys"))
    }

    /// Whether the backing service answers.
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends background work and connections. No other call comes after it.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// The value of [`TTL_EXPIRE_TIME`] for an item that expires at `time`.
pub fn expire_time(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        });
    jiff::Timestamp::from_second(seconds)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

/// The prefix of a [`Store::delete_with_prefix`] as stores use it.
pub fn prefix(prefix: &str) -> Result<String, Error> {
    match prefix {
        "" | "||" => Err(Error::invalid(
            "a prefix is required for deleteWithPrefix request",
        )),
        whole if whole.ends_with("||") => Ok(whole.to_owned()),
        bare => Ok(format!("{bare}||")),
    }
}
