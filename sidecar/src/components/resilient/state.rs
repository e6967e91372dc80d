//! State stores.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use outrider_components::state::{
    BulkError, BulkItem, DeleteRequest, Feature, GetRequest, Item, ItemError, KeysLikePage,
    KeysLikeRequest, Matches, Operation, Query, SetRequest, Store,
};
use outrider_components::{Error as Cause, Pairs};
use outrider_resiliency::{Block, Error, Failure, Policy, Resiliency};

use super::{Call, Guard, is_permanent, run};

struct Resilient {
    inner: Arc<dyn Store>,
    guard: Guard,
}

/// The store, under the policies of `name`.
pub fn wrap(inner: Arc<dyn Store>, resiliency: &Resiliency, name: &str) -> Arc<dyn Store> {
    let guard = Guard::new(resiliency, name, Block::StateStore);
    Arc::new(Resilient { inner, guard })
}

/// Operations on one item.
macro_rules! single {
    ($($name:ident($kind:ty) -> $done:ty;)*) => {$(
        fn $name<'s, 'r, 'c>(&'s self, request: &'r $kind) -> Call<'c, Result<$done, Cause>>
        where
            's: 'c,
            'r: 'c,
            Self: 'c,
        {
            match self.guard.policy() {
                None => self.inner.$name(request),
                Some(policy) => Box::pin(run(policy, || self.inner.$name(request))),
            }
        }
    )*};
}

/// Operations on several items, each on its own.
macro_rules! bulk {
    ($($name:ident($kind:ty);)*) => {$(
        fn $name<'s, 'r, 'c>(
            &'s self,
            requests: &'r [$kind],
            parallelism: usize,
        ) -> Call<'c, Result<(), BulkError>>
        where
            's: 'c,
            'r: 'c,
            Self: 'c,
        {
            match self.guard.policy() {
                None => self.inner.$name(requests, parallelism),
                Some(policy) => Box::pin(each(policy, requests, move |left: Vec<$kind>| async move {
                    self.inner.$name(&left, parallelism).await
                })),
            }
        }
    )*};
}

#[async_trait]
impl Store for Resilient {
    fn features(&self) -> &[Feature] {
        self.inner.features()
    }

    single! {
        get(GetRequest) -> Option<Item>;
        set(SetRequest) -> ();
        delete(DeleteRequest) -> ();
        query(Query) -> Matches;
    }

    fn can_query(&self) -> bool {
        self.inner.can_query()
    }

    bulk! {
        bulk_set(SetRequest);
        bulk_delete(DeleteRequest);
    }

    fn bulk_get<'s, 'r, 'c>(
        &'s self,
        requests: &'r [GetRequest],
        parallelism: usize,
    ) -> Call<'c, Result<Vec<BulkItem>, Cause>>
    where
        's: 'c,
        'r: 'c,
        Self: 'c,
    {
        match self.guard.policy() {
            None => self.inner.bulk_get(requests, parallelism),
            Some(policy) => Box::pin(run(policy, move || {
                self.inner.bulk_get(requests, parallelism)
            })),
        }
    }

    fn transact<'s, 'o, 'm, 'c>(
        &'s self,
        operations: &'o [Operation],
        metadata: &'m Pairs,
    ) -> Call<'c, Result<(), Cause>>
    where
        's: 'c,
        'o: 'c,
        'm: 'c,
        Self: 'c,
    {
        match self.guard.policy() {
            None => self.inner.transact(operations, metadata),
            Some(policy) => Box::pin(run(policy, || self.inner.transact(operations, metadata))),
        }
    }

    async fn max_operations(&self) -> Option<usize> {
        self.inner.max_operations().await
    }

    async fn delete_with_prefix(&self, prefix: &str) -> Result<u64, Cause> {
        self.inner.delete_with_prefix(prefix).await
    }

    async fn keys_like(&self, request: &KeysLikeRequest) -> Result<KeysLikePage, Cause> {
        self.inner.keys_like(request).await
    }

    async fn ping(&self) -> Result<(), Cause> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<(), Cause> {
        self.inner.close().await
    }
}

/// A bulk operation that did not succeed for all items.
struct Partly {
    error: BulkError,
    /// Nothing is left that could go better.
    permanent: bool,
}

impl fmt::Display for Partly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Failure for Partly {
    fn is_permanent(&self) -> bool {
        self.permanent
    }
}

/// Where a bulk operation stands.
struct Progress {
    /// Places in the request of the items that are still to be done.
    left: Vec<usize>,
    /// Items that will not go better.
    lost: Vec<ItemError>,
}

