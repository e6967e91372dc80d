//! Changes of keys on their way to the handler of one subscription.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Handler, Items};
use crate::Error;

const SCOPE: &str = "dapr.contrib";

/// Changed keys that wait for the handler. More can only be waiting for a
/// subscription to all keys.
const MOST_WAITING: usize = 10_000;
/// Keys whose values are read at once.
const BATCH: usize = 100;
/// The pause before values are read again that could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads the values of keys, for [`Changes::pass_on`].
#[async_trait]
pub trait Read: Send + Sync {
    /// The items that there are of some keys.
    async fn read(&self, keys: &[String]) -> Result<Items, Error>;
}

/// Which keys of one subscription have changed and are not passed on yet, for
/// stores that hear of keys rather than of values. A key that changes
/// several times while the handler is busy is passed on once, with its latest
/// value.
pub struct Changes {
    /// None for all.
    keys: Option<HashSet<String>>,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    order: VecDeque<String>,
    keys: HashSet<String>,
    /// Whether some were left out, which is logged once.
    overflown: bool,
}

impl Changes {
    /// Of some keys, or of all with an empty list.
    pub fn new(keys: &[String]) -> Self {
        let keys: HashSet<String> = keys.iter().cloned().collect();
        Self {
            keys: Some(keys).filter(|keys| !keys.is_empty()),
            waiting: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// The keys that are listened to; none for all.
    pub fn keys(&self) -> Option<&HashSet<String>> {
        self.keys.as_ref()
    }

    /// Notes that a key has changed. Those that are not listened to are left out.
    pub fn changed(&self, key: &str) {
        if self.keys.as_ref().is_some_and(|keys| !keys.contains(key)) {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.keys.contains(key) {
            return;
        }
        let most = self.keys.as_ref().map_or(MOST_WAITING, HashSet::len);
        if waiting.keys.len() >= most {
            if !std::mem::replace(&mut waiting.overflown, true) {
                tracing::warn!(target: SCOPE, "a subscription to all keys of a configuration store has {most} changes that wait: further ones are left out until it has caught up");
            }
            return;
        }
        waiting.keys.insert(key.to_owned());
        waiting.order.push_back(key.to_owned());
        drop(waiting);
        self.wake.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn take(&self) -> Vec<String> {
        let mut waiting = self.waiting();
        let count = waiting.order.len().min(BATCH);
        let taken: Vec<String> = waiting.order.drain(..count).collect();
        for key in &taken {
            waiting.keys.remove(key);
        }
        if waiting.order.is_empty() {
            waiting.overflown = false;
        }
        taken
    }

    /// Passes changes on until `stopping` is cancelled, which waits for the
    /// handler.
    pub async fn pass_on(
        &self,
        store: &dyn Read,
        handler: &dyn Handler,
        stopping: &CancellationToken,
    ) {
        while !stopping.is_cancelled() {
            let keys = self.take();
            if keys.is_empty() {
                stopping.run_until_cancelled(self.wake.notified()).await;
                continue;
            }
            let reading = read(store, keys);
            let Some((keys, mut items)) = stopping.run_until_cancelled(reading).await else {
                return;
            };
            for key in keys {
                // A key that is gone has an empty item.
                let item = items.remove(&key).unwrap_or_default();
                handler.handle(Items::from([(key, item)])).await;
                if stopping.is_cancelled() {
                    return;
                }
            }
        }
    }
}

/// Reads until it works. Keys that can never be read are left out, with a line
/// for each.
async fn read(store: &dyn Read, mut keys: Vec<String>) -> (Vec<String>, Items) {
    loop {
        let error = match store.read(&keys).await {
            Ok(items) => return (keys, items),
            Err(error) => error,
        };
        if error.retry_safe() {
            tracing::error!(target: SCOPE, "cannot read configuration that has changed, trying again: {error}");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        if let [key] = &*keys {
            tracing::error!(target: SCOPE, "cannot read the changed configuration of {key:?}, which is left out: {error}");
            return (Vec::new(), Items::new());
        }
        // One of them makes the whole read fail.
        let mut items = Items::new();
        let mut readable = Vec::new();
        for key in std::mem::take(&mut keys) {
            let (keys, found) = Box::pin(read(store, vec![key])).await;
            readable.extend(keys);
            items.extend(found);
        }
        return (readable, items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_nobody_asked_for_do_not_wait() {
        let changes = Changes::new(&["a".to_owned()]);
        changes.changed("b");
        changes.changed("a");
        assert_eq!(changes.take(), ["a"]);
    }

    /// Fails once, and then has a value for one key.
    struct Store(std::sync::atomic::AtomicBool);

    #[async_trait]
    impl Read for Store {
        async fn read(&self, keys: &[String]) -> Result<Items, Error> {
            if !self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
                return Err(Error::unavailable("not now"));
            }
            let item = crate::configuration::Item {
                value: "1".to_owned(),
                ..Default::default()
            };
            if keys.iter().any(|key| key == "large") {
                return Err(Error::invalid("too large"));
            }
            let known = keys.iter().filter(|key| *key == "a");
            Ok(known.map(|key| (key.clone(), item.clone())).collect())
        }
    }

    struct Stopping<'a>(&'a CancellationToken, Mutex<Vec<(String, String)>>);

    #[async_trait]
    impl Handler for Stopping<'_> {
        async fn handle(&self, items: Items) {
            for (key, item) in items {
                let is_last = key == "b";
                let mut seen = self.1.lock().expect("no test has panicked");
                seen.push((key, item.value));
                if is_last {
                    self.0.cancel();
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_tried_again_or_left_out_and_nothing_follows_the_end() {
        let (changes, stopping) = (Changes::new(&[]), CancellationToken::new());
        for key in ["a", "large", "b", "c"] {
            changes.changed(key);
        }
        let handler = Stopping(&stopping, Mutex::default());
        changes
            .pass_on(&Store(false.into()), &handler, &stopping)
            .await;
        let seen = handler.1.into_inner().expect("no test has panicked");
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(seen, [pair("a", "1"), pair("b", "")]);
    }

    #[test]
    fn a_key_waits_once_and_in_order() {
        let changes = Changes::new(&[]);
        for key in ["b", "a", "b"] {
            changes.changed(key);
        }
        assert_eq!(changes.take(), ["b", "a"]);
        changes.changed("b");
        assert_eq!(changes.take(), ["b"]);
        assert!(changes.take().is_empty());
    }

    #[test]
    fn changes_that_nobody_takes_are_bounded() {
        let changes = Changes::new(&[]);
        for key in 0..MOST_WAITING + 100 {
            changes.changed(&key.to_string());
        }
        assert_eq!(changes.waiting().keys.len(), MOST_WAITING);
        while !changes.take().is_empty() {}
        changes.changed("again");
        assert_eq!(changes.take(), ["again"]);
    }
}
