//! One scheduler: an engine, its store, and the streams of sidecars.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use outrider_scheduler_engine::{
    Answer, Effect, Engine, Event, Found, Kind, Member, Read, Settings, StreamId, Subscription,
    Target, key,
};

use super::store::Row;
use super::{STORE, Shared, Stored, Timer, Wire};
use crate::network::{ConnectionId, Keepalive, Message, Node};

const WORKERS: usize = 16;
/// Between two renewals of the lease.
const RENEWAL: Duration = Duration::from_millis(700);
const TO_STORE: Keepalive = Keepalive {
    after: Duration::from_secs(1),
    timeout: Duration::from_secs(2),
};
/// Before the store is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// A scheduler looks at its dates that often at least: they may have jumped.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

pub struct Scheduler {
    node: Node,
    state: State,
    wake: Option<Duration>,
}

enum State {
    /// With the connection, until there is an answer.
    Connecting(Option<ConnectionId>),
    Serving(Box<Serving>),
}

struct Serving {
    store: ConnectionId,
    engine: Engine,
    streams: BTreeMap<StreamId, ConnectionId>,
    next: StreamId,
    /// When each job that was read is due.
    due: BTreeMap<String, Timestamp>,
}

impl Scheduler {
    pub fn start(node: Node, shared: &mut Shared) -> Self {
        let mut scheduler = Self {
            node,
            state: State::Connecting(None),
            wake: None,
        };
        scheduler.connect(shared);
        scheduler
    }

    fn connect(&mut self, shared: &mut Shared) {
        let connection = shared.connect(self.node, STORE, [TO_STORE; 2], Wire::Join);
        self.state = State::Connecting(Some(connection));
    }

    pub fn receive(
        &mut self,
        connection: ConnectionId,
        message: Message<Wire>,
        shared: &mut Shared,
    ) {
        match (&self.state, message) {
            (State::Connecting(Some(to)), message) if *to == connection => match message {
                Message::Data(Wire::Snapshot(jobs)) => self.serve(connection, jobs, shared),
                Message::Data(Wire::Refused) | Message::Closed | Message::Silent => {
                    self.state = State::Connecting(None);
                    shared.timer(self.node, PAUSE, Timer::Connect);
                }
                Message::Data(_) => {}
            },
            (State::Serving(serving), message) if serving.store == connection => match message {
                Message::Data(wire) => self.take(wire, shared),
                Message::Closed | Message::Silent => self.stop(shared),
            },
            // It does not listen yet.
            (State::Connecting(_), Message::Data(_)) => {
                shared.send(connection, self.node, Wire::Refused);
                shared.close(connection, self.node);
            }
            (State::Connecting(_), _) => {}
            (State::Serving(_), message) => self.stream(connection, message, shared),
        }
        self.schedule(shared);
    }

    /// What a sidecar sends.
    fn stream(&mut self, connection: ConnectionId, message: Message<Wire>, shared: &mut Shared) {
        let State::Serving(serving) = &mut self.state else {
            return;
        };
        let mut streams = serving.streams.iter();
        let known = streams.find(|(_, it)| **it == connection);
        let known = known.map(|(stream, _)| *stream);
        let event = match (known, message) {
            (None, Message::Data(Wire::Watch)) => {
                serving.next += 1;
                serving.streams.insert(serving.next, connection);
                Event::Opened {
                    stream: serving.next,
                    subscription: subscription(),
                }
            }
            (Some(stream), Message::Data(Wire::Answer(id, accepted))) => Event::Answered {
                stream,
                id,
                answer: match accepted {
                    true => Answer::Accepted,
                    false => Answer::Failed,
                },
            },
            (Some(stream), Message::Closed | Message::Silent) => {
                serving.streams.remove(&stream);
                Event::Closed { stream }
            }
            _ => return,
        };
        self.apply(event, shared);
    }

    pub fn timer(&mut self, timer: Timer, shared: &mut Shared) {
        match timer {
            Timer::Wake => {
                self.wake = None;
                self.apply(Event::Tick, shared);
            }
            Timer::Connect if matches!(self.state, State::Connecting(None)) => {
                self.connect(shared);
            }
            Timer::Renew => {
                if let State::Serving(serving) = &self.state {
                    shared.send(serving.store, self.node, Wire::Renew);
                    shared.timer(self.node, RENEWAL, Timer::Renew);
                }
            }
            _ => {}
        }
        self.schedule(shared);
    }

