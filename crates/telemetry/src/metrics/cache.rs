//! Finding the series of a request without a lock that threads share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::cells::{shard, shards};

/// Names that one thread remembers; clients may choose new ones without end.
const MAX_NAMES: usize = 1024;

/// What is known by a name, once per thread. A lock is only ever waited for
/// where threads outnumber shards.
#[derive(Debug)]
pub struct Cache<V>(Box<[Mutex<Known<V>>]>);

type Known<V> = HashMap<Box<str>, Arc<V>>;

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self((0..shards()).map(|_| Mutex::default()).collect())
    }
}

impl<V> Cache<V> {
    pub fn get(&self, name: &str, make: impl FnOnce() -> V) -> Arc<V> {
        let mut known = locked(&self.0[shard()]);
        if let Some(found) = known.get(name) {
            return found.clone();
        }
        if known.len() >= MAX_NAMES {
            known.clear();
        }
        let made = Arc::new(make());
        known.insert(name.into(), made.clone());
        made
    }
}

/// A few things by number, such as a status.
#[derive(Debug)]
pub struct Slots<V>(Mutex<Vec<(u32, Arc<V>)>>);

impl<V> Default for Slots<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V> Slots<V> {
    pub fn get(&self, number: u32, make: impl FnOnce() -> V) -> Arc<V> {
        let mut known = locked(&self.0);
        if let Some((_, found)) = known.iter().find(|(n, _)| *n == number) {
            return found.clone();
        }
        let made = Arc::new(make());
        known.push((number, made.clone()));
        made
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_made_once_and_their_number_is_limited() {
        let cache = Cache::default();
        let first = cache.get("a", || 1);
        assert!(Arc::ptr_eq(&first, &cache.get("a", || 2)));
        for n in 0..2 * MAX_NAMES {
            cache.get(&n.to_string(), || 3);
        }
        let known: usize = cache.0.iter().map(|m| locked(m).len()).sum();
        assert!(known <= MAX_NAMES, "{known}");
        let slots = Slots::default();
        assert_eq!((*slots.get(5, || 'a'), *slots.get(5, || 'b')), ('a', 'a'));
    }
}
