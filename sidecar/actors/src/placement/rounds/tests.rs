use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::Actor;
use crate::routing::{Found, Owner, Routing};

fn addresses(hosts: &[&str]) -> Addresses {
    let hosts = hosts.iter().map(|host| ((*host).to_owned(), String::new()));
    hosts.collect()
}

fn types(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

struct World {
    follower: Follower,
    now: Instant,
    known: Known,
}

impl World {
    fn new() -> Self {
        Self {
            follower: Follower::new("a:1".into(), Duration::from_secs(30)),
            now: Instant::now(),
            known: Known::Nothing,
        }
    }

    fn see(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.follower.handle(self.now, event, &mut effects);
        for effect in &effects {
            if let Effect::Route(known) = effect {
                self.known = known.clone();
            }
        }
        effects
    }

    fn lock(&mut self, seq: u64, names: &[&str]) -> Vec<Effect> {
        let types = types(names);
        self.see(Event::Ordered(Order::Lock { seq, types }))
    }

    fn update(&mut self, seq: u64, changes: &[(&str, &[&str])]) -> Vec<Effect> {
        let changes = changes.iter();
        let changes = changes.map(|(kind, hosts)| (Arc::from(*kind), addresses(hosts)));
        let changes = changes.collect();
        self.see(Event::Ordered(Order::Update { seq, changes }))
    }

    fn unlock(&mut self, seq: u64) -> Vec<Effect> {
        self.see(Event::Ordered(Order::Unlock { seq }))
    }

    /// The whole round, whose actors go at once.
    fn round(&mut self, seq: u64, names: &[&str], changes: &[(&str, &[&str])]) -> Which {
        let locked = self.lock(seq, names);
        assert!(matches!(locked.last(), Some(Effect::Acknowledge(Phase::Lock, n)) if *n == seq));
        let updated = self.update(seq, changes);
        let Some(Effect::Halt { number, which }) = updated.last().cloned() else {
            panic!("{updated:?}");
        };
        let gone = self.see(Event::Halted { number });
        assert!(matches!(gone[..], [Effect::Acknowledge(Phase::Update, n)] if n == seq));
        let unlocked = self.unlock(seq);
        assert!(
            matches!(
                unlocked[..],
                [
                    Effect::Route(_),
                    Effect::Acknowledge(Phase::Unlock, n),
                    Effect::Settled(_)
                ] if n == seq
            ),
            "{unlocked:?}"
        );
        which
    }

    fn find(&self, kind: &str, id: &str) -> Found {
        find(&self.known, kind, id, "a:1")
    }
}

fn find(known: &Known, kind: &str, id: &str, own: &str) -> Found {
    let known = known.clone();
    Routing { fence: 0, known }.find(kind, id, own)
}

const LOCAL: Found = Found::At(Owner::Local);

#[test]
fn a_snapshot_blocks_nothing_and_makes_its_tables_known() {
    let mut world = World::new();
    world.round(1, &[], &[("t", &["a:1"]), ("u", &["b:2"])]);
    assert_eq!(world.find("t", "1"), LOCAL);
    world.lock(2, &["t"]);
    let snapshot = world.lock(3, &[]);
    assert!(matches!(
        snapshot[..],
        [Effect::Acknowledge(Phase::Lock, 3)]
    ));
    assert!(matches!(world.find("u", "1"), Found::At(_)));
}

#[test]
fn a_lock_blocks_its_types_until_the_update_says_who_stays() {
    let mut world = World::new();
    world.round(1, &[], &[("t", &["a:1"]), ("u", &["a:1"])]);
    world.lock(2, &["t"]);
    assert_eq!(world.find("t", "1"), Found::Wait);
    assert_eq!(world.find("u", "1"), LOCAL);
    let updated = world.update(2, &[("t", &["a:1", "b:2"])]);
    let Some(Effect::Halt { which, .. }) = updated.last() else {
        panic!("{updated:?}");
    };
    let (mut stay, mut go) = (0, 0);
    for id in (0..50).map(|id| id.to_string()) {
        match world.find("t", &id) {
            Found::Wait => go += 1,
            found => {
                assert_eq!(found, LOCAL);
                stay += 1;
            }
        }
        let halted = which.has(&Actor::new("t", id.as_str()));
        assert_eq!(halted, world.find("t", &id) == Found::Wait, "{id}");
        assert!(
            !which.has(&Actor::new("u", id.as_str())),
            "it has not changed"
        );
    }
    assert!(stay > 5 && go > 5);
}

#[test]
fn rounds_about_other_types_run_beside_each_other() {
    let mut world = World::new();
    world.round(1, &[], &[("t", &["a:1"]), ("u", &["a:1"])]);
    world.lock(2, &["t"]);
    world.lock(3, &["u"]);
    let third = world.update(3, &[("u", &["b:2"])]);
    let Some(Effect::Halt { number, .. }) = third.last() else {
        panic!("{third:?}");
    };
    world.see(Event::Halted { number: *number });
    world.unlock(3);
    assert!(matches!(world.find("u", "1"), Found::At(Owner::Remote(_))));
    assert_eq!(world.find("t", "1"), Found::Wait);
    let second = world.update(2, &[("t", &[])]);
    let Some(Effect::Halt { number, .. }) = second.last() else {
        panic!("{second:?}");
    };
    world.see(Event::Halted { number: *number });
    world.unlock(2);
    assert_eq!(
        world.find("t", "1"),
        Found::Nobody,
        "its last host has left"
    );
    assert!(matches!(world.known, Known::Settled(_)));
}

#[test]
fn a_round_that_the_leader_begins_again_is_never_acknowledged() {
    let mut world = World::new();
    world.round(1, &[], &[("t", &["a:1"])]);
    world.lock(2, &["t"]);
    let second = world.update(2, &[("t", &["a:1", "b:2"])]);
    let Some(Effect::Halt { number, .. }) = second.last() else {
        panic!("{second:?}");
    };
    world.lock(3, &["t"]);
    assert!(world.see(Event::Halted { number: *number }).is_empty());
    assert_eq!(world.find("t", "1"), Found::Wait);
    world.update(3, &[("t", &["a:1"])]);
    assert_eq!(
        world.find("t", "1"),
        LOCAL,
        "nothing was unlocked in between"
    );
}

#[test]
fn orders_of_unknown_rounds_close_the_stream() {
    for (order, text) in [
        (
            Order::Update {
                seq: 7,
                changes: BTreeMap::new(),
            },
            "received UPDATE for unknown round seq 7",
        ),
        (
            Order::Unlock { seq: 8 },
            "received UNLOCK for unknown round seq 8",
        ),
    ] {
        let mut world = World::new();
        world.round(1, &[], &[("t", &["a:1"])]);
        let effects = world.see(Event::Ordered(order));
        assert!(matches!(effects.last(), Some(Effect::Close(cause)) if cause == text));
        assert_eq!(world.find("t", "1"), Found::Wait);
    }
}

#[test]
fn a_round_that_does_not_end_closes_the_stream() {
    let mut world = World::new();
    world.round(1, &[], &[]);
    world.lock(4, &["t"]);
    assert_eq!(
        world.follower.next_deadline(),
        Some(world.now + Duration::from_secs(30))
    );
    world.now += Duration::from_secs(30);
    let effects = world.see(Event::Woken);
    let text = "Dissemination timeout for round 4, closing stream to reconnect";
    assert!(matches!(effects.last(), Some(Effect::Close(cause)) if cause == text));
    assert_eq!(world.follower.next_deadline(), None);
}

#[test]
fn with_the_stream_all_actors_go_and_nothing_of_before_counts() {
    let mut world = World::new();
    world.round(1, &[], &[("t", &["a:1"])]);
    let lost = world.see(Event::Lost);
    assert!(matches!(
        lost[..],
        [
            Effect::Route(Known::Nothing),
            Effect::Halt {
                which: Which::Lost,
                ..
            }
        ]
    ));
    let which = world.round(1, &[], &[("t", &["b:2"])]);
    assert!(which.has(&Actor::new("t", "1")), "one that is going still");
}

#[test]
fn a_leader_cannot_begin_rounds_without_end() {
    let mut world = World::new();
    let mut closed = false;
    for seq in 0..=MOST_ROUNDS as u64 {
        let effects = world.lock(seq, &[&seq.to_string()]);
        closed = matches!(effects.last(), Some(Effect::Close(_)));
    }
    assert!(closed && world.follower.rounds.is_empty());
}

// Several sidecars and a leader, in every order that their streams allow.

const HOSTS: [&str; 3] = ["a:1", "b:2", "c:3"];
const TYPES: [&str; 2] = ["t", "u"];
const IDS: [&str; 6] = ["1", "2", "3", "4", "5", "6"];

/// One sidecar and its stream.
struct Member {
    own: &'static str,
    follower: Follower,
    known: Known,
    orders: VecDeque<Order>,
    halts: VecDeque<(u64, Which)>,
    active: BTreeSet<Actor>,
    types: BTreeSet<Arc<str>>,
}

struct Running {
    types: BTreeSet<Arc<str>>,
    phase: Phase,
    /// Who has not acknowledged the phase.
    waits_for: BTreeSet<usize>,
}

#[derive(Default)]
struct Cluster {
    members: BTreeMap<usize, Member>,
    rounds: BTreeMap<u64, Running>,
    changed: BTreeSet<Arc<str>>,
    seq: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Join(usize, usize),
    Leave(usize),
    Deliver(usize),
    Halted(usize),
    /// The leader gives up its oldest round and begins its types again.
    Again,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3usize, 1..4usize).prop_map(|(host, types)| Step::Join(host, types)),
        1 => (0..3usize).prop_map(Step::Leave),
        12 => (0..3usize).prop_map(Step::Deliver),
        6 => (0..3usize).prop_map(Step::Halted),
        1 => Just(Step::Again),
    ]
}

