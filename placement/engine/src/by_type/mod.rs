//! Placement as a scheduler serves it: rounds over those actor types that
//! change, several at once where they have no type in common. Other protocols
//! than this have one round for all types of a namespace; what a sidecar reports
//! and whether it may are the same in all.

mod rounds;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Host, Phase, Settings, StreamId};
use rounds::Rounds;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first message of a stream.
    Opened {
        stream: StreamId,
        host: Host,
    },
    /// A later message that says which types the sidecar hosts now.
    Reported {
        stream: StreamId,
        host: Host,
    },
    Acknowledged {
        stream: StreamId,
        phase: Phase,
        seq: u64,
    },
    Closed {
        stream: StreamId,
    },
    /// A deadline may have passed.
    Woken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Send {
        streams: Vec<StreamId>,
        order: Order,
    },
    /// The streams were silent for `timeout` in a round. They are forgotten already.
    Close {
        streams: Vec<StreamId>,
        timeout: Duration,
        seq: u64,
    },
    /// All have gone through a round.
    Ended { took: Duration },
}

/// What a sidecar is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub namespace: Arc<str>,
    /// Of the round. A new stream gets a round of its own.
    pub seq: u64,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Lock(Types),
    Update(Tables),
    /// Also without an update before it, when a round is given up.
    Unlock(Types),
}

/// What a round is about; nothing for that of a new stream.
pub type Types = Arc<[Arc<str>]>;

/// Of each actor type of a round, what there is. A type without hosts is gone.
pub type Tables = Arc<BTreeMap<Arc<str>, Table>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Grows with each round of the type.
    pub version: u64,
    /// Addresses of the hosts with their app ids.
    pub hosts: BTreeMap<Arc<str>, Arc<str>>,
}

/// All namespaces, of one leadership.
#[derive(Debug)]
pub struct Placement {
    settings: Settings,
    /// No round begins before.
    first_round: Instant,
    namespaces: BTreeMap<Arc<str>, Rounds>,
    streams: HashMap<StreamId, Arc<str>>,
}

/// How much a namespace has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    pub streams: usize,
    /// Hosts of all types together.
    pub hosts: usize,
}

impl Placement {
    /// Before `first_round` hosts are only gathered: with those of the leader
    /// before in the first tables, their actors stay where they are.
    pub fn new(settings: Settings, first_round: Instant) -> Self {
        Self {
            settings,
            first_round,
            namespaces: BTreeMap::new(),
            streams: HashMap::new(),
        }
    }

    pub fn handle(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Opened { stream, host } => self.open(now, stream, host, effects),
            Event::Reported { stream, host } => {
                if let Some(rounds) = self.of(stream) {
                    rounds.report(now, stream, host, effects);
                }
            }
            Event::Acknowledged { stream, phase, seq } => {
                if let Some(rounds) = self.of(stream) {
                    rounds.acknowledge(now, (stream, phase, seq), effects);
                }
            }
            Event::Closed { stream } => {
                let name = self.streams.remove(&stream);
                if let Some(rounds) = name.as_ref().and_then(|it| self.namespaces.get_mut(it)) {
                    rounds.close(now, stream, effects);
                }
                self.drop_empty(name.as_ref());
            }
            Event::Woken => self.wake(now, effects),
        }
    }

    /// When [`Event::Woken`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.namespaces.values().filter_map(Rounds::deadline);
        deadlines.min()
    }

    /// The namespaces that have streams, by name.
    pub fn sizes(&self) -> impl Iterator<Item = (&Arc<str>, Size)> {
        self.namespaces.iter().map(|(name, it)| (name, it.size()))
    }

    pub fn size_of(&self, namespace: &str) -> Size {
        let rounds = self.namespaces.get(namespace);
        rounds.map(Rounds::size).unwrap_or_default()
    }

    fn open(&mut self, now: Instant, stream: StreamId, host: Host, effects: &mut Vec<Effect>) {
        let name: Arc<str> = match self.namespaces.get_key_value(host.namespace.as_str()) {
            Some((name, _)) => name.clone(),
            None => host.namespace.as_str().into(),
        };
        self.streams.insert(stream, name.clone());
        let rounds = self.namespaces.entry(name.clone());
        let new = || Rounds::new(name, self.settings, self.first_round, now);
        rounds.or_insert_with(new).open(now, stream, host, effects);
    }

    fn wake(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for rounds in self.namespaces.values_mut() {
            rounds.wake(now, effects);
        }
        for effect in effects {
            if let Effect::Close { streams, .. } = effect {
                for stream in streams {
                    let name = self.streams.remove(stream);
                    self.drop_empty(name.as_ref());
                }
            }
        }
    }

    fn of(&mut self, stream: StreamId) -> Option<&mut Rounds> {
        self.namespaces.get_mut(self.streams.get(&stream)?)
    }

    /// A namespace without streams has nothing that anybody could know.
    fn drop_empty(&mut self, name: Option<&Arc<str>>) {
        if let Some(name) = name
            && self.namespaces.get(name).is_some_and(Rounds::is_empty)
        {
            self.namespaces.remove(name);
        }
    }
}
