//! Random applications around the engine, and a checker of what it promises.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::engine::Event;
use super::*;

#[derive(Debug, Clone)]
enum Act {
    Register {
        actor: u8,
        name: u8,
        due: u16,
        period: u16,
        repeats: u8,
        ttl: Option<u16>,
    },
    Delete(u8, u8),
    Lose(u8),
    /// One of the ticks that are under way ends.
    End(usize, bool),
    /// Milliseconds.
    Wait(u64),
}

struct Flight {
    actor: Actor,
    id: Id,
    timer: Arc<Timer>,
}

struct World {
    engine: Engine,
    now: Now,
    flying: Vec<Flight>,
    /// What is registered: the timer, and how often it has fired.
    registered: HashMap<(Actor, Arc<str>), (Arc<Timer>, u64)>,
    fired: Vec<String>,
    /// Dates say nothing about what is due any more.
    clock_was_set: bool,
}

fn actor(number: u8) -> Actor {
    Actor::new("t", number.to_string())
}

impl World {
    fn new() -> Self {
        Self {
            engine: Engine::default(),
            now: Now {
                wall: Timestamp::from_second(1_800_000_000).unwrap(),
                steady: Duration::from_secs(5),
            },
            flying: Vec::new(),
            registered: HashMap::new(),
            fired: Vec::new(),
            clock_was_set: false,
        }
    }

    fn set_clock(&mut self, seconds: i64) {
        self.clock_was_set = true;
        self.now.wall += SignedDuration::from_secs(seconds);
    }