impl Cluster {
    fn step(&mut self, step: Step) {
        match step {
            Step::Join(host, types) if !self.members.contains_key(&host) => self.join(host, types),
            Step::Join(..) => {}
            Step::Leave(host) => self.leave(host),
            Step::Deliver(host) => {
                let member = self.members.get_mut(&host);
                if let Some(order) = member.and_then(|member| member.orders.pop_front()) {
                    self.see(host, Event::Ordered(order));
                }
            }
            Step::Halted(host) => {
                let Some(member) = self.members.get_mut(&host) else {
                    return;
                };
                if let Some((number, which)) = member.halts.pop_front() {
                    member.active.retain(|actor| !which.has(actor));
                    self.see(host, Event::Halted { number });
                }
            }
            Step::Again => {
                if let Some((_, round)) = self.rounds.pop_first() {
                    self.changed.extend(round.types);
                }
            }
        }
        self.begin();
        self.call_all();
    }

    fn join(&mut self, host: usize, types: usize) {
        let own = HOSTS[host];
        let hosted = TYPES.iter().enumerate();
        let hosted = hosted.filter(|(index, _)| types & (1 << index) != 0);
        let types: BTreeSet<Arc<str>> = hosted.map(|(_, kind)| Arc::from(*kind)).collect();
        let busy = |kind: &Arc<str>| {
            self.changed.contains(kind) || self.rounds.values().any(|r| r.types.contains(kind))
        };
        let settled = TYPES.iter().map(|kind| Arc::from(*kind));
        let settled: BTreeSet<_> = settled.filter(|kind| !busy(kind)).collect();
        self.seq += 1;
        let seq = self.seq;
        let snapshot = [
            Order::Lock {
                seq,
                types: BTreeSet::new(),
            },
            Order::Update {
                seq,
                changes: self.tables(&settled),
            },
            Order::Unlock { seq },
        ];
        let member = Member {
            own,
            follower: Follower::new(own.into(), Duration::from_secs(30)),
            known: Known::Nothing,
            orders: snapshot.into(),
            halts: VecDeque::new(),
            active: BTreeSet::new(),
            types: types.clone(),
        };
        self.members.insert(host, member);
        self.changed.extend(types);
        // It has not heard of what is locked now.
        let locked = self.rounds.values().flat_map(|round| round.types.clone());
        let locked: Vec<_> = locked.collect();
        self.changed.extend(locked);
    }

