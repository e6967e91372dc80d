//! What will happen, in the order of a clock that only the queue moves.

use std::collections::BTreeMap;
use std::time::Duration;

/// Times are those since the start of the simulation.
pub struct Queue<E> {
    now: Duration,
    /// By time; what is due at one time is in the order in which it was added.
    due: BTreeMap<(Duration, u64), E>,
    added: u64,
}

impl<E> Queue<E> {
    pub fn new() -> Self {
        Self {
            now: Duration::ZERO,
            due: BTreeMap::new(),
            added: 0,
        }
    }

    pub fn now(&self) -> Duration {
        self.now
    }

    /// Adds what is due at `at`; what is over is due now.
    pub fn at(&mut self, at: Duration, event: E) {
        self.added += 1;
        self.due.insert((at.max(self.now), self.added), event);
    }

    pub fn after(&mut self, pause: Duration, event: E) {
        self.at(self.now + pause, event);
    }

    /// Goes on to what is due next, if that is before `end`.
    pub fn next_before(&mut self, end: Duration) -> Option<E> {
        let entry = self.due.first_entry()?;
        let (at, _) = *entry.key();
        if at >= end {
            return None;
        }
        self.now = at;
        Some(entry.remove())
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}
