use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::before::{Before, Hosts, Stamp};

const SETTINGS: Settings = Settings {
    timeout: Duration::from_secs(8),
    window: Duration::ZERO,
};

fn host(name: &str, types: &[&str]) -> Host {
    let types = types.iter().map(|&it| it.to_owned()).collect();
    Host::new(
        name.to_owned(),
        format!("app-{name}"),
        "ns".to_owned(),
        types,
    )
}

/// A placement with its sidecars: what each was sent and has not answered.
struct World {
    placement: Placement,
    now: Instant,
    inboxes: BTreeMap<StreamId, VecDeque<Order>>,
    /// What each stream was sent last, and the tables that it was sent last.
    last: BTreeMap<StreamId, (Order, Option<Tables>)>,
    hosts: BTreeMap<StreamId, Host>,
    closed: Vec<(StreamId, u64)>,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self::after(settings, None)
    }

    /// Of a leader that takes over from one that was heard just now.
    fn after(settings: Settings, hosts: Option<Hosts>) -> Self {
        let now = Instant::now();
        let before = hosts.map(|hosts| Before {
            stamp: Stamp::default(),
            hosts: Some(hosts),
            heard: now,
        });
        Self {
            placement: Placement::new(settings, before),
            now,
            inboxes: BTreeMap::new(),
            last: BTreeMap::new(),
            hosts: BTreeMap::new(),
            closed: Vec::new(),
        }
    }

    fn handle(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.placement.handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { streams, order } => {
                    for stream in streams {
                        self.receive(stream, order.clone());
                    }
                }
                Effect::Close {
                    streams, version, ..
                } => {
                    for stream in streams {
                        self.hosts.remove(&stream);
                        self.inboxes.remove(&stream);
                        self.last.remove(&stream);
                        self.closed.push((stream, version));
                    }
                }
            }
        }
    }

    fn receive(&mut self, stream: StreamId, order: Order) {
        let inbox = self.inboxes.get_mut(&stream).expect("the stream is open");
        inbox.push_back(order.clone());
        let before = self.last.remove(&stream);
        let tables = match (&order, before) {
            (Order::Lock { version }, before) => {
                if let Some((before, _)) = &before {
                    assert!(*version >= version_of(before), "{order:?} after {before:?}");
                }
                before.and_then(|(_, tables)| tables)
            }
            (Order::Update { version, tables }, Some((before, _))) => {
                assert_eq!(before, Order::Lock { version: *version });
                Some(tables.clone())
            }
            (Order::Unlock { version }, Some((before, tables))) => {
                assert!(matches!(before, Order::Update { .. }), "{before:?}");
                assert_eq!(version_of(&before), *version);
                tables
            }
            (order, None) => panic!("{order:?} before any lock"),
        };
        self.last.insert(stream, (order, tables));
    }

    fn open(&mut self, id: u64, host: Host) -> StreamId {
        let stream = StreamId(id);
        self.inboxes.insert(stream, VecDeque::new());
        self.hosts.insert(stream, host.clone());
        self.handle(Event::Opened { stream, host });
        stream
    }

    fn close(&mut self, stream: StreamId) {
        self.inboxes.remove(&stream);
        self.last.remove(&stream);
        self.hosts.remove(&stream);
        self.handle(Event::Closed { stream });
    }

    fn report(&mut self, stream: StreamId, host: Host) {
        self.hosts.insert(stream, host.clone());
        self.handle(Event::Reported { stream, host });
    }

    /// The stream answers the oldest order that it has not answered.
    fn answer(&mut self, stream: StreamId) -> bool {
        let Some(order) = self.inboxes.get_mut(&stream).and_then(VecDeque::pop_front) else {
            return false;
        };
        self.handle(Event::Acknowledged {
            stream,
            phase: Some(phase_of(&order)),
            version: Some(version_of(&order)),
        });
        true
    }

    /// All answer until nothing is left to answer.
    fn answer_all(&mut self) {
        loop {
            let streams: Vec<_> = self.inboxes.keys().copied().collect();
            let answers = streams.into_iter().filter(|stream| self.answer(*stream));
            if answers.count() == 0 {
                return;
            }
        }
    }

    fn orders(&mut self, stream: StreamId) -> Vec<Order> {
        self.inboxes[&stream].iter().cloned().collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.handle(Event::Woken);
    }

    /// What every sidecar is to know.
    fn expected(&self) -> Tables {
        let mut tables: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for host in self.hosts.values() {
            for actor_type in &host.actor_types {
                let table = tables.entry(actor_type.clone()).or_default();
                table.insert(host.name.clone(), host.app_id.clone());
            }
        }
        Arc::new(tables)
    }

    /// An error if a sidecar is locked, or does not know the hosts that there are.
    fn is_settled(&self) -> Result<(), String> {
        let expected = self.expected();
        for stream in self.hosts.keys() {
            match self.last.get(stream) {
                Some((Order::Unlock { .. }, Some(tables))) if *tables == expected => {}
                other => return Err(format!("{stream:?}: {other:?}, not {expected:?}")),
            }
        }
        Ok(())
    }
}

