//! The subscriptions that there are, over both protocols. They belong to the
//! sidecar rather than to a component: one that is replaced hands them on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use outrider_components::configuration::{Handler, Request, Subscription};
use outrider_components::{Error as Cause, Kind};
use outrider_host::Tasks;
use outrider_metrics::component::Operation;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{SCOPE, Store};
use crate::components::map::Map;

/// How many subscriptions there may be, and how many bytes the keys and
/// metadata of all of them may have: clients over HTTP can leave without
/// ending theirs.
const MOST: usize = 10_000;
const MOST_BYTES: usize = 16 << 20;
/// Of a key or a pair besides its text.
const OVERHEAD: usize = 64;

/// All subscriptions to configuration stores.
#[derive(Clone)]
pub struct Subscriptions(Arc<Inner>);

struct Inner {
    stores: Arc<Map<Store>>,
    tasks: Tasks,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_id: HashMap<String, Entry>,
    /// Of all requests.
    bytes: usize,
    /// None begins any more.
    ending: bool,
}

struct Entry {
    store: String,
    request: Arc<Request>,
    handler: Arc<dyn Handler>,
    /// Where it is subscribed. Weak, so that it can be closed.
    of: Weak<Store>,
    /// None while it begins.
    feed: Option<Subscription>,
    end: End,
    bytes: usize,
}

/// No subscription has the id.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSubscription;

/// A name for a new subscription.
pub fn id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// What a new subscription is called, and its end.
pub struct Place {
    id: String,
    store: String,
    end: End,
}

/// A place for a new subscription, and what tells its client of its end.
pub fn place(id: &str, store: &str) -> (Place, Ended) {
    let (why, ended) = watch::channel(None);
    let token = CancellationToken::new();
    let place = Place {
        id: id.to_owned(),
        store: store.to_owned(),
        end: End {
            why,
            token: token.clone(),
        },
    };
    (place, Ended { why: ended, token })
}

/// Ends a subscription.
struct End {
    why: watch::Sender<Option<String>>,
    token: CancellationToken,
}

impl End {
    /// Without a reason the client wanted it.
    fn now(&self, why: Option<&str>) {
        self.why.send_replace(why.map(str::to_owned));
        self.token.cancel();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

/// The end of a subscription, when it comes.
pub struct Ended {
    why: watch::Receiver<Option<String>>,
    token: CancellationToken,
}

impl Ended {
    /// Waits for the end. Returns the reason where the client did not want it.
    pub async fn wait(&self) -> Option<String> {
        self.token.cancelled().await;
        self.why.borrow().clone()
    }

    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

/// Takes a subscription that does not begin out of the table.
struct Reserved<'a> {
    inner: &'a Inner,
    id: &'a str,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut table = self.inner.table();
        if table.by_id.get(self.id).is_some_and(|e| e.feed.is_none()) {
            table.remove(self.id);
        }
    }
}

impl Subscriptions {
    pub fn new(stores: Arc<Map<Store>>, tasks: Tasks) -> Self {
        Self(Arc::new(Inner {
            stores,
            tasks,
            table: Mutex::default(),
        }))
    }

    /// Runs what belongs to a subscription.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(name, task);
    }

    /// Subscribes at a store.
    pub async fn add(
        &self,
        place: Place,
        store: &Arc<Store>,
        request: Request,
        handler: Arc<dyn Handler>,
    ) -> Result<(), Cause> {
        let Place {
            id,
            store: name,
            end,
        } = place;
        let request = Arc::new(request);
        let entry = Entry {
            store: name.clone(),
            bytes: size(&request),
            request: request.clone(),
            handler: handler.clone(),
            of: Arc::downgrade(store),
            feed: None,
            end,
        };
        let inner = &*self.0;
        inner.table().insert(&id, entry)?;
        let _reserved = Reserved { inner, id: &id };
        let feed = subscribe(store, &request, &handler).await?;
        {
            let mut table = inner.table();
            let Some(entry) = table.by_id.get_mut(&id) else {
                return Err(stopping());
            };
            entry.feed = Some(feed);
        }
        // The store may have been replaced meanwhile.
        inner.move_on(&id).await;
        Ok(())
    }

