//! The suite for configuration stores.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::configuration::{Handler, Item, Items, Request, Store, Subscription};
use outrider_components::{Error, Pairs};
use tokio::sync::mpsc;

const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
/// How long something must not come, to count as absent.
const SILENCE: Duration = Duration::from_millis(300);

/// Changes what a store reads, as another program.
#[async_trait]
pub trait Outside: Send + Sync {
    /// Puts a value into the store. Returns the version that it then has.
    async fn set(&self, key: &str, value: &str) -> String;

    /// Removes a key.
    async fn delete(&self, key: &str);
}

/// What a store does besides.
#[derive(Debug, Clone)]
pub struct Promises {
    /// Keys that are removed are sent, with an empty value.
    pub tells_deletions: bool,
    /// A key keeps its version until it changes itself.
    pub versions_keys: bool,
    /// A new subscription begins with what is there.
    pub tells_current: bool,
    /// Metadata that subscriptions need.
    pub metadata: Pairs,
}

struct Recorder(mpsc::UnboundedSender<(String, Item)>);

#[async_trait]
impl Handler for Recorder {
    async fn handle(&self, items: Items) {
        for change in items {
            let _ = self.0.send(change);
        }
    }
}

struct Changes {
    changes: mpsc::UnboundedReceiver<(String, Item)>,
    _subscription: Subscription,
}

impl Changes {
    /// Waits for a value of a key, and skips older ones.
    async fn value(&mut self, key: &str, value: &str) -> Item {
        let waiting = async {
            loop {
                let (of, item) = self.changes.recv().await.expect("is subscribed");
                if of == key && item.value == value {
                    return item;
                }
            }
        };
        let arrived = tokio::time::timeout(ARRIVES_WITHIN, waiting).await;
        arrived.unwrap_or_else(|_| panic!("no change of {key} to {value:?}"))
    }

    /// The keys of what else arrives.
    async fn rest(&mut self) -> Vec<String> {
        let mut keys = Vec::new();
        while let Ok(Some((key, _))) = tokio::time::timeout(SILENCE, self.changes.recv()).await {
            keys.push(key);
        }
        keys
    }
}

fn request(keys: &[&str], metadata: &Pairs) -> Request {
    Request {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        metadata: metadata.clone(),
    }
}

async fn subscribe(store: &dyn Store, keys: &[&str], promises: &Promises) -> Changes {
    let (sender, changes) = mpsc::unbounded_channel();
    let request = request(keys, &promises.metadata);
    let subscribed = store.subscribe(&request, Arc::new(Recorder(sender))).await;
    Changes {
        changes,
        _subscription: subscribed.expect("subscribe"),
    }
}

/// The suite without subscriptions.
pub async fn get(store: &dyn Store, outside: &dyn Outside, promises: &Promises) {
    let (a, b) = ("first.key", "second_key");
    let versions = [outside.set(a, "1").await, outside.set(b, "2").await];
    // Some read what a watch has brought.
    crate::eventually("both keys are read", ARRIVES_WITHIN, || async {
        let all = store.get(&request(&[], &Pairs::new())).await;
        all.expect("get all").len() >= 2
    })
    .await;
    let get = async |keys: &[&str]| -> Result<Items, Error> {
        store.get(&request(keys, &Pairs::new())).await
    };
    let both = get(&[a, b]).await.expect("get");
    assert_eq!(both.keys().collect::<Vec<_>>(), [a, b]);
    assert_eq!((&*both[a].value, &*both[b].value), ("1", "2"));
    assert_eq!(both[b].version, versions[1]);
    assert_eq!(both[a].version == versions[0], promises.versions_keys);
    let one = get(&[b, "absent"]).await.expect("get");
    assert_eq!(one.into_keys().collect::<Vec<_>>(), [b]);
    assert!(get(&["absent"]).await.expect("get").is_empty());
    let all = get(&[]).await.expect("get");
    assert!(all.contains_key(a) && all.contains_key(b));
    store.ping().await.expect("ping");
}

/// Tests a store that nobody else changes.
pub async fn run(store: &dyn Store, outside: &dyn Outside, promises: &Promises) {
    get(store, outside, promises).await;
    let (a, b) = ("first.key", "second_key");
    let mut only_a = subscribe(store, &[a], promises).await;
    let mut both = subscribe(store, &[b, a, a], promises).await;
    let mut all = subscribe(store, &[], promises).await;
    if promises.tells_current {
        only_a.value(a, "1").await;
        all.value(b, "2").await;
    }
    let version = outside.set(a, "new").await;
    for changes in [&mut only_a, &mut both, &mut all] {
        let item = changes.value(a, "new").await;
        assert_eq!(item.version, version);
    }
    both.rest().await;
    outside.set(b, "newer").await;
    both.value(b, "newer").await;
    all.value(b, "newer").await;
    both.rest().await;
    outside.set("third", "3").await;
    all.value("third", "3").await;
    assert!(both.rest().await.is_empty(), "only its keys are sent");
    assert!(!only_a.rest().await.contains(&b.to_owned()));
    if promises.tells_deletions {
        outside.delete(a).await;
        only_a.value(a, "").await;
        all.value(a, "").await;
    }
    // The others go on when one ends.
    drop(only_a);
    outside.set(a, "again").await;
    both.value(a, "again").await;
    for number in 0..50 {
        outside.set(b, &number.to_string()).await;
    }
    both.value(b, "49").await;
    drop((both, all));
    store.close().await.expect("close");
}
