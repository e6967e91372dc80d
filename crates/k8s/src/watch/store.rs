//! What is known of a collection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{broadcast, watch};

/// How many changes a slow reader may be behind before it has to list again.
const HISTORY: usize = 1024;
/// How old the changes are that `subscribe_recent` returns.
const RECENT: Duration = Duration::from_secs(1);

/// Namespace and name.
pub type Key = (String, String);

/// An object as the server sent it: lists leave `kind` and `apiVersion` out, watches do not.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub namespace: String,
    pub name: String,
    pub json: Value,
}

impl Object {
    /// With the members that a single object has.
    pub fn typed(&self, api_version: &str, kind: &str) -> Value {
        let mut json = self.json.clone();
        if let Some(members) = json.as_object_mut() {
            members.insert("apiVersion".into(), api_version.into());
            members.insert("kind".into(), kind.into());
        }
        json
    }

    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    /// A server that gives versions gives equal ones to equal objects.
    fn same(&self, other: &Self) -> bool {
        let version = super::version_of(&self.json);
        (!version.is_empty() && version == super::version_of(&other.json))
            || self.members().eq(other.members())
    }

    fn members(&self) -> impl Iterator<Item = (&String, &Value)> {
        let members = self.json.as_object().into_iter().flatten();
        members.filter(|(name, _)| *name != "kind" && *name != "apiVersion")
    }
}

/// A change after the first list.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Created(Arc<Object>),
    Updated {
        old: Arc<Object>,
        new: Arc<Object>,
    },
    /// As it was last.
    Deleted(Arc<Object>),
}

