//! A steady load on another application: orders at a fixed rate, and a publish
//! with every tenth. Everything that was answered with success has to be found
//! afterwards.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::report::{Failures, Shared};
use crate::sidecar::Sidecar;

/// One order in so many is accompanied by a publish.
const PUBLISH_EVERY: usize = 10;
/// Look-ups at the same time.
const READERS: usize = 8;
/// A publish is delivered within this time.
const DELIVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Deserialize)]
pub struct Plan {
    pub seller: String,
    pub pubsub: String,
    pub topic: String,
    pub per_second: u32,
    pub seconds: u64,
}

/// The state of a load, and its result.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub done: bool,
    pub ordered: usize,
    pub failed: usize,
    pub published: usize,
    /// Answered with success, but not found afterwards.
    pub lost_orders: usize,
    pub lost_events: usize,
    /// The slowest order, in milliseconds.
    pub slowest: u64,
    pub failures: Failures,
}

#[derive(Clone, Default)]
pub struct Load(Shared<Report>);

impl Load {
    pub fn report(&self) -> Report {
        self.0.with(|report| report.clone())
    }

    fn failed(&self, what: String) {
        self.0.with(|report| report.failures.add(what));
    }

    /// Runs the plan to its end.
    pub async fn run(self, sidecar: Sidecar, plan: Plan) {
        self.0.with(|report| *report = Report::default());
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / plan.per_second.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let end = Instant::now() + Duration::from_secs(plan.seconds);
        let plan = Arc::new(plan);
        let mut running = JoinSet::new();
        let (mut orders, mut events) = (Vec::new(), Vec::new());
        for number in 0.. {
            if ticks.tick().await >= end {
                break;
            }
            let (load, sidecar, plan) = (self.clone(), sidecar.clone(), plan.clone());
            running.spawn(async move { load.order(&sidecar, &plan, number).await });
            while let Some(Ok((order, event))) = running.try_join_next() {
                orders.extend(order);
                events.extend(event);
            }
        }
        while let Some(Ok((order, event))) = running.join_next().await {
            orders.extend(order);
            events.extend(event);
        }
        let lost = self.missing(&sidecar, &plan, orders, Duration::ZERO).await;
        self.0.with(|report| report.lost_orders = lost);
        let lost = self.missing(&sidecar, &plan, events, DELIVERY).await;
        self.0.with(|report| {
            report.lost_events = lost;
            report.done = true;
        });
    }

    /// The ids that have to be there from now on: of the order, of the event.
    async fn order(
        &self,
        sidecar: &Sidecar,
        plan: &Plan,
        number: usize,
    ) -> (Option<String>, Option<String>) {
        let id = format!("load-{number}");
        let order = json!({"id": id, "item": "book"});
        let path = format!("/v1.0/invoke/{}/method/orders", plan.seller);
        let start = Instant::now();
        let answer = sidecar.call("POST", &path, Some(&order)).await;
        let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ordered = match answer {
            Ok((status, said)) if status.is_success() && said["stored"] == true => true,
            Ok((status, said)) => {
                self.failed(format!("{id}: {status} {said}"));
                false
            }
            Err(error) => {
                self.failed(format!("{id}: {error:#}"));
                false
            }
        };
        self.0.with(|report| {
            report.ordered += 1;
            report.failed += usize::from(!ordered);
            report.slowest = report.slowest.max(took);
        });
        let mut event = None;
        if number.is_multiple_of(PUBLISH_EVERY) {
            let id = format!("event-{number}");
            let path = format!("/v1.0/publish/{}/{}", plan.pubsub, plan.topic);
            let news = json!({"keep": id});
            match sidecar.call("POST", &path, Some(&news)).await {
                Ok((status, _)) if status.is_success() => {
                    self.0.with(|report| report.published += 1);
                    event = Some(id);
                }
                Ok((status, said)) => self.failed(format!("{id}: {status} {said}")),
                Err(error) => self.failed(format!("{id}: {error:#}")),
            }
        }
        (ordered.then_some(id), event)
    }

    /// How many of `ids` the seller does not have within `timeout`.
    async fn missing(
        &self,
        sidecar: &Sidecar,
        plan: &Arc<Plan>,
        ids: Vec<String>,
        timeout: Duration,
    ) -> usize {
        let deadline = Instant::now() + timeout;
        let ids = Arc::new(Mutex::new(ids));
        let mut readers = JoinSet::new();
        for _ in 0..READERS {
            let (load, sidecar, plan, ids) =
                (self.clone(), sidecar.clone(), plan.clone(), ids.clone());
            readers.spawn(async move {
                let mut missing = 0;
                loop {
                    let next = ids.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(id) = next else { return missing };
                    let path = format!("/v1.0/invoke/{}/method/orders/{id}", plan.seller);
                    loop {
                        let said = match sidecar.call("GET", &path, None).await {
                            Ok((_, said)) if said["id"] == *id || said["keep"] == *id => break,
                            Ok((status, said)) => format!("{status} {said}"),
                            Err(error) => format!("{error:#}"),
                        };
                        if Instant::now() >= deadline {
                            missing += 1;
                            load.failed(format!("{id} is lost: {said}"));
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            });
        }
        readers.join_all().await.into_iter().sum()
    }
}
