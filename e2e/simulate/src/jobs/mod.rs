//! Schedulers on one store, and sidecars that take their jobs.
//!
//! Promised: no job is early by the clock of the one that triggers it; what is
//! deleted does not fire again; a job is done exactly as often as it says; a job
//! is under way once at a time as long as nothing is wrong with schedulers; and a
//! while after the last fault nothing that is due waits.

mod history;
mod scheduler;
mod sidecar;
mod store;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use outrider_scheduler_engine as engine;

use crate::faults::{self, Fault};
use crate::network::{self, ConnectionId, Delivery, End, Keepalive, Message, Network, Node};
use crate::queue::Queue;
use crate::{Report, Violation};
use history::History;
use scheduler::Scheduler;
use sidecar::Sidecar;
use store::{Row, Store};

const SCHEDULERS: usize = 3;
const STORE: Node = SCHEDULERS;
const SIDECARS: usize = 2;
const NODES: usize = STORE + 1 + SIDECARS;
const SLOWEST: Duration = Duration::from_millis(100);
/// How long things go wrong, and how long jobs are made.
const FAULTS: Duration = Duration::from_secs(60);
/// After the last fault, until nothing waits any more.
const HEALING: Duration = Duration::from_secs(5);
/// Until all jobs have come to their end.
const END: Duration = Duration::from_secs(30);
/// Between two jobs.
const JOBS: Duration = Duration::from_millis(100);
const TO_SCHEDULER: Keepalive = Keepalive {
    after: Duration::from_secs(3),
    timeout: Duration::from_secs(5),
};

enum Event {
    Network(network::Event<Wire>),
    Timer(End, Timer),
    Fault(Fault),
    /// A client makes a job, or deletes one.
    Client,
    /// The store looks at leases.
    Leases,
}

/// What nodes wait for.
#[derive(Debug)]
enum Timer {
    /// A deadline of the engine may have passed.
    Wake,
    /// A scheduler asks the store again.
    Connect,
    Renew,
    /// A sidecar asks scheduler number so and so again.
    Watch(usize),
    /// The application has done a job, or has failed.
    Answer(ConnectionId, u64, bool),
}

/// What is sent.
#[derive(Debug)]
enum Wire {
    /// Nobody listens there.
    Refused,
    /// A scheduler becomes a member.
    Join,
    Renew,
    /// What there is; all that follows on the connection is new.
    Snapshot(Vec<Stored>),
    Stored(Stored),
    Removed(Arc<str>, i64),
    /// The members that there are.
    Members(Vec<Node>),
    Read(engine::JobRef, Arc<str>),
    Found(engine::JobRef, Arc<str>, Option<Row>),
    Commit(engine::JobRef, engine::Commit),
    Committed(engine::JobRef, engine::Committed),
    Watch,
    Job(u64, String),
    Answer(u64, bool),
}

/// A job as the engine hears of it.
#[derive(Debug, Clone)]
struct Stored {
    name: Arc<str>,
    revision: i64,
    partition: u64,
    due: Option<Timestamp>,
}

/// What all nodes have.
struct Shared {
    queue: Queue<Event>,
    network: Network<Wire>,
    random: fastrand::Rng,
    history: History,
    /// What each node's dates are ahead of the true ones.
    ahead: Vec<SignedDuration>,
    trace: bool,
}

impl Shared {
    /// The true date.
    fn date(&self) -> Timestamp {
        let start = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 20_000);
        start + SignedDuration::try_from(self.queue.now()).unwrap_or_default()
    }

    fn clocks(&self, node: Node) -> engine::Now {
        engine::Now {
            wall: self.date() + self.ahead[node],
            steady: self.queue.now(),
        }
    }

    fn timer(&mut self, node: Node, pause: Duration, timer: Timer) {
        let life = self.network.life(node);
        let event = Event::Timer(End { node, life }, timer);
        self.queue.after(pause, event);
    }

    fn send(&mut self, connection: ConnectionId, from: Node, wire: Wire) {
        self.network.send(self.queue.now(), connection, from, wire);
    }

    fn close(&mut self, connection: ConnectionId, at: Node) {
        self.network.close(self.queue.now(), connection, at);
    }

    fn connect(&mut self, from: Node, to: Node, keepalive: Keepalive, first: Wire) -> ConnectionId {
        let connection = self.network.connect(from, to, [keepalive; 2]);
        self.send(connection, from, first);
        connection
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.u64(range))
    }

    /// Prints what happens at a node, if that is wanted.
    fn trace(&self, node: Node, what: impl FnOnce() -> String) {
        if self.trace {
            let now = self.queue.now().as_secs_f64();
            println!("{now:.4} node {node}: {}", what());
        }
    }
}

