//! A replica of placement.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use outrider_placement_engine::election::{Broadcast, Election, Request};
use outrider_placement_engine::{Effect, Event, Placement, Settings, StreamId};

use super::{REPLICAS, Shared, Timer, Wire};
use crate::network::{ConnectionId, Keepalive, Message, Node};

/// As placement has them.
const SETTINGS: Settings = Settings {
    timeout: Duration::from_secs(8),
    window: Duration::ZERO,
};
const ASK_LIMIT: Duration = Duration::from_millis(500);
const AMONG_REPLICAS: Keepalive = Keepalive {
    after: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
};

pub struct Replica {
    node: Node,
    election: Election,
    lead: Option<Lead>,
    asks: BTreeMap<ConnectionId, Ask>,
    /// The earliest wake that is due.
    wake: Option<Duration>,
}

struct Lead {
    engine: Placement,
    streams: BTreeMap<StreamId, ConnectionId>,
    next: u64,
}

struct Ask {
    of: Node,
    sent: Instant,
    request: Request,
}

impl Replica {
    pub fn start(node: Node, shared: &mut Shared) -> Self {
        let seed = shared.random.u64(..);
        let election = Election::new(name(node), REPLICAS, seed, shared.instant());
        let mut replica = Self {
            node,
            election,
            lead: None,
            asks: BTreeMap::new(),
            wake: None,
        };
        replica.follow_election(shared);
        replica
    }

    pub fn receive(
        &mut self,
        connection: ConnectionId,
        message: Message<Wire>,
        shared: &mut Shared,
    ) {
        let now = shared.instant();
        match message {
            Message::Data(Wire::Ask(request)) => {
                let answer = self.election.request(now, &request);
                shared.send(connection, self.node, Wire::Answered(answer));
            }
            Message::Data(Wire::Answered(answer)) => {
                shared.close(connection, self.node);
                if let Some(ask) = self.asks.remove(&connection) {
                    let of = name(ask.of);
                    let next = self
                        .election
                        .answer(now, &of, ask.sent, &ask.request, answer);
                    self.post(next, shared);
                }
            }
            Message::Data(Wire::Report(host)) => match &mut self.lead {
                Some(lead) => {
                    lead.next += 1;
                    let stream = StreamId(lead.next);
                    lead.streams.insert(stream, connection);
                    self.apply(Event::Opened { stream, host }, shared);
                }
                None => {
                    shared.send(connection, self.node, Wire::NotLeader);
                    shared.close(connection, self.node);
                }
            },
            Message::Data(Wire::Acknowledge(phase, version)) => {
                if let Some(stream) = self.stream(connection) {
                    let event = Event::Acknowledged {
                        stream,
                        phase: Some(phase),
                        version: Some(version),
                    };
                    self.apply(event, shared);
                }
            }
            Message::Closed | Message::Silent => {
                self.asks.remove(&connection);
                if let (Some(stream), Some(lead)) = (self.stream(connection), &mut self.lead) {
                    lead.streams.remove(&stream);
                    self.apply(Event::Closed { stream }, shared);
                }
            }
            Message::Data(_) => {}
        }
        self.follow_election(shared);
    }

    pub fn timer(&mut self, timer: Timer, shared: &mut Shared) {
        let now = shared.instant();
        match timer {
            Timer::Wake => {
                self.wake = None;
                if self.election.next_deadline() <= now {
                    if let Some(lead) = &self.lead {
                        self.election.set_hosts(lead.engine.followed());
                    }
                    let next = self.election.wake(now);
                    self.post(next, shared);
                }
                let due = self
                    .lead
                    .as_ref()
                    .and_then(|lead| lead.engine.next_deadline());
                if due.is_some_and(|due| due <= now) {
                    self.apply(Event::Woken, shared);
                }
            }
            Timer::AskOver(connection) if self.asks.remove(&connection).is_some() => {
                shared.close(connection, self.node);
            }
            _ => {}
        }
        self.follow_election(shared);
    }

    fn stream(&self, connection: ConnectionId) -> Option<StreamId> {
        let mut streams = self.lead.as_ref()?.streams.iter();
        let found = streams.find(|(_, it)| **it == connection);
        found.map(|(stream, _)| *stream)
    }

    /// Serves, or stops serving, as the election says; and is woken in time.
    fn follow_election(&mut self, shared: &mut Shared) {
        if self.election.leads() && self.lead.is_none() {
            self.lead = Some(Lead {
                engine: Placement::new(SETTINGS, self.election.before()),
                streams: BTreeMap::new(),
                next: 0,
            });
        }
        if !self.election.leads()
            && let Some(lead) = self.lead.take()
        {
            for connection in lead.streams.into_values() {
                shared.send(connection, self.node, Wire::NotLeader);
                shared.close(connection, self.node);
            }
        }
        let engine = self
            .lead
            .as_ref()
            .and_then(|lead| lead.engine.next_deadline());
        let next = self.election.next_deadline();
        let next = shared.time(engine.map_or(next, |engine| engine.min(next)));
        if self.wake.is_none_or(|wake| next < wake) {
            self.wake = Some(next);
            let pause = next.saturating_sub(shared.queue.now());
            shared.timer(self.node, pause, Timer::Wake);
        }
    }

    fn post(&mut self, broadcast: Option<Broadcast>, shared: &mut Shared) {
        let Some(Broadcast(request)) = broadcast else {
            return;
        };
        for of in (0..REPLICAS).filter(|node| *node != self.node) {
            let keepalives = [AMONG_REPLICAS; 2];
            let connection = shared.connect(self.node, of, keepalives, Wire::Ask(request.clone()));
            let ask = Ask {
                of,
                sent: shared.instant(),
                request: request.clone(),
            };
            self.asks.insert(connection, ask);
            shared.timer(self.node, ASK_LIMIT, Timer::AskOver(connection));
        }
    }

    fn apply(&mut self, event: Event, shared: &mut Shared) {
        let Some(lead) = &mut self.lead else {
            return;
        };
        let mut effects = Vec::new();
        lead.engine.handle(shared.instant(), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { streams, order } => {
                    for stream in streams {
                        if let Some(connection) = lead.streams.get(&stream) {
                            shared.send(*connection, self.node, Wire::Order(order.clone()));
                        }
                    }
                }
                Effect::Close { streams, .. } => {
                    for stream in streams {
                        if let Some(connection) = lead.streams.remove(&stream) {
                            shared.close(connection, self.node);
                        }
                    }
                }
            }
        }
    }
}

fn name(node: Node) -> String {
    format!("placement-{node}")
}
