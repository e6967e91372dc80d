//! The engine of placement: which sidecars host which actor types, and the
//! rounds in which all sidecars of a namespace take over a new table.
//!
//! It does no I/O, and has no clock of its own: [`Placement::handle`] takes an
//! event and the time, and says what is to be sent and which streams are to be
//! closed. A recorded list of events is a test.

pub mod authority;
mod authorize;
pub mod before;
pub mod by_type;
pub mod election;
mod host;
mod rounds;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use authorize::{Caller, Refused, authorize};
use before::{Before, Hosts};
pub use host::Host;
use rounds::Rounds;

/// A stream of a sidecar. The one who opens streams numbers them upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// The three phases of a round. Each ends when every stream has acknowledged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Lock,
    Update,
    Unlock,
}

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
    /// Nothing for the phase or for the version means that which is running.
    Acknowledged {
        stream: StreamId,
        phase: Option<Phase>,
        version: Option<u64>,
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
        version: u64,
    },
}

/// What a sidecar is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Lock { version: u64 },
    Update { version: u64, tables: Tables },
    Unlock { version: u64 },
}

/// Of each actor type, the addresses of its hosts with their app ids.
pub type Tables = Arc<BTreeMap<String, BTreeMap<String, String>>>;

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Longest time of a phase.
    pub timeout: Duration,
    /// How long after a round changes are gathered for the next one.
    pub window: Duration,
}

/// All namespaces.
#[derive(Debug)]
pub struct Placement {
    settings: Settings,
    /// The leader before this one, while its hosts are awaited.
    awaits: Option<Before>,
    /// The highest version of a namespace that was dropped. Versions begin above
    /// it: with version 1 hosts believe that there has been no table before.
    dropped: u64,
    namespaces: BTreeMap<String, Rounds>,
    streams: HashMap<StreamId, String>,
}

/// The hosts of a namespace, as an operator may want to see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub version: u64,
    /// Those with actor types, by name.
    pub hosts: Vec<Host>,
    /// Open streams, with and without actor types.
    pub streams: usize,
}

impl Placement {
    /// Of a leader that has just begun to lead. It gathers the hosts of the
    /// leader before it first, or waits until none of them follows that one any
    /// more: with all of them in the first table, their actors stay where they
    /// are.
    pub fn new(settings: Settings, before: Option<Before>) -> Self {
        Self {
            settings,
            awaits: before.filter(|before| before.hosts != Some(Hosts::default())),
            dropped: 0,
            namespaces: BTreeMap::new(),
            streams: HashMap::new(),
        }
    }

    pub fn handle(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Opened { stream, host } => {
                let name = host.namespace.clone();
                self.streams.insert(stream, name.clone());
                let first = self.awaits.map(|before| before.is_over());
                let (settings, version) = (self.settings, self.dropped);
                let rounds = self.namespaces.entry(name);
                let rounds = rounds.or_insert_with(|| Rounds::new(settings, version, first, now));
                rounds.open(now, stream, host, effects);
                if self.awaits.is_some_and(|before| self.has_all_of(before)) {
                    self.awaits = None;
                    for rounds in self.namespaces.values_mut() {
                        rounds.stop_gathering(now, effects);
                    }
                }
            }
            Event::Reported { stream, host } => {
                if let Some(rounds) = self.of(stream) {
                    rounds.report(now, stream, host, effects);
                }
            }
            Event::Acknowledged {
                stream,
                phase,
                version,
            } => {
                if let Some(rounds) = self.of(stream) {
                    rounds.acknowledge(now, stream, phase, version, effects);
                }
            }
            Event::Closed { stream } => self.close(now, stream, effects),
            Event::Woken => {
                self.awaits = self.awaits.filter(|before| before.is_over() > now);
                for rounds in self.namespaces.values_mut() {
                    rounds.wake(now, effects);
                }
                self.forget_closed(effects);
            }
        }
    }

    /// When [`Event::Woken`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.namespaces.values().filter_map(Rounds::deadline);
        deadlines.min()
    }

    /// The namespaces that have streams, by name.
    pub fn memberships(&self) -> impl Iterator<Item = (&str, Membership)> {
        let namespaces = self.namespaces.iter();
        namespaces.map(|(name, rounds)| (name.as_str(), rounds.membership()))
    }

    /// What the next leader has to know: the sidecars with actors that follow
    /// this one, or the one before. None if those are not known.
    pub fn followed(&self) -> Option<Hosts> {
        match self.awaits {
            Some(before) => before.hosts,
            None => Some(self.hosts()),
        }
    }

    /// Those with actors, of all namespaces.
    fn hosts(&self) -> Hosts {
        let mut hosts = Hosts::default();
        for host in self.namespaces.values().flat_map(Rounds::hosts) {
            hosts.add(host);
        }
        hosts
    }

    fn has_all_of(&self, before: Before) -> bool {
        // As long as there are not enough, nothing needs to be summed up.
        let known = before.hosts;
        known.is_some_and(|hosts| self.streams.len() as u64 >= hosts.count && self.hosts() == hosts)
    }

    fn of(&mut self, stream: StreamId) -> Option<&mut Rounds> {
        self.namespaces.get_mut(self.streams.get(&stream)?)
    }

    /// A namespace without streams is dropped.
    fn close(&mut self, now: Instant, stream: StreamId, effects: &mut Vec<Effect>) {
        let Some(name) = self.streams.remove(&stream) else {
            return;
        };
        if let Some(rounds) = self.namespaces.get_mut(&name) {
            rounds.close(now, stream, effects);
            self.drop_if_empty(&name);
        }
    }

    fn drop_if_empty(&mut self, name: &str) {
        if let Some(rounds) = self.namespaces.get(name).filter(|rounds| rounds.is_empty()) {
            self.dropped = self.dropped.max(rounds.version());
            self.namespaces.remove(name);
        }
    }

    fn forget_closed(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Close { streams, .. } = effect {
                for stream in streams {
                    if let Some(name) = self.streams.remove(stream) {
                        self.drop_if_empty(&name);
                    }
                }
            }
        }
    }
}
