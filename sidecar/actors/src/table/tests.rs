use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const IDLE: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(2);
const MOST: usize = 3;

struct World {
    table: Table<u64>,
    now: Instant,
    next: u64,
    fence: u64,
}

impl World {
    fn new(depth: Option<usize>) -> Self {
        let now = Instant::now();
        let mut world = Self {
            table: Table::new(now),
            now,
            next: 1,
            fence: 1,
        };
        let settings = Settings {
            idle: IDLE,
            drain: DRAIN,
            depth,
        };
        world.see(Event::Hosted([("t".into(), settings)].into()));
        world
    }

    fn see(&mut self, event: Event<u64>) -> Vec<Effect<u64>> {
        let mut effects = Vec::new();
        self.table.handle(self.now, event, &mut effects);
        effects
    }

    fn enter(&mut self, id: &str, chain: Option<&str>) -> (CallId, Vec<Effect<u64>>) {
        self.enter_until(id, chain, None)
    }

    fn enter_until(
        &mut self,
        id: &str,
        chain: Option<&str>,
        deadline: Option<Instant>,
    ) -> (CallId, Vec<Effect<u64>>) {
        let call = CallId(self.next);
        self.next += 1;
        let effects = self.see(Event::Enter(Enter {
            actor: actor(id),
            call,
            ticket: call.0,
            chain: chain.map(Into::into),
            deadline,
            fence: self.fence,
            beside: false,
        }));
        (call, effects)
    }

    fn leave(&mut self, id: &str, call: CallId) -> Vec<Effect<u64>> {
        self.see(Event::Left {
            actor: actor(id),
            call,
        })
    }

    fn halt(&mut self, which: Which) -> Vec<Effect<u64>> {
        self.fence += 1;
        let (halt, fence) = (HaltId(self.fence), self.fence);
        self.see(Event::Halt { halt, fence, which })
    }

    fn wake_in(&mut self, after: Duration) -> Vec<Effect<u64>> {
        self.now += after;
        self.see(Event::Woken)
    }
}

fn actor(id: &str) -> Actor {
    Actor::new("t", id)
}

fn gone(id: &str, cause: Cause) -> Effect<u64> {
    Effect::Deactivate(actor(id), cause)
}

#[test]
fn one_call_at_a_time_in_the_order_of_arrival() {
    let mut world = World::new(None);
    let (first, effects) = world.enter("a", None);
    assert_eq!(effects, [Effect::Run(first.0)]);
    let (second, effects) = world.enter("a", None);
    assert_eq!(effects, []);
    let (third, _) = world.enter("a", None);
    // Another actor is not concerned.
    let (other, effects) = world.enter("b", None);
    assert_eq!(effects, [Effect::Run(other.0)]);
    assert_eq!(world.table.waiting(), [("t".into(), 2)]);
    assert_eq!(world.leave("a", first), [Effect::Run(second.0)]);
    // One that gives up makes room and no noise.
    assert_eq!(world.leave("a", third), []);
    assert_eq!(world.leave("a", second), []);
    assert_eq!(world.table.waiting(), [("t".into(), 0)]);
}

#[test]
fn a_type_that_is_not_hosted_is_refused() {
    let mut world = World::new(None);
    world.see(Event::Hosted(BTreeMap::new()));
    let (call, effects) = world.enter("a", None);
    assert_eq!(effects, [Effect::Refuse(call.0, Refusal::Moved)]);
    assert!(world.table.is_empty());
}

#[test]
fn calls_of_one_chain_pass_and_a_chain_that_is_too_deep_leaves_nothing_behind() {
    let mut world = World::new(Some(MOST));
    let calls: Vec<CallId> = (0..MOST)
        .map(|_| {
            let (call, effects) = world.enter("a", Some("x"));
            assert_eq!(effects, [Effect::Run(call.0)]);
            call
        })
        .collect();
    let (deep, effects) = world.enter("a", Some("x"));
    assert_eq!(effects, [Effect::Refuse(deep.0, Refusal::TooDeep)]);
    let (other, effects) = world.enter("a", Some("y"));
    assert_eq!(effects, []);
    for call in calls.iter().skip(1) {
        assert_eq!(world.leave("a", *call), []);
    }
    assert_eq!(world.leave("a", calls[0]), [Effect::Run(other.0)]);
}

