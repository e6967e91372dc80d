//! What a sidecar does about the orders of the placement service.
//!
//! It does no I/O and has no clock: [`Follow::handle`] takes an event and the
//! time, and says what is to be done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Effect, Follow, Phase};
use crate::hosts::Tables;
use crate::routing::Known;
use crate::table::Which;

pub type Event = super::Event<Order>;

/// How long actors stay when the placement service cannot be reached. Nothing is
/// sent to them meanwhile. If they have been nowhere else by the time it is
/// back, they have never been away.
const GRACE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub enum Order {
    Lock { version: u64 },
    Update { version: u64, tables: Arc<Tables> },
    Unlock { version: u64 },
    Unknown { operation: String },
}

pub struct Follower {
    own: Arc<str>,
    /// Longest time from a lock to the unlock.
    timeout: Duration,
    /// In force everywhere.
    settled: Arc<Tables>,
    /// Seen last in this process, whatever became of it.
    seen: Option<u64>,
    /// Of the last lock.
    locked: u64,
    round: Option<Round>,
    /// When a round has to be over.
    deadline: Option<Instant>,
    /// The stream was lost; then the actors go.
    grace: Option<Instant>,
    /// Whether the next table may be one of many that were missed.
    is_fresh: bool,
    halts: u64,
}

struct Round {
    version: u64,
    tables: Arc<Tables>,
    /// None once its actors are gone.
    halt: Option<u64>,
    /// The service unlocks without waiting where no host joins.
    unlocked: bool,
}

impl Follow for Follower {
    type Order = Order;

    fn next_deadline(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.grace).min()
    }

    fn handle(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Ordered(order) => self.order(now, order, effects),
            Event::Halted { number } => {
                if let Some(round) = &mut self.round
                    && round.halt == Some(number)
                {
                    round.halt = None;
                    effects.push(Effect::Acknowledge(Phase::Update, round.version));
                    self.settle(effects);
                }
            }
            Event::Lost => self.lose(Some(now + GRACE), effects),
            Event::Silent => self.lose(None, effects),
            Event::Woken => self.wake(now, effects),
        }
    }
}

impl Follower {
    pub fn new(own: Arc<str>, timeout: Duration) -> Self {
        Self {
            own,
            timeout,
            settled: Arc::default(),
            seen: None,
            locked: 0,
            round: None,
            deadline: None,
            grace: None,
            is_fresh: true,
            halts: 0,
        }
    }

    fn order(&mut self, now: Instant, order: Order, effects: &mut Vec<Effect>) {
        match order {
            Order::Lock { version } => {
                self.deadline = Some(now + self.timeout);
                self.locked = version;
                effects.push(Effect::Acknowledge(Phase::Lock, version));
            }
            Order::Update { version, tables } => self.update(now, version, tables, effects),
            Order::Unlock { version } => self.unlock(version, effects),
            Order::Unknown { operation } => {
                let text = format!("unknown operation: {operation}");
                self.close(text, effects);
            }
        }
    }

    fn update(
        &mut self,
        now: Instant,
        version: u64,
        tables: Arc<Tables>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(seen) = self.seen.filter(|seen| version < *seen && !self.is_fresh) {
            let text = format!("version mismatch: expected {seen}, got {version}");
            return self.close(text, effects);
        }
        let unbroken = !self.is_fresh || self.is_unbroken(version);
        self.deadline.get_or_insert(now + self.timeout);
        self.grace = None;
        self.is_fresh = false;
        self.seen = Some(version);
        let which = match unbroken {
            true => Which::NotOf {
                tables: tables.clone(),
                address: self.own.clone(),
            },
            false => {
                self.settled = Arc::default();
                Which::Lost
            }
        };
        let known = Known::moving(self.settled.clone(), tables.clone());
        effects.push(Effect::Route(known));
        effects.push(Effect::Lose(Which::NotOf {
            tables: tables.clone(),
            address: self.own.clone(),
        }));
        self.halts += 1;
        self.round = Some(Round {
            version,
            tables,
            halt: Some(self.halts),
            unlocked: false,
        });
        effects.push(Effect::Halt {
            number: self.halts,
            which,
        });
    }