impl Change {
    /// The object as it is now, or was last.
    fn object(&self) -> &Object {
        match self {
            Change::Created(object) | Change::Deleted(object) => object,
            Change::Updated { new, .. } => new,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is known yet.
    Waiting,
    /// The server does not know the collection.
    Absent,
    Synced,
}

/// Cloning shares it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    known: RwLock<Known>,
    changes: broadcast::Sender<Change>,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct Known {
    objects: BTreeMap<Key, Arc<Object>>,
    recent: VecDeque<(Instant, Change)>,
    /// How many changes there were, and when the last one was.
    count: u64,
    last: Option<Instant>,
}

impl Default for Store {
    fn default() -> Self {
        Self(Arc::new(Inner {
            known: RwLock::default(),
            changes: broadcast::channel(HISTORY).0,
            state: watch::channel(State::Waiting).0,
        }))
    }
}

impl Store {
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.read().objects.get(&key).cloned()
    }

    /// The objects of a namespace, or all, by name.
    pub fn list(&self, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let known = self.read();
        let objects = known.objects.values();
        objects
            .filter(|object| namespace.is_none_or(|it| it == object.namespace))
            .cloned()
            .collect()
    }

    /// Changes from now on. A reader that falls behind gets an error, and nobody waits for it.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    /// The changes of the last second, and those from now on: for readers that listed the objects a moment ago, and may
    /// have missed a change since. Of several changes of an object only the last one is returned: a reader that has
    /// seen its result must not get an older one.
    pub fn subscribe_recent(&self) -> (Vec<Change>, broadcast::Receiver<Change>) {
        // With the lock held nothing is sent, so nothing is missed or sent twice.
        let known = self.read();
        let recent = known.recent.iter().filter(|(at, _)| at.elapsed() <= RECENT);
        let mut last: Vec<Change> = Vec::new();
        for (_, change) in recent {
            last.retain(|before| before.object().key() != change.object().key());
            last.push(change.clone());
        }
        (last, self.0.changes.subscribe())
    }

    /// When the last change was sent; none before the first. For a reader that has received a change, it is the time of
    /// that one or of a later one.
    pub fn last_change(&self) -> Option<Instant> {
        self.read().last
    }

    /// Number of changes so far.
    pub(super) fn changes(&self) -> u64 {
        self.read().count
    }

    pub fn state(&self) -> State {
        *self.0.state.borrow()
    }

    /// Until the first answer of the server, whatever it is.
    pub async fn synced(&self) {
        let mut state = self.0.state.subscribe();
        // The sender lives as long as this does.
        let _ = state.wait_for(|state| *state != State::Waiting).await;
    }

    /// Takes a whole list; the very first one is no change.
    pub(super) fn replace(&self, objects: Vec<Object>) {
        let first = self.state() == State::Waiting;
        let mut known = self.write();
        let mut gone = std::mem::take(&mut known.objects);
        for object in objects {
            let key = (object.namespace.clone(), object.name.clone());
            let new = Arc::new(object);
            let change = match gone.remove(&key) {
                Some(old) if old.same(&new) => {
                    known.objects.insert(key, old);
                    continue;
                }
                Some(old) => Change::Updated {
                    old,
                    new: new.clone(),
                },
                None => Change::Created(new.clone()),
            };
            known.objects.insert(key, new);
            if !first {
                self.send(&mut known, change);
            }
        }
        for old in gone.into_values() {
            self.send(&mut known, Change::Deleted(old));
        }
        drop(known);
        self.0.state.send_replace(State::Synced);
    }

    pub(super) fn put(&self, object: Object) {
        let key = (object.namespace.clone(), object.name.clone());
        let new = Arc::new(object);
        let mut known = self.write();
        let change = match known.objects.get(&key).cloned() {
            Some(old) if old.same(&new) => return,
            Some(old) => Change::Updated {
                old,
                new: new.clone(),
            },
            None => Change::Created(new.clone()),
        };
        known.objects.insert(key, new);
        self.send(&mut known, change);
    }

    pub(super) fn remove(&self, key: &Key) {
        let mut known = self.write();
        if let Some(old) = known.objects.remove(key) {
            self.send(&mut known, Change::Deleted(old));
        }
    }

    /// The server has no such collection: every object is gone.
    pub(super) fn absent(&self) {
        let mut known = self.write();
        for old in std::mem::take(&mut known.objects).into_values() {
            self.send(&mut known, Change::Deleted(old));
        }
        drop(known);
        self.0.state.send_replace(State::Absent);
    }

    /// Called with the lock held, so that readers see changes in their order.
    fn send(&self, known: &mut Known, change: Change) {
        let past = |(at, _): &(Instant, Change)| at.elapsed() > RECENT;
        while known.recent.len() >= HISTORY || known.recent.front().is_some_and(past) {
            known.recent.pop_front();
        }
        let now = Instant::now();
        known.count += 1;
        known.last = Some(now);
        known.recent.push_back((now, change.clone()));
        // Without subscribers this fails, which is fine.
        let _ = self.0.changes.send(change);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.0
            .known
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.0
            .known
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, version: &str, value: u32) -> Object {
        let json = json!({"metadata": {"name": name, "resourceVersion": version}, "value": value});
        Object {
            namespace: String::new(),
            name: name.into(),
            json,
        }
    }

    fn received(receiver: &mut broadcast::Receiver<Change>) -> Vec<String> {
        let mut received = Vec::new();
        while let Ok(change) = receiver.try_recv() {
            received.push(match change {
                Change::Created(new) => format!("+{}{}", new.name, new.json["value"]),
                Change::Updated { old, new } => {
                    format!("{}{}>{}", new.name, old.json["value"], new.json["value"])
                }
                Change::Deleted(old) => format!("-{}{}", old.name, old.json["value"]),
            });
        }
        received
    }

    #[test]
    fn each_change_is_sent_once() {
        let store = Store::default();
        let mut changes = store.subscribe();
        store.replace(vec![object("a", "", 1), object("b", "", 1)]);
        assert_eq!(received(&mut changes), [] as [&str; 0], "the first list");
        store.replace(vec![object("a", "", 2), object("c", "", 1)]);
        assert_eq!(received(&mut changes), ["a1>2", "+c1", "-b1"]);
        // The watch has an event of what the list has already shown.
        store.put(object("a", "", 2));
        store.remove(&(String::new(), "b".into()));
        assert_eq!(received(&mut changes), [] as [&str; 0]);
        store.put(object("a", "", 3));
        store.replace(vec![object("a", "", 3), object("c", "", 1)]);
        assert_eq!(received(&mut changes), ["a2>3"]);
        store.absent();
        store.replace(vec![object("a", "", 1)]);
        assert_eq!(
            received(&mut changes),
            ["-a3", "-c1", "+a1"],
            "a collection that came back"
        );
    }

    #[test]
    fn subscribe_recent_returns_the_last_change_of_each_object() {
        let store = Store::default();
        store.replace(vec![object("a", "", 1), object("b", "", 1)]);
        store.put(object("a", "", 2));
        store.put(object("b", "", 2));
        store.put(object("a", "", 3));
        store.remove(&(String::new(), "b".into()));
        store.put(object("c", "", 1));
        let (recent, mut changes) = store.subscribe_recent();
        let values: Vec<_> = recent
            .iter()
            .map(|change| {
                (
                    change.object().name.as_str(),
                    &change.object().json["value"],
                )
            })
            .collect();
        assert_eq!(
            values,
            [("a", &json!(3)), ("b", &json!(2)), ("c", &json!(1))]
        );
        assert!(matches!(recent[1], Change::Deleted(_)));
        assert_eq!(received(&mut changes), [] as [&str; 0]);
    }

    #[test]
    fn objects_of_equal_versions_are_equal() {
        let store = Store::default();
        store.replace(vec![object("a", "5", 1)]);
        let mut changes = store.subscribe();
        store.put(object("a", "5", 2));
        assert_eq!(received(&mut changes), [] as [&str; 0]);
        store.put(object("a", "6", 1));
        assert_eq!(received(&mut changes), ["a1>1"]);
    }

    #[test]
    fn kind_and_api_version_make_no_difference_between_list_and_watch() {
        let store = Store::default();
        store.replace(vec![object("a", "", 1)]);
        let mut changes = store.subscribe();
        let mut typed = object("a", "", 1);
        typed.json["kind"] = json!("Component");
        typed.json["apiVersion"] = json!("dapr.io/v1alpha1");
        store.put(typed);
        assert_eq!(received(&mut changes), [] as [&str; 0]);
    }

    #[test]
    fn subscribe_recent_returns_changes_of_the_last_second() {
        let store = Store::default();
        store.replace(vec![object("a", "", 1)]);
        assert_eq!(store.subscribe_recent().0, [], "the first list");
        store.put(object("b", "", 1));
        let (recent, mut changes) = store.subscribe_recent();
        assert_eq!(recent, [Change::Created(store.get("", "b").unwrap())]);
        store.put(object("c", "", 1));
        assert_eq!(received(&mut changes), ["+c1"]);
    }

    #[test]
    fn a_slow_reader_lags_and_does_not_block_writers() {
        let store = Store::default();
        store.replace(Vec::new());
        let mut slow = store.subscribe();
        for value in 0..2 * HISTORY as u32 {
            store.put(object("a", "", value));
        }
        assert!(matches!(
            slow.try_recv(),
            Err(broadcast::error::TryRecvError::Lagged(_))
        ));
        assert_eq!(
            store.get("", "a").unwrap().json["value"],
            2 * HISTORY as u32 - 1
        );
    }
}