    fn register(&mut self, of: u8, name: &str, due: &str, period: &str, ttl: &str) {
        let request = Request {
            name: name.to_owned(),
            due_time: due.to_owned(),
            period: period.to_owned(),
            ttl: ttl.to_owned(),
            ..Request::default()
        };
        let timer = Arc::new(Timer::plan(request, "", self.now.wall).unwrap());
        let key = (actor(of), timer.name.clone());
        self.registered.insert(key, (timer.clone(), 0));
        self.handle(Event::Registered(actor(of), timer));
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Register {
                actor,
                name,
                due,
                period,
                repeats,
                ttl,
            } => {
                let period = match (period, repeats) {
                    (0, _) => String::new(),
                    (_, 0) => format!("{period}ms"),
                    _ => format!("R{repeats}/PT1S"),
                };
                let ttl = ttl.map_or_else(String::new, |ttl| format!("{ttl}ms"));
                self.register(actor, &name.to_string(), &format!("{due}ms"), &period, &ttl);
            }
            Act::Delete(of, name) => self.delete(of, &name.to_string()),
            Act::Lose(of) => {
                self.registered.retain(|(it, _), _| *it != actor(of));
                self.handle(Event::Lost(vec![actor(of)]));
            }
            Act::End(which, cancel) if !self.flying.is_empty() => {
                self.end(which % self.flying.len(), cancel);
            }
            Act::End(..) => {}
            Act::Wait(milliseconds) => self.wait(milliseconds),
        }
    }

    fn delete(&mut self, of: u8, name: &str) {
        self.registered.remove(&(actor(of), name.into()));
        self.handle(Event::Deleted(actor(of), name.into()));
    }

    fn end(&mut self, which: usize, cancel: bool) {
        let Flight { actor, id, timer } = self.flying.remove(which);
        let key = (actor.clone(), timer.name.clone());
        if cancel
            && self
                .registered
                .get(&key)
                .is_some_and(|(it, _)| Arc::ptr_eq(it, &timer))
        {
            self.registered.remove(&key);
        }
        self.handle(Event::Fired { actor, id, cancel });
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now.steady += Duration::from_millis(milliseconds);
        self.now.wall += SignedDuration::from_millis(milliseconds as i64);
        self.handle(Event::Woken);
    }

    fn handle(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.engine.handle(self.now, event, &mut effects);
        for Effect::Fire { actor, id, timer } in effects {
            let key = (actor.clone(), timer.name.clone());
            let (registered, times) = self.registered.get_mut(&key).expect("it is deleted");
            assert!(Arc::ptr_eq(registered, &timer), "it was replaced");
            let due = timer.due <= self.now.wall || self.clock_was_set;
            assert!(due, "it is early");
            *times += 1;
            assert!(timer.repeats.is_none_or(|most| *times <= most), "too often");
            assert!(timer.every.is_some() || *times == 1, "it has one tick");
            assert!(
                self.flying.iter().all(|flight| flight.actor != actor),
                "timers of one actor overlap"
            );
            self.fired.push(timer.name.to_string());
            self.flying.push(Flight { actor, id, timer });
        }
        self.check_progress();
    }

    /// What is due is under way, or waits for another timer of its actor.
    fn check_progress(&self) {
        let deadline = self.engine.next_deadline();
        assert!(
            deadline.is_none_or(|at| at > self.now.steady),
            "something due waits"
        );
        let busy: HashSet<&Actor> = self.flying.iter().map(|flight| &flight.actor).collect();
        for ((actor, name), (timer, times)) in &self.registered {
            let is_known = self.engine.get(actor, name).is_some();
            let due = timer.due <= self.now.wall && !self.clock_was_set;
            let ended = timer.end.is_some_and(|end| timer.due >= end);
            assert!(
                is_known || *times > 0 || ended,
                "{name} is lost without a tick"
            );
            if due && *times == 0 && !ended {
                assert!(busy.contains(actor), "{name} is due and nothing is done");
            }
        }
    }

    /// Nothing is slow from now on: what has an end comes to it.
    fn settle(&mut self) {
        for _ in 0..40 {
            while !self.flying.is_empty() {
                self.end(0, false);
            }
            self.wait(700);
        }
        for ((_, name), (timer, times)) in &self.registered {
            if let (Some(most), None) = (timer.repeats, timer.end) {
                assert_eq!(*times, most, "{name} has all its ticks");
            }
            if timer.every.is_none() && timer.end.is_none() {
                assert_eq!(*times, 1, "{name} has its tick");
            }
        }
        let left = self
            .engine
            .counts()
            .map(|(_, timers)| timers)
            .sum::<usize>();
        let endless = |(timer, _): &&(Arc<Timer>, u64)| {
            timer.every.is_some() && timer.repeats.is_none() && timer.end.is_none()
        };
        assert_eq!(left, self.registered.values().filter(endless).count());
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (
            0..3u8,
            0..3u8,
            0..2000u16,
            0..1500u16,
            0..4u8,
            prop::option::of(0..3000u16)
        )
            .prop_map(|(actor, name, due, period, repeats, ttl)| Act::Register {
                actor,
                name,
                due,
                period,
                repeats,
                ttl
            }),
        (0..3u8, 0..3u8).prop_map(|(actor, name)| Act::Delete(actor, name)),
        (0..3u8).prop_map(Act::Lose),
        (0..8usize, prop::bool::weighted(0.1)).prop_map(|(which, cancel)| Act::End(which, cancel)),
        (0..3000u64).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Nothing is early, repeats are exact, what is deleted or replaced does not
    /// fire, timers of one actor do not overlap, and what is due gets its turn.
    #[test]
    fn prop_timers_keep_their_promises(acts in acts()) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        world.settle();
    }
}

#[test]
fn a_slow_callback_shifts_the_series_and_makes_nothing_up() {
    let mut world = World::new();
    world.register(1, "a", "1s", "1s", "");
    for _ in 0..3 {
        world.wait(1000);
        assert_eq!(world.flying.len(), 1);
        world.wait(1700);
        world.end(0, false);
        assert_eq!(
            world.flying.len(),
            1,
            "the tick that was missed fires at once"
        );
        world.end(0, false);
        assert_eq!(world.flying.len(), 0);
    }
    assert_eq!(world.fired.len(), 6);
}

