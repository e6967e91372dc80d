//! Circuit breakers: closed, open for a while, and then open to a try.

use std::time::Duration;

use tokio::time::Instant;

use super::rules::{self, Strategy};
use super::window::{Counts, Window};

#[derive(Debug)]
pub struct Breaker {
    rule: rules::Breaker,
    window: Window,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
    },
    /// As many tries have gone well.
    HalfOpen {
        passed: u64,
    },
}

impl Breaker {
    pub fn new(rule: rules::Breaker, now: Instant) -> Breaker {
        Breaker {
            window: Window::new(rule.stat_interval_ms, rule.buckets(), now),
            rule,
            state: State::Closed,
        }
    }

    /// Whether a request would pass.
    pub fn passes(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } => now >= until,
            State::HalfOpen { .. } => self.rule.probe_num > 0,
        }
    }

    /// A request passes. Returns whether it is a try.
    pub fn enter(&mut self) -> bool {
        if matches!(self.state, State::Open { .. }) {
            self.state = State::HalfOpen { passed: 0 };
        }
        matches!(self.state, State::HalfOpen { .. })
    }

    /// A try was given up: another one may follow at once.
    pub fn give_up(&mut self, now: Instant) {
        if matches!(self.state, State::HalfOpen { .. }) {
            self.state = State::Open { until: now };
        }
    }

    /// A request has been answered.
    pub fn exit(&mut self, took: Duration, failed: bool, now: Instant) {
        let is_bad = match self.rule.strategy() {
            Strategy::SlowRatio => took.as_millis() > u128::from(self.rule.max_allowed_rt_ms),
            Strategy::ErrorRatio | Strategy::ErrorCount => failed,
        };
        let counts = Counts {
            all: 1,
            bad: is_bad.into(),
            time: 0.0,
        };
        self.window.add(counts, now);
        match self.state {
            State::Open { .. } => {}
            State::HalfOpen { .. } if is_bad => self.open(now),
            State::HalfOpen { passed } if passed + 1 < self.rule.probe_num => {
                self.state = State::HalfOpen { passed: passed + 1 };
            }
            State::HalfOpen { .. } => {
                self.state = State::Closed;
                self.window.clear();
            }
            State::Closed => {
                let Counts { all, bad, .. } = self.window.sum(now);
                let level = match self.rule.strategy() {
                    Strategy::ErrorCount => bad as f64,
                    Strategy::SlowRatio | Strategy::ErrorRatio => bad as f64 / all as f64,
                };
                if all >= self.rule.min_request_amount && level >= self.rule.threshold {
                    self.open(now);
                }
            }
        }
    }

    fn open(&mut self, now: Instant) {
        let pause = Duration::from_millis(self.rule.retry_timeout_ms.into());
        self.state = State::Open { until: now + pause };
    }
}
