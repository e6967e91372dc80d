//! What clients and actors have seen, and whether that may be.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use outrider_actors::Actor;

use super::calls::Outcome;
use crate::cluster::{self, History as _};
use crate::network::{End, Node};
use crate::{Report, Violation};

#[derive(Default)]
pub struct History {
    /// Where an actor has become active last.
    active: BTreeMap<Actor, End>,
    resident: BTreeSet<(Actor, End)>,
    /// Calls that have run.
    ran: BTreeSet<u64>,
    /// Calls without an answer, with the end of their time.
    open: BTreeMap<u64, (Node, Duration)>,
    /// Calls since then have to end well.
    success_from: Option<Duration>,
    began: BTreeMap<u64, Duration>,
    wrong: Option<String>,
    report: Report,
    sum: DefaultHasher,
}

impl History {
    pub fn called(&mut self, now: Duration, call: u64, node: Node, deadline: Duration) {
        self.open.insert(call, (node, deadline));
        self.began.insert(call, now);
    }

    pub fn answered(&mut self, now: Duration, call: u64, outcome: Outcome) {
        (now, call, outcome as u8).hash(&mut self.sum);
        self.open.remove(&call);
        let began = self.began.remove(&call).unwrap_or_default();
        if outcome == Outcome::Done {
            self.report.done += 1;
            if !self.ran.contains(&call) {
                self.wrong(format!("call {call} is answered and has not run"));
            }
            return;
        }
        self.report.failed += 1;
        if self.success_from.is_some_and(|from| from <= began) {
            self.wrong(format!(
                "call {call} of {:.3}s ends with {outcome:?}, although nothing is wrong any more",
                began.as_secs_f64()
            ));
        }
    }

    /// The process of a client is gone: nobody waits for its calls.
    pub fn killed(&mut self, node: Node) {
        self.open.retain(|_, (of, _)| *of != node);
        self.resident.retain(|(_, end)| end.node != node);
    }

    /// A call has its turn.
    pub fn runs(&mut self, now: Duration, call: u64, actor: &Actor, host: End) {
        (now, call, host.node).hash(&mut self.sum);
        if !self.ran.insert(call) {
            self.wrong(format!("call {call} of actor {actor} runs twice"));
        }
        if self.resident.insert((actor.clone(), host)) {
            self.active.insert(actor.clone(), host);
        }
    }

    pub fn deactivated(&mut self, actor: &Actor, host: End) {
        self.resident.remove(&(actor.clone(), host));
    }

    pub fn writes(&mut self, actor: &Actor, host: End) {
        if self.active.get(actor) != Some(&host) {
            let other = self.active.get(actor).map(|end| end.node);
            self.wrong(format!(
                "node {} writes the state of actor {actor}, which has been active at node {other:?} since",
                host.node
            ));
        }
    }

    pub fn expect_success_from(&mut self, from: Duration) {
        self.success_from = Some(from);
    }

    fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// All calls have an answer.
    pub fn end(mut self, at: Duration) -> Result<Report, Violation> {
        self.check(at)?;
        if let Some((call, (node, deadline))) = self.open.first_key_value() {
            let what = format!(
                "call {call} of node {node} has no answer, although its time was over after {:.3}s",
                deadline.as_secs_f64()
            );
            return Err(Violation { at, what });
        }
        Ok(Report {
            time: at,
            sum: self.sum.finish(),
            ..self.report
        })
    }
}

impl cluster::History for History {
    fn check(&mut self, at: Duration) -> Result<(), Violation> {
        match self.wrong.take() {
            None => Ok(()),
            Some(what) => Err(Violation { at, what }),
        }
    }
}
