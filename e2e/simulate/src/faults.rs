//! What goes wrong in a run, and when.

use std::time::Duration;

use crate::network::Node;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Kill(Node),
    Start(Node),
    Freeze(Node),
    Thaw(Node),
    Block(Node, Node),
    Unblock(Node, Node),
    /// The dates of a node jump, by seconds.
    Clock(Node, i64),
}

/// Which faults a world has.
#[derive(Debug, Clone, Copy)]
pub struct Kinds {
    pub nodes: usize,
    /// How often something begins to go wrong, on average.
    pub every: Duration,
    pub longest: Duration,
    /// Whether dates jump.
    pub clocks: bool,
}

/// Faults that begin before `end`. All are over by then, in the order of time.
pub fn plan(random: &mut fastrand::Rng, kinds: Kinds, end: Duration) -> Vec<(Duration, Fault)> {
    let mut plan = Vec::new();
    let every = kinds.every.as_millis() as u64;
    let mut at = Duration::ZERO;
    loop {
        at += Duration::from_millis(random.u64(0..every * 2));
        if at >= end {
            break;
        }
        let longest = kinds.longest.as_millis() as u64;
        let most = if random.u8(0..3) == 0 {
            longest
        } else {
            longest / 10
        };
        let over = (at + Duration::from_millis(random.u64(1..most))).min(end);
        let node = random.usize(0..kinds.nodes);
        let other = (node + random.usize(1..kinds.nodes)) % kinds.nodes;
        let (begins, ends) = match random.u8(0..10) {
            0..3 => (Fault::Kill(node), Fault::Start(node)),
            3..6 => (Fault::Freeze(node), Fault::Thaw(node)),
            6..8 => (Fault::Block(node, other), Fault::Unblock(node, other)),
            8 if kinds.clocks => {
                let seconds = random.i64(-600..600);
                plan.push((at, Fault::Clock(node, seconds)));
                continue;
            }
            _ => {
                // From everybody.
                for other in (0..kinds.nodes).filter(|other| *other != node) {
                    plan.push((at, Fault::Block(node, other)));
                    plan.push((over, Fault::Unblock(node, other)));
                }
                continue;
            }
        };
        plan.push((at, begins));
        plan.push((over, ends));
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}