#[test]
fn without_reentrancy_a_chain_waits_like_others() {
    let mut world = World::new(None);
    world.enter("a", Some("x"));
    let (_, effects) = world.enter("a", Some("x"));
    assert_eq!(effects, []);
}

#[test]
fn an_actor_goes_when_it_was_idle_since_the_end_of_its_last_call() {
    let mut world = World::new(None);
    let (call, _) = world.enter("a", None);
    assert_eq!(world.wake_in(IDLE * 5), []);
    world.leave("a", call);
    assert_eq!(world.wake_in(IDLE / 2), []);
    let (call, _) = world.enter("a", None);
    world.leave("a", call);
    assert_eq!(world.wake_in(IDLE - Duration::from_millis(1)), []);
    assert_eq!(
        world.wake_in(Duration::from_millis(1)),
        [gone("a", Cause::Idle)]
    );
    // A call that comes meanwhile waits for it.
    let (call, effects) = world.enter("a", None);
    assert_eq!(effects, []);
    let back = world.see(Event::Deactivated { actor: actor("a") });
    assert_eq!(back, [Effect::Run(call.0)]);
    world.leave("a", call);
    assert_eq!(world.wake_in(IDLE), [gone("a", Cause::Idle)]);
    world.see(Event::Deactivated { actor: actor("a") });
    assert!(world.table.is_empty());
    assert_eq!(world.table.next_deadline(), None);
}

#[test]
fn a_waiting_call_ends_at_its_deadline() {
    let mut world = World::new(None);
    let (first, _) = world.enter("a", None);
    let deadline = world.now + Duration::from_secs(1);
    let (late, _) = world.enter_until("a", None, Some(deadline));
    assert_eq!(world.table.next_deadline(), Some(deadline));
    let effects = world.wake_in(Duration::from_secs(1));
    assert_eq!(effects, [Effect::Refuse(late.0, Refusal::Late)]);
    assert_eq!(world.leave("a", late), []);
    assert_eq!(world.leave("a", first), []);
}

#[test]
fn an_actor_that_has_to_go_ends_its_call_first_and_sends_the_others_away() {
    let mut world = World::new(None);
    let (running, _) = world.enter("a", None);
    let (waiting, _) = world.enter("a", None);
    let effects = world.halt(Which::All);
    assert_eq!(effects, [Effect::Refuse(waiting.0, Refusal::Moved)]);
    let (new, effects) = world.enter("a", None);
    assert_eq!(effects, [Effect::Refuse(new.0, Refusal::Moved)]);
    assert_eq!(world.leave("a", running), [gone("a", Cause::Halted)]);
    let done = world.see(Event::Deactivated { actor: actor("a") });
    assert_eq!(done, [Effect::Halted(HaltId(world.fence))]);
    assert!(world.table.is_empty());
}

#[test]
fn a_call_is_cut_off_at_the_end_of_a_drain_unless_it_is_answered() {
    let mut world = World::new(None);
    let (running, _) = world.enter("a", None);
    let (answered, _) = world.enter("b", None);
    let actor = actor("b");
    world.see(Event::Answered {
        actor,
        call: answered,
    });
    let effects = world.halt(Which::All);
    assert_eq!(effects, [gone("b", Cause::Halted)]);
    assert_eq!(world.wake_in(DRAIN / 2), []);
    let cut = world.wake_in(DRAIN / 2);
    assert_eq!(cut, [Effect::Cancel(running.0, Actor::new("t", "a"))]);
    assert_eq!(world.leave("a", running), [gone("a", Cause::Halted)]);
}

