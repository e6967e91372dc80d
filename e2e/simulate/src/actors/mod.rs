//! Sidecars with actors, and replicas of placement.
//!
//! Promised: at no time does a host write the state of an actor that has been
//! active elsewhere since; no call runs twice; every call has an answer by its
//! deadline; and a while after the last fault every call is answered well.

mod calls;
mod history;
mod host;
mod replica;

use std::sync::Arc;
use std::time::{Duration, Instant};

use outrider_actors::Actor;
use outrider_placement_engine as placement;
use outrider_placement_engine::election;

use crate::faults::{self, Fault};
use crate::network::{Delivery, End, Keepalive, Message, Network, Node};
use crate::queue::Queue;
use crate::{Report, Violation, network};
use calls::Outcome;
use history::History;
use host::Host;
use replica::Replica;

const REPLICAS: usize = 3;
const HOSTS: usize = 4;
const ACTORS: usize = 24;
const SLOWEST: Duration = Duration::from_millis(100);
/// How long things go wrong.
const FAULTS: Duration = Duration::from_secs(60);
/// After the last fault, until all has to be well.
const HEALING: Duration = Duration::from_secs(5);
const PROBING: Duration = Duration::from_secs(5);
/// Between two calls of one client.
const CALLS: Duration = Duration::from_millis(120);
pub const KIND: &str = "t";

/// The default of placement's flags.
pub const SERVER: Keepalive = Keepalive {
    after: Duration::from_secs(2),
    timeout: Duration::from_secs(3),
};

pub enum Event {
    Network(network::Event<Wire>),
    Timer(End, Timer),
    Fault(Fault),
    /// Every host calls some actor.
    Client,
}

/// What nodes wait for.
#[derive(Debug)]
pub enum Timer {
    /// A deadline of an engine may have passed.
    Wake,
    /// A host sees that it runs.
    Beat,
    /// A host asks replica number so and so to follow it.
    Dial(u64, usize),
    DialOver(u64),
    AskOver(network::ConnectionId),
    Retry(u64, u32),
    Lost(u64, u32),
    CallOver(u64),
    /// The application writes, and ends its turn.
    Writes(u64),
    Done(u64),
    /// The application knows that an actor is gone.
    Gone(Actor),
}

/// What is sent.
#[derive(Debug)]
pub enum Wire {
    /// Nobody listens there.
    Refused,
    Ask(election::Request),
    Answered(election::Answer),
    /// The first message of a host.
    Report(placement::Host),
    Acknowledge(placement::Phase, u64),
    NotLeader,
    Order(placement::Order),
    Call(u64, Actor),
    Answer(u64, Outcome),
}

/// What all nodes have.
pub struct Shared {
    base: Instant,
    pub queue: Queue<Event>,
    pub network: Network<Wire>,
    pub random: fastrand::Rng,
    pub history: History,
    trace: bool,
}

impl Shared {
    pub fn instant(&self) -> Instant {
        self.base + self.queue.now()
    }

    /// The time of the queue at an instant.
    pub fn time(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.base)
    }

    pub fn timer(&mut self, node: Node, pause: Duration, timer: Timer) {
        let life = self.network.life(node);
        let event = Event::Timer(End { node, life }, timer);
        self.queue.after(pause, event);
    }

    pub fn connect(
        &mut self,
        from: Node,
        to: Node,
        keepalives: [Keepalive; 2],
        first: Wire,
    ) -> network::ConnectionId {
        let id = self.network.connect(from, to, keepalives);
        self.network.send(self.queue.now(), id, from, first);
        id
    }

    pub fn send(&mut self, id: network::ConnectionId, from: Node, wire: Wire) {
        self.network.send(self.queue.now(), id, from, wire);
    }

    pub fn close(&mut self, id: network::ConnectionId, at: Node) {
        self.network.close(self.queue.now(), id, at);
    }

    /// Prints what happens at a node, if that is wanted.
    pub fn trace(&self, node: Node, what: impl FnOnce() -> String) {
        if self.trace {
            println!(
                "{:.4} node {node}: {}",
                self.queue.now().as_secs_f64(),
                what()
            );
        }
    }

    /// Milliseconds, at random.
    pub fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.u64(range))
    }
}

pub struct World {
    shared: Shared,
    replicas: Vec<Replica>,
    hosts: Vec<Host>,
    /// Of nodes that are frozen.
    held: Vec<Vec<Timer>>,
    calls: u64,
}

/// Runs a world from its beginning to its end.
pub fn run(seed: u64, trace: bool) -> Result<Report, Violation> {
    let mut world = World::new(seed, trace);
    world.go(FAULTS)?;
    let settled = FAULTS + HEALING;
    world.go(settled)?;
    world.shared.history.expect_success_from(settled);
    world.go(settled + PROBING)?;
    // Calls that are under way come to their end.
    world.calls = u64::MAX;
    let end = settled + PROBING + calls::LIMIT + Duration::from_secs(1);
    world.go(end)?;
    world.shared.history.end(end)
}

