//! Operations on several items, each on its own: under a policy, only the
//! items that failed and can be retried are tried again.

use std::fmt;
use std::future::Future;
use std::sync::Mutex;

use outrider_components::Error as Cause;
use outrider_components::state::{BulkError, DeleteRequest, ItemError, SetRequest, Store};
use outrider_resiliency::{Error, Failure, Matching, Policy};

use crate::components::instance::{Instance, is_among, is_permanent};

pub async fn set(store: &Instance<dyn Store>, requests: &[SetRequest]) -> Result<(), BulkError> {
    let parallelism = requests.len();
    match store.policy() {
        None => store.direct().bulk_set(requests, parallelism).await,
        Some(policy) => {
            let again = move |left: Vec<SetRequest>| async move {
                store.direct().bulk_set(&left, parallelism).await
            };
            Box::pin(each(policy, requests, again)).await
        }
    }
}

pub async fn delete(
    store: &Instance<dyn Store>,
    requests: &[DeleteRequest],
) -> Result<(), BulkError> {
    let parallelism = requests.len();
    match store.policy() {
        None => store.direct().bulk_delete(requests, parallelism).await,
        Some(policy) => {
            let again = move |left: Vec<DeleteRequest>| async move {
                store.direct().bulk_delete(&left, parallelism).await
            };
            Box::pin(each(policy, requests, again)).await
        }
    }
}

/// A bulk operation that did not succeed for all items.
struct Partly {
    error: BulkError,
    /// Nothing is left that can be retried.
    permanent: bool,
}

impl fmt::Display for Partly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Failure for Partly {
    fn is_among(&self, codes: &Matching) -> bool {
        match &self.error {
            BulkError::Whole(cause) => is_among(cause, codes),
            BulkError::Items(_) => true,
        }
    }

    fn is_permanent(&self) -> bool {
        self.permanent
    }
}

/// Where a bulk operation stands.
struct Progress {
    /// Places in the request of the items that are still to be done.
    left: Vec<usize>,
    /// Items whose failure is permanent.
    permanent: Vec<ItemError>,
}

/// Repeats a bulk operation for the items that failed and can be retried.
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
        permanent: Vec::new(),
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
                let (permanent, failed): (Vec<_>, Vec<_>) =
                    items.partition(|item| is_permanent(&item.error));
                let mut progress = progress();
                progress.permanent.extend(permanent);
                progress.left = failed.iter().map(|item| item.index).collect();
                if failed.is_empty() {
                    // The rest is done; permanent failures are reported at the end.
                    return Ok(());
                }
                Err(Partly {
                    error: BulkError::Items(failed),
                    permanent: false,
                })
            }
        })
        .await;
    let permanent = std::mem::take(&mut progress().permanent);
    let failed = match done {
        Ok(()) => Vec::new(),
        Err(Error::Failed(Partly {
            error: BulkError::Items(failed),
            ..
        })) => failed,
        Err(Error::Failed(Partly { error, .. })) => return Err(error),
        Err(refused) => return Err(Cause::unavailable(refused.to_string()).into()),
    };
    let all: Vec<ItemError> = permanent.into_iter().chain(failed).collect();
    if all.is_empty() {
        Ok(())
    } else {
        Err(BulkError::Items(all))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use outrider_components::state::{Feature, GetRequest, Item, Value};
    use outrider_resiliency::{Block, Resiliency};
    use serde_json::json;

    use super::*;
    use crate::components::instance::{Description, Policies};

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

        /// As a component of another program fails: with a code of gRPC.
        async fn bulk_delete(&self, requests: &[DeleteRequest], _: usize) -> Result<(), BulkError> {
            self.calls.lock().unwrap().push(requests[0].key.clone());
            Err(Cause::unavailable("").with_code(14).into())
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

    fn store_with_retries() -> (Arc<Probe>, Instance<dyn Store>) {
        store_with(json!({"duration": "1s", "maxRetries": 2}))
    }

    fn store_with(retry: serde_json::Value) -> (Arc<Probe>, Instance<dyn Store>) {
        let resource = json!({"spec": {
            "policies": {"retries": {"r": retry}, "timeouts": {"t": "1s"}},
            "targets": {"components": {"store": {"outbound": {"retry": "r", "timeout": "t"}}}},
        }});
        let resiliency = Resiliency::default();
        resiliency.replace(&[outrider_crds::decode::from_value(&resource).unwrap()]);
        let probe = Arc::new(Probe::default());
        let description = Description {
            name: "store".to_owned(),
            component_type: "state.probe".to_owned(),
            version: "v1".to_owned(),
            capabilities: Vec::new(),
        };
        let policies = Policies {
            resiliency,
            block: Block::StateStore,
        };
        let inner: Arc<dyn Store> = probe.clone();
        (
            probe,
            Instance::new(description, inner, policies, Default::default()),
        )
    }

    fn sets(keys: &[&str]) -> Vec<SetRequest> {
        let set = |key: &&str| SetRequest::new(*key, Value::Binary("x".into()));
        keys.iter().map(set).collect()
    }

    async fn fetch(store: &Instance<dyn Store>, key: &str) -> Result<Option<Item>, Cause> {
        let request = GetRequest {
            key: key.to_owned(),
            ..GetRequest::default()
        };
        store.call(|store| store.get(&request)).await
    }

    fn keys(error: BulkError) -> Vec<(usize, String)> {
        let BulkError::Items(items) = error else {
            panic!("{error}");
        };
        items.into_iter().map(|i| (i.index, i.key)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_item() {
        let (probe, store) = store_with_retries();
        fetch(&store, "2").await.unwrap();
        assert_eq!(probe.take().len(), 3);
        for key in ["etag", "wrong"] {
            fetch(&store, key).await.unwrap_err();
            assert_eq!(probe.take().len(), 1, "{key}");
        }
        let late = fetch(&store, "never").await.unwrap_err();
        assert_eq!(late.to_string(), "context deadline exceeded");
    }

    #[tokio::test(start_paused = true)]
    async fn only_items_that_can_be_retried_are_written_again() {
        let (probe, store) = store_with_retries();
        let requests = sets(&["ok", "1", "etag", "2"]);
        let error = set(&store, &requests).await.unwrap_err();
        assert_eq!(keys(error), [(2, "etag".to_owned())]);
        assert_eq!(probe.take(), ["1", "1", "2", "2", "2", "etag", "ok"]);

        let requests = sets(&["wrong", "9", "etag"]);
        let error = set(&store, &requests).await.unwrap_err();
        let left = [(0, "wrong"), (2, "etag"), (1, "9")].map(|(at, key)| (at, key.to_owned()));
        assert_eq!(keys(error), left);
        assert_eq!(probe.take(), ["9", "9", "9", "etag", "wrong"]);

        set(&store, &sets(&["1", "ok"])).await.unwrap();
        assert_eq!(probe.take(), ["1", "1", "ok"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_the_whole_is_tried_again_only_for_the_codes_of_the_policy() {
        let request = [DeleteRequest {
            key: "k".to_owned(),
            ..DeleteRequest::default()
        }];
        for (codes, calls) in [("14", 3), ("8", 1)] {
            let matching = json!({"gRPCStatusCodes": codes});
            let retry = json!({"duration": "1s", "maxRetries": 2, "matching": matching});
            let (probe, store) = store_with(retry);
            delete(&store, &request).await.unwrap_err();
            assert_eq!(probe.take().len(), calls, "{codes}");
        }
    }
}
