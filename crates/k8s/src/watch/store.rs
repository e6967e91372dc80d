//! What is known of a collection.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use serde_json::Value;
use tokio::sync::{broadcast, watch};

/// How many changes a slow reader may be behind before it has to start anew.
const HISTORY: usize = 1024;

/// Namespace and name.
pub type Key = (String, String);

/// An object without `kind` and `apiVersion`.
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

    /// A server that gives versions gives equal ones to equal objects.
    fn same(&self, other: &Self) -> bool {
        let version = super::version_of(&self.json);
        (!version.is_empty() && version == super::version_of(&other.json))
            || self.json == other.json
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
    objects: RwLock<BTreeMap<Key, Arc<Object>>>,
    changes: broadcast::Sender<Change>,
    state: watch::Sender<State>,
}

impl Default for Store {
    fn default() -> Self {
        Self(Arc::new(Inner {
            objects: RwLock::default(),
            changes: broadcast::channel(HISTORY).0,
            state: watch::channel(State::Waiting).0,
        }))
    }
}

impl Store {
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.read()
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// The objects of a namespace, or all, by name.
    pub fn list(&self, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let objects = self.read();
        objects
            .values()
            .filter(|object| namespace.is_none_or(|it| it == object.namespace))
            .cloned()
            .collect()
    }

    /// Changes from now on. A reader that falls behind is told so, and nobody waits for it.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
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
        let mut gone = std::mem::take(&mut *known);
        for object in objects {
            let key = (object.namespace.clone(), object.name.clone());
            let new = Arc::new(object);
            let change = match gone.remove(&key) {
                Some(old) if old.same(&new) => {
                    known.insert(key, old);
                    continue;
                }
                Some(old) => Change::Updated {
                    old,
                    new: new.clone(),
                },
                None => Change::Created(new.clone()),
            };
            known.insert(key, new);
            if !first {
                self.tell(change);
            }
        }
        for old in gone.into_values() {
            self.tell(Change::Deleted(old));
        }
        drop(known);
        self.0.state.send_replace(State::Synced);
    }

    pub(super) fn put(&self, object: Object) {
        let key = (object.namespace.clone(), object.name.clone());
        let new = Arc::new(object);
        let mut known = self.write();
        match known.get(&key).cloned() {
            Some(old) if old.same(&new) => {}
            Some(old) => {
                known.insert(key, new.clone());
                self.tell(Change::Updated { old, new });
            }
            None => {
                known.insert(key, new.clone());
                self.tell(Change::Created(new));
            }
        }
    }

    pub(super) fn remove(&self, key: &Key) {
        let mut known = self.write();
        if let Some(old) = known.remove(key) {
            self.tell(Change::Deleted(old));
        }
    }

    /// The collection is not there, and so nothing is in it.
    pub(super) fn absent(&self) {
        let mut known = self.write();
        for old in std::mem::take(&mut *known).into_values() {
            self.tell(Change::Deleted(old));
        }
        drop(known);
        self.0.state.send_replace(State::Absent);
    }

    /// Called with the lock held, so that readers see changes in their order.
    fn tell(&self, change: Change) {
        // Nobody listening is fine.
        let _ = self.0.changes.send(change);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Key, Arc<Object>>> {
        self.0
            .objects
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Key, Arc<Object>>> {
        self.0
            .objects
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

    fn told(receiver: &mut broadcast::Receiver<Change>) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(change) = receiver.try_recv() {
            told.push(match change {
                Change::Created(new) => format!("+{}{}", new.name, new.json["value"]),
                Change::Updated { old, new } => {
                    format!("{}{}>{}", new.name, old.json["value"], new.json["value"])
                }
                Change::Deleted(old) => format!("-{}{}", old.name, old.json["value"]),
            });
        }
        told
    }

    #[test]
    fn each_change_once() {
        let store = Store::default();
        let mut changes = store.subscribe();
        store.replace(vec![object("a", "", 1), object("b", "", 1)]);
        assert_eq!(told(&mut changes), [] as [&str; 0], "the first list");
        store.replace(vec![object("a", "", 2), object("c", "", 1)]);
        assert_eq!(told(&mut changes), ["a1>2", "+c1", "-b1"]);
        // The watch tells what the list has already shown.
        store.put(object("a", "", 2));
        store.remove(&(String::new(), "b".into()));
        assert_eq!(told(&mut changes), [] as [&str; 0]);
        store.put(object("a", "", 3));
        store.replace(vec![object("a", "", 3), object("c", "", 1)]);
        assert_eq!(told(&mut changes), ["a2>3"]);
        store.absent();
        store.replace(vec![object("a", "", 1)]);
        assert_eq!(
            told(&mut changes),
            ["-a3", "-c1", "+a1"],
            "a collection that came back"
        );
    }

    #[test]
    fn equal_versions_are_equal_objects() {
        let store = Store::default();
        store.replace(vec![object("a", "5", 1)]);
        let mut changes = store.subscribe();
        store.put(object("a", "5", 2));
        assert_eq!(told(&mut changes), [] as [&str; 0]);
        store.put(object("a", "6", 1));
        assert_eq!(told(&mut changes), ["a1>1"]);
    }

    #[test]
    fn a_slow_reader_holds_nobody_up() {
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
