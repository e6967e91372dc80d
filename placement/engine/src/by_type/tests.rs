//! Sidecars that answer, or do not.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::rounds::MOST_ROUNDS;
use super::*;

const SETTINGS: Settings = Settings {
    timeout: Duration::from_secs(8),
    window: Duration::ZERO,
};

type Hosts = BTreeMap<Arc<str>, Arc<str>>;

/// What a sidecar has got, and makes of it.
#[derive(Default)]
struct Sidecar {
    host: Host,
    /// Never answers.
    is_silent: bool,
    unanswered: VecDeque<(Phase, u64)>,
    orders: Vec<Order>,
    tables: BTreeMap<Arc<str>, Table>,
    locked: BTreeSet<Arc<str>>,
}

/// A round as its members see it.
#[derive(Default)]
struct Running {
    types: Vec<Arc<str>>,
    members: BTreeSet<StreamId>,
    acknowledged: BTreeSet<(StreamId, u8)>,
    is_dropped: bool,
}

struct World {
    placement: Placement,
    now: Instant,
    sidecars: BTreeMap<StreamId, Sidecar>,
    rounds: BTreeMap<u64, Running>,
    closed: Vec<(StreamId, u64)>,
}

fn number(phase: Phase) -> u8 {
    match phase {
        Phase::Lock => 0,
        Phase::Update => 1,
        Phase::Unlock => 2,
    }
}

fn host(name: &str, types: &[&str]) -> Host {
    let types = types.iter().map(|it| (*it).to_owned()).collect();
    Host::new(name.into(), "app".into(), "ns".into(), types)
}

impl World {
    fn new(settings: Settings) -> Self {
        Self::gathering(settings, Duration::ZERO)
    }

    fn gathering(settings: Settings, time: Duration) -> Self {
        let now = Instant::now();
        Self {
            placement: Placement::new(settings, now + time),
            now,
            sidecars: BTreeMap::new(),
            rounds: BTreeMap::new(),
            closed: Vec::new(),
        }
    }

    fn open(&mut self, number: u64, host: Host) -> StreamId {
        let stream = StreamId(number);
        let sidecar = Sidecar {
            host: host.clone(),
            ..Sidecar::default()
        };
        self.sidecars.insert(stream, sidecar);
        self.handle(Event::Opened { stream, host });
        stream
    }

    fn report(&mut self, stream: StreamId, host: Host) {
        self.sidecars.get_mut(&stream).unwrap().host = host.clone();
        self.handle(Event::Reported { stream, host });
    }

    fn close(&mut self, stream: StreamId) {
        self.sidecars.remove(&stream);
        self.handle(Event::Closed { stream });
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self
            .placement
            .next_deadline()
            .is_some_and(|it| it <= self.now)
        {
            self.handle(Event::Woken);
        }
    }

