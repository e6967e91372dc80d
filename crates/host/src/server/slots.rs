//! Which connections a listener keeps when clients open too many.
//!
//! Plain data without I/O: the return values say which connections to evict.
//! Those that never sent a byte go first, then those whose handshake or request
//! is not complete, the oldest first, so that a good client always finds a
//! place. Young ones are given time, so that many good clients that connect at
//! once do not evict each other.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Time for the first byte, and for the rest of a handshake or request, before a
/// connection may be evicted. A full listener does not wait that long.
const SILENCE: Duration = Duration::from_millis(100);
const SLOWNESS: Duration = Duration::from_secs(1);

/// Numbers of connections.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// All of them.
    pub connections: usize,
    /// Those of one address.
    pub per_source: usize,
    /// Those whose handshake or request is not complete, not counting young ones.
    pub waiting: usize,
    /// The same of one address.
    pub waiting_per_source: usize,
    /// Bytes of bodies that all of them may hold.
    pub bodies: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It has not sent a byte.
    Silent,
    /// The handshake, a request's head, or a body is not complete.
    Waiting,
    /// A request is here and being answered.
    Busy,
    /// All requests are answered.
    Idle,
}

/// Where a connection comes from. IPv6 hosts own whole networks of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Every connection is being served.
    Refused,
}

struct Entry {
    source: Source,
    state: State,
    /// Of the state.
    since: Instant,
    /// Bytes of bodies.
    held: usize,
}

/// Connections by state, those first that have been in it for longest.
#[derive(Default)]
struct Sets {
    silent: BTreeSet<(Instant, Id)>,
    waiting: BTreeSet<(Instant, Id)>,
    idle: BTreeSet<(Instant, Id)>,
    all: usize,
}

impl Sets {
    fn of(&mut self, state: State) -> Option<&mut BTreeSet<(Instant, Id)>> {
        match state {
            State::Silent => Some(&mut self.silent),
            State::Waiting => Some(&mut self.waiting),
            State::Idle => Some(&mut self.idle),
            State::Busy => None,
        }
    }

    fn add(&mut self, id: Id, entry: &Entry) {
        if let Some(set) = self.of(entry.state) {
            set.insert((entry.since, id));
        }
    }

    fn take(&mut self, id: Id, entry: &Entry) {
        if let Some(set) = self.of(entry.state) {
            set.remove(&(entry.since, id));
        }
    }

    fn unfinished(&self) -> usize {
        self.silent.len() + self.waiting.len()
    }

    /// Which one to evict first, however young.
    fn least_needed(&self) -> Option<Id> {
        let sets = [&self.silent, &self.waiting, &self.idle];
        sets.iter().find_map(|set| set.first()).map(|(_, id)| *id)
    }
}

pub struct Slots {
    caps: Caps,
    /// Bytes of bodies, of all connections.
    held: usize,
    next: Id,
    entries: HashMap<Id, Entry>,
    all: Sets,
    sources: HashMap<Source, Sets>,
}