    /// Ends a subscription, with `store` only if it is one of that store.
    pub fn end(&self, id: &str, store: Option<&str>) -> Result<(), NoSubscription> {
        let mut table = self.0.table();
        let entry = table.by_id.get(id).ok_or(NoSubscription)?;
        if store.is_some_and(|store| store != entry.store) {
            return Err(NoSubscription);
        }
        let entry = table.remove(id);
        drop(table);
        if let Some(entry) = entry {
            entry.end.now(None);
        }
        Ok(())
    }

    /// Follows changes of the components, until it is dropped.
    pub async fn follow(self, mut changes: watch::Receiver<()>) {
        while changes.changed().await.is_ok() {
            let ids: Vec<String> = self.0.table().by_id.keys().cloned().collect();
            let moving = ids.iter().map(|id| self.0.move_on(id));
            futures_util::future::join_all(moving).await;
        }
    }

    /// Ends all subscriptions for good. Changes at hand are still delivered.
    pub async fn finish(&self) {
        let all = {
            let mut table = self.0.table();
            table.ending = true;
            table.bytes = 0;
            std::mem::take(&mut table.by_id)
        };
        let closing = all.into_values().map(|mut entry| async move {
            entry.end.now(Some(STOPPING));
            if let Some(feed) = entry.feed.take() {
                feed.close().await;
            }
        });
        futures_util::future::join_all(closing).await;
        self.0.tasks.stop(None).await;
    }
}

const STOPPING: &str = "the sidecar is shutting down";

fn stopping() -> Cause {
    Cause::new(Kind::Precondition, STOPPING)
}

/// Subscribes under the policies of the store.
async fn subscribe(
    store: &Store,
    request: &Request,
    handler: &Arc<dyn Handler>,
) -> Result<Subscription, Cause> {
    let subscribing = store.call(|store| store.subscribe(request, handler.clone()));
    store.count(Operation::Subscribe, subscribing).await
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Subscribes again where another component has the name of the store, or
    /// ends the subscription where none has.
    async fn move_on(&self, id: &str) {
        let (name, request, handler, store) = {
            let table = self.table();
            let Some(entry) = table.by_id.get(id).filter(|e| e.feed.is_some()) else {
                return;
            };
            let store = self.stores.get(&entry.store);
            let is_same = |store: &Arc<Store>| std::ptr::eq(entry.of.as_ptr(), Arc::as_ptr(store));
            if store.as_ref().is_some_and(is_same) {
                return;
            }
            let (request, handler) = (entry.request.clone(), entry.handler.clone());
            (entry.store.clone(), request, handler, store)
        };
        let moved = match &store {
            None => Err("the store is not in use any more".to_owned()),
            Some(store) => {
                let subscribed = subscribe(store, &request, &handler).await;
                subscribed.map_err(|cause| format!("the store was changed, and now: {cause}"))
            }
        };
        let mut table = self.table();
        match (moved, &store) {
            (Ok(feed), Some(store)) => {
                if let Some(entry) = table.by_id.get_mut(id) {
                    entry.of = Arc::downgrade(store);
                    entry.feed = Some(feed);
                }
            }
            (moved, _) => {
                let why = moved.err().unwrap_or_default();
                let why = format!("subscription {id} to configuration store {name} ended: {why}");
                let entry = table.remove(id);
                drop(table);
                if let Some(entry) = entry {
                    tracing::warn!(target: SCOPE, "{why}");
                    entry.end.now(Some(&why));
                }
            }
        }
    }
}

impl Table {
    fn insert(&mut self, id: &str, entry: Entry) -> Result<(), Cause> {
        if self.ending {
            return Err(stopping());
        }
        let bytes = self.bytes + entry.bytes;
        if self.by_id.len() >= MOST || bytes > MOST_BYTES {
            let text = format!(
                "too many subscriptions: there may be {MOST}, with keys of {} MiB together",
                MOST_BYTES >> 20
            );
            return Err(Cause::new(Kind::Precondition, text));
        }
        self.bytes = bytes;
        self.by_id.insert(id.to_owned(), entry);
        Ok(())
    }

    fn remove(&mut self, id: &str) -> Option<Entry> {
        let entry = self.by_id.remove(id)?;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry)
    }
}

/// How much memory a request keeps.
fn size(request: &Request) -> usize {
    let keys = request.keys.iter().map(String::len);
    let metadata = request.metadata.iter().map(|(k, v)| k.len() + v.len());
    keys.chain(metadata).map(|bytes| bytes + OVERHEAD).sum()
}

#[cfg(test)]
mod tests;