    fn handle(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.placement.handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { streams, order } => self.send(streams, order),
                Effect::Ended { .. } => {}
                Effect::Close { streams, seq, .. } => {
                    for stream in streams {
                        assert!(self.sidecars.remove(&stream).is_some(), "closed twice");
                        self.closed.push((stream, seq));
                        for round in self.rounds.values_mut() {
                            let has = round.members.contains(&stream);
                            round.is_dropped |= has && !round.acknowledged.contains(&(stream, 2));
                        }
                    }
                }
            }
        }
        // With its last stream a namespace is over, and its numbers begin again.
        if self.sidecars.is_empty() {
            self.rounds.clear();
        }
    }

    fn live(&self, round: &Running) -> Vec<StreamId> {
        let live = |it: &&StreamId| self.sidecars.contains_key(it);
        round.members.iter().filter(live).copied().collect()
    }

    fn has_all(&self, round: &Running, phase: u8) -> bool {
        let live = self.live(round);
        live.iter()
            .all(|it| round.acknowledged.contains(&(*it, phase)))
    }

    fn send(&mut self, streams: Vec<StreamId>, order: Order) {
        let seq = order.seq;
        let phase = match &order.content {
            Content::Lock(types) if types.is_empty() => Phase::Lock,
            Content::Lock(types) => {
                for round in self.rounds.values().filter(|it| !it.is_dropped) {
                    let shares = round.types.iter().any(|it| types.contains(it));
                    assert!(!shares || self.has_all(round, 2), "a type is in two rounds");
                }
                let round = Running {
                    types: types.to_vec(),
                    members: streams.iter().copied().collect(),
                    ..Running::default()
                };
                assert!(
                    self.rounds.insert(seq, round).is_none(),
                    "one round, one lock"
                );
                Phase::Lock
            }
            Content::Update(_) => Phase::Update,
            Content::Unlock(_) => Phase::Unlock,
        };
        if let Some(round) = self.rounds.get(&seq) {
            assert_eq!(streams, self.live(round), "orders are for all members");
            let before = number(phase).checked_sub(1).filter(|_| !round.is_dropped);
            assert!(
                before.is_none_or(|it| self.has_all(round, it)),
                "{phase:?} too early"
            );
        } else {
            assert_eq!(streams.len(), 1, "a round of its own is private");
        }
        for stream in streams {
            let sidecar = self.sidecars.get_mut(&stream).expect("live");
            sidecar.unanswered.push_back((phase, seq));
            sidecar.take(&order);
        }
    }

    /// Acknowledges the oldest order.
    fn answer(&mut self, stream: StreamId) -> bool {
        let sidecar = self.sidecars.get_mut(&stream).unwrap();
        if sidecar.is_silent {
            return false;
        }
        let Some((phase, seq)) = sidecar.unanswered.pop_front() else {
            return false;
        };
        if let Some(round) = self.rounds.get_mut(&seq) {
            round.acknowledged.insert((stream, number(phase)));
        }
        self.handle(Event::Acknowledged { stream, phase, seq });
        true
    }

    fn answer_all(&mut self) {
        loop {
            let mut any = false;
            let streams: Vec<StreamId> = self.sidecars.keys().copied().collect();
            for stream in streams {
                any |= self.sidecars.contains_key(&stream) && self.answer(stream);
            }
            if !any {
                return;
            }
        }
    }

    /// The orders since the last time.
    fn orders(&mut self, stream: StreamId) -> Vec<Order> {
        std::mem::take(&mut self.sidecars.get_mut(&stream).unwrap().orders)
    }

    fn truth(&self, namespace: &str) -> BTreeMap<Arc<str>, Hosts> {
        let mut truth: BTreeMap<Arc<str>, Hosts> = BTreeMap::new();
        for sidecar in self.sidecars.values() {
            if sidecar.host.namespace != namespace {
                continue;
            }
            for name in &sidecar.host.actor_types {
                let hosts = truth.entry(name.as_str().into()).or_default();
                let address = sidecar.host.name.as_str().into();
                let app_id = sidecar.host.app_id.as_str().into();
                hosts.entry(address).or_insert(app_id);
            }
        }
        truth
    }

    /// Whether all know the hosts that there are, and nobody is locked.
    fn is_settled(&self) -> Result<(), String> {
        for (stream, sidecar) in &self.sidecars {
            let tables = sidecar.tables.iter();
            let known: BTreeMap<_, _> = tables.map(|(k, v)| (k.clone(), v.hosts.clone())).collect();
            let truth = self.truth(&sidecar.host.namespace);
            if known != truth {
                return Err(format!(
                    "{stream:?} knows {known:?}, and there is {truth:?}"
                ));
            }
            if !sidecar.locked.is_empty() {
                return Err(format!("{stream:?} is locked: {:?}", sidecar.locked));
            }
        }
        Ok(())
    }
}

impl Sidecar {
    fn take(&mut self, order: &Order) {
        self.orders.push(order.clone());
        match &order.content {
            Content::Lock(types) => self.locked.extend(types.iter().cloned()),
            Content::Unlock(types) => self.locked.retain(|it| !types.contains(it)),
            Content::Update(tables) => {
                for (name, table) in tables.iter() {
                    let before = self.tables.remove(name);
                    let version = before.map_or(0, |it| it.version);
                    assert!(table.version > version, "{name}: versions grow");
                    if !table.hosts.is_empty() {
                        self.tables.insert(name.clone(), table.clone());
                    }
                }
            }
        }
    }
}

