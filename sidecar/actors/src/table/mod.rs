//! The actors that are active in this sidecar's application, and whose turn it
//! is. An actor does one thing at a time; calls wait for it in their order.
//!
//! It does no I/O and has no clock: [`Table::handle`] takes an event and the
//! time, and says what is to be done. `T` is what the caller knows a call by.

mod entry;
mod kind;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::actor::Actor;
use crate::hosts::Tables;
use crate::routing::is_same;
use entry::{Phase, Waiting};
use kind::Kind;

/// Numbers calls upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Numbers orders to give actors up, upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HaltId(pub u64);

/// How the actors of a type are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// From the end of the last call to deactivation.
    pub idle: Duration,
    /// How long a running call may go on when its actor has to go.
    pub drain: Duration,
    /// The most calls of one chain that an actor is in at once; none where
    /// actors are not reentrant.
    pub depth: Option<usize>,
}

/// A call that wants its turn.
#[derive(Debug)]
pub struct Enter<T> {
    pub actor: Actor,
    pub call: CallId,
    pub ticket: T,
    /// Calls of one chain do not wait for each other, where the type is
    /// reentrant.
    pub chain: Option<Arc<str>>,
    /// Waits no longer than that.
    pub deadline: Option<Instant>,
    /// The number of the routing that sent it here.
    pub fence: u64,
    /// Goes ahead beside others.
    pub beside: bool,
}

#[derive(Debug)]
pub enum Event<T> {
    /// The types that are hosted from now on. The actors of others are halted
    /// separately.
    Hosted(BTreeMap<Arc<str>, Settings>),
    Enter(Enter<T>),
    /// The answer has begun: the call is not cut off any more, and a drain does
    /// not wait for it.
    Answered {
        actor: Actor,
        call: CallId,
    },
    /// The call has ended, or nobody waits for it any more.
    Left {
        actor: Actor,
        call: CallId,
    },
    /// The application has given the actor up.
    Deactivated {
        actor: Actor,
    },
    /// Actors that are to go.
    Halt {
        halt: HaltId,
        /// Calls sent here by a routing before it are refused.
        fence: u64,
        which: Which,
    },
    /// A deadline may have passed.
    Woken,
}

/// Actors that a halt concerns.
#[derive(Debug, Clone)]
pub enum Which {
    All,
    /// All: others may have them already. What runs may not write any more,
    /// even if an actor comes back to this host before it has ended.
    Lost,
    /// Of these types.
    Types(BTreeSet<Arc<str>>),
    /// Those that do not belong to the host of this address.
    NotOf {
        tables: Arc<Tables>,
        address: Arc<str>,
    },
    /// The same, of types alone whose hosts differ between tables.
    Moved {
        from: Arc<Tables>,
        to: Arc<Tables>,
        address: Arc<str>,
    },
}

impl Which {
    pub fn has(&self, actor: &Actor) -> bool {
        match self {
            Self::All | Self::Lost => true,
            Self::Types(types) => types.contains(&actor.kind),
            Self::NotOf { tables, address } => is_elsewhere(actor, tables, address),
            Self::Moved { from, to, address } => {
                !to.shares(from, &actor.kind) && is_elsewhere(actor, to, address)
            }
        }
    }
}

fn is_elsewhere(actor: &Actor, tables: &Tables, address: &str) -> bool {
    let owner = tables.owner(&actor.kind, &actor.id);
    owner.is_none_or(|owner| !is_same(&owner.address, address))
}

/// Why a call gets no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The actor is elsewhere, or on its way: look again.
    Moved,
    /// The chain is too long.
    TooDeep,
    /// It has waited until its deadline.
    Late,
}

/// Why an actor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Idle,
    Halted,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Effect<T> {
    Run(T),
    Refuse(T, Refusal),
    /// The call has to end now. [`Event::Left`] follows.
    Cancel(T, Actor),
    /// [`Event::Deactivated`] follows.
    Deactivate(Actor, Cause),
    /// All actors that the halt concerned are gone.
    Halted(HaltId),
}