fn version_of(order: &Order) -> u64 {
    match order {
        Order::Lock { version } | Order::Update { version, .. } | Order::Unlock { version } => {
            *version
        }
    }
}

fn phase_of(order: &Order) -> Phase {
    match order {
        Order::Lock { .. } => Phase::Lock,
        Order::Update { .. } => Phase::Update,
        Order::Unlock { .. } => Phase::Unlock,
    }
}

#[test]
fn a_round_goes_through_its_phases_as_all_answer() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    assert_eq!(world.orders(one), [Order::Lock { version: 1 }]);
    world.answer_all();
    let two = world.open(2, host("b:1", &["cat", "dog"]));
    assert_eq!(world.orders(one), [Order::Lock { version: 2 }]);
    assert_eq!(world.orders(two), [Order::Lock { version: 2 }]);
    world.answer(one);
    assert_eq!(world.orders(one), []);
    world.answer(two);
    assert!(matches!(
        world.orders(one)[..],
        [Order::Update { version: 2, .. }]
    ));
    world.answer_all();
    world.is_settled().unwrap();
    assert_eq!(world.placement.next_deadline(), None);
}

#[test]
fn who_comes_during_a_round_waits_for_the_next_one() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    let others = [2, 3, 4].map(|id| world.open(id, host(&format!("b:{id}"), &["cat"])));
    for stream in others {
        assert_eq!(world.orders(stream), []);
    }
    for _ in 0..3 {
        world.answer(one);
    }
    for stream in others {
        assert_eq!(world.orders(stream), [Order::Lock { version: 2 }]);
    }
    world.answer_all();
    world.is_settled().unwrap();
}

#[test]
fn who_comes_and_leaves_during_a_round_is_followed_by_another() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    let two = world.open(2, host("b:1", &["cat"]));
    world.close(two);
    for _ in 0..3 {
        world.answer(one);
    }
    assert_eq!(world.orders(one), [Order::Lock { version: 2 }]);
    world.answer_all();
    world.is_settled().unwrap();
}

#[test]
fn a_sidecar_without_types_gets_the_tables_and_starts_no_round() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    world.answer_all();
    let two = world.open(2, host("b:1", &[]));
    assert_eq!(world.orders(one), []);
    assert_eq!(world.orders(two).len(), 3);
    assert_eq!(world.orders(two)[2], Order::Unlock { version: 1 });
    world.is_settled().unwrap();
    // It takes part in later rounds.
    world.answer_all();
    world.report(one, host("a:1", &["dog"]));
    assert_eq!(world.orders(two), [Order::Lock { version: 2 }]);
    world.answer_all();
    world.close(two);
    assert_eq!(world.orders(one), []);
}

#[test]
fn other_types_in_the_middle_of_a_round_are_for_the_next_one() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    let two = world.open(2, host("b:1", &["cat"]));
    world.answer_all();
    world.report(one, host("a:1", &["dog"]));
    let before = world.orders(two);
    for types in [&["eel"][..], &["dog"], &["eel"]] {
        world.report(one, host("a:1", types));
    }
    assert_eq!(world.orders(two), before);
    for _ in 0..3 {
        world.answer(one);
        world.answer(two);
    }
    assert_eq!(world.orders(two), [Order::Lock { version: 4 }]);
    world.answer_all();
    world.is_settled().unwrap();
}

#[test]
fn who_leaves_in_the_middle_holds_up_nobody() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    world.answer_all();
    let two = world.open(2, host("b:1", &["cat"]));
    world.answer(one);
    world.answer(two);
    world.answer(one);
    world.close(two);
    assert_eq!(world.orders(one), [Order::Unlock { version: 2 }]);
    world.answer(one);
    assert_eq!(world.orders(one), [Order::Lock { version: 3 }]);
    world.answer_all();
    world.is_settled().unwrap();
}