/// An order as one line.
fn line(order: &Order) -> String {
    let names = |types: &Types| types.join(",");
    match &order.content {
        Content::Lock(types) => format!("{} lock {}", order.seq, names(types)),
        Content::Unlock(types) => format!("{} unlock {}", order.seq, names(types)),
        Content::Update(tables) => {
            let table = |(name, table): (&Arc<str>, &Table)| {
                let hosts: Vec<&str> = table.hosts.keys().map(|it| &**it).collect();
                format!("{name}@{}={}", table.version, hosts.join("+"))
            };
            let tables: Vec<String> = tables.iter().map(table).collect();
            format!("{} update {}", order.seq, tables.join(","))
        }
    }
}

fn lines(world: &mut World, stream: StreamId) -> Vec<String> {
    world.orders(stream).iter().map(line).collect()
}

#[test]
fn a_new_stream_is_told_what_there_is_and_then_what_it_changes() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    let wanted = ["1 lock ", "1 update ", "1 unlock ", "2 lock cat"];
    assert_eq!(lines(&mut world, one), wanted);
    world.answer_all();
    let wanted = ["2 update cat@1=a:1", "2 unlock cat"];
    assert_eq!(lines(&mut world, one), wanted);
    let two = world.open(2, host("b:1", &["dog"]));
    let wanted = ["3 lock ", "3 update cat@1=a:1", "3 unlock ", "4 lock dog"];
    assert_eq!(lines(&mut world, two), wanted);
    assert_eq!(lines(&mut world, one), ["4 lock dog"]);
    world.answer_all();
    assert_eq!(world.is_settled(), Ok(()));
}

#[test]
fn rounds_over_different_types_run_side_by_side() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &[]));
    world.answer_all();
    lines(&mut world, one);
    world.report(one, host("a:1", &["cat"]));
    world.report(one, host("a:1", &["cat", "dog"]));
    assert_eq!(lines(&mut world, one), ["2 lock cat", "3 lock dog"]);
    // A type that changes while it is locked waits for the next round.
    world.report(one, host("a:1", &["dog"]));
    assert_eq!(lines(&mut world, one), [""; 0]);
    let seq = 3;
    for phase in [Phase::Lock, Phase::Update, Phase::Unlock] {
        let stream = one;
        world
            .rounds
            .get_mut(&seq)
            .unwrap()
            .acknowledged
            .insert((one, number(phase)));
        world.handle(Event::Acknowledged { stream, phase, seq });
    }
    let wanted = ["3 update dog@1=a:1", "3 unlock dog"];
    assert_eq!(lines(&mut world, one), wanted);
    world.answer_all();
    let wanted = [
        "2 update cat@1=",
        "2 unlock cat",
        "4 lock cat",
        "4 update cat@2=",
        "4 unlock cat",
    ];
    assert_eq!(lines(&mut world, one), wanted);
    assert_eq!(world.is_settled(), Ok(()));
}

#[test]
fn the_last_host_of_a_type_leaves_an_empty_table_behind() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    let two = world.open(2, host("b:1", &[]));
    world.answer_all();
    lines(&mut world, two);
    world.close(one);
    world.answer_all();
    let orders = lines(&mut world, two);
    assert_eq!(orders[1..], ["5 update cat@3=", "5 unlock cat"]);
    // The type may come back; its version goes on.
    world.report(two, host("b:1", &["cat"]));
    world.answer_all();
    assert_eq!(lines(&mut world, two)[1], "6 update cat@4=b:1");
    assert_eq!(world.is_settled(), Ok(()));
}

#[test]
fn silent_streams_are_closed_and_their_round_starts_again() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    world.answer_all();
    let two = world.open(2, host("b:1", &["cat", "dog"]));
    world.answer(one);
    lines(&mut world, one);
    world.pass(SETTINGS.timeout - Duration::from_millis(1));
    assert_eq!(world.closed, []);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.closed, [(two, 4)]);
    // A type of which nobody has a table is sent as gone.
    let wanted = ["4 unlock cat,dog", "5 lock cat,dog"];
    assert_eq!(lines(&mut world, one), wanted);
    world.answer_all();
    let wanted = ["5 update cat@3=a:1,dog@2=", "5 unlock cat,dog"];
    assert_eq!(lines(&mut world, one), wanted);
    assert_eq!(world.placement.next_deadline(), None);
}

#[test]
fn a_stream_that_ends_lets_its_rounds_go_on() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    world.answer_all();
    let two = world.open(2, host("b:1", &[]));
    world.report(one, host("a:1", &["cat", "dog"]));
    world.answer(one);
    lines(&mut world, one);
    world.close(two);
    assert_eq!(lines(&mut world, one), ["4 update dog@1=a:1"]);
}

