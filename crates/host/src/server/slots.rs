//! Which connections a listener keeps when strangers open too many.
//!
//! Plain data: connections come, change and go, and the answers say which one
//! has to make room. Connections that owe bytes go first, the oldest of them
//! before the others, so that a good client always finds a place.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// Numbers of connections.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// All of them.
    pub connections: usize,
    /// Those of one address.
    pub per_source: usize,
    /// Those that owe bytes.
    pub waiting: usize,
    /// Those of one address that owe bytes.
    pub waiting_per_source: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It owes bytes: of the handshake, of its first request, or of a body.
    Waiting,
    /// A request is here and being answered.
    Busy,
    /// All requests are answered.
    Idle,
}

/// Where a connection comes from. IPv6 hosts own whole networks of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source([u8; 8]);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        let bytes = match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                [0, 0, 0xff, 0xff, a, b, c, d]
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                [a, b, c, d, e, f, g, h]
            }
        };
        Self(bytes)
    }
}

/// Ids grow: a smaller one is older.
pub type Id = u64;

#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has a place; the other one, if any, has to be closed.
    Admitted { id: Id, evicted: Option<Id> },
    /// Everybody who is there is being served.
    Refused,
}

struct Entry {
    source: Source,
    state: State,
}

/// Connections by state, oldest first.
#[derive(Default)]
struct Sets {
    waiting: BTreeSet<Id>,
    idle: BTreeSet<Id>,
    all: usize,
}

impl Sets {
    fn add(&mut self, id: Id, state: State) {
        match state {
            State::Waiting => drop(self.waiting.insert(id)),
            State::Idle => drop(self.idle.insert(id)),
            State::Busy => {}
        }
    }

    fn take(&mut self, id: Id, state: State) {
        match state {
            State::Waiting => drop(self.waiting.remove(&id)),
            State::Idle => drop(self.idle.remove(&id)),
            State::Busy => {}
        }
    }

    /// Who goes first.
    fn least_needed(&self) -> Option<Id> {
        self.waiting.first().or(self.idle.first()).copied()
    }
}

pub struct Slots {
    caps: Caps,
    next: Id,
    entries: HashMap<Id, Entry>,
    all: Sets,
    sources: HashMap<Source, Sets>,
}