pub struct Table<T> {
    kinds: HashMap<Arc<str>, Kind<T>>,
    fence: u64,
    /// Deadlines of waiting calls and of drains.
    due: BTreeSet<(Instant, Due)>,
    /// How many actors each halt still waits for.
    halts: BTreeMap<HaltId, usize>,
    /// Idle deadlines are kept as times since then.
    start: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Wait(Actor, CallId),
    Drain(Actor),
}

impl<T: Clone> Table<T> {
    pub fn new(now: Instant) -> Self {
        Self {
            kinds: HashMap::new(),
            fence: 0,
            due: BTreeSet::new(),
            halts: BTreeMap::new(),
            start: now,
        }
    }

    pub fn handle(&mut self, now: Instant, event: Event<T>, effects: &mut Vec<Effect<T>>) {
        match event {
            Event::Hosted(types) => self.host(types),
            Event::Enter(enter) => self.enter(enter, effects),
            Event::Answered { actor, call } => {
                if let Some(entry) = self.entry(&actor) {
                    entry.answered(call);
                    self.proceed(now, &actor, effects);
                }
            }
            Event::Left { actor, call } => self.leave(now, &actor, call, effects),
            Event::Deactivated { actor } => self.deactivated(now, &actor, effects),
            Event::Halt { halt, fence, which } => self.halt(now, halt, fence, &which, effects),
            Event::Woken => self.wake(now, effects),
        }
    }

