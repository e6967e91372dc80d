//! `middleware.http.sentinel`: <https://docs.dapr.io/reference/components-reference/supported-middleware/middleware-sentinel/>.

mod breaker;
mod rules;
mod window;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use outrider_components::middleware::{
    Body, BoxError, Middleware, Next, Outcome, Request, decoded_path, refusal_by_status,
};
use outrider_components::{Context, Error, Field, Metadata};
use tokio::time::Instant;

use self::breaker::Breaker;
use self::rules::Metric;
use self::window::{Counts, Window};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";

/// Buckets in which passing requests are counted.
const BUCKETS: u32 = 10;

outrider_components::fields! {
    struct Fields {
        /// The name of the application, which rules do not depend on.
        "appName" => app: String;
        /// Nothing is written there: what is refused stands in the sidecar's
        /// log at debug level.
        "logDir" => log: Option<String>;
        /// How many requests of a resource (`GET:/v1.0/..`) pass in an
        /// interval: a JSON list of rules with `resource`, `threshold`,
        /// `statIntervalInMs`, `controlBehavior` (0 refuses, 1 has requests
        /// wait for up to `maxQueueingTimeMs`), `relationStrategy` and
        /// `refResource`. The `tokenCalculateStrategy` is 0.
        "flowRules" => flow: Option<String>;
        /// When requests of a resource are refused for a while: a JSON list of
        /// rules with `resource`, `strategy` (0 the ratio of slow requests, 1
        /// the ratio of errors, 2 their count), `threshold`, `retryTimeoutMs`,
        /// `minRequestAmount`, `statIntervalMs`,
        /// `statSlidingWindowBucketCount`, `maxAllowedRtMs` and `probeNum`. An
        /// error is a status of 500 and more, or no answer.
        "circuitBreakerRules" => breakers: Option<String>;
        /// Not supported: requests have no parameters that these rules could
        /// be about.
        "hotSpotParamRules" => hot_spots: Option<String>;
        /// How many requests of a resource may be under way: a JSON list of
        /// rules with `resource` and `threshold`.
        "isolationRules" => isolation: Option<String>;
        /// When no request passes at all: a JSON list of rules with
        /// `metricType` (1 the average time of requests in milliseconds, 2
        /// requests under way, 3 requests in a second) and `triggerCount`.
        "systemRules" => system: Option<String>;
    }
}

struct Sentinel(Arc<Mutex<State>>);

struct State {
    /// Those that rules are about.
    resources: HashMap<String, Resource>,
    system: Vec<rules::System>,
    /// Of all requests in a second.
    passed: Window,
    answered: Window,
    under_way: u64,
}

#[derive(Default)]
struct Resource {
    flow: Vec<Flow>,
    /// Flow rules, by resource and place, that count the requests of this one.
    counted_by: Vec<(String, usize)>,
    breakers: Vec<Breaker>,
    /// Requests that may be under way.
    most: Option<u64>,
    under_way: u64,
}

struct Flow {
    rule: rules::Flow,
    passed: Window,
    /// When the last request that waits will pass.
    last: Option<Instant>,
}

/// Reads the rules.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Middleware>, Error> {
    let fields = Fields::read(&metadata)?;
    if fields.hot_spots.is_some() {
        return Err(metadata.wrong(
            "hotSpotParamRules",
            "is not supported: requests have no parameters for it, use flowRules",
        ));
    }
    if let Some(folder) = fields.log {
        tracing::warn!(target: SCOPE, "component {}: nothing is written to logDir {folder:?}", metadata.component());
    }
    let wrong = |name: &'static str| {
        let metadata = metadata.clone();
        move |what: String| metadata.wrong(name, what)
    };
    let now = Instant::now();
    let mut state = State {
        resources: HashMap::new(),
        system: rules::read(fields.system.as_deref()).map_err(wrong("systemRules"))?,
        passed: Window::new(1000, BUCKETS, now),
        answered: Window::new(1000, BUCKETS, now),
        under_way: 0,
    };
    let flow = rules::read(fields.flow.as_deref()).map_err(wrong("flowRules"))?;
    for rule in flow {
        state.add_flow(rule, now);
    }
    let breakers = rules::read(fields.breakers.as_deref()).map_err(wrong("circuitBreakerRules"))?;
    for rule in breakers {
        let rule: rules::Breaker = rule;
        let resource = state.resources.entry(rule.resource.clone()).or_default();
        resource.breakers.push(Breaker::new(rule, now));
    }
    let isolation = rules::read(fields.isolation.as_deref()).map_err(wrong("isolationRules"))?;
    for rule in isolation {
        let rules::Isolation {
            resource,
            threshold,
            ..
        } = rule;
        let resource = state.resources.entry(resource).or_default();
        let most = u64::from(threshold);
        resource.most = Some(resource.most.map_or(most, |other| other.min(most)));
    }
    tracing::debug!(target: SCOPE, "component {}: the rules of {} are read", metadata.component(), fields.app);
    Ok(Arc::new(Sentinel(Arc::new(Mutex::new(state)))))
}