#[test]
fn a_tick_at_the_end_of_its_ttl_does_not_fire() {
    let mut world = World::new();
    world.register(1, "a", "", "1s", "2s");
    for _ in 0..4 {
        while !world.flying.is_empty() {
            world.end(0, false);
        }
        world.wait(1000);
    }
    assert_eq!(world.fired.len(), 2);
    world.register(1, "b", "", "", "0s");
    assert_eq!(world.fired.len(), 2);
}

#[test]
fn a_timer_that_waits_and_is_replaced_does_not_fire() {
    let mut world = World::new();
    world.register(1, "a", "", "", "");
    world.register(1, "b", "", "", "");
    assert_eq!(world.fired, ["a"]);
    world.register(1, "b", "5s", "", "");
    world.end(0, false);
    assert_eq!(world.fired, ["a"]);
    world.wait(5000);
    assert_eq!(world.fired, ["a", "b"]);
}

#[test]
fn the_clock_of_the_machine_does_not_move_timers() {
    let mut world = World::new();
    world.register(1, "a", "10s", "10s", "");
    world.set_clock(600);
    world.wait(9000);
    assert!(world.fired.is_empty());
    world.wait(1000);
    assert_eq!(world.fired, ["a"]);
    world.end(0, false);
    world.set_clock(-1200);
    assert_eq!(world.engine.next_deadline(), Some(Duration::from_secs(25)));
}

#[test]
fn months_are_those_of_the_calendar() {
    let mut world = World::new();
    world.now.wall = "2027-01-31T00:00:00Z".parse().unwrap();
    world.register(1, "a", "", "P1M", "");
    world.end(0, false);
    let days = Duration::from_secs(31 * 24 * 3600);
    assert_eq!(
        world.engine.next_deadline(),
        Some(Duration::from_secs(5) + days)
    );
}

#[test]
fn a_tick_whose_timer_is_deleted_while_it_waits_is_not_wanted() {
    let mut world = World::new();
    world.register(1, "a", "", "1s", "");
    let first = world.flying[0].id;
    assert!(world.engine.has(first));
    world.register(1, "a", "1h", "1s", "");
    assert!(!world.engine.has(first), "another one has its name");
    world.end(0, false);
    world.register(1, "b", "", "1s", "");
    let second = world.flying[0].id;
    world.delete(1, "b");
    assert!(!world.engine.has(second));
}

#[test]
fn ids_take_room_as_well() {
    let mut engine = Engine::default();
    let now = World::new().now;
    let timer = |bytes: usize| {
        let request = Request {
            name: "a".to_owned(),
            data: Some(vec![0; bytes].into()),
            ..Request::default()
        };
        Arc::new(Timer::plan(request, "", now.wall).unwrap())
    };
    let long = Actor::new("t", "x".repeat(500));
    // Full but for a short timer.
    let most = timer((256 << 20) - 1000);
    engine.handle(now, Event::Registered(actor(1), most), &mut Vec::new());
    assert_eq!(engine.admits(&actor(2), &timer(1)), Ok(()));
    assert_eq!(engine.admits(&long, &timer(1)), Err(Full));
}

#[test]
fn there_is_room_for_so_many_bytes() {
    let mut engine = Engine::default();
    let now = World::new().now;
    let large = |name: &str| {
        let request = Request {
            name: name.to_owned(),
            due_time: "1h".to_owned(),
            data: Some(vec![0; 100 << 20].into()),
            ..Request::default()
        };
        Arc::new(Timer::plan(request, "", now.wall).unwrap())
    };
    for name in ["a", "b"] {
        engine.admits(&actor(1), &large(name)).unwrap();
        engine.handle(
            now,
            Event::Registered(actor(1), large(name)),
            &mut Vec::new(),
        );
    }
    assert_eq!(engine.admits(&actor(1), &large("c")), Err(Full));
    engine.handle(now, Event::Deleted(actor(1), "a".into()), &mut Vec::new());
    assert_eq!(engine.admits(&actor(1), &large("c")), Ok(()));
}