/// Repeats a bulk operation for the items that failed and may go better.
async fn each<R, Running>(
    policy: Policy,
    requests: &[R],
    operation: impl Fn(Vec<R>) -> Running + Sync,
) -> Result<(), BulkError>
where
    R: Clone + Sync,
    Running: Future<Output = Result<(), BulkError>> + Send,
{
    let progress = Mutex::new(Progress {
        left: (0..requests.len()).collect(),
        lost: Vec::new(),
    });
    let progress = || progress.lock().unwrap_or_else(|e| e.into_inner());
    let done = policy
        .run(|_| {
            let left = progress().left.clone();
            let batch = left.iter().map(|index| requests[*index].clone()).collect();
            let running = operation(batch);
            let progress = &progress;
            async move {
                let items = match running.await {
                    Ok(()) => return Ok(()),
                    Err(error @ BulkError::Whole(_)) => {
                        let permanent =
                            matches!(&error, BulkError::Whole(cause) if is_permanent(cause));
                        return Err(Partly { error, permanent });
                    }
                    Err(BulkError::Items(items)) => items,
                };
                let items = items.into_iter().map(|item| ItemError {
                    index: left.get(item.index).copied().unwrap_or_default(),
                    ..item
                });
                let (lost, failed): (Vec<_>, Vec<_>) =
                    items.partition(|item| is_permanent(&item.error));
                let mut progress = progress();
                progress.lost.extend(lost);
                progress.left = failed.iter().map(|item| item.index).collect();
                if failed.is_empty() {
                    // The rest is done; what is lost is reported at the end.
                    return Ok(());
                }
                Err(Partly {
                    error: BulkError::Items(failed),
                    permanent: false,
                })
            }
        })
        .await;
    let lost = std::mem::take(&mut progress().lost);
    let failed = match done {
        Ok(()) => Vec::new(),
        Err(Error::Failed(Partly {
            error: BulkError::Items(failed),
            ..
        })) => failed,
        Err(Error::Failed(Partly { error, .. })) => return Err(error),
        Err(refused) => return Err(Cause::unavailable(refused.to_string()).into()),
    };
    let all: Vec<ItemError> = lost.into_iter().chain(failed).collect();
    if all.is_empty() {
        Ok(())
    } else {
        Err(BulkError::Items(all))
    }
}

#[cfg(test)]
mod tests {
    use outrider_components::state::Value;
    use serde_json::json;

    use super::*;

    /// Does what the key says: `ok`, `etag`, `wrong`, or refuses as often as the
    /// number.
    #[derive(Default)]
    struct Probe {
        calls: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Store for Probe {
        fn features(&self) -> &[Feature] {
            &[]
        }

        async fn get(&self, request: &GetRequest) -> Result<Option<Item>, Cause> {
            if request.key == "never" {
                std::future::pending::<()>().await;
            }
            self.act(&request.key).map(|()| None)
        }

        async fn set(&self, request: &SetRequest) -> Result<(), Cause> {
            self.act(&request.key)
        }

        async fn delete(&self, request: &DeleteRequest) -> Result<(), Cause> {
            self.act(&request.key)
        }
    }

    impl Probe {
        fn act(&self, key: &str) -> Result<(), Cause> {
            let mut calls = self.calls.lock().unwrap();
            calls.push(key.to_owned());
            let number = calls.iter().filter(|c| *c == key).count();
            match key {
                "ok" => Ok(()),
                "etag" => Err(Cause::etag_mismatch("")),
                "wrong" => Err(Cause::invalid("")),
                often if number > often.parse::<usize>().unwrap() => Ok(()),
                _ => Err(Cause::unavailable("not yet")),
            }
        }

        fn take(&self) -> Vec<String> {
            let mut calls = std::mem::take(&mut *self.calls.lock().unwrap());
            calls.sort();
            calls
        }
    }

    fn wrapped() -> (Arc<Probe>, Arc<dyn Store>) {
        let resource = json!({"spec": {
            "policies": {"retries": {"r": {"duration": "1s", "maxRetries": 2}}, "timeouts": {"t": "1s"}},
            "targets": {"components": {"store": {"outbound": {"retry": "r", "timeout": "t"}}}},
        }});
        let resiliency = Resiliency::default();
        resiliency.replace(&[outrider_crds::decode::from_value(&resource).unwrap()]);
        let probe = Arc::new(Probe::default());
        (probe.clone(), wrap(probe, &resiliency, "store"))
    }

    fn sets(keys: &[&str]) -> Vec<SetRequest> {
        let set = |key: &&str| SetRequest::new(*key, Value::Binary("x".into()));
        keys.iter().map(set).collect()
    }

    fn keys(error: BulkError) -> Vec<(usize, String)> {
        let BulkError::Items(items) = error else {
            panic!("{error}");
        };
        items.into_iter().map(|i| (i.index, i.key)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_item() {
        let (probe, store) = wrapped();
        let get = |key: &str| GetRequest {
            key: key.to_owned(),
            ..GetRequest::default()
        };
        store.get(&get("2")).await.unwrap();
        assert_eq!(probe.take().len(), 3);
        for key in ["etag", "wrong"] {
            store.get(&get(key)).await.unwrap_err();
            assert_eq!(probe.take().len(), 1, "{key}");
        }
        let late = store.get(&get("never")).await.unwrap_err();
        assert_eq!(late.to_string(), "context deadline exceeded");
    }

    #[tokio::test(start_paused = true)]
    async fn only_items_that_may_go_better_are_written_again() {
        let (probe, store) = wrapped();
        let requests = sets(&["ok", "1", "etag", "2"]);
        let error = store.bulk_set(&requests, 1).await.unwrap_err();
        assert_eq!(keys(error), [(2, "etag".to_owned())]);
        assert_eq!(probe.take(), ["1", "1", "2", "2", "2", "etag", "ok"]);

        let requests = sets(&["wrong", "9", "etag"]);
        let error = store.bulk_set(&requests, 1).await.unwrap_err();
        let left = [(0, "wrong"), (2, "etag"), (1, "9")].map(|(at, key)| (at, key.to_owned()));
        assert_eq!(keys(error), left);
        assert_eq!(probe.take(), ["9", "9", "9", "etag", "wrong"]);

        store.bulk_set(&sets(&["1", "ok"]), 1).await.unwrap();
        assert_eq!(probe.take(), ["1", "1", "ok"]);
    }
}
