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
use std::time::Duration;

use outrider_actors::Actor;
use outrider_placement_engine as placement;
use outrider_placement_engine::election;

use crate::cluster::{self, Cluster};
use crate::network::{ConnectionId, Keepalive, Message, Node};
use crate::{Report, Violation};
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
    AskOver(ConnectionId),
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

pub type Shared = cluster::Shared<World>;

pub struct World {
    replicas: Vec<Replica>,
    hosts: Vec<Host>,
    calls: u64,
    /// Whether clients go on to call.
    are_calling: bool,
}

/// Runs a world from its beginning to its end.
pub fn run(seed: u64, trace: bool) -> Result<Report, Violation> {
    let nodes = REPLICAS + HOSTS;
    let history = History::default();
    let mut shared = Shared::new(seed, trace, (nodes, false), (SLOWEST, FAULTS), history);
    shared.after(Duration::ZERO, Event::Client);
    let replicas = (0..REPLICAS).map(|node| Replica::start(node, &mut shared));
    let replicas = replicas.collect();
    let hosts = (REPLICAS..nodes).map(|node| Host::start(node, &mut shared));
    let world = World {
        replicas,
        hosts: hosts.collect(),
        calls: 0,
        are_calling: true,
    };
    let mut cluster = Cluster::new(shared, world);
    cluster.go(FAULTS)?;
    let settled = FAULTS + HEALING;
    cluster.go(settled)?;
    cluster.shared.history.expect_success_from(settled);
    cluster.go(settled + PROBING)?;
    // Calls that are under way come to their end.
    cluster.world.are_calling = false;
    let end = settled + PROBING + calls::LIMIT + Duration::from_secs(1);
    cluster.go(end)?;
    cluster.shared.history.end(end)
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
        match node.checked_sub(REPLICAS) {
            None => self.replicas[node] = Replica::start(node, shared),
            Some(host) => self.hosts[host] = Host::start(node, shared),
        }
    }

    fn killed(&mut self, node: Node, shared: &mut Shared) {
        if node >= REPLICAS {
            shared.history.killed(node);
        }
    }

    fn receive(
        &mut self,
        node: Node,
        connection: ConnectionId,
        message: Message<Wire>,
        shared: &mut Shared,
    ) {
        match node.checked_sub(REPLICAS) {
            None => self.replicas[node].receive(connection, message, shared),
            Some(host) => self.hosts[host].receive(connection, message, shared),
        }
    }

    fn timer(&mut self, node: Node, timer: Timer, shared: &mut Shared) {
        match node.checked_sub(REPLICAS) {
            None => self.replicas[node].timer(timer, shared),
            Some(host) => self.hosts[host].timer(timer, shared),
        }
    }

    /// Every client calls, and will call again.
    fn happen(&mut self, Event::Client: Event, shared: &mut Shared) {
        if !self.are_calling {
            return;
        }
        for host in &mut self.hosts {
            if !shared.runs(host.node()) {
                continue;
            }
            self.calls += 1;
            let id = shared.random.usize(0..ACTORS).to_string();
            let actor = Actor::new(Arc::from(KIND), id);
            host.call(self.calls, actor, shared);
        }
        shared.after(CALLS, Event::Client);
    }
}