    /// When [`Event::Woken`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let idle = self.kinds.values().filter_map(Kind::next_idle);
        let idle = idle.min().map(|since| self.start + since);
        let due = self.due.first().map(|(at, _)| *at);
        match (idle, due) {
            (Some(idle), Some(due)) => Some(idle.min(due)),
            (idle, due) => idle.or(due),
        }
    }

    /// Whether calls of this chain may pass each other.
    pub fn is_reentrant(&self, kind: &str) -> bool {
        let kind = self.kinds.get(kind);
        kind.is_some_and(|kind| {
            kind.settings
                .is_some_and(|settings| settings.depth.is_some())
        })
    }

    /// Whether an actor is active.
    pub fn is_active(&self, actor: &Actor) -> bool {
        let kind = self.kinds.get(&actor.kind);
        kind.is_some_and(|kind| kind.actors.contains_key(&actor.id))
    }

    /// Whether what runs in an actor is that of its owner, as far as this table
    /// knows.
    pub fn owns(&self, actor: &Actor) -> bool {
        let kind = self.kinds.get(&actor.kind);
        let entry = kind.and_then(|kind| kind.actors.get(&actor.id));
        entry.is_some_and(|entry| !entry.is_lost())
    }

    /// Whether a halt waits for an actor to go.
    pub fn is_halted(&self, actor: &Actor) -> bool {
        let kind = self.kinds.get(&actor.kind);
        let entry = kind.and_then(|kind| kind.actors.get(&actor.id));
        entry.is_some_and(entry::Entry::is_halted)
    }

    /// Of each type that is hosted, how many actors are active.
    pub fn counts(&self) -> Vec<(Arc<str>, usize)> {
        let kinds = self.kinds.iter();
        let hosted = kinds.filter(|(_, kind)| kind.settings.is_some());
        let mut counts: Vec<_> = hosted
            .map(|(name, kind)| (name.clone(), kind.actors.len()))
            .collect();
        counts.sort();
        counts
    }

    /// Of each type that is hosted, how many calls wait for their turn.
    pub fn waiting(&self) -> Vec<(Arc<str>, usize)> {
        let kinds = self.kinds.iter();
        let hosted = kinds.filter(|(_, kind)| kind.settings.is_some());
        hosted
            .map(|(name, kind)| (name.clone(), kind.waiting()))
            .collect()
    }

    /// Whether nothing is active and nothing is waited for.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
            && self.halts.is_empty()
            && self.kinds.values().all(|kind| kind.actors.is_empty())
    }

    fn entry(&mut self, actor: &Actor) -> Option<&mut entry::Entry<T>> {
        self.kinds.get_mut(&actor.kind)?.actors.get_mut(&actor.id)
    }

    fn host(&mut self, types: BTreeMap<Arc<str>, Settings>) {
        for (name, kind) in &mut self.kinds {
            if !types.contains_key(name) {
                kind.settings = None;
            }
        }
        for (name, settings) in types {
            let kind = self.kinds.entry(name).or_insert_with(Kind::new);
            kind.drain = settings.drain;
            kind.settings = Some(settings);
        }
        self.kinds
            .retain(|_, kind| kind.settings.is_some() || !kind.actors.is_empty());
    }

    fn enter(&mut self, enter: Enter<T>, effects: &mut Vec<Effect<T>>) {
        let fence = self.fence;
        let hosted = self.kinds.get_mut(&enter.actor.kind);
        let hosted = hosted.and_then(|kind| Some((kind.settings?, kind)));
        let Some((settings, kind)) = hosted.filter(|_| enter.fence >= fence) else {
            effects.push(Effect::Refuse(enter.ticket, Refusal::Moved));
            return;
        };
        let entry = kind.actors.entry(enter.actor.id.clone()).or_default();
        let (actor, deadline, call) = (enter.actor.clone(), enter.deadline, enter.call);
        let waiting = Waiting {
            call: enter.call,
            ticket: enter.ticket,
            chain: enter.chain,
            deadline: enter.deadline,
        };
        match entry.enter(waiting, enter.beside, settings.depth) {
            entry::Entered::Runs(ticket) => effects.push(Effect::Run(ticket)),
            entry::Entered::Refused(ticket, refusal) => {
                effects.push(Effect::Refuse(ticket, refusal));
            }
            entry::Entered::Waits => {
                if let Some(deadline) = deadline {
                    self.due.insert((deadline, Due::Wait(actor, call)));
                }
            }
        }
    }

    fn leave(&mut self, now: Instant, actor: &Actor, call: CallId, effects: &mut Vec<Effect<T>>) {
        let Some(entry) = self.entry(actor) else {
            return;
        };
        if let Some(Some(deadline)) = entry.leave(call) {
            self.due.remove(&(deadline, Due::Wait(actor.clone(), call)));
        }
        self.proceed(now, actor, effects);
    }

    /// Lets an actor go on after something about its calls has changed.
    fn proceed(&mut self, now: Instant, actor: &Actor, effects: &mut Vec<Effect<T>>) {
        let Some(kind) = self.kinds.get_mut(&actor.kind) else {
            return;
        };
        let Some(entry) = kind.actors.get_mut(&actor.id) else {
            return;
        };
        match entry.phase {
            Phase::Active => {
                if let Some(next) = entry.take_next() {
                    if let Some(deadline) = next.deadline {
                        let due = Due::Wait(actor.clone(), next.call);
                        self.due.remove(&(deadline, due));
                    }
                    effects.push(Effect::Run(next.ticket));
                } else if entry.is_idle() {
                    let idle = kind
                        .settings
                        .map_or(Duration::ZERO, |settings| settings.idle);
                    let since = now.saturating_duration_since(self.start);
                    kind.rest(&actor.id, since.saturating_add(idle));
                }
            }
            Phase::Draining => {
                if entry.is_drained() {
                    if let Some(deadline) = entry.drain_deadline() {
                        self.due.remove(&(deadline, Due::Drain(actor.clone())));
                    }
                    entry.phase = Phase::Deactivating;
                    effects.push(Effect::Deactivate(actor.clone(), Cause::Halted));
                }
            }
            Phase::Deactivating => {}
        }
    }

    fn deactivated(&mut self, now: Instant, actor: &Actor, effects: &mut Vec<Effect<T>>) {
        let Some(kind) = self.kinds.get_mut(&actor.kind) else {
            return;
        };
        let Some(entry) = kind.actors.get_mut(&actor.id) else {
            return;
        };
        if !matches!(entry.phase, Phase::Deactivating) {
            return;
        }
        for halt in entry.take_halts() {
            if let Some(left) = self.halts.get_mut(&halt) {
                *left -= 1;
                if *left == 0 {
                    self.halts.remove(&halt);
                    effects.push(Effect::Halted(halt));
                }
            }
        }
        entry.phase = Phase::Active;
        if entry.has_waiting() {
            self.proceed(now, actor, effects);
            return;
        }
        kind.actors.remove(&actor.id);
        if kind.settings.is_none() && kind.actors.is_empty() {
            self.kinds.remove(&actor.kind);
        }
    }

    fn halt(
        &mut self,
        now: Instant,
        halt: HaltId,
        fence: u64,
        which: &Which,
        effects: &mut Vec<Effect<T>>,
    ) {
        self.fence = self.fence.max(fence);
        let mut concerned = Vec::new();
        for (name, kind) in &self.kinds {
            for id in kind.actors.keys() {
                let actor = Actor::new(name.clone(), id.clone());
                if which.has(&actor) {
                    concerned.push(actor);
                }
            }
        }
        if concerned.is_empty() {
            effects.push(Effect::Halted(halt));
            return;
        }
        self.halts.insert(halt, concerned.len());
        for actor in concerned {
            if matches!(which, Which::Lost)
                && let Some(entry) = self.entry(&actor)
            {
                entry.lose();
            }
            self.drain(now, halt, &actor, effects);
        }
    }

    fn drain(&mut self, now: Instant, halt: HaltId, actor: &Actor, effects: &mut Vec<Effect<T>>) {
        let Some(kind) = self.kinds.get_mut(&actor.kind) else {
            return;
        };
        let drain = kind.drain;
        let Some(entry) = kind.actors.get_mut(&actor.id) else {
            return;
        };
        entry.add_halt(halt);
        // What has not begun is sent to where the actor will be.
        for waiting in entry.take_waiting() {
            if let Some(deadline) = waiting.deadline {
                let due = Due::Wait(actor.clone(), waiting.call);
                self.due.remove(&(deadline, due));
            }
            effects.push(Effect::Refuse(waiting.ticket, Refusal::Moved));
        }
        if matches!(entry.phase, Phase::Active) {
            let deadline = now + drain;
            entry.drain_until(deadline);
            self.due.insert((deadline, Due::Drain(actor.clone())));
            if drain.is_zero() {
                effects.extend(
                    entry
                        .cut_off()
                        .map(|ticket| Effect::Cancel(ticket, actor.clone())),
                );
            }
            self.proceed(now, actor, effects);
        }
    }

    fn wake(&mut self, now: Instant, effects: &mut Vec<Effect<T>>) {
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, due)) = self.due.pop_first() else {
                break;
            };
            match due {
                Due::Wait(actor, call) => {
                    let waiting = self.entry(&actor).and_then(|entry| entry.give_up(call));
                    effects.extend(waiting.map(|ticket| Effect::Refuse(ticket, Refusal::Late)));
                    // It may have been the last reason for the actor to be.
                    self.proceed(now, &actor, effects);
                }
                Due::Drain(actor) => {
                    if let Some(entry) = self.entry(&actor) {
                        effects.extend(
                            entry
                                .cut_off()
                                .map(|ticket| Effect::Cancel(ticket, actor.clone())),
                        );
                    }
                }
            }
        }
        let since = now.saturating_duration_since(self.start);
        for (name, kind) in &mut self.kinds {
            while let Some(id) = kind.next_overdue(since) {
                effects.push(Effect::Deactivate(
                    Actor::new(name.clone(), id),
                    Cause::Idle,
                ));
            }
        }
    }
}
