//! When timers are due: no sockets, no clock of its own. Timers of one actor fire
//! one after the other, those of different actors beside each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::plan::Timer;
use crate::actor::Actor;

/// All timers of a sidecar, and the bytes of their texts and data.
const MOST_TIMERS: usize = 1_000_000;
const MOST_BYTES: usize = 256 << 20;
/// About what a timer costs besides.
const OVERHEAD: usize = 256;

/// Two clocks: a date, which may be set, and the time since some start, which only
/// grows. Timers fire by the second one.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub wall: Timestamp,
    pub steady: Duration,
}

/// A timer as it was registered once. A timer that replaces another one of its
/// name has another number.
pub type Id = u64;

#[derive(Debug)]
pub enum Event {
    /// It replaces one of the same name.
    Registered(Actor, Arc<Timer>),
    Deleted(Actor, Arc<str>),
    /// The actors belong to another sidecar now.
    Lost(Vec<Actor>),
    /// A timer was handled, well or not.
    Fired {
        actor: Actor,
        id: Id,
        /// The application wants no further tick.
        cancel: bool,
    },
    Woken,
}

#[derive(Debug, PartialEq)]
pub enum Effect {
    Fire {
        actor: Actor,
        id: Id,
        timer: Arc<Timer>,
    },
}

/// There are as many timers as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this sidecar has too many timers: delete some first")]
pub struct Full;

#[derive(Debug, Default)]
pub struct Engine {
    next: Id,
    bytes: usize,
    timers: HashMap<Id, Entry>,
    actors: HashMap<Actor, Owned>,
    /// By the steady clock.
    due: BTreeSet<(Duration, Id)>,
    /// How many there are of each type that has had some.
    kinds: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Entry {
    actor: Actor,
    timer: Arc<Timer>,
    /// By the steady clock: the next tick, or the one that waits or is under way.
    at: Duration,
    /// The date of that tick, which the next one counts from.
    date: Timestamp,
    /// Ticks that are left; none for no end.
    left: Option<u64>,
    /// By the steady clock: a tick then or later does not fire.
    end: Option<Duration>,
}

#[derive(Debug, Default)]
struct Owned {
    names: BTreeMap<Arc<str>, Id>,
    /// Under way; it may be deleted already.
    firing: Option<Id>,
    /// Due, in the order of their due times.
    waiting: BTreeSet<(Duration, Id)>,
}

impl Engine {
    /// Takes note of what has happened, and says what is to be done.
    pub fn handle(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Registered(actor, timer) => self.register(now, actor, timer),
            Event::Deleted(actor, name) => self.delete(&actor, &name),
            Event::Lost(actors) => {
                for actor in actors {
                    self.lose(&actor);
                }
            }
            Event::Fired { actor, id, cancel } => self.fired(now, &actor, id, cancel, effects),
            Event::Woken => {}
        }
        self.pass_time(now, effects);
    }

    /// Whether a timer fits in.
    pub fn admits(&self, actor: &Actor, timer: &Timer) -> Result<(), Full> {
        let bytes = self.bytes + size(actor, timer);
        let fits = self.timers.len() < MOST_TIMERS && bytes <= MOST_BYTES;
        fits.then_some(()).ok_or(Full)
    }

    /// Whether a timer is registered still.
    pub fn has(&self, id: Id) -> bool {
        self.timers.contains_key(&id)
    }

