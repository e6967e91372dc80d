use proptest::prelude::*;

use super::*;

/// A message on its way: to a replica, or back with an answer.
struct Message {
    due: Instant,
    sent: Instant,
    from: usize,
    to: usize,
    request: Request,
    answer: Option<Answer>,
}

/// Replicas and a network that loses and delays.
struct World {
    now: Instant,
    replicas: Vec<Election>,
    /// Replicas that do nothing and hear nothing before.
    frozen_until: Vec<Instant>,
    messages: Vec<Message>,
    random: u64,
    /// Of 100 messages.
    lost: u64,
    slowest: Duration,
}

impl World {
    fn new(replicas: usize, seed: u64) -> Self {
        let now = Instant::now();
        let new = |index| Election::new(name(index), replicas, seed ^ index as u64, now);
        Self {
            now,
            replicas: (0..replicas).map(new).collect(),
            frozen_until: vec![now; replicas],
            messages: Vec::new(),
            random: seed | 1,
            lost: 0,
            slowest: Duration::from_millis(5),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn post(
        &mut self,
        from: usize,
        to: usize,
        request: Request,
        sent: Instant,
        answer: Option<Answer>,
    ) {
        if self.below(100) < self.lost {
            return;
        }
        let slowest = u64::try_from(self.slowest.as_millis()).unwrap();
        let due = self.now + Duration::from_millis(self.below(slowest + 1));
        self.messages.push(Message {
            due,
            sent,
            from,
            to,
            request,
            answer,
        });
    }

    fn broadcast(&mut self, from: usize, broadcast: Option<Broadcast>) {
        let Some(Broadcast(request)) = broadcast else {
            return;
        };
        for to in (0..self.replicas.len()).filter(|to| *to != from) {
            self.post(from, to, request.clone(), self.now, None);
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(10);
        let now = self.now;
        let all: Vec<_> = std::mem::take(&mut self.messages);
        let (due, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.due <= now);
        self.messages = later;
        for Message {
            sent,
            from,
            to,
            request,
            answer,
            ..
        } in due
        {
            if self.frozen_until[to] > now {
                continue;
            }
            match answer {
                None => {
                    let answer = self.replicas[to].request(now, &request);
                    self.post(to, from, request, sent, Some(answer));
                }
                Some(answer) => {
                    let next = self.replicas[to].answer(now, &name(from), sent, &request, answer);
                    self.broadcast(to, next);
                }
            }
        }
        for index in 0..self.replicas.len() {
            if self.frozen_until[index] <= now && self.replicas[index].next_deadline() <= now {
                let next = self.replicas[index].wake(now);
                self.broadcast(index, next);
            }
        }
    }

    /// Those that lead and would serve now. One that is frozen serves
    /// nobody, and looks at its lease before anything else when it goes on.
    fn leaders(&self) -> Vec<usize> {
        let leads =
            |index: &usize| self.replicas[*index].leads() && self.frozen_until[*index] <= self.now;
        (0..self.replicas.len()).filter(leads).collect()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
            assert!(
                self.leaders().len() < 2,
                "{:?} lead at once",
                self.leaders()
            );
        }
    }
}

fn name(index: usize) -> String {
    format!("placement-{index}")
}

#[test]
fn a_lone_replica_leads_at_once_and_for_ever() {
    let now = Instant::now();
    let mut alone = Election::new(name(0), 1, 7, now);
    assert_eq!(alone.next_deadline(), now);
    assert_eq!(alone.wake(now), None);
    assert!(alone.leads());
    assert_eq!(alone.wake(now + Duration::from_secs(3600)), None);
    assert!(alone.leads());
}

#[test]
fn the_others_replace_a_leader_that_resigns_within_a_quarter_of_a_second() {
    let mut world = World::new(3, 11);
    world.run(Duration::from_secs(3));
    let [leader] = world.leaders()[..] else {
        panic!("no leader")
    };
    let resigned = world.replicas[leader].resign(world.now);
    world.broadcast(leader, resigned);
    world.frozen_until[leader] = world.now + Duration::from_secs(60);
    world.run(Duration::from_millis(250));
    let [next] = world.leaders()[..] else {
        panic!("no leader")
    };
    assert_ne!(next, leader);
}

#[test]
fn a_leader_without_its_majority_stops() {
    let mut world = World::new(3, 5);
    world.run(Duration::from_secs(3));
    let [leader] = world.leaders()[..] else {
        panic!("no leader")
    };
    for index in (0..3).filter(|index| *index != leader) {
        world.frozen_until[index] = world.now + Duration::from_secs(60);
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.leaders(), [0; 0]);
}

#[test]
fn a_replica_that_was_cut_off_does_not_depose_the_leader() {
    let mut world = World::new(3, 23);
    world.run(Duration::from_secs(3));
    let [leader] = world.leaders()[..] else {
        panic!("no leader")
    };
    let term = world.replicas[leader].term;
    let other = (leader + 1) % 3;
    world.lost = 0;
    // It hears nobody, but goes on by itself.
    for _ in 0..500 {
        world
            .messages
            .retain(|message| message.to != other && message.from != other);
        world.step();
    }
    world.run(Duration::from_secs(3));
    assert_eq!(world.leaders(), [leader]);
    assert_eq!(world.replicas[leader].term, term);
}

#[test]
fn a_term_out_of_all_proportion_changes_nothing() {
    let mut world = World::new(3, 31);
    world.run(Duration::from_secs(3));
    let [leader] = world.leaders()[..] else {
        panic!("no leader")
    };
    let term = u64::MAX;
    for request in [
        Request::Heartbeat {
            term,
            leader: name(9),
            number: 1,
            hosts: None,
        },
        Request::Vote {
            term,
            candidate: name(9),
            stands: true,
        },
    ] {
        for replica in &mut world.replicas {
            assert!(!replica.request(world.now, &request).granted);
        }
    }
    world.run(Duration::from_secs(3));
    assert_eq!(world.leaders(), [leader]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    /// `run` looks for two leaders at every step.
    #[test]
    fn there_are_never_two_leaders_and_soon_one(
        replicas in prop_oneof![Just(2usize), Just(3), Just(5)],
        seed in any::<u64>(),
        phases in proptest::collection::vec((0..60u64, 1..400u64, 0..5usize, 0..4000u64), 1..6),
    ) {
        let mut world = World::new(replicas, seed);
        for (lost, slowest, frozen, time) in phases {
            world.lost = lost;
            world.slowest = Duration::from_millis(slowest);
            if frozen < replicas {
                world.frozen_until[frozen] = world.now + Duration::from_millis(time);
            }
            world.run(Duration::from_secs(4));
        }
        world.lost = 0;
        world.slowest = Duration::from_millis(5);
        world.run(Duration::from_secs(5));
        prop_assert_eq!(world.leaders().len(), 1);
    }
}
