//! What a sidecar does about the orders of the scheduler that leads placement.
//!
//! It does no I/O and has no clock: [`Follow::handle`] takes an event and the
//! time, and says what is to be done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Effect, Follow, Phase};
use crate::hosts::{Addresses, Tables};
use crate::routing::Known;
use crate::table::Which;

pub type Event = super::Event<Order>;

/// Rounds at once, each about other types.
const MOST_ROUNDS: usize = 1024;

#[derive(Debug, Clone)]
pub enum Order {
    /// Without types it begins the snapshot of a new stream.
    Lock {
        seq: u64,
        types: BTreeSet<Arc<str>>,
    },
    /// The hosts of the types that change; none where nobody hosts it any more.
    Update {
        seq: u64,
        changes: BTreeMap<Arc<str>, Addresses>,
    },
    Unlock {
        seq: u64,
    },
    /// One that this sidecar cannot follow, and why.
    Foreign(String),
}

pub struct Follower {
    own: Arc<str>,
    /// Longest time from a lock to the unlock.
    timeout: Duration,
    /// In force everywhere. Empty until something has been on this stream: a
    /// leader that is new has nothing from the one before, so that nothing of
    /// before is certain.
    settled: Arc<Tables>,
    /// Whether tables have come on this stream.
    is_known: bool,
    /// By what the leader numbers them.
    rounds: BTreeMap<u64, Round>,
    halts: u64,
}

struct Round {
    types: BTreeSet<Arc<str>>,
    /// When it has to be over.
    deadline: Instant,
    update: Option<Update>,
    unlocked: bool,
}

struct Update {
    types: BTreeSet<Arc<str>>,
    /// Only these types of it count.
    tables: Arc<Tables>,
    /// None once its actors are gone.
    halt: Option<u64>,
}

impl Round {
    fn is_about(&self, types: &BTreeSet<Arc<str>>) -> bool {
        let update = self.update.as_ref();
        !self.types.is_disjoint(types)
            || update.is_some_and(|update| !update.types.is_disjoint(types))
    }

    fn is_over(&self) -> bool {
        let halts = |update: &Update| update.halt.is_some();
        self.unlocked && !self.update.as_ref().is_some_and(halts)
    }
}

impl Follow for Follower {
    type Order = Order;

    fn next_deadline(&self) -> Option<Instant> {
        self.rounds.values().map(|round| round.deadline).min()
    }

    fn handle(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Ordered(Order::Lock { seq, types }) => self.lock(now, seq, types, effects),
            Event::Ordered(Order::Update { seq, changes }) => self.update(seq, changes, effects),
            Event::Ordered(Order::Unlock { seq }) => self.unlock(seq, effects),
            Event::Ordered(Order::Foreign(why)) => self.close(why, effects),
            Event::Halted { number } => self.halted(number, effects),
            Event::Lost | Event::Silent => self.lose(effects),
            Event::Woken => {
                let late = self.rounds.iter().find(|(_, round)| round.deadline <= now);
                if let Some((seq, _)) = late {
                    let text = format!(
                        "Dissemination timeout for round {seq}, closing stream to reconnect"
                    );
                    self.close(text, effects);
                }
            }
        }
    }
}

impl Follower {
    pub fn new(own: Arc<str>, timeout: Duration) -> Self {
        Self {
            own,
            timeout,
            settled: Arc::default(),
            is_known: false,
            rounds: BTreeMap::new(),
            halts: 0,
        }
    }

    fn lock(
        &mut self,
        now: Instant,
        seq: u64,
        types: BTreeSet<Arc<str>>,
        effects: &mut Vec<Effect>,
    ) {
        // The leader has given up what it had begun with these types before.
        let given_up: Vec<u64> = self
            .rounds
            .iter()
            .filter_map(|(known, round)| {
                (*known == seq || round.is_about(&types)).then_some(*known)
            })
            .collect();
        for seq in given_up {
            if let Some(round) = self.rounds.remove(&seq).filter(|round| round.unlocked) {
                // Others have its tables in force already.
                self.merge(&round);
            }
        }
        if self.rounds.len() >= MOST_ROUNDS {
            let text = format!(
                "{MOST_ROUNDS} rounds of placement are under way, closing stream to reconnect"
            );
            return self.close(text, effects);
        }
        let is_snapshot = types.is_empty();
        let round = Round {
            types,
            deadline: now + self.timeout,
            update: None,
            unlocked: false,
        };
        self.rounds.insert(seq, round);
        if !is_snapshot {
            effects.push(Effect::Route(self.known()));
        }
        effects.push(Effect::Acknowledge(Phase::Lock, seq));
    }

