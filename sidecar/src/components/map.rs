//! What is in use right now, by name. Requests read without a lock; a change
//! swaps the whole map.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Things by name.
pub struct Map<T> {
    inner: ArcSwap<HashMap<String, Arc<T>>>,
}

impl<T> Default for Map<T> {
    fn default() -> Self {
        Self {
            inner: ArcSwap::default(),
        }
    }
}

impl<T> Map<T> {
    pub fn load(&self) -> arc_swap::Guard<Arc<HashMap<String, Arc<T>>>> {
        self.inner.load()
    }

    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.inner.load().get(name).cloned()
    }

    /// In alphabetical order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.inner.load().keys().cloned().collect();
        names.sort();
        names
    }

    /// Puts a thing into use; those who hold the one before may finish with it.
    pub fn insert(&self, name: &str, value: Arc<T>) -> Option<Arc<T>> {
        let before = self.inner.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.insert(name.to_owned(), value.clone());
            map
        });
        before.get(name).cloned()
    }

    /// Takes a thing out of use; those who hold it may finish with it.
    pub fn remove(&self, name: &str) -> Option<Arc<T>> {
        let before = self.inner.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.remove(name);
            map
        });
        before.get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_changes_under_its_readers() {
        let map = Map::default();
        map.insert("a", Arc::new(1));
        let before = map.load();
        assert_eq!(map.remove("a").as_deref(), Some(&1));
        assert!(map.get("a").is_none());
        assert!(before.contains_key("a"));
    }
}