#[test]
fn the_silent_are_closed_and_the_others_go_on() {
    for phase in 0..3 {
        let mut world = World::new(SETTINGS);
        let silent = world.open(1, host("a:1", &["cat"]));
        world.answer_all();
        let other = world.open(2, host("b:1", &["cat"]));
        let waiting = world.open(3, host("c:1", &["dog"]));
        for _ in 0..phase {
            world.answer(silent);
            world.answer(other);
        }
        world.answer(other);
        world.pass(SETTINGS.timeout);
        assert_eq!(world.closed, [(silent, 2)], "phase {phase}");
        assert_eq!(world.orders(other), [Order::Lock { version: 3 }]);
        assert_eq!(world.orders(waiting), [Order::Lock { version: 3 }]);
        world.answer_all();
        world.is_settled().unwrap();
    }
}

#[test]
fn changes_within_the_window_share_a_round() {
    let window = Duration::from_millis(500);
    let mut world = World::new(Settings { window, ..SETTINGS });
    let one = world.open(1, host("a:1", &["cat"]));
    world.answer_all();
    let two = world.open(2, host("b:1", &["cat"]));
    let three = world.open(3, host("c:1", &["cat"]));
    world.close(two);
    world.report(one, host("a:1", &["cat", "dog"]));
    world.pass(window / 2);
    assert_eq!(world.orders(three), []);
    world.pass(window / 2);
    assert_eq!(world.orders(one), [Order::Lock { version: 2 }]);
    assert_eq!(world.orders(three), [Order::Lock { version: 2 }]);
    world.answer_all();
    world.is_settled().unwrap();
    // After the window a change starts at once.
    world.pass(window);
    world.report(one, host("a:1", &[]));
    assert_eq!(world.orders(three), [Order::Lock { version: 3 }]);
}

#[test]
fn a_namespace_that_was_empty_begins_with_no_version_that_it_had() {
    // A host that was away meanwhile would take version 1 for the first one ever.
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    world.answer_all();
    world.close(one);
    let two = world.open(2, host("b:1", &["cat"]));
    world.answer_all();
    world.close(two);
    let three = world.open(3, host("a:1", &["cat"]));
    // Each host that has gone was worth a round.
    assert_eq!(world.orders(three), [Order::Lock { version: 5 }]);
}

/// As a leader has them.
fn known(all: &[Host]) -> Option<Hosts> {
    let mut hosts = Hosts::default();
    all.iter().for_each(|host| hosts.add(host));
    Some(hosts)
}

#[test]
fn a_new_leader_begins_when_it_has_the_hosts_of_the_one_before() {
    let mut elsewhere = host("c:1", &["cat"]);
    elsewhere.namespace = "other".into();
    let before = [
        host("a:1", &["cat"]),
        elsewhere.clone(),
        host("b:1", &["cat"]),
    ];
    let mut world = World::after(SETTINGS, known(&before));
    let one = world.open(1, host("b:1", &["cat"]));
    world.open(2, host("caller:1", &[]));
    let other = world.open(3, elsewhere);
    assert_eq!(world.orders(one), []);
    assert_eq!(world.orders(other), []);
    let two = world.open(4, host("a:1", &["cat"]));
    for stream in [one, two, other] {
        assert_eq!(world.orders(stream), [Order::Lock { version: 1 }]);
    }
}

#[test]
fn a_new_leader_waits_for_a_host_until_that_follows_nobody() {
    let before = [host("a:1", &["cat"]), host("b:1", &["cat"])];
    let mut world = World::after(SETTINGS, known(&before));
    let one = world.open(1, host("a:1", &["cat"]));
    // One that is new is no replacement.
    let two = world.open(2, host("c:1", &["cat"]));
    world.pass(Duration::from_secs(5));
    assert_eq!(world.orders(one), []);
    world.pass(Duration::from_secs(1));
    for stream in [one, two] {
        assert_eq!(world.orders(stream), [Order::Lock { version: 1 }]);
    }
    world.answer_all();
    world.is_settled().unwrap();
    // Namespaces that come later do not wait.
    let mut elsewhere = host("d:1", &["cat"]);
    elsewhere.namespace = "other".into();
    let three = world.open(3, elsewhere);
    assert_eq!(world.orders(three), [Order::Lock { version: 1 }]);
}

