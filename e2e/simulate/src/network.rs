//! Nodes, the paths between them, and connections that keep the order of their
//! messages. A path that is blocked loses nothing: like TCP it delivers later,
//! unless an end has given the connection up meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub type Node = usize;

/// How an end finds out that the other one has been silent for too long.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    /// A ping is sent after so much silence.
    pub after: Duration,
    /// The answer has to come within.
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    pub node: Node,
    /// Counts the lives of a node: messages to an earlier one are lost.
    pub life: u64,
}

struct Connection<M> {
    ends: [End; 2],
    open: [bool; 2],
    keepalives: [Keepalive; 2],
    /// When the last message to each end arrives: the next ones follow.
    last: [Duration; 2],
    /// When messages passed again.
    freed: Duration,
    /// What could not be delivered yet.
    held: [Vec<Message<M>>; 2],
}

#[derive(Debug)]
pub enum Message<M> {
    Data(M),
    /// The other end has closed the connection, or its process is gone.
    Closed,
    /// The other end has been silent for too long.
    Silent,
}

/// What the network asks to be woken with.
#[derive(Debug)]
pub enum Event<M> {
    Arrives(ConnectionId, usize, Message<M>),
    /// An end looks whether it has heard from the other one since then.
    Silent(ConnectionId, usize, Duration),
}

/// Something for a node to handle.
#[derive(Debug)]
pub struct Delivery<M> {
    pub to: End,
    pub connection: ConnectionId,
    pub message: Message<M>,
}

pub struct Network<M> {
    connections: BTreeMap<ConnectionId, Connection<M>>,
    next: u64,
    lives: Vec<u64>,
    alive: Vec<bool>,
    frozen: BTreeSet<Node>,
    blocked: BTreeSet<(Node, Node)>,
    /// Longest time of a message.
    slowest: Duration,
    random: fastrand::Rng,
    out: Vec<(Duration, Event<M>)>,
}

impl<M> Network<M> {
    pub fn new(nodes: usize, slowest: Duration, seed: u64) -> Self {
        Self {
            connections: BTreeMap::new(),
            next: 0,
            lives: vec![0; nodes],
            alive: vec![true; nodes],
            frozen: BTreeSet::new(),
            blocked: BTreeSet::new(),
            slowest,
            random: fastrand::Rng::with_seed(seed),
            out: Vec::new(),
        }
    }

    /// What has to be put into the queue.
    pub fn take(&mut self) -> impl Iterator<Item = (Duration, Event<M>)> {
        std::mem::take(&mut self.out).into_iter()
    }

    pub fn is_alive(&self, node: Node) -> bool {
        self.alive[node]
    }

    pub fn is_frozen(&self, node: Node) -> bool {
        self.frozen.contains(&node)
    }

    pub fn life(&self, node: Node) -> u64 {
        self.lives[node]
    }

    /// Whether messages pass between two nodes.
    pub fn passes(&self, one: Node, other: Node) -> bool {
        !self.frozen.contains(&one)
            && !self.frozen.contains(&other)
            && !self.blocked.contains(&pair(one, other))
    }

    /// Most messages are quick, some are not.
    pub fn delay(&mut self) -> Duration {
        let slowest = self.slowest.as_micros() as u64;
        let most = if self.random.u8(0..20) == 0 {
            slowest
        } else {
            slowest / 10
        };
        Duration::from_micros(self.random.u64(50..most.max(100)))
    }

    pub fn connect(&mut self, from: Node, to: Node, keepalives: [Keepalive; 2]) -> ConnectionId {
        self.next += 1;
        let end = |node: Node| End {
            node,
            life: self.lives[node],
        };
        let connection = Connection {
            ends: [end(from), end(to)],
            open: [true; 2],
            keepalives,
            last: [Duration::ZERO; 2],
            freed: Duration::ZERO,
            held: [Vec::new(), Vec::new()],
        };
        let id = ConnectionId(self.next);
        self.connections.insert(id, connection);
        id
    }

    /// The node at the other end of a connection.
    pub fn other_end(&self, id: ConnectionId, at: Node) -> Option<Node> {
        let ends = self.connections.get(&id)?.ends;
        ends.map(|end| end.node)
            .into_iter()
            .find(|node| *node != at)
    }

    /// Sends from an end, to the other one.
    pub fn send(&mut self, now: Duration, id: ConnectionId, from: Node, data: M) {
        self.post(now, id, from, Message::Data(data));
    }

    /// Closes a connection at an end.
    pub fn close(&mut self, now: Duration, id: ConnectionId, at: Node) {
        self.post(now, id, at, Message::Closed);
        if let Some((connection, side)) = self.side(id, at) {
            connection.open[side] = false;
        }
        self.forget(id);
    }

    fn side(&mut self, id: ConnectionId, at: Node) -> Option<(&mut Connection<M>, usize)> {
        let connection = self.connections.get_mut(&id)?;
        let side = usize::from(connection.ends[0].node != at);
        Some((connection, side))
    }

    fn post(&mut self, now: Duration, id: ConnectionId, from: Node, message: Message<M>) {
        let delay = self.delay();
        let Some((connection, side)) = self.side(id, from) else {
            return;
        };
        if !connection.open[side] {
            return;
        }
        let to = 1 - side;
        let at = connection.last[to].max(now + delay);
        connection.last[to] = at;
        self.out.push((at, Event::Arrives(id, to, message)));
    }

