//! The active actors of one type.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use super::entry::{Entry, Phase};

pub struct Kind<T> {
    /// None if the type is not hosted any more.
    pub settings: Option<Settings>,
    /// How long calls may go on, also when it no longer is.
    pub drain: Duration,
    pub actors: HashMap<Arc<str>, Entry<T>>,
    /// When actors are to be looked at, in microseconds since the start of the
    /// table. One that was used since stays where it is and is put back when
    /// its time has come, so that a call does not move it.
    idle: BinaryHeap<Reverse<(u64, Arc<str>)>>,
}

impl<T: Clone> Kind<T> {
    pub fn new() -> Self {
        Self {
            settings: None,
            drain: Duration::ZERO,
            actors: HashMap::new(),
            idle: BinaryHeap::new(),
        }
    }

    pub fn waiting(&self) -> usize {
        self.actors.values().map(Entry::waiting).sum()
    }

    /// The first time at which an actor has to be looked at.
    pub fn next_idle(&self) -> Option<Duration> {
        let Reverse((at, _)) = self.idle.peek()?;
        Some(Duration::from_micros(*at))
    }

    /// The actor has nothing to do until then.
    pub fn rest(&mut self, id: &Arc<str>, until: Duration) {
        let Some(entry) = self.actors.get_mut(id) else {
            return;
        };
        // 0 means that it is in no queue.
        entry.idle_at = u64::try_from(until.as_micros()).unwrap_or(u64::MAX).max(1);
        if entry.queued_at == 0 || entry.queued_at > entry.idle_at {
            entry.queued_at = entry.idle_at;
            self.idle.push(Reverse((entry.idle_at, id.clone())));
        }
    }

    /// Takes an actor that was idle for too long; it is being deactivated from
    /// now on.
    pub fn next_overdue(&mut self, now: Duration) -> Option<Arc<str>> {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        while self.idle.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Reverse((at, id)) = self.idle.pop()?;
            let Some(entry) = self.actors.get_mut(&id) else {
                continue;
            };
            if entry.queued_at != at {
                continue;
            }
            entry.queued_at = 0;
            if !matches!(entry.phase, Phase::Active) || !entry.is_idle() {
                // It is put back when it rests again.
                continue;
            }
            if entry.idle_at > now {
                entry.queued_at = entry.idle_at;
                self.idle.push(Reverse((entry.idle_at, id)));
                continue;
            }
            entry.phase = Phase::Deactivating;
            return Some(id);
        }
        None
    }
}