    /// Whether nobody else can have had our actors between the table seen last
    /// and this one, the first of a new stream. Versions begin anew with each
    /// leader, so they say nothing about tables of another one; but before its
    /// first table a leader has made none. Whoever it has in later ones may have
    /// had our actors in those before.
    fn is_unbroken(&self, version: u64) -> bool {
        self.seen.is_some() && version == 1
    }

    fn unlock(&mut self, version: u64, effects: &mut Vec<Effect>) {
        if let Some(round) = self.round.as_mut().filter(|round| round.version == version) {
            round.unlocked = true;
        }
        self.settle(effects);
    }

    /// Ends the round if it is unlocked and its actors are gone.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        let is_over = |round: &mut Round| round.unlocked && round.halt.is_none();
        let Some(round) = self.round.take_if(is_over) else {
            return;
        };
        self.settled = round.tables;
        self.deadline = None;
        effects.push(Effect::Route(Known::Settled(self.settled.clone())));
        effects.push(Effect::Acknowledge(Phase::Unlock, round.version));
        effects.push(Effect::Settled(self.settled.clone()));
    }

    fn wake(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            let version = self.locked;
            let text =
                format!("Dissemination timeout for version {version}, closing stream to reconnect");
            self.close(text, effects);
        }
        if self.grace.is_some_and(|grace| grace <= now) {
            self.give_up(effects);
        }
    }

    /// The stream ends from this side: nothing that was agreed on holds.
    fn close(&mut self, text: String, effects: &mut Vec<Effect>) {
        self.lose(None, effects);
        effects.push(Effect::Close(text));
    }

    fn lose(&mut self, grace: Option<Instant>, effects: &mut Vec<Effect>) {
        self.round = None;
        self.deadline = None;
        self.is_fresh = true;
        effects.push(Effect::Route(Known::Nothing));
        match grace {
            // Without a table there is nothing to keep.
            Some(grace) if self.seen.is_some() => {
                self.grace.get_or_insert(grace);
            }
            _ => self.give_up(effects),
        }
    }

    /// Every actor goes.
    fn give_up(&mut self, effects: &mut Vec<Effect>) {
        self.grace = None;
        self.seen = None;
        self.settled = Arc::default();
        self.halts += 1;
        effects.push(Effect::Halt {
            number: self.halts,
            which: Which::Lost,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(hosts: &[&str]) -> Arc<Tables> {
        let hosts = hosts.iter().map(|host| ((*host).to_owned(), String::new()));
        Arc::new(Tables::rings([("t".into(), hosts.collect())].into(), 10))
    }

    struct World {
        follower: Follower,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            Self {
                follower: Follower::new("a:1".into(), Duration::from_secs(30)),
                now: Instant::now(),
            }
        }

        fn see(&mut self, event: Event) -> Vec<Effect> {
            let mut effects = Vec::new();
            self.follower.handle(self.now, event, &mut effects);
            effects
        }

        fn update(&mut self, version: u64, hosts: &[&str]) -> Vec<Effect> {
            let tables = tables(hosts);
            self.see(Event::Ordered(Order::Update { version, tables }))
        }

        /// A whole round; whether all actors had to go.
        fn round(&mut self, version: u64, hosts: &[&str]) -> bool {
            self.see(Event::Ordered(Order::Lock { version }));
            let effects = self.update(version, hosts);
            let halt = effects.iter().find_map(|effect| match effect {
                Effect::Halt { number, which } => Some((*number, matches!(which, Which::Lost))),
                _ => None,
            });
            let (number, all) = halt.unwrap();
            let effects = self.see(Event::Halted { number });
            assert!(matches!(
                effects[..],
                [Effect::Acknowledge(Phase::Update, _)]
            ));
            let effects = self.see(Event::Ordered(Order::Unlock { version }));
            assert!(matches!(effects.last(), Some(Effect::Settled(_))));
            all
        }
    }

    #[test]
    fn an_update_is_acknowledged_when_its_actors_are_gone() {
        let mut world = World::new();
        let locked = world.see(Event::Ordered(Order::Lock { version: 1 }));
        assert!(matches!(locked[..], [Effect::Acknowledge(Phase::Lock, 1)]));
        let updated = world.update(1, &["a:1"]);
        assert!(matches!(
            updated[..],
            [
                Effect::Route(Known::Moving { .. }),
                Effect::Lose(_),
                Effect::Halt { .. }
            ]
        ));
        let gone = world.see(Event::Halted { number: 1 });
        assert!(matches!(gone[..], [Effect::Acknowledge(Phase::Update, 1)]));
        let unlocked = world.see(Event::Ordered(Order::Unlock { version: 1 }));
        assert!(matches!(
            unlocked[..],
            [
                Effect::Route(Known::Settled(_)),
                Effect::Acknowledge(Phase::Unlock, 1),
                Effect::Settled(_)
            ]
        ));
    }

    #[test]
    fn an_unlock_that_nobody_waited_for_counts_when_the_actors_are_gone() {
        let mut world = World::new();
        world.update(1, &["a:1"]);
        let early = world.see(Event::Ordered(Order::Unlock { version: 1 }));
        assert!(early.is_empty(), "{early:?}");
        let gone = world.see(Event::Halted { number: 1 });
        assert!(matches!(gone.last(), Some(Effect::Settled(_))));
    }

    #[test]
    fn an_abandoned_round_is_never_acknowledged() {
        let mut world = World::new();
        world.round(1, &["a:1"]);
        world.update(2, &["a:1", "b:1"]);
        world.see(Event::Ordered(Order::Lock { version: 3 }));
        world.update(3, &["a:1", "b:1", "c:1"]);
        assert!(world.see(Event::Halted { number: 2 }).is_empty());
        let effects = world.see(Event::Halted { number: 3 });
        assert!(matches!(
            effects[..],
            [Effect::Acknowledge(Phase::Update, 3)]
        ));
    }

    #[test]
    fn a_stream_that_is_back_in_time_keeps_actors_that_were_nowhere_else() {
        let mut world = World::new();
        world.round(7, &["a:1", "b:1"]);
        let effects = world.see(Event::Lost);
        assert!(matches!(effects[..], [Effect::Route(Known::Nothing)]));
        assert!(
            !world.round(1, &["a:1", "b:1"]),
            "of a leader that has begun"
        );
    }

    #[test]
    fn a_stream_that_is_back_keeps_no_actors_that_may_have_been_elsewhere() {
        // A new leader has had its first table without us: the numbers that
        // follow on the ones before are its own.
        for (before, version) in [(1, 2), (7, 7), (7, 8), (7, 9), (7, 3)] {
            let mut world = World::new();
            world.round(before, &["a:1", "b:1"]);
            world.see(Event::Lost);
            let all = world.round(version, &["a:1", "b:1"]);
            assert!(all, "{version} after {before}");
        }
    }

    #[test]
    fn after_the_grace_all_actors_go_once() {
        let mut world = World::new();
        world.round(7, &["a:1"]);
        world.see(Event::Lost);
        world.now += GRACE / 2;
        world.see(Event::Lost);
        assert!(world.see(Event::Woken).is_empty());
        world.now += GRACE / 2;
        let effects = world.see(Event::Woken);
        assert!(matches!(
            effects[..],
            [Effect::Halt {
                which: Which::Lost,
                ..
            }]
        ));
        assert_eq!(world.follower.next_deadline(), None);
        assert!(world.round(8, &["a:1"]));
    }

    #[test]
    fn when_the_service_was_silent_all_actors_go_at_once() {
        let mut world = World::new();
        world.round(7, &["a:1"]);
        let effects = world.see(Event::Silent);
        assert!(matches!(
            effects[..],
            [
                Effect::Route(Known::Nothing),
                Effect::Halt {
                    which: Which::Lost,
                    ..
                }
            ]
        ));
        assert_eq!(world.follower.next_deadline(), None);
        assert!(world.round(1, &["a:1"]), "nothing is left to be kept");
    }

    #[test]
    fn a_round_that_does_not_end_closes_the_stream() {
        let mut world = World::new();
        world.see(Event::Ordered(Order::Lock { version: 4 }));
        world.update(4, &["a:1"]);
        world.now += Duration::from_secs(30);
        let effects = world.see(Event::Woken);
        let text = "Dissemination timeout for version 4, closing stream to reconnect";
        assert!(matches!(effects.last(), Some(Effect::Close(cause)) if cause == text));
    }

    #[test]
    fn versions_never_go_back_on_a_stream() {
        let mut world = World::new();
        world.round(5, &["a:1"]);
        let effects = world.update(4, &["a:1"]);
        let text = "version mismatch: expected 5, got 4";
        assert!(matches!(effects.last(), Some(Effect::Close(cause)) if cause == text));
    }
}
