//! What all worlds have: a clock, a network, nodes that are killed and frozen, and
//! the loop around them.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use outrider_scheduler_engine::Now;

use crate::Violation;
use crate::faults::{self, Fault, Kinds};
use crate::network::{self, ConnectionId, Delivery, End, Keepalive, Message, Network, Node};
use crate::queue::Queue;

/// Nodes around engines.
pub trait World: Sized {
    /// What is sent.
    type Wire: Debug;
    /// What nodes wait for.
    type Timer;
    /// What happens besides, to no node alone.
    type Event;
    type History: History;

    /// The answer of a node that is not there.
    fn refused() -> Self::Wire;

    /// The process of a node has begun again.
    fn start(&mut self, node: Node, shared: &mut Shared<Self>);

    /// The process of a node is gone.
    fn killed(&mut self, node: Node, shared: &mut Shared<Self>);

    fn receive(
        &mut self,
        node: Node,
        connection: ConnectionId,
        message: Message<Self::Wire>,
        shared: &mut Shared<Self>,
    );

    fn timer(&mut self, node: Node, timer: Self::Timer, shared: &mut Shared<Self>);

    fn happen(&mut self, event: Self::Event, shared: &mut Shared<Self>);
}

/// What has happened in a world, and whether that may be.
pub trait History {
    fn check(&mut self, at: Duration) -> Result<(), Violation>;

    fn fault(&mut self, _now: Duration, _fault: Fault) {}
}

pub enum Event<W: World> {
    Network(network::Event<W::Wire>),
    Timer(End, W::Timer),
    Fault(Fault),
    Other(W::Event),
}

/// What all nodes have.
pub struct Shared<W: World> {
    base: Instant,
    pub queue: Queue<Event<W>>,
    pub network: Network<W::Wire>,
    pub random: fastrand::Rng,
    pub history: W::History,
    /// What each node's dates are ahead of the true ones.
    ahead: Vec<SignedDuration>,
    trace: bool,
}

impl<W: World> Shared<W> {
    /// With what goes wrong before `end`.
    pub fn new(
        seed: u64,
        trace: bool,
        (nodes, clocks): (usize, bool),
        (slowest, end): (Duration, Duration),
        history: W::History,
    ) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let kinds = Kinds {
            nodes,
            every: Duration::from_millis(random.u64(1500..8000)),
            longest: Duration::from_secs(20),
            clocks,
        };
        let mut queue = Queue::new();
        for (at, fault) in faults::plan(&mut random, kinds, end) {
            queue.at(at, Event::Fault(fault));
        }
        Self {
            base: Instant::now(),
            queue,
            network: Network::new(nodes, slowest, random.u64(..)),
            random,
            history,
            ahead: vec![SignedDuration::ZERO; nodes],
            trace,
        }
    }

    pub fn instant(&self) -> Instant {
        self.base + self.queue.now()
    }

    /// The time of the queue at an instant.
    pub fn time(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.base)
    }

    /// The true date.
    pub fn date(&self) -> Timestamp {
        let start = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 20_000);
        start + SignedDuration::try_from(self.queue.now()).unwrap_or_default()
    }

    pub fn clocks(&self, node: Node) -> Now {
        Now {
            wall: self.date() + self.ahead[node],
            steady: self.queue.now(),
        }
    }

    /// All dates are the true ones again.
    pub fn set_clocks(&mut self) {
        self.ahead.fill(SignedDuration::ZERO);
    }

    /// Whether a node does anything now.
    pub fn runs(&self, node: Node) -> bool {
        self.network.is_alive(node) && !self.network.is_frozen(node)
    }

    pub fn after(&mut self, pause: Duration, event: W::Event) {
        self.queue.after(pause, Event::Other(event));
    }

    pub fn timer(&mut self, node: Node, pause: Duration, timer: W::Timer) {
        let life = self.network.life(node);
        let event = Event::Timer(End { node, life }, timer);
        self.queue.after(pause, event);
    }

    pub fn connect(
        &mut self,
        from: Node,
        to: Node,
        keepalives: [Keepalive; 2],
        first: W::Wire,
    ) -> ConnectionId {
        let id = self.network.connect(from, to, keepalives);
        self.network.send(self.queue.now(), id, from, first);
        id
    }

    pub fn send(&mut self, id: ConnectionId, from: Node, wire: W::Wire) {
        self.network.send(self.queue.now(), id, from, wire);
    }

    pub fn close(&mut self, id: ConnectionId, at: Node) {
        self.network.close(self.queue.now(), id, at);
    }

    /// Milliseconds, at random.
    pub fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.u64(range))
    }

    /// Prints what happens at a node, if that is wanted.
    pub fn trace(&self, node: Node, what: impl FnOnce() -> String) {
        if self.trace {
            let now = self.queue.now().as_secs_f64();
            println!("{now:.4} node {node}: {}", what());
        }
    }
}

/// A world while it runs.
pub struct Cluster<W: World> {
    pub shared: Shared<W>,
    pub world: W,
    /// Of nodes that are frozen.
    held: Vec<Vec<W::Timer>>,
}

impl<W: World> Cluster<W> {
    pub fn new(shared: Shared<W>, world: W) -> Self {
        let held = shared.ahead.iter().map(|_| Vec::new()).collect();
        Self {
            shared,
            world,
            held,
        }
    }

    /// Goes on until `end`, or until something is that must not be.
    pub fn go(&mut self, end: Duration) -> Result<(), Violation> {
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

    fn handle(&mut self, event: Event<W>) {
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
                self.world.timer(end.node, timer, &mut self.shared);
            }
            Event::Fault(fault) => self.fault(fault),
            Event::Other(event) => self.world.happen(event, &mut self.shared),
        }
    }

    fn deliver(&mut self, delivery: Delivery<W::Wire>) {
        let Delivery {
            to,
            connection,
            message,
        } = delivery;
        let node = to.node;
        let trace = || format!("{connection:?} {message:?}");
        self.shared.trace(node, trace);
        if self.shared.network.is_alive(node) {
            let shared = &mut self.shared;
            self.world.receive(node, connection, message, shared);
        } else if matches!(message, Message::Data(_)) {
            self.shared.send(connection, node, W::refused());
            self.shared.close(connection, node);
        }
    }

    fn fault(&mut self, fault: Fault) {
        let now = self.shared.queue.now();
        if self.shared.trace {
            println!("{:.4} {fault:?}", now.as_secs_f64());
        }
        self.shared.history.fault(now, fault);
        let network = &mut self.shared.network;
        match fault {
            Fault::Kill(node) if network.is_alive(node) => {
                network.kill(now, node);
                self.held[node].clear();
                self.world.killed(node, &mut self.shared);
            }
            Fault::Start(node) if !network.is_alive(node) => {
                network.start(node);
                self.world.start(node, &mut self.shared);
            }
            Fault::Freeze(node) => network.freeze(now, node),
            Fault::Thaw(node) => {
                network.thaw(now, node);
                for timer in std::mem::take(&mut self.held[node]) {
                    self.world.timer(node, timer, &mut self.shared);
                }
            }
            Fault::Block(one, other) => network.block(now, one, other),
            Fault::Unblock(one, other) => network.unblock(now, one, other),
            Fault::Clock(node, seconds) => {
                self.shared.ahead[node] = SignedDuration::from_secs(seconds);
            }
            Fault::Kill(_) | Fault::Start(_) => {}
        }
    }
}
