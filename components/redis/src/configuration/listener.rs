//! One subscription: which of its keys have changed, and their way to the
//! handler. A key that changes several times while the handler is busy is
//! passed on once, with its latest value.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use outrider_components::configuration::{Handler, Items};
use tokio::sync::Notify;

use super::{SCOPE, Values};

/// Changed keys that wait for the handler. More can only be waiting for a
/// subscription to all keys.
const MOST_WAITING: usize = 10_000;
/// Keys whose values are read at once.
const BATCH: usize = 100;
/// The pause before values are read again that could not be read.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Listener {
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

impl Listener {
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

    /// Notes that a key has changed.
    pub fn changed(&self, key: &str) {
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

    /// Passes changes on for ever.
    pub async fn pass_on(&self, values: &Values, handler: &dyn Handler) {
        loop {
            let keys = self.take();
            if keys.is_empty() {
                self.wake.notified().await;
                continue;
            }
            let mut items = loop {
                match values.get(&keys).await {
                    Ok(items) => break items,
                    Err(error) => {
                        tracing::error!(target: SCOPE, "get response from redis failed: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            for key in keys {
                // A key that is gone has an empty item.
                let item = items.remove(&key).unwrap_or_default();
                handler.handle(Items::from([(key, item)])).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_once_and_in_order() {
        let listener = Listener::new(&[]);
        for key in ["b", "a", "b"] {
            listener.changed(key);
        }
        assert_eq!(listener.take(), ["b", "a"]);
        listener.changed("b");
        assert_eq!(listener.take(), ["b"]);
        assert!(listener.take().is_empty());
    }

    #[test]
    fn changes_that_nobody_takes_are_bounded() {
        let listener = Listener::new(&[]);
        for key in 0..MOST_WAITING + 100 {
            listener.changed(&key.to_string());
        }
        assert_eq!(listener.waiting().keys.len(), MOST_WAITING);
        while !listener.take().is_empty() {}
        listener.changed("again");
        assert_eq!(listener.take(), ["again"]);
    }
}
