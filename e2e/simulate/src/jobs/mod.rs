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

use jiff::Timestamp;
use outrider_scheduler_engine as engine;

use crate::cluster::{self, Cluster};
use crate::network::{ConnectionId, Keepalive, Message, Node};
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

pub enum Event {
    /// A client makes a job, or deletes one.
    Client,
    /// The store looks at leases.
    Leases,
}

/// What nodes wait for.
#[derive(Debug)]
pub enum Timer {
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
pub enum Wire {
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
pub struct Stored {
    name: Arc<str>,
    revision: i64,
    partition: u64,
    due: Option<Timestamp>,
}

type Shared = cluster::Shared<World>;

pub struct World {
    schedulers: Vec<Scheduler>,
    store: Store,
    sidecars: Vec<Sidecar>,
}

/// Runs a world from its beginning to its end.
pub fn run(seed: u64, trace: bool) -> Result<Report, Violation> {
    let history = History::new(NODES);
    let mut shared = Shared::new(seed, trace, (NODES, true), (SLOWEST, FAULTS), history);
    shared.after(Duration::ZERO, Event::Client);
    shared.after(Duration::ZERO, Event::Leases);
    let schedulers = (0..SCHEDULERS).map(|node| Scheduler::start(node, &mut shared));
    let schedulers = schedulers.collect();
    let sidecars = (STORE + 1..NODES).map(|node| Sidecar::start(node, &mut shared));
    let world = World {
        schedulers,
        store: Store::default(),
        sidecars: sidecars.collect(),
    };
    let mut cluster = Cluster::new(shared, world);
    cluster.go(FAULTS)?;
    cluster.shared.set_clocks();
    cluster.go(FAULTS + HEALING)?;
    let now = cluster.shared.queue.now();
    cluster.world.store.expect_progress();
    cluster.shared.history.healed(now);
    let end = FAULTS + HEALING + END;
    cluster.go(end)?;
    cluster.shared.history.end(end, cluster.world.store.names())
}

impl cluster::World for World {
    type Wire = Wire;
    type Timer = Timer;
    type Event = Event;
    type History = History;

    fn refused() -> Wire {
        Wire::Refused
    }

    fn start(&mut self, node: Node, shared: &mut Shared) {
        match node {
            STORE => {}
            _ if node < STORE => self.schedulers[node] = Scheduler::start(node, shared),
            _ => self.sidecars[node - STORE - 1] = Sidecar::start(node, shared),
        }
    }

    fn killed(&mut self, node: Node, _: &mut Shared) {
        if node == STORE {
            self.store.restart();
        }
    }

    fn receive(
        &mut self,
        node: Node,
        connection: ConnectionId,
        message: Message<Wire>,
        shared: &mut Shared,
    ) {
        match node {
            STORE => self.store.receive(connection, message, shared),
            _ if node < STORE => self.schedulers[node].receive(connection, message, shared),
            _ => self.sidecars[node - STORE - 1].receive(connection, message, shared),
        }
    }

    fn timer(&mut self, node: Node, timer: Timer, shared: &mut Shared) {
        match node {
            STORE => {}
            _ if node < STORE => self.schedulers[node].timer(timer, shared),
            _ => self.sidecars[node - STORE - 1].timer(timer, shared),
        }
    }

    fn happen(&mut self, event: Event, shared: &mut Shared) {
        match event {
            Event::Client => self.client(shared),
            Event::Leases => {
                shared.after(Duration::from_millis(100), Event::Leases);
                if shared.runs(STORE) {
                    self.store.look(shared);
                }
            }
        }
    }
}

impl World {
    /// Makes a job, or deletes one: the store has acknowledged it then.
    fn client(&mut self, shared: &mut Shared) {
        if shared.queue.now() >= FAULTS {
            return;
        }
        shared.after(JOBS, Event::Client);
        if !shared.runs(STORE) {
            return;
        }
        match shared.random.u8(0..10) {
            0 => self.store.delete_one(shared),
            kind => self.store.create(kind, shared),
        }
    }
}