    fn leave(&mut self, host: usize) {
        if let Some(member) = self.members.remove(&host) {
            self.changed.extend(member.types);
            for seq in self.rounds.keys().copied().collect::<Vec<_>>() {
                self.acknowledged(host, seq);
            }
        }
    }

    fn tables(&self, kinds: &BTreeSet<Arc<str>>) -> BTreeMap<Arc<str>, Addresses> {
        let of = |kind: &Arc<str>| {
            let hosts = self.members.values();
            let hosts = hosts.filter(|member| member.types.contains(kind));
            hosts
                .map(|member| (member.own.to_owned(), String::new()))
                .collect()
        };
        kinds.iter().map(|kind| (kind.clone(), of(kind))).collect()
    }

    /// Begins a round for what has changed and no round holds.
    fn begin(&mut self) {
        let held: BTreeSet<_> = self.rounds.values().flat_map(|r| r.types.clone()).collect();
        let types: BTreeSet<_> = self.changed.difference(&held).cloned().collect();
        if types.is_empty() {
            return;
        }
        self.changed.retain(|kind| held.contains(kind));
        self.seq += 1;
        let order = Order::Lock {
            seq: self.seq,
            types: types.clone(),
        };
        let round = Running {
            types,
            phase: Phase::Lock,
            waits_for: self.members.keys().copied().collect(),
        };
        self.rounds.insert(self.seq, round);
        for member in self.members.values_mut() {
            member.orders.push_back(order.clone());
        }
        self.acknowledged(usize::MAX, self.seq);
    }

