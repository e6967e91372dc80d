//! A sidecar with its application: the one follows placement and keeps turns,
//! the other runs, and writes once in each turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outrider_actors::Actor;
use outrider_actors::beat::{self, Beat};
use outrider_actors::hosts::Tables;
use outrider_actors::placement::follower::{Event, Follower, Order};
use outrider_actors::placement::{Effect, Follow as _, Phase};
use outrider_actors::routing::{Found, Known, Owner, Routing};
use outrider_actors::table::{self, CallId, Enter, HaltId, Table};
use outrider_placement_engine as placement;

use super::calls::{
    Call, LAST_ANSWER, LIMIT, MOVES, NEWER_LIMIT, Outcome, PAUSE, Place, State, Turn,
};
use super::{FAULTS, KIND, REPLICAS, SERVER, Shared, Timer, Wire};
use crate::network::{ConnectionId, End, Keepalive, Message, Node};

/// As the sidecar has them.
const TO_PLACEMENT: Keepalive = Keepalive {
    after: Duration::from_millis(2500),
    timeout: Duration::from_secs(1),
};
const DIAL_LIMIT: Duration = Duration::from_secs(3);
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const JITTER_MILLIS: u64 = 500;
const ROUND_LIMIT: Duration = Duration::from_secs(30);
const HALT_LIMIT: Duration = Duration::from_secs(2);
const AMONG_SIDECARS: Keepalive = Keepalive {
    after: Duration::from_secs(10),
    timeout: Duration::from_secs(10),
};
const SETTINGS: table::Settings = table::Settings {
    idle: Duration::from_secs(4),
    drain: Duration::from_secs(3),
    depth: None,
};
/// Places of a host on the ring: the result is the same for all sidecars with
/// any number.
const POINTS: u32 = 20;

pub struct Host {
    end: End,
    address: Arc<str>,
    follower: Follower,
    table: Table<u64>,
    routing: Routing,
    halts: BTreeMap<HaltId, u64>,
    next: u64,
    link: Link,
    pause: Duration,
    calls: BTreeMap<u64, Call>,
    turns: BTreeMap<u64, Turn>,
    wake: Option<Duration>,
    beat: Beat,
}

enum Link {
    /// With the number of the attempt.
    Dialing(u64, Option<(ConnectionId, usize)>),
    Open(ConnectionId),
}

impl Host {
    pub fn start(node: Node, shared: &mut Shared) -> Self {
        let address: Arc<str> = address(node).into();
        let mut host = Self {
            end: End {
                node,
                life: shared.network.life(node),
            },
            follower: Follower::new(address.clone(), ROUND_LIMIT),
            address,
            table: Table::new(shared.instant()),
            routing: Routing {
                fence: 0,
                known: Known::Nothing,
            },
            halts: BTreeMap::new(),
            next: 0,
            link: Link::Dialing(0, None),
            pause: Duration::ZERO,
            calls: BTreeMap::new(),
            turns: BTreeMap::new(),
            wake: None,
            beat: Beat::new(shared.instant()),
        };
        host.beat.begin(shared.instant());
        shared.timer(node, beat::PAUSE, Timer::Beat);
        let types = [(Arc::from(KIND), SETTINGS)].into();
        host.turn(table::Event::Hosted(types), shared);
        host.dial(Duration::ZERO, shared);
        host
    }

