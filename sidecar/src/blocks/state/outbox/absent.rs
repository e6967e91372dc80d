//! Markers that are not expected any more: of a transaction that failed, or waited for in
//! vain before. Their events come again and again; each is looked at once then, so that
//! those of other transactions do not wait behind them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use outrider_components::state::Operation;

/// Of more than so many the first are forgotten, and waited for once more.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub struct Absent(Mutex<Latest>);

#[derive(Debug, Default)]
struct Latest {
    known: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Absent {
    pub fn add(&self, marker: &str) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let marker: Arc<str> = marker.into();
        if !latest.known.insert(marker.clone()) {
            return;
        }
        latest.order.push_back(marker);
        if latest.order.len() > MOST
            && let Some(first) = latest.order.pop_front()
        {
            latest.known.remove(&first);
        }
    }

    pub fn has(&self, marker: &str) -> bool {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.known.contains(marker)
    }
}

/// The markers of a transaction that is under way. Unless it is `committed`, however it
/// ends, they are not expected any more.
#[derive(Debug)]
pub struct Markers<'a> {
    absent: &'a Absent,
    keys: Vec<String>,
}

impl<'a> Markers<'a> {
    pub fn new(absent: &'a Absent) -> Self {
        Self {
            absent,
            keys: Vec::new(),
        }
    }

    pub fn push(&mut self, key: String) {
        self.keys.push(key);
    }

    /// What the transaction writes.
    pub fn operations(&self) -> impl Iterator<Item = Operation> {
        self.keys.iter().map(|key| super::marker(key))
    }

    pub fn committed(mut self) {
        self.keys.clear();
    }
}

impl Drop for Markers<'_> {
    fn drop(&mut self) {
        for key in &self.keys {
            self.absent.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_kept_and_the_latest_of_them() {
        let absent = Absent::default();
        for number in 0..=MOST {
            absent.add(&number.to_string());
            absent.add(&number.to_string());
        }
        assert!(!absent.has("0") && absent.has("1") && absent.has(&MOST.to_string()));
        assert_eq!(absent.0.lock().unwrap().known.len(), MOST);
    }

    #[test]
    fn markers_are_expected_until_their_transaction_ends_without_success() {
        let absent = Absent::default();
        let mut failed = Markers::new(&absent);
        failed.push("failed".to_owned());
        let mut done = Markers::new(&absent);
        done.push("done".to_owned());
        assert!(!absent.has("failed"));
        drop(failed);
        done.committed();
        assert!(absent.has("failed") && !absent.has("done"));
    }
}