    /// Handles an event of its own; what a node has to handle comes back.
    pub fn handle(&mut self, event: Event<M>) -> Option<Delivery<M>> {
        match event {
            Event::Arrives(id, to, message) => self.arrive(id, to, message),
            Event::Silent(id, side, since) => self.look(id, side, since),
        }
    }

    /// An end that still hears nothing gives the connection up.
    fn look(&mut self, id: ConnectionId, side: usize, since: Duration) -> Option<Delivery<M>> {
        let connection = self.connections.get(&id)?;
        let [one, other] = connection.ends;
        let end = connection.ends[side];
        let is_over =
            !connection.open[side] || connection.freed > since || self.lives[end.node] != end.life;
        if is_over || self.passes(one.node, other.node) {
            return None;
        }
        let is_frozen = self.frozen.contains(&end.node);
        let connection = self.connections.get_mut(&id)?;
        if is_frozen {
            // It finds out when it goes on, before it reads.
            connection.held[side].insert(0, Message::Silent);
            return None;
        }
        connection.open[side] = false;
        // The other end hears of it when anything passes again.
        connection.held[1 - side].push(Message::Closed);
        Some(Delivery {
            to: end,
            connection: id,
            message: Message::Silent,
        })
    }

    fn arrive(&mut self, id: ConnectionId, to: usize, message: Message<M>) -> Option<Delivery<M>> {
        let connection = self.connections.get(&id)?;
        let [one, other] = connection.ends;
        let end = connection.ends[to];
        let passes = self.passes(one.node, other.node);
        if self.lives[end.node] != end.life || !connection.open[to] {
            return None;
        }
        let is_own = matches!(message, Message::Silent) && !self.frozen.contains(&end.node);
        let connection = self.connections.get_mut(&id)?;
        if !is_own && (!passes || !connection.held[to].is_empty()) {
            connection.held[to].push(message);
            return None;
        }
        if !matches!(message, Message::Data(_)) {
            connection.open[to] = false;
            if matches!(message, Message::Silent) {
                // What gives a connection up closes it.
                let closed = Event::Arrives(id, 1 - to, Message::Closed);
                self.out.push((connection.last[1 - to], closed));
            }
            self.forget(id);
        }
        Some(Delivery {
            to: end,
            connection: id,
            message,
        })
    }

    fn forget(&mut self, id: ConnectionId) {
        self.connections
            .retain(|it, connection| *it != id || connection.open != [false; 2]);
    }

    /// The process of a node is gone: what it was connected to hears of that,
    /// unless the path is blocked.
    pub fn kill(&mut self, now: Duration, node: Node) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            let here = self.connections[&id].ends.iter();
            if here.clone().any(|end| end.node == node) {
                self.close(now, id, node);
            }
        }
        self.alive[node] = false;
        self.lives[node] += 1;
        self.thaw(now, node);
    }

    pub fn start(&mut self, node: Node) {
        self.alive[node] = true;
    }

    /// The process stops for a while; its kernel takes what comes.
    pub fn freeze(&mut self, now: Duration, node: Node) {
        if self.alive[node] && self.frozen.insert(node) {
            self.watch(now, |ends| ends.contains(&node));
        }
    }

    pub fn thaw(&mut self, now: Duration, node: Node) {
        if self.frozen.remove(&node) {
            self.release(now);
        }
    }

    pub fn block(&mut self, now: Duration, one: Node, other: Node) {
        if self.blocked.insert(pair(one, other)) {
            self.watch(now, |ends| pair(ends[0], ends[1]) == pair(one, other));
        }
    }

    pub fn unblock(&mut self, now: Duration, one: Node, other: Node) {
        if self.blocked.remove(&pair(one, other)) {
            self.release(now);
        }
    }

    /// Both ends will find out that nothing comes any more.
    fn watch(&mut self, now: Duration, concerns: impl Fn([Node; 2]) -> bool) {
        for (id, connection) in &self.connections {
            if !concerns(connection.ends.map(|end| end.node)) {
                continue;
            }
            // The end that asks more often has asked last, and both have heard the
            // other one then.
            let [one, other] = connection.keepalives;
            let often = one.after.min(other.after).as_micros() as u64;
            let heard = Duration::from_micros(self.random.u64(0..=often));
            for (side, keepalive) in connection.keepalives.iter().enumerate() {
                let at = now + keepalive.after + keepalive.timeout - heard;
                self.out.push((at, Event::Silent(*id, side, now)));
            }
        }
    }

    /// Delivers what was held where the path is free again.
    fn release(&mut self, now: Duration) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            let delay = self.delay();
            let [one, other] = self.connections[&id].ends.map(|end| end.node);
            let passes = self.passes(one, other);
            let frozen = [one, other].map(|node| self.frozen.contains(&node));
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            if !passes {
                // What an end has found out by itself it knows nonetheless.
                for (side, is_frozen) in frozen.into_iter().enumerate() {
                    let held = &mut connection.held[side];
                    if !is_frozen && matches!(held.first(), Some(Message::Silent)) {
                        let message = held.remove(0);
                        self.out.push((now, Event::Arrives(id, side, message)));
                    }
                }
                continue;
            }
            connection.freed = now;
            for side in 0..2 {
                for message in std::mem::take(&mut connection.held[side]) {
                    let at = connection.last[side].max(now + delay);
                    connection.last[side] = at;
                    self.out.push((at, Event::Arrives(id, side, message)));
                }
            }
        }
    }
}

fn pair(one: Node, other: Node) -> (Node, Node) {
    (one.min(other), one.max(other))
}
