//! A steady load on counters: additions at a fixed rate over all of them, and a
//! reminder with every tenth. What was answered with success has to be found in
//! the counters afterwards, and no counter may have been active twice at a time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::report::{Failures, Shared};
use crate::sidecar::Sidecar;
use crate::{Counter, TYPE};

/// One addition in so many is accompanied by a reminder.
const REMIND_EVERY: u64 = 10;
/// A reminder comes within this time of its due time.
const REMINDED: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Deserialize)]
pub struct Plan {
    pub actors: u64,
    pub per_second: u32,
    pub seconds: u64,
    /// How often a call that failed is made again.
    pub retries: u32,
}

/// The state of a load, and its result.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub done: bool,
    pub calls: u64,
    /// Also after all retries.
    pub failed: u64,
    pub retried: u64,
    /// The slowest call with its retries, in milliseconds.
    pub slowest: u64,
    /// Answered with success, and not counted.
    pub lost: u64,
    /// Counted without an answer with success.
    pub extra: u64,
    /// Counters of which two activations wrote in turns.
    pub active_twice: u64,
    pub reminders: u64,
    pub reminders_lost: u64,
    pub reminders_doubled: u64,
    pub failures: Failures,
}

/// What must be in one counter.
#[derive(Debug, Default)]
struct Expected {
    count: u64,
    reminders: HashSet<String>,
}

#[derive(Clone, Default)]
pub struct Load {
    report: Shared<Report>,
    expected: Shared<HashMap<u64, Expected>>,
}

impl Load {
    pub fn report(&self) -> Report {
        self.report.with(|report| report.clone())
    }

    fn expect(&self, actor: u64, change: impl FnOnce(&mut Expected)) {
        self.expected
            .with(|all| change(all.entry(actor).or_default()));
    }

    fn failed(&self, what: String) {
        self.report.with(|report| report.failures.add(what));
    }

    /// Runs the plan to its end.
    pub async fn run(self, sidecar: Sidecar, plan: Plan) {
        self.report.with(|report| *report = Report::default());
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / plan.per_second.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let end = Instant::now() + Duration::from_secs(plan.seconds);
        let mut running = JoinSet::new();
        for number in 0.. {
            if ticks.tick().await >= end {
                break;
            }
            let (load, sidecar, plan) = (self.clone(), sidecar.clone(), plan.clone());
            running.spawn(async move { load.add(&sidecar, &plan, number).await });
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
        let expected = self.expected.with(std::mem::take);
        let deadline = Instant::now() + REMINDED;
        for (actor, expected) in expected {
            self.check(&sidecar, &plan, actor, &expected, deadline)
                .await;
        }
        self.report.with(|report| report.done = true);
    }

    async fn add(&self, sidecar: &Sidecar, plan: &Plan, number: u64) {
        let actor = number % plan.actors.max(1);
        let start = Instant::now();
        let added = self.call(sidecar, plan, actor, "add", None).await;
        let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.report.with(|report| {
            report.calls += 1;
            report.failed += u64::from(added.is_none());
            report.slowest = report.slowest.max(took);
        });
        if added.is_some() {
            self.expect(actor, |expected| expected.count += 1);
        }
        if !number.is_multiple_of(REMIND_EVERY) {
            return;
        }
        let name = format!("r{number}");
        let body = json!(name);
        let later = self.call(sidecar, plan, actor, "later", Some(&body));
        if later.await.is_some() {
            self.report.with(|report| report.reminders += 1);
            self.expect(actor, |expected| {
                expected.reminders.insert(name);
            });
        }
    }

    /// The answer, if there was one with success, at last after some retries.
    async fn call(
        &self,
        sidecar: &Sidecar,
        plan: &Plan,
        actor: u64,
        method: &str,
        body: Option<&Value>,
    ) -> Option<Value> {
        let path = format!("/v1.0/actors/{TYPE}/{actor}/method/{method}");
        for attempt in 0..=plan.retries {
            let said = match sidecar.call("PUT", &path, body).await {
                Ok((status, said)) if status.is_success() => return Some(said),
                Ok((status, said)) => format!("{method} of {actor}: {status} {said}"),
                Err(error) => format!("{method} of {actor}: {error:#}"),
            };
            self.failed(said);
            if attempt < plan.retries {
                self.report.with(|report| report.retried += 1);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        None
    }

    async fn check(
        &self,
        sidecar: &Sidecar,
        plan: &Plan,
        actor: u64,
        expected: &Expected,
        deadline: Instant,
    ) {
        let counter = loop {
            let said = self.call(sidecar, plan, actor, "get", None).await;
            let counter = said.and_then(|said| serde_json::from_value(said).ok());
            let counter: Counter = counter.unwrap_or_default();
            let all = |name: &String| counter.reminders.contains_key(name);
            if expected.reminders.iter().all(all) || Instant::now() >= deadline {
                break counter;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let unique: HashSet<_> = counter.activations.iter().collect();
        let twice = unique.len() < counter.activations.len();
        if twice {
            self.failed(format!(
                "{actor} was active twice: {:?}",
                counter.activations
            ));
        }
        let times = |name: &String| counter.reminders.get(name).copied().unwrap_or_default();
        self.report.with(|report| {
            report.lost += expected.count.saturating_sub(counter.count);
            report.extra += counter.count.saturating_sub(expected.count);
            report.active_twice += u64::from(twice);
            for name in &expected.reminders {
                report.reminders_lost += u64::from(times(name) == 0);
                report.reminders_doubled += u64::from(times(name) > 1);
            }
        });
    }
}