    /// When the engine wants to be called without an event, by the steady clock.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    pub fn get(&self, actor: &Actor, name: &str) -> Option<Arc<Timer>> {
        let id = self.actors.get(actor)?.names.get(name)?;
        self.timers.get(id).map(|entry| entry.timer.clone())
    }

    /// Those of an actor, by their names.
    pub fn list(&self, actor: &Actor) -> Vec<Arc<Timer>> {
        let Some(owned) = self.actors.get(actor) else {
            return Vec::new();
        };
        let found = owned.names.values().filter_map(|id| self.timers.get(id));
        found.map(|entry| entry.timer.clone()).collect()
    }

    /// The actors that have timers.
    pub fn actors(&self) -> impl Iterator<Item = &Actor> {
        let having = self.actors.iter().filter(|(_, it)| !it.names.is_empty());
        having.map(|(actor, _)| actor)
    }

    /// How many timers there are of each type that has had some.
    pub fn counts(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.kinds.iter().map(|(kind, timers)| (kind, *timers))
    }

    fn register(&mut self, now: Now, actor: Actor, timer: Arc<Timer>) {
        let owned = self.actors.entry(actor.clone()).or_default();
        let before = owned.names.insert(timer.name.clone(), self.next);
        if let Some(before) = before {
            self.forget(&actor, before);
        }
        let id = self.next;
        self.next += 1;
        self.bytes += size(&actor, &timer);
        *self.kinds.entry(actor.kind.clone()).or_default() += 1;
        let at = later(now, timer.due);
        self.due.insert((at, id));
        let entry = Entry {
            actor,
            at,
            date: timer.due,
            left: timer.repeats,
            end: timer.end.map(|end| later(now, end)),
            timer,
        };
        self.timers.insert(id, entry);
    }

    fn delete(&mut self, actor: &Actor, name: &str) {
        let Some(owned) = self.actors.get_mut(actor) else {
            return;
        };
        if let Some(id) = owned.names.remove(name) {
            self.forget(actor, id);
            self.drop_unused(actor);
        }
    }

    fn lose(&mut self, actor: &Actor) {
        let Some(owned) = self.actors.get_mut(actor) else {
            return;
        };
        let names = std::mem::take(&mut owned.names);
        for id in names.into_values() {
            self.forget(actor, id);
        }
        self.drop_unused(actor);
    }

    /// Removes a timer that has no name any more from wherever it is.
    fn forget(&mut self, actor: &Actor, id: Id) {
        let Some(entry) = self.timers.remove(&id) else {
            return;
        };
        self.bytes -= size(&entry.actor, &entry.timer);
        if let Some(timers) = self.kinds.get_mut(&actor.kind) {
            *timers -= 1;
        }
        self.due.remove(&(entry.at, id));
        if let Some(owned) = self.actors.get_mut(actor) {
            owned.waiting.remove(&(entry.at, id));
        }
    }

    /// The same for one that is over.
    fn end(&mut self, actor: &Actor, id: Id) {
        let name = self.timers.get(&id).map(|entry| entry.timer.name.clone());
        if let Some(owned) = self.actors.get_mut(actor)
            && let Some(name) = name
        {
            owned.names.remove(&name);
        }
        self.forget(actor, id);
    }

    fn drop_unused(&mut self, actor: &Actor) {
        let unused = |owned: &Owned| owned.names.is_empty() && owned.firing.is_none();
        if self.actors.get(actor).is_some_and(unused) {
            self.actors.remove(actor);
        }
    }

    fn fired(&mut self, now: Now, actor: &Actor, id: Id, cancel: bool, effects: &mut Vec<Effect>) {
        let Some(owned) = self.actors.get_mut(actor) else {
            return;
        };
        if owned.firing != Some(id) {
            return;
        }
        owned.firing = None;
        if self.timers.contains_key(&id) && (cancel || !self.step(now, id)) {
            self.end(actor, id);
        }
        let next = self
            .actors
            .get_mut(actor)
            .and_then(|it| it.waiting.pop_first());
        if let Some((_, id)) = next {
            self.fire(actor, id, effects);
        }
        self.drop_unused(actor);
    }

    /// Waits for the next tick; false if there is none.
    fn step(&mut self, now: Now, id: Id) -> bool {
        let Some(entry) = self.timers.get_mut(&id) else {
            return false;
        };
        if let Some(left) = &mut entry.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return false;
            }
        }
        let Some(next) = entry.timer.next(entry.date) else {
            return false;
        };
        let Ok(pause) = Duration::try_from(next.duration_since(entry.date)) else {
            return false;
        };
        let at = entry.at.saturating_add(pause);
        // Ticks that were missed are not made up: the series begins anew.
        (entry.at, entry.date) = match at < now.steady {
            true => (now.steady, now.wall),
            false => (at, next),
        };
        self.due.insert((entry.at, id));
        true
    }

    fn pass_time(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some((at, id)) = self.due.first().copied()
            && at <= now.steady
        {
            self.due.pop_first();
            let Some(entry) = self.timers.get(&id) else {
                continue;
            };
            let actor = entry.actor.clone();
            if entry.end.is_some_and(|end| at >= end) {
                self.end(&actor, id);
                self.drop_unused(&actor);
                continue;
            }
            let Some(owned) = self.actors.get_mut(&actor) else {
                continue;
            };
            if owned.firing.is_some() {
                owned.waiting.insert((at, id));
            } else {
                self.fire(&actor, id, effects);
            }
        }
    }

    fn fire(&mut self, actor: &Actor, id: Id, effects: &mut Vec<Effect>) {
        if let Some(entry) = self.timers.get(&id)
            && let Some(owned) = self.actors.get_mut(actor)
        {
            owned.firing = Some(id);
            effects.push(Effect::Fire {
                actor: actor.clone(),
                id,
                timer: entry.timer.clone(),
            });
        }
    }
}

/// When the steady clock will be at a date; now if that is past.
fn later(now: Now, date: Timestamp) -> Duration {
    let left = Duration::try_from(date.duration_since(now.wall)).unwrap_or_default();
    now.steady.saturating_add(left)
}

fn size(actor: &Actor, timer: &Timer) -> usize {
    let texts = [&timer.callback, &timer.due_time, &timer.period, &timer.ttl];
    let texts: usize = texts.iter().map(|text| text.len()).sum();
    let data = timer.data.as_ref().map_or(0, |data| data.len());
    OVERHEAD + actor.kind.len() + actor.id.len() + timer.name.len() + texts + data
}