    fn schedule(&mut self, shared: &mut Shared) {
        let State::Serving(serving) = &self.state else {
            return;
        };
        let now = shared.clocks(self.node);
        let pause = serving.engine.next_deadline(now).unwrap_or(LONGEST_SLEEP);
        let at = now.steady + pause.min(LONGEST_SLEEP);
        if self.wake.is_none_or(|wake| at < wake) {
            self.wake = Some(at);
            let pause = at.saturating_sub(now.steady);
            shared.timer(self.node, pause, Timer::Wake);
        }
    }

    fn serve(&mut self, store: ConnectionId, jobs: Vec<Stored>, shared: &mut Shared) {
        self.state = State::Serving(Box::new(Serving {
            store,
            engine: Engine::new(Settings { workers: WORKERS }),
            streams: BTreeMap::new(),
            next: 0,
            due: BTreeMap::new(),
        }));
        // Until the members are known, nothing is for this one.
        let members = vec![Member { id: 0, idle: false }];
        self.apply(Event::Members { members, own: 1 }, shared);
        for job in jobs {
            self.apply(event(job), shared);
        }
        shared.timer(self.node, RENEWAL, Timer::Renew);
    }

    /// Without its store it serves nobody.
    fn stop(&mut self, shared: &mut Shared) {
        if let State::Serving(serving) = &self.state {
            shared.close(serving.store, self.node);
            for connection in serving.streams.values() {
                shared.close(*connection, self.node);
            }
        }
        self.state = State::Connecting(None);
        shared.timer(self.node, PAUSE, Timer::Connect);
    }

    fn take(&mut self, wire: Wire, shared: &mut Shared) {
        let event = match wire {
            Wire::Stored(stored) => event(stored),
            Wire::Removed(name, revision) => Event::Removed { name, revision },
            Wire::Members(members) => {
                let Some(own) = members.iter().position(|node| *node == self.node) else {
                    return;
                };
                let member = |node: &Node| Member {
                    id: *node as u64 * 77 + 5,
                    idle: false,
                };
                let members = members.iter().map(member).collect();
                Event::Members { members, own }
            }
            Wire::Found(job, name, row) => {
                let read = match row {
                    Some(row) => self.found(&name, &row),
                    None => Read::Gone,
                };
                Event::Read { job, read }
            }
            Wire::Committed(job, result) => Event::Committed { job, result },
            _ => return,
        };
        self.apply(event, shared);
    }

    fn found(&mut self, name: &str, row: &Row) -> Read {
        let counter = row.counter.as_ref();
        let counter = counter.map(|(bytes, at)| (bytes.as_slice(), *at));
        let due = Found::schedule(&row.job, counter.map(|(bytes, _)| bytes));
        if let (State::Serving(serving), Ok((_, Some(due)))) = (&mut self.state, due) {
            serving.due.insert(name.to_owned(), due);
        }
        match Found::decode(name, &row.job, counter) {
            Ok(found) => Read::Found(Box::new(found)),
            Err(why) => Read::Broken(why),
        }
    }

    fn apply(&mut self, event: Event, shared: &mut Shared) {
        let State::Serving(serving) = &mut self.state else {
            return;
        };
        let now = shared.clocks(self.node);
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            serving.engine.handle(now, event, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Read { job, name } => {
                        shared.send(serving.store, self.node, Wire::Read(job, name));
                    }
                    Effect::Commit { job, commit } => {
                        shared.send(serving.store, self.node, Wire::Commit(job, commit));
                    }
                    Effect::Send {
                        stream,
                        id,
                        delivery,
                    } => {
                        events.push(Event::Sent { stream, id });
                        let prefix = key::prefix(&delivery.metadata).unwrap_or_default();
                        let name = prefix + &delivery.name;
                        let is_early = serving.due.get(&name).is_none_or(|due| *due > now.wall);
                        let history = &mut shared.history;
                        history.triggers(now.steady, &name, self.node, is_early);
                        if let Some(connection) = serving.streams.get(&stream) {
                            shared.send(*connection, self.node, Wire::Job(id, name));
                        }
                    }
                    Effect::Broken { name, why } => shared.history.broken(&name, &why),
                    Effect::Count(_) | Effect::UnknownAnswer { .. } => {}
                }
            }
        }
    }
}

fn subscription() -> Subscription {
    Subscription {
        namespace: "default".to_owned(),
        targets: vec![Target {
            kind: Kind::Job,
            namespace: "default".into(),
            id: "app".into(),
        }],
        ..Subscription::default()
    }
}

fn event(stored: Stored) -> Event {
    let Stored {
        name,
        revision,
        partition,
        due,
    } = stored;
    Event::Stored {
        name,
        revision,
        partition,
        due,
    }
}