impl World {
    fn new(seed: u64, trace: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let nodes = REPLICAS + HOSTS;
        let kinds = faults::Kinds {
            nodes,
            every: Duration::from_millis(random.u64(1500..8000)),
            longest: Duration::from_secs(20),
            clocks: false,
        };
        let mut queue = Queue::new();
        for (at, fault) in faults::plan(&mut random, kinds, FAULTS) {
            queue.at(at, Event::Fault(fault));
        }
        queue.at(Duration::ZERO, Event::Client);
        let network = Network::new(nodes, SLOWEST, random.u64(..));
        let mut shared = Shared {
            base: Instant::now(),
            queue,
            network,
            random,
            history: History::default(),
            trace,
        };
        let replicas = (0..REPLICAS).map(|node| Replica::start(node, &mut shared));
        let replicas = replicas.collect();
        let hosts = (REPLICAS..nodes).map(|node| Host::start(node, &mut shared));
        let hosts = hosts.collect();
        Self {
            shared,
            replicas,
            hosts,
            held: (0..nodes).map(|_| Vec::new()).collect(),
            calls: 0,
        }
    }

    fn go(&mut self, end: Duration) -> Result<(), Violation> {
        while let Some(event) = self.shared.queue.next_before(end) {
            self.handle(event);
            let out: Vec<_> = self.shared.network.take().collect();
            for (at, event) in out {
                self.shared.queue.at(at, Event::Network(event));
            }
            let now = self.shared.queue.now();
            self.shared.history.check(now)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Network(event) => {
                if let Some(delivery) = self.shared.network.handle(event) {
                    self.deliver(delivery);
                }
            }
            Event::Timer(end, timer) => {
                let network = &self.shared.network;
                if !network.is_alive(end.node) || network.life(end.node) != end.life {
                    return;
                }
                if network.is_frozen(end.node) {
                    self.held[end.node].push(timer);
                    return;
                }
                self.timer(end.node, timer);
            }
            Event::Fault(fault) => self.fault(fault),
            Event::Client => self.client(),
        }
    }

    fn deliver(&mut self, delivery: Delivery<Wire>) {
        let Delivery {
            to,
            connection,
            message,
        } = delivery;
        let node = to.node;
        let trace = || format!("{connection:?} {message:?}");
        self.shared.trace(node, trace);
        if !self.shared.network.is_alive(node) {
            if matches!(message, Message::Data(_)) {
                self.shared.send(connection, node, Wire::Refused);
                self.shared.close(connection, node);
            }
            return;
        }
        match node.checked_sub(REPLICAS) {
            None => self.replicas[node].receive(connection, message, &mut self.shared),
            Some(host) => self.hosts[host].receive(connection, message, &mut self.shared),
        }
    }

    fn timer(&mut self, node: Node, timer: Timer) {
        match node.checked_sub(REPLICAS) {
            None => self.replicas[node].timer(timer, &mut self.shared),
            Some(host) => self.hosts[host].timer(timer, &mut self.shared),
        }
    }

    fn fault(&mut self, fault: Fault) {
        let now = self.shared.queue.now();
        if self.shared.trace {
            println!("{:.4} {fault:?}", now.as_secs_f64());
        }
        let network = &mut self.shared.network;
        match fault {
            Fault::Kill(node) if network.is_alive(node) => {
                network.kill(now, node);
                self.held[node].clear();
                if node >= REPLICAS {
                    self.shared.history.killed(node);
                }
            }
            Fault::Start(node) if !network.is_alive(node) => {
                network.start(node);
                match node.checked_sub(REPLICAS) {
                    None => self.replicas[node] = Replica::start(node, &mut self.shared),
                    Some(host) => self.hosts[host] = Host::start(node, &mut self.shared),
                }
            }
            Fault::Freeze(node) => network.freeze(now, node),
            Fault::Thaw(node) => {
                network.thaw(now, node);
                for timer in std::mem::take(&mut self.held[node]) {
                    self.timer(node, timer);
                }
            }
            Fault::Block(one, other) => network.block(now, one, other),
            Fault::Unblock(one, other) => network.unblock(now, one, other),
            Fault::Kill(_) | Fault::Start(_) | Fault::Clock(..) => {}
        }
    }

    /// Every client calls, and will call again.
    fn client(&mut self) {
        if self.calls == u64::MAX {
            return;
        }
        for host in &mut self.hosts {
            let node = host.node();
            if !self.shared.network.is_alive(node) || self.shared.network.is_frozen(node) {
                continue;
            }
            self.calls += 1;
            let id = self.shared.random.usize(0..ACTORS).to_string();
            let actor = Actor::new(Arc::from(KIND), id);
            host.call(self.calls, actor, &mut self.shared);
        }
        self.shared.queue.after(CALLS, Event::Client);
    }
}