impl Slots {
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            held: 0,
            next: 0,
            entries: HashMap::new(),
            all: Sets::default(),
            sources: HashMap::new(),
        }
    }

    /// A new connection, which is silent.
    pub fn admit(&mut self, source: Source, now: Instant) -> Admission {
        let own = self.sources.get(&source);
        let (full, crowded) = own.map_or((false, false), |own| {
            let crowded = own.unfinished() >= self.caps.waiting_per_source;
            (own.all >= self.caps.per_source, crowded)
        });
        let mut evicted = None;
        if full {
            evicted = own.and_then(Sets::least_needed);
        } else if crowded {
            evicted = own.and_then(|own| overdue(own, now));
        }
        if full && evicted.is_none() {
            return Admission::Refused;
        }
        if evicted.is_none() {
            if self.all.all >= self.caps.connections {
                evicted = self.all.least_needed();
                if evicted.is_none() {
                    return Admission::Refused;
                }
            } else if self.all.unfinished() >= self.caps.waiting {
                evicted = overdue(&self.all, now);
            }
        }
        if let Some(id) = evicted {
            self.remove(id);
        }
        let id = self.next;
        self.next += 1;
        let entry = Entry {
            source,
            state: State::Silent,
            since: now,
            held: 0,
        };
        for sets in [&mut self.all, self.sources.entry(source).or_default()] {
            sets.add(id, &entry);
            sets.all += 1;
        }
        self.entries.insert(id, entry);
        Admission::Admitted { id, evicted }
    }

    /// The connection has changed. No effect on an evicted connection.
    pub fn set(&mut self, id: Id, state: State, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let own = self.sources.get_mut(&entry.source);
        let after = Entry {
            state,
            since: now,
            ..*entry
        };
        for sets in std::iter::once(&mut self.all).chain(own) {
            sets.take(id, entry);
            sets.add(id, &after);
        }
        *entry = after;
    }

    /// The connection is closed.
    pub fn remove(&mut self, id: Id) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        self.held -= entry.held;
        self.all.take(id, &entry);
        self.all.all -= 1;
        if let Some(own) = self.sources.get_mut(&entry.source) {
            own.take(id, &entry);
            own.all -= 1;
            if own.all == 0 {
                self.sources.remove(&entry.source);
            }
        }
    }

    /// Room for more of a body of connection `id`. Where there is none,
    /// connections with larger bodies that are not complete are evicted. Returns
    /// those, and whether there is room now.
    pub fn hold(&mut self, id: Id, bytes: usize) -> (Vec<Id>, bool) {
        let mut evicted = Vec::new();
        let before = self.held_by(id);
        while self.held + bytes > self.caps.bodies {
            let unfinished = self
                .all
                .waiting
                .iter()
                .map(|(_, it)| (self.held_by(*it), *it));
            let largest = unfinished.filter(|(_, it)| *it != id).max();
            // To evict one that holds less than itself would be unfair.
            let Some((_, largest)) = largest.filter(|(held, _)| *held > 0 && *held >= before)
            else {
                return (evicted, false);
            };
            self.remove(largest);
            evicted.push(largest);
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            return (evicted, false);
        };
        entry.held += bytes;
        self.held += bytes;
        (evicted, true)
    }

    fn held_by(&self, id: Id) -> usize {
        self.entries.get(&id).map_or(0, |entry| entry.held)
    }

    /// Bytes that are held no longer. No effect on an evicted connection.
    pub fn release(&mut self, id: Id, bytes: usize) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.held -= bytes;
            self.held -= bytes;
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The connection that has been silent, or incomplete, for longest, if its time
/// is over.
fn overdue(sets: &Sets, now: Instant) -> Option<Id> {
    let oldest = [(&sets.silent, SILENCE), (&sets.waiting, SLOWNESS)];
    oldest.iter().find_map(|(set, time)| {
        let (since, id) = set.first()?;
        (now.saturating_duration_since(*since) >= *time).then_some(*id)
    })
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
        bodies: 100,
    };

    fn from(last: u8) -> Source {
        IpAddr::from(Ipv4Addr::new(10, 0, 0, last)).into()
    }

    fn admitted(slots: &mut Slots, source: Source, now: Instant) -> (Id, Option<Id>) {
        match slots.admit(source, now) {
            Admission::Admitted { id, evicted } => (id, evicted),
            Admission::Refused => panic!("refused"),
        }
    }

    #[test]
    fn oldest_silent_connection_of_the_same_source_goes_first() {
        let mut slots = Slots::new(CAPS);
        let start = Instant::now();
        let (other, _) = admitted(&mut slots, from(2), start);
        let (first, _) = admitted(&mut slots, from(1), start);
        let (second, _) = admitted(&mut slots, from(1), start);
        admitted(&mut slots, from(1), start);
        slots.set(first, State::Waiting, start);
        let later = start + SILENCE;
        let (_, evicted) = admitted(&mut slots, from(1), later);
        assert_eq!(evicted, Some(second));
        // Now the limit of all is reached, and the other source has the oldest.
        let (_, evicted) = admitted(&mut slots, from(3), later);
        assert_eq!(evicted, Some(other));
    }

    #[test]
    fn young_connections_are_evicted_only_when_the_listener_is_full() {
        let mut slots = Slots::new(CAPS);
        let start = Instant::now();
        for n in 0..8 {
            assert_eq!(admitted(&mut slots, from(n), start).1, None);
            slots.set(n.into(), State::Waiting, start);
        }
        // The listener is full: the oldest goes, although it is young.
        let (last, evicted) = admitted(&mut slots, from(9), start);
        assert_eq!(evicted, Some(0));
        slots.set(last, State::Waiting, start);
        slots.remove(1);
        let later = start + SLOWNESS;
        assert_eq!(admitted(&mut slots, from(9), later).1, Some(2));
    }

    #[test]
    fn a_connection_that_is_being_served_is_never_evicted() {
        let mut slots = Slots::new(CAPS);
        let start = Instant::now();
        for _ in 0..5 {
            let (id, evicted) = admitted(&mut slots, from(1), start);
            assert_eq!(evicted, None);
            slots.set(id, State::Busy, start);
        }
        assert_eq!(slots.admit(from(1), start), Admission::Refused);
        slots.set(2, State::Idle, start);
        assert_eq!(admitted(&mut slots, from(1), start).1, Some(2));
    }

    #[test]
    fn only_connections_with_larger_bodies_are_evicted_for_one() {
        let mut slots = Slots::new(CAPS);
        let start = Instant::now();
        let [connecting, slow, good] = [1, 2, 3].map(|n| {
            let (id, _) = admitted(&mut slots, from(n), start);
            slots.set(id, State::Waiting, start);
            id
        });
        assert_eq!(slots.hold(slow, 90), (vec![], true));
        assert_eq!(slots.hold(good, 20), (vec![slow], true));
        assert_eq!(slots.hold(good, 81), (vec![], false));
        // One that holds much does not evict one that holds little.
        assert_eq!(slots.hold(connecting, 5), (vec![], true));
        assert_eq!(slots.hold(good, 80), (vec![], false));
        slots.release(connecting, 5);
        slots.release(slow, 90);
        slots.release(good, 20);
        assert_eq!(slots.hold(connecting, 100), (vec![], true));
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
        Open(u8, u64),
        Set(usize, State),
        Close(usize),
        Hold(usize, usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let state = prop_oneof![Just(State::Waiting), Just(State::Busy), Just(State::Idle)];
        let event = prop_oneof![
            3 => (0..4u8, 0..200u64).prop_map(|(source, pause)| Event::Open(source, pause)),
            3 => (0..20usize, state).prop_map(|(n, state)| Event::Set(n, state)),
            1 => (0..20usize).prop_map(Event::Close),
            2 => (0..20usize, 0..60usize).prop_map(|(n, bytes)| Event::Hold(n, bytes)),
        ];
        proptest::collection::vec(event, 0..200)
    }

    proptest! {
        #[test]
        fn prop_limits_hold_and_only_evictable_connections_go(events in events()) {
            let mut slots = Slots::new(CAPS);
            let mut live: Vec<(Id, u8, State, Instant)> = Vec::new();
            let mut now = Instant::now();
            for event in events {
                match event {
                    Event::Open(source, pause) => {
                        now += Duration::from_millis(pause);
                        match slots.admit(from(source), now) {
                        Admission::Admitted { id, evicted } => {
                            if let Some(gone) = evicted {
                                let at = live.iter().position(|it| it.0 == gone).unwrap();
                                prop_assert_ne!(live.remove(at).2, State::Busy);
                            }
                            live.push((id, source, State::Silent, now));
                        }
                        Admission::Refused => {
                            let own = live.iter().filter(|it| it.1 == source);
                            let all_busy = live.iter().all(|it| it.2 == State::Busy);
                            let own_busy = own.clone().all(|it| it.2 == State::Busy);
                            prop_assert!(all_busy || (own_busy && own.count() == CAPS.per_source));
                        }
                    }},
                    Event::Set(n, state) => if let Some(it) = live.get_mut(n) {
                        it.2 = state;
                        now += Duration::from_millis(1);
                        it.3 = now;
                        slots.set(it.0, state, now);
                    },
                    Event::Close(n) => if n < live.len() {
                        slots.remove(live.remove(n).0);
                    },
                    Event::Hold(n, bytes) => if let Some(id) = live.get(n).map(|it| it.0) {
                        let (evicted, _) = slots.hold(id, bytes);
                        for gone in evicted {
                            let at = live.iter().position(|it| it.0 == gone).unwrap();
                            prop_assert_eq!(live.remove(at).2, State::Waiting);
                        }
                    },
                }
                prop_assert_eq!(slots.len(), live.len());
                prop_assert!(live.len() <= CAPS.connections && slots.held <= CAPS.bodies);
                for source in 0..4 {
                    prop_assert!(live.iter().filter(|it| it.1 == source).count() <= CAPS.per_source);
                }
            }
            for (id, ..) in live {
                slots.remove(id);
            }
            prop_assert_eq!((slots.len(), slots.held), (0, 0));
            prop_assert!(slots.sources.is_empty() && slots.all.unfinished() == 0 && slots.all.idle.is_empty());
        }
    }
}