#[test]
fn acknowledgements_of_other_rounds_phases_and_streams_count_for_nothing() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    lines(&mut world, one);
    for (stream, phase, seq) in [
        (one, Phase::Lock, 1),
        (one, Phase::Update, 2),
        (one, Phase::Unlock, 2),
        (one, Phase::Lock, 3),
        (one, Phase::Lock, u64::MAX),
        (StreamId(7), Phase::Lock, 2),
    ] {
        world.handle(Event::Acknowledged { stream, phase, seq });
    }
    // A stream that came later is not of the round.
    let two = world.open(2, host("b:1", &[]));
    let (stream, phase, seq) = (two, Phase::Lock, 2);
    world.handle(Event::Acknowledged { stream, phase, seq });
    assert_eq!(lines(&mut world, one), [""; 0]);
}

#[test]
fn changes_after_a_round_are_gathered_for_the_window() {
    let window = Duration::from_millis(500);
    let mut world = World::new(Settings { window, ..SETTINGS });
    let one = world.open(1, host("a:1", &["cat"]));
    let two = world.open(2, host("b:1", &["cat"]));
    world.answer_all();
    lines(&mut world, one);
    world.report(one, host("a:1", &["dog"]));
    world.pass(window / 2);
    assert_eq!(lines(&mut world, one), [""; 0]);
    world.pass(window / 2);
    assert_eq!(lines(&mut world, one), ["4 lock cat,dog"]);
    world.answer_all();
    assert_eq!(world.is_settled(), Ok(()));
    // Nothing waited when that round ended: a change starts at once.
    world.report(two, host("b:1", &[]));
    assert_eq!(lines(&mut world, one).last().unwrap(), "5 lock cat");
}

#[test]
fn a_new_leader_gathers_hosts_before_its_first_round() {
    let second = Duration::from_secs(1);
    let mut world = World::gathering(SETTINGS, second);
    let one = world.open(1, host("a:1", &["cat"]));
    world.open(2, host("b:1", &["cat"]));
    assert_eq!(lines(&mut world, one).len(), 3);
    world.pass(second);
    world.answer_all();
    assert_eq!(lines(&mut world, one)[1], "3 update cat@1=a:1+b:1");
    assert_eq!(world.is_settled(), Ok(()));
}

#[test]
fn a_sidecar_that_reconnects_changes_nothing() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    world.answer_all();
    let again = world.open(2, host("a:1", &["cat"]));
    world.close(one);
    assert_eq!(lines(&mut world, again)[1], "3 update cat@1=a:1");
    assert_eq!(world.is_settled(), Ok(()));
    assert_eq!(world.placement.next_deadline(), None);
}

#[test]
fn nobody_takes_the_address_of_a_sidecar_that_is_connected() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    let mut other = host("a:1", &["cat"]);
    other.app_id = "other".into();
    world.open(2, other);
    world.answer_all();
    let table = &world.sidecars[&one].tables["cat"];
    assert_eq!(&*table.hosts["a:1"], "app");
}

#[test]
fn a_sidecar_with_ever_new_types_has_a_bounded_part() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &[]));
    world.answer_all();
    for n in 0..1000 {
        world.report(one, host("a:1", &[&format!("type-{n}")]));
    }
    let locks = |it: &Order| matches!(&it.content, Content::Lock(types) if !types.is_empty());
    let begun = world.orders(one).iter().filter(|it| locks(it)).count();
    assert_eq!(begun, MOST_ROUNDS);
    world.answer_all();
    assert_eq!(world.is_settled(), Ok(()));
    let held = format!("{:?}", world.placement).len();
    assert!(held < 4096, "{held} characters of what is over");
}