    fn update(
        &mut self,
        seq: u64,
        changes: BTreeMap<Arc<str>, Addresses>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(round) = self.rounds.get_mut(&seq) else {
            let text = format!("received UPDATE for unknown round seq {seq}");
            return self.close(text, effects);
        };
        let types = changes.keys().cloned().collect();
        let tables = Arc::new(self.settled.with(changes));
        self.halts += 1;
        round.update = Some(Update {
            types,
            tables: tables.clone(),
            halt: Some(self.halts),
        });
        let which = Which::Moved {
            from: self.settled.clone(),
            to: tables,
            address: self.own.clone(),
        };
        effects.push(Effect::Route(self.known()));
        effects.push(Effect::Lose(which.clone()));
        effects.push(Effect::Halt {
            number: self.halts,
            which,
        });
    }

    fn halted(&mut self, number: u64, effects: &mut Vec<Effect>) {
        for (seq, round) in &mut self.rounds {
            if let Some(update) = &mut round.update
                && update.halt == Some(number)
            {
                update.halt = None;
                let seq = *seq;
                effects.push(Effect::Acknowledge(Phase::Update, seq));
                return self.settle(seq, effects);
            }
        }
    }

    fn unlock(&mut self, seq: u64, effects: &mut Vec<Effect>) {
        let Some(round) = self.rounds.get_mut(&seq) else {
            let text = format!("received UNLOCK for unknown round seq {seq}");
            return self.close(text, effects);
        };
        round.unlocked = true;
        self.settle(seq, effects);
    }

    /// Ends a round if it is unlocked and its actors are gone.
    fn settle(&mut self, seq: u64, effects: &mut Vec<Effect>) {
        if !self.rounds.get(&seq).is_some_and(Round::is_over) {
            return;
        }
        let Some(round) = self.rounds.remove(&seq) else {
            return;
        };
        self.merge(&round);
        self.is_known = true;
        effects.push(Effect::Route(self.known()));
        effects.push(Effect::Acknowledge(Phase::Unlock, seq));
        effects.push(Effect::Settled(self.settled.clone()));
    }

    fn merge(&mut self, round: &Round) {
        if let Some(update) = &round.update {
            let settled = self.settled.with_types_of(&update.tables, &update.types);
            self.settled = Arc::new(settled);
        }
    }

    fn known(&self) -> Known {
        if !self.is_known {
            return Known::Nothing;
        }
        if self.rounds.is_empty() {
            return Known::Settled(self.settled.clone());
        }
        let mut to = self.settled.clone();
        let mut locked = BTreeSet::new();
        for round in self.rounds.values() {
            match &round.update {
                Some(update) => to = Arc::new(to.with_types_of(&update.tables, &update.types)),
                None => locked.extend(round.types.iter().cloned()),
            }
        }
        Known::Moving {
            from: self.settled.clone(),
            to,
            locked: Arc::new(locked),
        }
    }

    /// The stream ends from this side: nothing that was agreed on holds.
    fn close(&mut self, text: String, effects: &mut Vec<Effect>) {
        self.lose(effects);
        effects.push(Effect::Close(text));
    }

    /// Every actor goes: with the stream its host leaves, and the versions of
    /// the next one do not say who has had them meanwhile.
    fn lose(&mut self, effects: &mut Vec<Effect>) {
        self.rounds.clear();
        self.settled = Arc::default();
        self.is_known = false;
        self.halts += 1;
        effects.push(Effect::Route(Known::Nothing));
        effects.push(Effect::Halt {
            number: self.halts,
            which: Which::Lost,
        });
    }
}

#[cfg(test)]
mod tests;
