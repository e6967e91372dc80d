//! Markers that are not expected any more: of a transaction that failed, or waited for in
//! vain before. Their events come again and again; each is looked at once then, so that
//! those of other transactions do not wait behind them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrider_components::state::Operation;
use tokio::time::Instant;

/// Of more than so many the first are forgotten, and waited for once more.
const MOST: usize = 10_000;
/// After a transaction that has not succeeded, its marker is waited for so long: the
/// store may have done what it could not answer any more.
const IN_DOUBT: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct Absent(Mutex<Latest>);

#[derive(Debug, Default)]
struct Latest {
    /// With the time until which it is waited for nonetheless.
    known: HashMap<Arc<str>, Instant>,
    order: VecDeque<Arc<str>>,
}

impl Absent {
    /// Not waited for after `until`.
    pub fn add(&self, marker: &str, until: Instant) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let marker: Arc<str> = marker.into();
        if latest.known.insert(marker.clone(), until).is_some() {
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
        let until = latest.known.get(marker);
        until.is_some_and(|until| *until <= Instant::now())
    }
}

/// The markers of a transaction that is under way. Unless it is `committed`, they are
/// not expected any more a while after its end: what the store answers then, or does
/// not, says little about what it has done.
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
        let until = Instant::now() + IN_DOUBT;
        for key in &self.keys {
            self.absent.add(key, until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_kept_and_the_latest_of_them() {
        let absent = Absent::default();
        let now = Instant::now();
        for number in 0..=MOST {
            absent.add(&number.to_string(), now);
            absent.add(&number.to_string(), now);
        }
        assert!(!absent.has("0") && absent.has("1") && absent.has(&MOST.to_string()));
        assert_eq!(absent.0.lock().unwrap().known.len(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn markers_are_expected_until_a_while_after_a_transaction_without_success() {
        let absent = Absent::default();
        let mut failed = Markers::new(&absent);
        failed.push("failed".to_owned());
        let mut done = Markers::new(&absent);
        done.push("done".to_owned());
        drop(failed);
        done.committed();
        assert!(!absent.has("failed"), "it may come yet");
        tokio::time::advance(IN_DOUBT).await;
        assert!(absent.has("failed") && !absent.has("done"));
    }
}