    pub fn node(&self) -> Node {
        self.end.node
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn receive(
        &mut self,
        connection: ConnectionId,
        message: Message<Wire>,
        shared: &mut Shared,
    ) {
        self.beat(shared);
        match message {
            Message::Data(Wire::Order(order)) => {
                if let Link::Dialing(_, Some((dialed, _))) = self.link
                    && dialed == connection
                {
                    self.link = Link::Open(connection);
                }
                if matches!(self.link, Link::Open(open) if open == connection) {
                    self.follow(Event::Ordered(read(order)), shared);
                }
            }
            Message::Data(Wire::NotLeader | Wire::Refused) => self.refused(connection, shared),
            Message::Data(Wire::Call(call, actor)) => {
                self.look(call, actor, Some(connection), shared);
            }
            Message::Data(Wire::Answer(call, outcome)) => {
                shared.close(connection, self.node());
                self.answer(call, connection, outcome, shared);
            }
            Message::Data(_) => {}
            Message::Closed => self.closed(connection, Event::Lost, shared),
            Message::Silent => self.closed(connection, Event::Silent, shared),
        }
        self.schedule(shared);
    }

    pub fn timer(&mut self, timer: Timer, shared: &mut Shared) {
        self.beat(shared);
        match timer {
            Timer::Wake => {
                self.wake = None;
                let now = shared.instant();
                if self.follower.next_deadline().is_some_and(|at| at <= now) {
                    self.follow(Event::Woken, shared);
                }
                if self.table.next_deadline().is_some_and(|at| at <= now) {
                    self.turn(table::Event::Woken, shared);
                }
            }
            Timer::Dial(number, replica) => {
                if matches!(self.link, Link::Dialing(it, None) if it == number) {
                    self.dial_replica(number, replica, shared);
                }
            }
            Timer::DialOver(number) => {
                if let Link::Dialing(it, Some((connection, replica))) = self.link
                    && it == number
                    && !shared.network.passes(self.node(), replica)
                {
                    shared.close(connection, self.node());
                    self.refused(connection, shared);
                }
            }
            Timer::Retry(call, tries) => {
                let found = self.calls.get(&call);
                let still = found.is_some_and(|it| {
                    it.tries == tries && matches!(it.place, Place::Pausing | Place::Moved(_))
                });
                if still {
                    self.attempt(call, shared);
                }
            }
            Timer::Lost(call, tries) => {
                let found = self.calls.get(&call).filter(|it| it.tries == tries);
                if let Some(Place::At(connection, _)) = found.map(|it| it.place.clone()) {
                    shared.close(connection, self.node());
                    self.over(call, Outcome::Failed, shared);
                }
            }
            Timer::CallOver(call) => {
                if let Some(found) = self.calls.get(&call) {
                    match found.place.clone() {
                        Place::At(connection, _) => shared.close(connection, self.node()),
                        Place::Here => self.give_up(call, None, shared),
                        _ => {}
                    }
                    self.over(call, Outcome::Failed, shared);
                }
            }
            Timer::Writes(turn) => self.write(turn, shared),
            Timer::Done(turn) => self.end_turn(turn, Outcome::Done, shared),
            Timer::Gone(actor) => {
                if self.table.is_active(&actor) {
                    shared.trace(self.node(), || format!("gives up {actor}"));
                    shared.history.deactivated(&actor, self.end);
                    self.turn(table::Event::Deactivated { actor }, shared);
                }
            }
            Timer::Beat => shared.timer(self.node(), beat::PAUSE, Timer::Beat),
            Timer::AskOver(_) => {}
        }
        self.schedule(shared);
    }

    /// Wakes the engines in time.
    fn schedule(&mut self, shared: &mut Shared) {
        let deadlines = [self.follower.next_deadline(), self.table.next_deadline()];
        let Some(next) = deadlines.into_iter().flatten().min() else {
            return;
        };
        let next = shared.time(next);
        if self.wake.is_none_or(|wake| next < wake) {
            self.wake = Some(next);
            let pause = next.saturating_sub(shared.queue.now());
            shared.timer(self.node(), pause, Timer::Wake);
        }
    }

    // The stream to placement.

    fn dial(&mut self, pause: Duration, shared: &mut Shared) {
        let number = self.number();
        self.link = Link::Dialing(number, None);
        shared.timer(self.node(), pause, Timer::Dial(number, 0));
    }

    fn dial_replica(&mut self, number: u64, replica: usize, shared: &mut Shared) {
        let types = vec![KIND.to_owned()];
        let name = self.address.to_string();
        let report = placement::Host::new(name, "app".to_owned(), "default".to_owned(), types);
        let keepalives = [TO_PLACEMENT, SERVER];
        let connection = shared.connect(self.node(), replica, keepalives, Wire::Report(report));
        self.link = Link::Dialing(number, Some((connection, replica)));
        shared.timer(self.node(), DIAL_LIMIT, Timer::DialOver(number));
    }

    /// A replica does not take this host.
    fn refused(&mut self, connection: ConnectionId, shared: &mut Shared) {
        match self.link {
            Link::Dialing(_, Some((dialed, replica))) if dialed == connection => {
                let number = self.number();
                if replica + 1 < REPLICAS {
                    self.dial_replica(number, replica + 1, shared);
                } else {
                    let jitter = shared.millis(0..JITTER_MILLIS);
                    self.dial(SHORTEST_PAUSE + jitter, shared);
                }
            }
            Link::Open(open) if open == connection => self.lose(Event::Lost, shared),
            _ => {
                // A call that nobody listens to.
                let found = self
                    .calls
                    .iter()
                    .find(|(_, call)| matches!(&call.place, Place::At(at, _) if *at == connection));
                if let Some(call) = found.map(|(call, _)| *call) {
                    self.answer(call, connection, Outcome::Moved, shared);
                }
            }
        }
    }

    /// Sees whether it has stood still.
    fn beat(&mut self, shared: &mut Shared) {
        let now = shared.instant();
        if self.beat.has_lapsed(now) {
            match self.link {
                Link::Open(connection) => {
                    shared.close(connection, self.node());
                    self.lose(Event::Silent, shared);
                }
                Link::Dialing(..) => self.follow(Event::Silent, shared),
            }
            self.beat.begin(now);
        }
        self.beat.beat(now);
    }

    fn lose(&mut self, event: Event, shared: &mut Shared) {
        self.again(shared);
        self.follow(event, shared);
    }

    fn again(&mut self, shared: &mut Shared) {
        let pause = self.pause;
        self.pause = (pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let jitter = shared.millis(0..JITTER_MILLIS / 10);
        self.dial(pause + jitter, shared);
    }

    fn closed(&mut self, connection: ConnectionId, event: Event, shared: &mut Shared) {
        match self.link {
            Link::Open(open) if open == connection => return self.lose(event, shared),
            Link::Dialing(_, Some((dialed, _))) if dialed == connection => {
                return self.refused(connection, shared);
            }
            _ => {}
        }
        let found = self
            .calls
            .iter()
            .find(|(_, call)| matches!(&call.place, Place::At(at, _) if *at == connection));
        if let Some(call) = found.map(|(call, _)| *call) {
            return self.answer(call, connection, Outcome::Failed, shared);
        }
        let turns = self.turns.iter();
        let found = turns
            .clone()
            .find(|(_, turn)| turn.from == Some(connection));
        if let Some(call) = found.map(|(_, turn)| turn.call) {
            self.give_up(call, Some(connection), shared);
        }
    }

    fn follow(&mut self, event: Event, shared: &mut Shared) {
        let mut effects = Vec::new();
        let trace = || format!("follows {event:?}");
        shared.trace(self.node(), trace);
        self.follower.handle(shared.instant(), event, &mut effects);
        let mut fence = 0;
        for effect in effects {
            match effect {
                Effect::Acknowledge(phase, version) => {
                    let phase = match phase {
                        Phase::Lock => placement::Phase::Lock,
                        Phase::Update => placement::Phase::Update,
                        Phase::Unlock => placement::Phase::Unlock,
                    };
                    if let Link::Open(connection) = self.link {
                        let wire = Wire::Acknowledge(phase, version);
                        shared.send(connection, self.node(), wire);
                    }
                }
                Effect::Route(known) => {
                    fence = self.routing.fence + 1;
                    self.routing = Routing { fence, known };
                    self.rerouted(shared);
                }
                Effect::Halt { number, which } => {
                    let halt = HaltId(self.number());
                    self.halts.insert(halt, number);
                    self.turn(table::Event::Halt { halt, fence, which }, shared);
                }
                Effect::Settled(_) => self.pause = Duration::ZERO,
                Effect::Lose(_) => {}
                Effect::Close(_) => {
                    if let Link::Open(connection) = self.link {
                        shared.close(connection, self.node());
                    }
                    self.again(shared);
                }
            }
        }
    }

    /// What waited for another routing goes on.
    fn rerouted(&mut self, shared: &mut Shared) {
        let fence = self.routing.fence;
        let waiting = self.calls.iter().filter(|(_, call)| match &call.place {
            Place::Waiting => true,
            Place::Moved(before) => *before != fence,
            _ => false,
        });
        for call in waiting.map(|(call, _)| *call).collect::<Vec<_>>() {
            self.attempt(call, shared);
        }
        if let Known::Settled(tables) = &self.routing.known {
            for (call, it) in &self.calls {
                if let Place::At(_, address) = &it.place
                    && !tables.is_host(address)
                {
                    let node = self.end.node;
                    shared.timer(node, LAST_ANSWER, Timer::Lost(*call, it.tries));
                }
            }
        }
        let turns = self.turns.iter();
        let looking: Vec<_> = turns
            .filter(|(_, turn)| turn.state == State::Looking)
            .map(|(id, _)| *id)
            .collect();
        for id in looking {
            if let Some(turn) = self.turns.remove(&id) {
                self.look(turn.call, turn.actor, turn.from, shared);
            }
        }
        let turns = self.turns.iter();
        let writing: Vec<_> = turns
            .filter(|(_, turn)| turn.state == State::Writing)
            .map(|(id, _)| *id)
            .collect();
        for id in writing {
            self.write(id, shared);
        }
    }

    // Calls of this host's client.

    pub fn call(&mut self, call: u64, actor: Actor, shared: &mut Shared) {
        let now = shared.queue.now();
        shared.history.called(now, call, self.node(), now + LIMIT);
        shared.timer(self.node(), LIMIT, Timer::CallOver(call));
        let it = Call {
            actor,
            moves: 0,
            tries: 0,
            place: Place::Waiting,
        };
        self.calls.insert(call, it);
        self.attempt(call, shared);
        self.schedule(shared);
    }

    fn find(&self, actor: &Actor) -> Found {
        self.routing.find(&actor.kind, &actor.id, &self.address)
    }

    fn attempt(&mut self, call: u64, shared: &mut Shared) {
        let Some(actor) = self.calls.get(&call).map(|it| it.actor.clone()) else {
            return;
        };
        let place = match self.find(&actor) {
            Found::At(Owner::Local) => {
                self.place(call, Place::Here);
                return self.enter(call, actor, None, shared);
            }
            Found::At(Owner::Remote(host)) => {
                let to = node(&host.address);
                let keepalives = [AMONG_SIDECARS; 2];
                let wire = Wire::Call(call, actor);
                let connection = shared.connect(self.node(), to, keepalives, wire);
                Place::At(connection, host.address.to_string())
            }
            Found::Wait => Place::Waiting,
            Found::Nobody | Found::Disabled | Found::Closed => {
                return self.pause(call, shared);
            }
        };
        self.place(call, place);
    }

    fn place(&mut self, call: u64, place: Place) {
        if let Some(it) = self.calls.get_mut(&call) {
            it.place = place;
            it.tries += 1;
        }
    }

    fn pause(&mut self, call: u64, shared: &mut Shared) {
        self.place(call, Place::Pausing);
        if let Some(it) = self.calls.get_mut(&call) {
            it.moves = 0;
            shared.timer(self.end.node, PAUSE, Timer::Retry(call, it.tries));
        }
    }

    fn answer(
        &mut self,
        call: u64,
        connection: ConnectionId,
        outcome: Outcome,
        shared: &mut Shared,
    ) {
        let asked = self.calls.get(&call);
        let asked =
            asked.is_some_and(|it| matches!(&it.place, Place::At(at, _) if *at == connection));
        if asked {
            self.answered(call, outcome, shared);
        }
    }

    fn answered(&mut self, call: u64, outcome: Outcome, shared: &mut Shared) {
        match outcome {
            Outcome::Done | Outcome::Failed => self.over(call, outcome, shared),
            Outcome::NoHost => self.pause(call, shared),
            Outcome::Moved => {
                let Some(it) = self.calls.get_mut(&call) else {
                    return;
                };
                it.moves += 1;
                if it.moves > MOVES {
                    return self.pause(call, shared);
                }
                it.tries += 1;
                it.place = Place::Moved(self.routing.fence);
                shared.timer(self.end.node, NEWER_LIMIT, Timer::Retry(call, it.tries));
            }
        }
    }

    fn over(&mut self, call: u64, outcome: Outcome, shared: &mut Shared) {
        if self.calls.remove(&call).is_some() {
            let now = shared.queue.now();
            shared.history.answered(now, call, outcome);
        }
    }

    // Actors of this host.

    /// Another sidecar believes that the actor is here.
    fn look(&mut self, call: u64, actor: Actor, from: Option<ConnectionId>, shared: &mut Shared) {
        match self.find(&actor) {
            Found::At(Owner::Local) => self.enter(call, actor, from, shared),
            Found::Wait => {
                let id = self.number();
                let state = State::Looking;
                let turn = Turn {
                    call,
                    actor,
                    from,
                    state,
                };
                self.turns.insert(id, turn);
            }
            Found::At(Owner::Remote(_)) => self.reply(call, from, Outcome::Moved, shared),
            Found::Nobody | Found::Disabled | Found::Closed => {
                self.reply(call, from, Outcome::NoHost, shared);
            }
        }
    }

    fn reply(
        &mut self,
        call: u64,
        from: Option<ConnectionId>,
        outcome: Outcome,
        shared: &mut Shared,
    ) {
        match from {
            Some(connection) => {
                shared.send(connection, self.node(), Wire::Answer(call, outcome));
            }
            None => self.answered(call, outcome, shared),
        }
    }

    fn enter(&mut self, call: u64, actor: Actor, from: Option<ConnectionId>, shared: &mut Shared) {
        let id = self.number();
        let turn = Turn {
            call,
            actor: actor.clone(),
            from,
            state: State::Queued,
        };
        self.turns.insert(id, turn);
        let enter = Enter {
            actor,
            call: CallId(id),
            ticket: id,
            chain: None,
            deadline: None,
            fence: self.routing.fence,
            beside: false,
        };
        self.turn(table::Event::Enter(enter), shared);
    }

    fn turn(&mut self, event: table::Event<u64>, shared: &mut Shared) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.table.handle(shared.instant(), event, &mut effects);
            // Those of one event come in any order.
            effects.sort_by_key(|effect| match effect {
                table::Effect::Deactivate(actor, _) => (1, Some(actor.clone()), 0),
                table::Effect::Refuse(id, _) | table::Effect::Cancel(id, _) => (0, None, *id),
                table::Effect::Run(id) => (2, None, *id),
                table::Effect::Halted(_) => (3, None, 0),
            });
            for effect in effects {
                match effect {
                    table::Effect::Run(id) => self.run(id, shared),
                    table::Effect::Refuse(id, _) => {
                        if let Some(turn) = self.turns.remove(&id) {
                            self.reply(turn.call, turn.from, Outcome::Moved, shared);
                        }
                    }
                    table::Effect::Cancel(id, actor) => {
                        if let Some(turn) = self.turns.remove(&id) {
                            self.reply(turn.call, turn.from, Outcome::Failed, shared);
                        }
                        let call = CallId(id);
                        events.push(table::Event::Left { actor, call });
                    }
                    table::Effect::Deactivate(actor, _) => {
                        let pause = match shared.random.u8(0..20) {
                            0 => HALT_LIMIT,
                            _ => shared.millis(1..50),
                        };
                        shared.timer(self.node(), pause, Timer::Gone(actor));
                    }
                    table::Effect::Halted(halt) => {
                        if let Some(number) = self.halts.remove(&halt) {
                            self.follow(Event::Halted { number }, shared);
                        }
                    }
                }
            }
        }
    }