#[test]
fn namespaces_know_nothing_of_each_other_and_vanish_with_their_last_stream() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    let mut elsewhere = host("b:1", &["cat"]);
    elsewhere.namespace = "other".into();
    // Its rounds have numbers of their own.
    world.rounds.clear();
    let mut effects = Vec::new();
    let stream = StreamId(2);
    let event = Event::Opened {
        stream,
        host: elsewhere,
    };
    world.placement.handle(world.now, event, &mut effects);
    let is_own = |it: &Effect| matches!(it, Effect::Send { streams, .. } if *streams == [stream]);
    assert!(effects.iter().all(is_own));
    assert_eq!(world.placement.sizes().count(), 2);
    world.close(one);
    let names: Vec<_> = world
        .placement
        .sizes()
        .map(|(name, _)| name.clone())
        .collect();
    assert_eq!(names, ["other".into()]);
    assert_eq!(
        world.placement.size_of("other"),
        Size {
            streams: 1,
            hosts: 1
        }
    );
    world
        .placement
        .handle(world.now + SETTINGS.timeout, Event::Woken, &mut effects);
    assert_eq!(world.placement.sizes().count(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Open(Vec<usize>, bool),
    Again(usize),
    Report(usize, Vec<usize>),
    Answer(usize),
    Stale(usize, u64, u8),
    Close(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let types = || proptest::collection::vec(0..4usize, 0..4);
    prop_oneof![
        2 => (types(), proptest::bool::weighted(0.1)).prop_map(|(types, is)| Step::Open(types, is)),
        1 => (0..6usize).prop_map(Step::Again),
        2 => (0..6usize, types()).prop_map(|(who, types)| Step::Report(who, types)),
        8 => (0..6usize).prop_map(Step::Answer),
        1 => (0..6usize, 0..9u64, 0..3u8).prop_map(|(who, seq, phase)| Step::Stale(who, seq, phase)),
        1 => (0..6usize).prop_map(Step::Close),
        1 => (0..9000u64).prop_map(Step::Pass),
    ]
}

fn named(types: &[usize]) -> Vec<&'static str> {
    types
        .iter()
        .map(|&it| ["cat", "dog", "eel", "fox"][it])
        .collect()
}

impl World {
    fn nth(&self, who: usize) -> Option<StreamId> {
        let count = self.sidecars.len().max(1);
        self.sidecars.keys().nth(who % count).copied()
    }

    fn take_step(&mut self, step: Step, next: &mut u64) {
        *next += 1;
        let who = match &step {
            Step::Again(who) | Step::Report(who, _) | Step::Answer(who) => self.nth(*who),
            Step::Stale(who, ..) | Step::Close(who) => self.nth(*who),
            Step::Open(..) | Step::Pass(_) => None,
        };
        match (step, who) {
            (Step::Open(types, is_silent), _) => {
                let stream = self.open(*next, host(&format!("h:{next}"), &named(&types)));
                self.sidecars.get_mut(&stream).unwrap().is_silent = is_silent;
            }
            (Step::Again(_), Some(stream)) => {
                let host = self.sidecars[&stream].host.clone();
                self.open(*next, host);
            }
            (Step::Report(_, types), Some(stream)) => {
                let name = self.sidecars[&stream].host.name.clone();
                self.report(stream, host(&name, &named(&types)));
            }
            (Step::Answer(_), Some(stream)) => drop(self.answer(stream)),
            (Step::Stale(_, seq, phase), Some(stream)) => {
                // Not what it is really to acknowledge.
                let phase = [Phase::Lock, Phase::Update, Phase::Unlock][usize::from(phase)];
                if !self.sidecars[&stream].unanswered.contains(&(phase, seq)) {
                    self.handle(Event::Acknowledged { stream, phase, seq });
                }
            }
            (Step::Close(_), Some(stream)) => self.close(stream),
            (Step::Pass(milliseconds), _) => self.pass(Duration::from_millis(milliseconds)),
            (_, None) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    /// Whatever happens: nobody may go on before all members have
    /// acknowledged, no type is in two rounds, versions grow; and those who
    /// answer agree on the hosts that there are, no later than the time limits of
    /// those who do not.
    #[test]
    fn all_sidecars_agree_after_any_disorder(
        window in prop_oneof![Just(0u64), Just(500u64)],
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let window = Duration::from_millis(window);
        let mut world = World::new(Settings { window, ..SETTINGS });
        let mut next = 0;
        for step in steps {
            world.take_step(step, &mut next);
        }
        // Two: those who came during a round that does not end are in the next one.
        let latest = world.now + 2 * (SETTINGS.timeout + window);
        world.answer_all();
        while let Some(deadline) = world.placement.next_deadline() {
            prop_assert!(deadline <= latest, "{:?} too late", deadline - latest);
            world.pass(deadline.saturating_duration_since(world.now));
            world.answer_all();
        }
        prop_assert_eq!(world.is_settled(), Ok(()));
    }
}