    fn acknowledged(&mut self, host: usize, seq: u64) {
        let Some(round) = self.rounds.get_mut(&seq) else {
            return;
        };
        round.waits_for.remove(&host);
        if !round.waits_for.is_empty() {
            return;
        }
        // Those that joined meanwhile have not heard of it.
        let order = match round.phase {
            Phase::Lock => {
                round.phase = Phase::Update;
                let types = round.types.clone();
                let changes = self.tables(&types);
                Order::Update { seq, changes }
            }
            Phase::Update => {
                round.phase = Phase::Unlock;
                Order::Unlock { seq }
            }
            Phase::Unlock => {
                self.rounds.remove(&seq);
                return;
            }
        };
        let heard = |member: &Member| {
            let waits = member.orders.iter();
            let mut waits =
                waits.filter(|order| matches!(order, Order::Lock { seq: n, .. } if *n == seq));
            waits.next().is_some() || member.follower.rounds.contains_key(&seq)
        };
        let members: BTreeSet<usize> = {
            let members = self.members.iter();
            let members = members.filter(|(_, member)| heard(member));
            members.map(|(host, _)| *host).collect()
        };
        for host in &members {
            let member = self.members.get_mut(host).unwrap();
            member.orders.push_back(order.clone());
        }
        let round = self.rounds.get_mut(&seq).unwrap();
        round.waits_for = members;
        if round.waits_for.is_empty() {
            self.acknowledged(usize::MAX, seq);
        }
    }

    fn see(&mut self, host: usize, event: Event) {
        let mut effects = Vec::new();
        let member = self.members.get_mut(&host).unwrap();
        member.follower.handle(Instant::now(), event, &mut effects);
        let mut acknowledged = Vec::new();
        for effect in effects {
            match effect {
                Effect::Route(known) => member.known = known,
                Effect::Halt { number, which } => member.halts.push_back((number, which)),
                Effect::Acknowledge(phase, seq) => acknowledged.push((phase, seq)),
                Effect::Lose(_) | Effect::Settled(_) => {}
                Effect::Close(why) => panic!("{why}"),
            }
        }
        for (phase, seq) in acknowledged {
            if self
                .rounds
                .get(&seq)
                .is_some_and(|round| round.phase == phase)
            {
                self.acknowledged(host, seq);
            }
        }
    }

    /// Every sidecar calls every actor that it believes to have.
    fn call_all(&mut self) {
        let mut now_active = Vec::new();
        for (host, member) in &self.members {
            for kind in TYPES {
                for id in IDS {
                    if find(&member.known, kind, id, member.own) == LOCAL {
                        now_active.push((*host, Actor::new(kind, id)));
                    }
                }
            }
        }
        for (host, actor) in now_active {
            for (other, member) in &self.members {
                assert!(
                    *other == host || !member.active.contains(&actor),
                    "{actor} is active at {} and called at {}",
                    member.own,
                    HOSTS[host]
                );
            }
            self.members.get_mut(&host).unwrap().active.insert(actor);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_actor_is_never_at_two_hosts_and_all_agree_in_the_end(
        steps in prop::collection::vec(steps(), 1..120)
    ) {
        let mut cluster = Cluster::default();
        for step in steps {
            cluster.step(step);
        }
        for _ in 0..200 {
            for host in 0..HOSTS.len() {
                cluster.step(Step::Deliver(host));
                cluster.step(Step::Halted(host));
            }
        }
        prop_assert!(cluster.rounds.is_empty() && cluster.changed.is_empty());
        let all: BTreeSet<Arc<str>> = types(&TYPES);
        let tables = Tables::default().with(cluster.tables(&all));
        for member in cluster.members.values() {
            let Known::Settled(known) = &member.known else {
                panic!("{}: {:?}", member.own, member.known);
            };
            prop_assert_eq!(&**known, &tables, "{}", member.own);
        }
    }
}