struct World {
    shared: Shared,
    schedulers: Vec<Scheduler>,
    store: Store,
    sidecars: Vec<Sidecar>,
    /// Of nodes that are frozen.
    held: Vec<Vec<Timer>>,
}

/// Runs a world from its beginning to its end.
pub fn run(seed: u64, trace: bool) -> Result<Report, Violation> {
    let mut world = World::new(seed, trace);
    world.go(FAULTS)?;
    for node in 0..NODES {
        world.set_clock(node, SignedDuration::ZERO);
    }
    world.go(FAULTS + HEALING)?;
    let now = world.shared.queue.now();
    world.store.expect_progress();
    world.shared.history.healed(now);
    let end = FAULTS + HEALING + END;
    world.go(end)?;
    world.shared.history.end(end, world.store.names())
}

impl World {
    fn new(seed: u64, trace: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let kinds = faults::Kinds {
            nodes: NODES,
            every: Duration::from_millis(random.u64(1500..8000)),
            longest: Duration::from_secs(20),
            clocks: true,
        };
        let mut queue = Queue::new();
        for (at, fault) in faults::plan(&mut random, kinds, FAULTS) {
            queue.at(at, Event::Fault(fault));
        }
        queue.at(Duration::ZERO, Event::Client);
        queue.at(Duration::ZERO, Event::Leases);
        let mut shared = Shared {
            queue,
            network: Network::new(NODES, SLOWEST, random.u64(..)),
            random,
            history: History::new(NODES),
            ahead: vec![SignedDuration::ZERO; NODES],
            trace,
        };
        let schedulers = (0..SCHEDULERS).map(|node| Scheduler::start(node, &mut shared));
        let schedulers = schedulers.collect();
        let sidecars = (STORE + 1..NODES).map(|node| Sidecar::start(node, &mut shared));
        let sidecars = sidecars.collect();
        Self {
            shared,
            schedulers,
            store: Store::default(),
            sidecars,
            held: (0..NODES).map(|_| Vec::new()).collect(),
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
            Event::Leases => {
                let pause = Duration::from_millis(100);
                self.shared.queue.after(pause, Event::Leases);
                if self.serves(STORE) {
                    self.store.look(&mut self.shared);
                }
            }
        }
    }

    fn serves(&self, node: Node) -> bool {
        self.shared.network.is_alive(node) && !self.shared.network.is_frozen(node)
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
        let shared = &mut self.shared;
        if !shared.network.is_alive(node) {
            if matches!(message, Message::Data(_)) {
                shared.send(connection, node, Wire::Refused);
                shared.close(connection, node);
            }
            return;
        }
        match node {
            STORE => self.store.receive(connection, message, shared),
            _ if node < STORE => self.schedulers[node].receive(connection, message, shared),
            _ => self.sidecars[node - STORE - 1].receive(connection, message, shared),
        }
    }

    fn timer(&mut self, node: Node, timer: Timer) {
        let shared = &mut self.shared;
        match node {
            STORE => {}
            _ if node < STORE => self.schedulers[node].timer(timer, shared),
            _ => self.sidecars[node - STORE - 1].timer(timer, shared),
        }
    }

    fn set_clock(&mut self, node: Node, ahead: SignedDuration) {
        self.shared.ahead[node] = ahead;
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
                if node == STORE {
                    self.store.restart();
                }
            }
            Fault::Start(node) if !network.is_alive(node) => {
                network.start(node);
                let shared = &mut self.shared;
                match node {
                    STORE => {}
                    _ if node < STORE => self.schedulers[node] = Scheduler::start(node, shared),
                    _ => self.sidecars[node - STORE - 1] = Sidecar::start(node, shared),
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
            Fault::Clock(node, seconds) => self.set_clock(node, SignedDuration::from_secs(seconds)),
            Fault::Kill(_) | Fault::Start(_) => {}
        }
    }

    /// Makes a job, or deletes one: the store has acknowledged it then.
    fn client(&mut self) {
        if self.shared.queue.now() >= FAULTS {
            return;
        }
        self.shared.queue.after(JOBS, Event::Client);
        if !self.serves(STORE) {
            return;
        }
        match self.shared.random.u8(0..10) {
            0 => self.store.delete_one(&mut self.shared),
            kind => self.store.create(kind, &mut self.shared),
        }
    }
}