    fn run(&mut self, id: u64, shared: &mut Shared) {
        let Some(turn) = self.turns.get_mut(&id) else {
            return;
        };
        turn.state = State::Running;
        let now = shared.queue.now();
        let trace = || format!("runs call {} of {}", turn.call, turn.actor);
        shared.trace(self.end.node, trace);
        shared.history.runs(now, turn.call, &turn.actor, self.end);
        let most = if shared.random.u8(0..50) == 0 && shared.queue.now() < FAULTS {
            4000
        } else {
            100
        };
        let pause = shared.millis(1..most);
        shared.timer(self.end.node, pause, Timer::Writes(id));
    }

    /// The application writes the state of its actor, and then ends its turn.
    fn write(&mut self, id: u64, shared: &mut Shared) {
        let Some(turn) = self.turns.get_mut(&id) else {
            return;
        };
        if !matches!(turn.state, State::Running | State::Writing) {
            return;
        }
        let may = match self.table.owns(&turn.actor) {
            true => self.routing.writes(&turn.actor, &self.address),
            false => Some(false),
        };
        match may {
            None => turn.state = State::Writing,
            Some(true) => {
                let trace = || format!("writes {}", turn.actor);
                shared.trace(self.end.node, trace);
                shared.history.writes(&turn.actor, self.end);
                turn.state = State::Running;
                let pause = shared.millis(0..50);
                shared.timer(self.end.node, pause, Timer::Done(id));
            }
            Some(false) => self.end_turn(id, Outcome::Failed, shared),
        }
    }