impl State {
    fn add_flow(&mut self, rule: rules::Flow, now: Instant) {
        let counted = rule.counted().to_owned();
        let resource = self.resources.entry(rule.resource.clone()).or_default();
        let place = (rule.resource.clone(), resource.flow.len());
        resource.flow.push(Flow {
            passed: Window::new(rule.interval(), BUCKETS, now),
            last: None,
            rule,
        });
        let counted = self.resources.entry(counted).or_default();
        counted.counted_by.push(place);
    }

    /// How long a request of a resource has to wait, or by which kind of rule
    /// it is refused. A request that passes is counted.
    fn enter(&mut self, name: &str, now: Instant) -> Result<Passed, &'static str> {
        for rule in &self.system {
            let level = match rule.metric() {
                Metric::Requests => self.passed.sum(now).all as f64,
                Metric::Concurrency => self.under_way as f64,
                Metric::Time => {
                    let Counts { all, time, .. } = self.answered.sum(now);
                    time / (all.max(1) as f64)
                }
            };
            if level >= rule.trigger_count {
                return Err("systemRules");
            }
        }
        let mut wait = Duration::ZERO;
        let mut tries = Vec::new();
        if let Some(resource) = self.resources.get_mut(name) {
            if resource.most.is_some_and(|most| resource.under_way >= most) {
                return Err("isolationRules");
            }
            if !resource.breakers.iter().all(|breaker| breaker.passes(now)) {
                return Err("circuitBreakerRules");
            }
            for flow in &mut resource.flow {
                wait = wait.max(flow.check(now).ok_or("flowRules")?);
            }
            resource.under_way += 1;
            let counted_by = resource.counted_by.clone();
            for (place, breaker) in resource.breakers.iter_mut().enumerate() {
                if breaker.enter() {
                    tries.push(place);
                }
            }
            for (resource, place) in counted_by {
                let resource = self.resources.get_mut(&resource);
                if let Some(flow) = resource.and_then(|resource| resource.flow.get_mut(place)) {
                    flow.passed.add(ONE, now);
                }
            }
        }
        self.passed.add(ONE, now);
        self.under_way += 1;
        Ok(Passed { wait, tries })
    }

    fn exit(&mut self, name: &str, took: Duration, failed: bool, now: Instant) {
        let counts = Counts {
            time: took.as_secs_f64() * 1000.0,
            ..ONE
        };
        self.answered.add(counts, now);
        let breakers = self.resources.get_mut(name).map(|r| &mut r.breakers);
        for breaker in breakers.into_iter().flatten() {
            breaker.exit(took, failed, now);
        }
    }
}

const ONE: Counts = Counts {
    all: 1,
    bad: 0,
    time: 0.0,
};

impl Flow {
    /// How long a request has to wait, unless there are too many.
    fn check(&mut self, now: Instant) -> Option<Duration> {
        let threshold = self.rule.threshold;
        if !self.rule.throttles() {
            let count = self.passed.sum(now).all as f64;
            return (count + 1.0 <= threshold).then_some(Duration::ZERO);
        }
        if threshold < 1.0 {
            return None;
        }
        let interval = Duration::from_millis(self.rule.interval().into()).div_f64(threshold);
        let next = self.last.map_or(now, |last| last + interval).max(now);
        let wait = next - now;
        if wait > Duration::from_millis(self.rule.max_queueing_time_ms.into()) {
            return None;
        }
        self.last = Some(next);
        Some(wait)
    }
}

/// A request may go on.
struct Passed {
    wait: Duration,
    /// The breakers of its resource whose try it is.
    tries: Vec<usize>,
}

/// A request that has passed, until its answer has ended.
struct Entry {
    tries: Vec<usize>,
    state: Arc<Mutex<State>>,
    resource: String,
    answered: bool,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        state.under_way = state.under_way.saturating_sub(1);
        if let Some(resource) = state.resources.get_mut(&self.resource) {
            resource.under_way = resource.under_way.saturating_sub(1);
            if !self.answered {
                let now = Instant::now();
                for place in &self.tries {
                    if let Some(breaker) = resource.breakers.get_mut(*place) {
                        breaker.give_up(now);
                    }
                }
            }
        }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Middleware for Sentinel {
    async fn handle(&self, request: Request, next: Next<'_>) -> Outcome {
        let Sentinel(state) = self;
        let resource = format!("{}:{}", request.method(), decoded_path(request.uri()));
        let entered = locked(state).enter(&resource, Instant::now());
        let Passed { wait, tries } = match entered {
            Ok(passed) => passed,
            Err(rules) => {
                tracing::debug!(target: SCOPE, "a request of {resource:?} is refused by {rules}");
                return Ok(refusal_by_status(StatusCode::TOO_MANY_REQUESTS));
            }
        };
        let mut entry = Entry {
            tries,
            state: state.clone(),
            resource,
            answered: false,
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let began = Instant::now();
        let outcome = next.run(request).await;
        let failed = match &outcome {
            Ok(response) => response.status().is_server_error(),
            Err(_) => true,
        };
        let now = Instant::now();
        locked(state).exit(&entry.resource, now - began, failed, now);
        entry.answered = true;
        Ok(outcome?.map(|body| Held { body, entry }.boxed_unsync()))
    }
}

/// The body of an answer, whose request is under way until its end.
struct Held {
    body: Body,
    #[expect(dead_code, reason = "dropped with the body")]
    entry: Entry,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