impl Slots {
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            next: 0,
            entries: HashMap::new(),
            all: Sets::default(),
            sources: HashMap::new(),
        }
    }

    /// A new connection, which owes bytes.
    pub fn admit(&mut self, source: Source) -> Admission {
        let mut evicted = None;
        if let Some(own) = self.sources.get(&source) {
            if own.waiting.len() >= self.caps.waiting_per_source {
                evicted = own.waiting.first().copied();
            } else if own.all >= self.caps.per_source {
                evicted = own.least_needed();
                if evicted.is_none() {
                    return Admission::Refused;
                }
            }
        }
        if evicted.is_none() {
            if self.all.waiting.len() >= self.caps.waiting {
                evicted = self.all.waiting.first().copied();
            } else if self.all.all >= self.caps.connections {
                evicted = self.all.least_needed();
                if evicted.is_none() {
                    return Admission::Refused;
                }
            }
        }
        if let Some(id) = evicted {
            self.remove(id);
        }
        let id = self.next;
        self.next += 1;
        let state = State::Waiting;
        self.entries.insert(id, Entry { source, state });
        for sets in [&mut self.all, self.sources.entry(source).or_default()] {
            sets.add(id, state);
            sets.all += 1;
        }
        Admission::Admitted { id, evicted }
    }

    /// The connection has changed; nothing if it had to go already.
    pub fn set(&mut self, id: Id, state: State) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut entry.state, state);
        let own = self.sources.get_mut(&entry.source);
        for sets in std::iter::once(&mut self.all).chain(own) {
            sets.take(id, before);
            sets.add(id, state);
        }
    }

    /// The connection is closed.
    pub fn remove(&mut self, id: Id) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        self.all.take(id, entry.state);
        self.all.all -= 1;
        if let Some(own) = self.sources.get_mut(&entry.source) {
            own.take(id, entry.state);
            own.all -= 1;
            if own.all == 0 {
                self.sources.remove(&entry.source);
            }
        }
    }

    /// Takes the place of the oldest connection that owes bytes, other than `id`.
    pub fn evict_waiting(&mut self, id: Id) -> Option<Id> {
        let oldest = self.all.waiting.iter().copied().find(|it| *it != id)?;
        self.remove(oldest);
        Some(oldest)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const CAPS: Caps = Caps {
        connections: 8,
        per_source: 5,
        waiting: 4,
        waiting_per_source: 3,
    };

    fn from(last: u8) -> Source {
        IpAddr::from(Ipv4Addr::new(10, 0, 0, last)).into()
    }

    fn admitted(slots: &mut Slots, source: Source) -> (Id, Option<Id>) {
        match slots.admit(source) {
            Admission::Admitted { id, evicted } => (id, evicted),
            Admission::Refused => panic!("refused"),
        }
    }

    #[test]
    fn oldest_silent_connection_of_the_same_source_goes_first() {
        let mut slots = Slots::new(CAPS);
        let (other, _) = admitted(&mut slots, from(2));
        let (first, _) = admitted(&mut slots, from(1));
        admitted(&mut slots, from(1));
        admitted(&mut slots, from(1));
        let (_, evicted) = admitted(&mut slots, from(1));
        assert_eq!(evicted, Some(first));
        // Now the limit of all is reached, and the other source has the oldest.
        let (_, evicted) = admitted(&mut slots, from(3));
        assert_eq!(evicted, Some(other));
    }

    #[test]
    fn who_is_served_stays() {
        let mut slots = Slots::new(CAPS);
        for _ in 0..5 {
            let (id, evicted) = admitted(&mut slots, from(1));
            assert_eq!(evicted, None);
            slots.set(id, State::Busy);
        }
        assert_eq!(slots.admit(from(1)), Admission::Refused);
        slots.set(2, State::Idle);
        assert_eq!(admitted(&mut slots, from(1)).1, Some(2));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let address = |last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        assert_eq!(Source::from(address(1)), address(2).into());
        let mapped = IpAddr::from(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        assert_eq!(Source::from(mapped), from(1));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Open(u8),
        Set(usize, State),
        Close(usize),
        EvictFor(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let state = prop_oneof![Just(State::Waiting), Just(State::Busy), Just(State::Idle)];
        let event = prop_oneof![
            3 => (0..4u8).prop_map(Event::Open),
            3 => (0..20usize, state).prop_map(|(n, state)| Event::Set(n, state)),
            1 => (0..20usize).prop_map(Event::Close),
            1 => (0..20usize).prop_map(Event::EvictFor),
        ];
        proptest::collection::vec(event, 0..200)
    }

    proptest! {
        #[test]
        fn prop_limits_hold_and_only_evictable_connections_go(events in events()) {
            let mut slots = Slots::new(CAPS);
            let mut live: Vec<(Id, u8, State)> = Vec::new();
            for event in events {
                match event {
                    Event::Open(source) => match slots.admit(from(source)) {
                        Admission::Admitted { id, evicted } => {
                            if let Some(gone) = evicted {
                                let at = live.iter().position(|it| it.0 == gone).unwrap();
                                prop_assert_ne!(live.remove(at).2, State::Busy);
                            }
                            live.push((id, source, State::Waiting));
                        }
                        Admission::Refused => {
                            let own = live.iter().filter(|it| it.1 == source);
                            let all_busy = live.iter().all(|it| it.2 == State::Busy);
                            let own_busy = own.clone().all(|it| it.2 == State::Busy);
                            prop_assert!(all_busy || (own_busy && own.count() == CAPS.per_source));
                        }
                    },
                    Event::Set(n, state) => if let Some(it) = live.get_mut(n) {
                        it.2 = state;
                        slots.set(it.0, state);
                    },
                    Event::Close(n) => if n < live.len() {
                        slots.remove(live.remove(n).0);
                    },
                    Event::EvictFor(n) => if let Some(id) = live.get(n).map(|it| it.0) {
                        let oldest = live.iter().filter(|it| it.2 == State::Waiting && it.0 != id).map(|it| it.0).min();
                        prop_assert_eq!(slots.evict_waiting(id), oldest);
                        live.retain(|it| Some(it.0) != oldest);
                    },
                }
                prop_assert_eq!(slots.len(), live.len());
                prop_assert!(live.len() <= CAPS.connections);
                for source in 0..4 {
                    prop_assert!(live.iter().filter(|it| it.1 == source).count() <= CAPS.per_source);
                }
            }
            for (id, ..) in live {
                slots.remove(id);
            }
            prop_assert_eq!(slots.len(), 0);
            prop_assert!(slots.sources.is_empty() && slots.all.waiting.is_empty() && slots.all.idle.is_empty());
        }
    }
}