    fn end_turn(&mut self, id: u64, outcome: Outcome, shared: &mut Shared) {
        let Some(turn) = self.turns.remove(&id) else {
            return;
        };
        self.reply(turn.call, turn.from, outcome, shared);
        let call = CallId(id);
        let actor = turn.actor;
        self.turn(table::Event::Left { actor, call }, shared);
    }

    /// Nobody waits for a call any more.
    fn give_up(&mut self, call: u64, from: Option<ConnectionId>, shared: &mut Shared) {
        let mut turns = self.turns.iter();
        let found = turns.find(|(_, turn)| turn.call == call && turn.from == from);
        let Some(id) = found.map(|(id, _)| *id) else {
            return;
        };
        if let Some(turn) = self.turns.remove(&id)
            && turn.state != State::Looking
        {
            let call = CallId(id);
            let actor = turn.actor;
            self.turn(table::Event::Left { actor, call }, shared);
        }
    }
}

fn address(node: Node) -> String {
    format!("10.0.0.{node}:50002")
}

fn node(address: &str) -> Node {
    let host = address.split(':').next().unwrap_or_default();
    let last = host.rsplit('.').next().unwrap_or_default();
    last.parse().unwrap_or_default()
}

fn read(order: placement::Order) -> Order {
    match order {
        placement::Order::Lock { version } => Order::Lock { version },
        placement::Order::Unlock { version } => Order::Unlock { version },
        placement::Order::Update { version, tables } => {
            let types = tables.iter();
            let types = types.map(|(kind, hosts)| (Arc::from(&**kind), hosts.clone()));
            let tables = Arc::new(Tables::rings(types.collect(), POINTS));
            Order::Update { version, tables }
        }
    }
}