#[test]
fn calls_of_an_older_routing_are_refused() {
    let mut world = World::new(None);
    world.halt(Which::All);
    world.fence -= 1;
    let (call, effects) = world.enter("a", None);
    assert_eq!(effects, [Effect::Refuse(call.0, Refusal::Moved)]);
}

#[test]
fn actors_that_stay_are_not_touched() {
    let mut world = World::new(None);
    let (call, _) = world.enter("a", None);
    let hosts = [("here:1".to_owned(), String::new())].into();
    let tables = Arc::new(Tables::rings([("t".into(), hosts)].into(), 10));
    let effects = world.halt(Which::NotOf {
        tables,
        address: "here:1".into(),
    });
    assert_eq!(effects, [Effect::Halted(HaltId(world.fence))]);
    assert_eq!(world.leave("a", call), []);
    assert!(world.table.is_active(&actor("a")));
}

/// What a world of random events has seen of one actor.
#[derive(Default)]
struct Seen {
    running: Vec<u64>,
    waiting: std::collections::VecDeque<u64>,
    deactivating: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Enter {
        id: u8,
        chain: Option<u8>,
        wait: Option<u16>,
    },
    End {
        which: usize,
    },
    GiveUp {
        which: usize,
    },
    Deactivated {
        which: usize,
    },
    Halt,
    Wait {
        millis: u16,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let enter = (
        0..3u8,
        prop::option::of(0..2u8),
        prop::option::of(0..3000u16),
    )
        .prop_map(|(id, chain, wait)| Step::Enter { id, chain, wait });
    let step = prop_oneof![
        4 => enter,
        3 => (0..8usize).prop_map(|which| Step::End { which }),
        1 => (0..8usize).prop_map(|which| Step::GiveUp { which }),
        2 => (0..3usize).prop_map(|which| Step::Deactivated { which }),
        1 => Just(Step::Halt),
        2 => (0..6000u16).prop_map(|millis| Step::Wait { millis }),
    ];
    prop::collection::vec(step, 1..80)
}

/// A world that checks every effect.
struct Checked {
    world: World,
    seen: BTreeMap<String, Seen>,
    /// By call: its actor, its chain and its deadline.
    calls: BTreeMap<u64, (String, Option<u8>, Option<Instant>)>,
    cut: Vec<u64>,
    halts: Vec<HaltId>,
}

impl Checked {
    fn apply(&mut self, effects: Vec<Effect<u64>>) {
        for effect in effects {
            match effect {
                Effect::Run(call) => {
                    let (id, chain, deadline) = self.calls[&call].clone();
                    let seen = self.seen.entry(id).or_default();
                    assert!(!seen.deactivating, "a call runs while its actor goes");
                    let first = seen.running.first().map(|first| self.calls[first].1);
                    assert!(
                        first.is_none_or(|first| first.is_some() && first == chain),
                        "two turns at a time"
                    );
                    if first.is_none() && seen.waiting.contains(&call) {
                        assert_eq!(seen.waiting.pop_front(), Some(call), "not in order");
                    }
                    seen.waiting.retain(|waiting| *waiting != call);
                    seen.running.push(call);
                    assert!(seen.running.len() <= MOST);
                    assert!(
                        deadline.is_none_or(|at| at >= self.world.now - Duration::from_secs(6))
                    );
                }
                Effect::Refuse(call, _) => {
                    let (id, ..) = self.calls.remove(&call).unwrap();
                    let seen = self.seen.entry(id).or_default();
                    seen.waiting.retain(|waiting| *waiting != call);
                }
                Effect::Cancel(call, _) => self.cut.push(call),
                Effect::Deactivate(actor, _) => {
                    let seen = self.seen.entry(actor.id.to_string()).or_default();
                    assert!(
                        seen.running.is_empty(),
                        "an actor goes in the middle of a call"
                    );
                    assert!(!seen.deactivating);
                    seen.deactivating = true;
                }
                Effect::Halted(halt) => self.halts.retain(|known| *known != halt),
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Enter { id, chain, wait } => {
                let deadline = wait.map(|wait| self.world.now + Duration::from_millis(wait.into()));
                let id = id.to_string();
                let call = self.world.next;
                self.calls.insert(call, (id.clone(), chain, deadline));
                self.seen
                    .entry(id.clone())
                    .or_default()
                    .waiting
                    .push_back(call);
                let chain = chain.map(|chain| chain.to_string());
                let (_, effects) = self.world.enter_until(&id, chain.as_deref(), deadline);
                self.apply(effects);
            }
            Step::End { which } => self.end(|seen, _| seen.running.get(which).copied()),
            Step::GiveUp { which } => self.end(|seen, _| seen.waiting.get(which).copied()),
            Step::Deactivated { which } => {
                let going = self.seen.iter_mut().filter(|(_, seen)| seen.deactivating);
                if let Some((id, seen)) = going.into_iter().nth(which) {
                    seen.deactivating = false;
                    let actor = actor(id);
                    let effects = self.world.see(Event::Deactivated { actor });
                    self.apply(effects);
                }
            }
            Step::Halt => {
                let effects = self.world.halt(Which::All);
                self.halts.push(HaltId(self.world.fence));
                self.apply(effects);
            }
            Step::Wait { millis } => {
                let effects = self.world.wake_in(Duration::from_millis(millis.into()));
                self.apply(effects);
            }
        }
        for call in std::mem::take(&mut self.cut) {
            self.end(|seen, _| seen.running.contains(&call).then_some(call));
        }
    }

    /// Ends the first call that is chosen.
    fn end(&mut self, choose: impl Fn(&Seen, &str) -> Option<u64>) {
        let chosen = self
            .seen
            .iter()
            .find_map(|(id, seen)| Some((id.clone(), choose(seen, id)?)));
        let Some((id, call)) = chosen else { return };
        let seen = self.seen.get_mut(&id).unwrap();
        seen.running.retain(|running| *running != call);
        seen.waiting.retain(|waiting| *waiting != call);
        self.calls.remove(&call);
        let effects = self.world.leave(&id, CallId(call));
        self.apply(effects);
    }

    /// Nothing new comes, what is under way ends: nothing is left.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            if self.world.table.is_empty() {
                break;
            }
            self.step(Step::End { which: 0 });
            self.step(Step::Deactivated { which: 0 });
            if let Some(next) = self.world.table.next_deadline() {
                self.world.now = self.world.now.max(next);
            }
            self.step(Step::Wait { millis: 0 });
        }
        assert!(self.world.table.is_empty(), "something is stuck");
        assert!(self.calls.is_empty(), "calls have no end: {:?}", self.calls);
        assert!(self.halts.is_empty(), "halts have no end: {:?}", self.halts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_comes_turns_are_single_and_in_order_and_everything_ends(steps in steps()) {
        let mut checked = Checked {
            world: World::new(Some(MOST)),
            seen: BTreeMap::new(),
            calls: BTreeMap::new(),
            cut: Vec::new(),
            halts: Vec::new(),
        };
        for step in steps {
            checked.step(step);
        }
        checked.finish();
    }
}

/// Bytes that this process has got from the system allocator and not given
/// back, as the kernel counts them.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = status.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// In a process of its own: tests beside it use memory too.
#[test]
fn an_idle_actor_takes_no_more_than_300_bytes() {
    let own = std::env::current_exe().unwrap();
    let alone = [
        "--exact",
        "table::tests::idle_actors_are_measured",
        "--ignored",
    ];
    let run = std::process::Command::new(own)
        .args(alone)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "runs alone, in a process that another test starts"]
fn idle_actors_are_measured() {
    const ACTORS: usize = 200_000;
    let mut world = World::new(None);
    let before = resident();
    for number in 0..ACTORS {
        let id = format!("{number:036}");
        let (call, _) = world.enter(&id, None);
        world.leave(&id, call);
    }
    let each = (resident() - before) / ACTORS;
    assert!(each <= 300, "{each} bytes");
    assert_eq!(world.table.counts(), [("t".into(), ACTORS)]);
}