#[test]
fn an_old_heartbeat_that_arrives_late_says_nothing_new_of_hosts() {
    let now = Instant::now();
    let before = |number, hosts, heard| Before {
        stamp: Stamp { term: 4, number },
        hosts: known(hosts),
        heard,
    };
    let all = [host("a:1", &["cat"]), host("b:1", &["cat"])];
    let later = now + Duration::from_secs(1);
    let (new, old) = (before(9, &all, now), before(2, &all[..1], later));
    for known in [new.with(old), old.with(new)] {
        assert_eq!((known.hosts, known.heard), (new.hosts, later));
    }
}

#[test]
fn a_leader_after_one_without_hosts_waits_for_nobody() {
    let mut world = World::after(SETTINGS, Some(Hosts::default()));
    let one = world.open(1, host("a:1", &["cat"]));
    assert_eq!(world.orders(one), [Order::Lock { version: 1 }]);
}

#[test]
fn an_answer_without_a_version_counts_for_what_is_running() {
    let mut world = World::new(SETTINGS);
    let stream = world.open(1, host("a:1", &["cat"]));
    let (phase, version) = (None, None);
    for _ in 0..3 {
        world.handle(Event::Acknowledged {
            stream,
            phase,
            version,
        });
    }
    assert_eq!(
        world.orders(stream).last(),
        Some(&Order::Unlock { version: 1 })
    );
    assert_eq!(world.placement.next_deadline(), None);
}

#[test]
fn namespaces_know_nothing_of_each_other_and_vanish_with_their_last_stream() {
    let mut world = World::new(SETTINGS);
    let one = world.open(1, host("a:1", &["cat"]));
    let mut elsewhere = host("b:1", &["cat"]);
    elsewhere.namespace = "other".into();
    let two = world.open(2, elsewhere);
    assert_eq!(world.orders(one), [Order::Lock { version: 1 }]);
    assert_eq!(world.orders(two), [Order::Lock { version: 1 }]);
    let names: Vec<_> = world
        .placement
        .memberships()
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(names, ["ns", "other"]);
    world.close(one);
    assert_eq!(world.placement.memberships().count(), 1);
    world.pass(SETTINGS.timeout);
    assert_eq!(world.closed, [(two, 1)]);
    assert_eq!(world.placement.memberships().count(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Open(Vec<usize>),
    Report(usize, Vec<usize>),
    Answer(usize),
    Stale(usize, u64),
    Close(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let types = || proptest::collection::vec(0..3usize, 0..3);
    prop_oneof![
        2 => types().prop_map(Step::Open),
        1 => (0..6usize, types()).prop_map(|(who, types)| Step::Report(who, types)),
        6 => (0..6usize).prop_map(Step::Answer),
        1 => (0..6usize, 0..4u64).prop_map(|(who, version)| Step::Stale(who, version)),
        1 => (0..6usize).prop_map(Step::Close),
        1 => (0..9000u64).prop_map(Step::Pass),
    ]
}

fn named(types: &[usize]) -> Vec<&'static str> {
    types.iter().map(|&it| ["cat", "dog", "eel"][it]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    /// Whatever happens: each sidecar gets its orders in order, and once all
    /// that live answer, all know the hosts that there are and nobody is locked.
    #[test]
    fn all_sidecars_agree_after_any_disorder(
        window in prop_oneof![Just(0u64), Just(500u64)],
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(Settings {
            window: Duration::from_millis(window),
            ..SETTINGS
        });
        let mut next = 0;
        for step in steps {
            let nth = |world: &World, who: usize| {
                let count = world.hosts.len().max(1);
                world.hosts.keys().nth(who % count).copied()
            };
            match step {
                Step::Open(types) => {
                    next += 1;
                    world.open(next, host(&format!("h:{next}"), &named(&types)));
                }
                Step::Report(who, types) => if let Some(stream) = nth(&world, who) {
                    let name = world.hosts[&stream].name.clone();
                    world.report(stream, host(&name, &named(&types)));
                },
                Step::Answer(who) => if let Some(stream) = nth(&world, who) {
                    world.answer(stream);
                },
                Step::Stale(who, version) => if let Some(stream) = nth(&world, who) {
                    let phase = Some(Phase::Update);
                    let version = Some(version);
                    world.handle(Event::Acknowledged { stream, phase, version });
                },
                Step::Close(who) => if let Some(stream) = nth(&world, who) {
                    world.close(stream);
                },
                Step::Pass(milliseconds) => world.pass(Duration::from_millis(milliseconds)),
            }
        }
        for _ in 0..3 {
            world.answer_all();
            world.pass(Duration::from_millis(window));
        }
        prop_assert_eq!(world.is_settled(), Ok(()));
        prop_assert_eq!(world.placement.next_deadline(), None);
    }
}
