//! Circuit breakers: <https://docs.dapr.io/operations/resiliency/policies/circuit-breakers/>.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use outrider_condition::{Condition, Scope, Value};
use tokio::time::Instant;

use crate::SCOPE;
use crate::metrics::{Kind, Sourced, Watch};

/// Failures in a row that a breaker without an expression puts up with.
const MOST_FAILURES: u32 = 5;

#[derive(Debug)]
pub struct Settings {
    pub name: String,
    /// Calls let through while half open, and how many of them have to go
    /// well.
    pub max_requests: u32,
    /// Period after which counts are cleared while closed.
    pub interval: Option<Duration>,
    /// From open to half open.
    pub timeout: Duration,
    /// None for a few failures in a row.
    pub trip: Option<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Closed,
    HalfOpen,
    Open,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::HalfOpen => "half-open",
            State::Open => "open",
        }
    }
}

/// Why a call was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    Open,
    TooManyRequests,
}

#[derive(Debug)]
pub struct Breaker {
    name: String,
    settings: Arc<Sourced<Settings>>,
    watch: Option<Watch>,
    period: Mutex<Period>,
    /// Whether it is logged already that the trip fails.
    warned: AtomicBool,
}

/// Time between two changes, or between two clearances.
#[derive(Debug)]
struct Period {
    number: u64,
    state: State,
    ends: Option<Instant>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    requests: u32,
    total_successes: u32,
    total_failures: u32,
    consecutive_successes: u32,
    consecutive_failures: u32,
}

impl Breaker {
    pub fn new(name: String, settings: &Arc<Sourced<Settings>>, watch: Option<Watch>) -> Self {
        let breaker = Self {
            name,
            settings: settings.clone(),
            watch,
            period: Mutex::new(Period {
                number: 0,
                state: State::Closed,
                ends: settings.interval.map(|interval| Instant::now() + interval),
                counts: Counts::default(),
            }),
            warned: AtomicBool::new(false),
        };
        if let Some(watch) = &breaker.watch {
            watch.state(&settings.origin, State::Closed);
        }
        breaker
    }

    /// The state right now.
    pub fn state(&self) -> State {
        self.current_period().state
    }

    /// Whether forgetting this breaker would change nothing.
    pub fn is_at_rest(&self) -> bool {
        let period = self.current_period();
        period.state == State::Closed && period.counts.total_failures == 0
    }

    /// Lets a call through, or not.
    pub fn admit(&self) -> Result<Permit<'_>, NotAdmitted> {
        let mut period = self.current_period();
        match period.state {
            State::Open => return Err(NotAdmitted::Open),
            State::HalfOpen if period.counts.requests >= self.settings.max_requests => {
                return Err(NotAdmitted::TooManyRequests);
            }
            State::HalfOpen | State::Closed => {}
        }
        period.counts.requests = period.counts.requests.saturating_add(1);
        Ok(Permit {
            breaker: self,
            number: period.number,
            success: false,
        })
    }

    /// The period at this time.
    fn current_period(&self) -> MutexGuard<'_, Period> {
        let mut period = self.period.lock().unwrap_or_else(|e| e.into_inner());
        if period.ends.is_some_and(|ends| ends < Instant::now()) {
            match period.state {
                State::Open => self.change(&mut period, State::HalfOpen),
                State::Closed | State::HalfOpen => self.begin(&mut period),
            }
        }
        period
    }

    fn change(&self, period: &mut Period, state: State) {
        let (from, to) = (period.state.name(), state.name());
        tracing::info!(target: SCOPE, "Circuit breaker {} changed state from {from} to {to}", outrider_kit::quote::go(&self.name));
        period.state = state;
        self.begin(period);
        if let Some(watch) = &self.watch {
            watch.activated(Kind::Breaker, &self.settings.origin, Some(state));
            watch.state(&self.settings.origin, state);
        }
    }

    fn begin(&self, period: &mut Period) {
        period.number += 1;
        period.counts = Counts::default();
        let length = match period.state {
            State::Closed => self.settings.interval,
            State::Open => Some(self.settings.timeout),
            State::HalfOpen => None,
        };
        period.ends = length.map(|length| Instant::now() + length);
    }

    fn settle(&self, number: u64, success: bool) {
        let mut period = self.current_period();
        // A call that began in an earlier period does not count in this one.
        if period.number != number {
            return;
        }
        period.counts.add(success);
        match (period.state, success) {
            (State::HalfOpen, false) => self.change(&mut period, State::Open),
            (State::HalfOpen, true)
                if period.counts.consecutive_successes >= self.settings.max_requests =>
            {
                self.change(&mut period, State::Closed);
            }
            (State::Closed, false) if self.trips(&period.counts) => {
                self.change(&mut period, State::Open);
            }
            _ => {}
        }
    }

    /// A trip that cannot be evaluated is replaced by the default.
    fn trips(&self, counts: &Counts) -> bool {
        let by_default = || counts.consecutive_failures > MOST_FAILURES;
        let Some(trip) = &self.settings.trip else {
            return by_default();
        };
        let values = [
            counts.requests,
            counts.total_successes,
            counts.total_failures,
            counts.consecutive_successes,
            counts.consecutive_failures,
        ];
        let values = values.map(|count| Value::Int(count.into()));
        match Scope::new(VARIABLES.into_iter().zip(values), 0).holds(trip) {
            Ok(opens) => opens,
            Err(cause) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(target: SCOPE, "the trip expression of circuit breaker {} cannot be evaluated, so the default applies (it opens after more than {MOST_FAILURES} failures in a row): {cause}", outrider_kit::quote::go(&self.name));
                }
                if let Some(watch) = &self.watch {
                    watch.trip_failed(&self.settings.origin);
                }
                by_default()
            }
        }
    }
}

/// What an expression may ask for.
pub const VARIABLES: [&str; 5] = [
    "requests",
    "totalSuccesses",
    "totalFailures",
    "consecutiveSuccesses",
    "consecutiveFailures",
];

impl Counts {
    fn add(&mut self, success: bool) {
        let (total, row, broken) = if success {
            (
                &mut self.total_successes,
                &mut self.consecutive_successes,
                &mut self.consecutive_failures,
            )
        } else {
            (
                &mut self.total_failures,
                &mut self.consecutive_failures,
                &mut self.consecutive_successes,
            )
        };
        *total = total.saturating_add(1);
        *row = row.saturating_add(1);
        *broken = 0;
    }
}

/// A call that was let through. One that is given up counts as failed.
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    number: u64,
    success: bool,
}

impl Permit<'_> {
    pub fn succeeded(mut self) {
        self.success = true;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.breaker.settle(self.number, self.success);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Origin;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker(max_requests: u32, interval: Option<Duration>, trip: Option<&str>) -> Breaker {
        let settings = Settings {
            name: "b".to_owned(),
            max_requests,
            interval,
            timeout: SECOND,
            trip: trip.map(|text| Condition::compile(text, &VARIABLES).unwrap()),
        };
        let origin = Arc::new(Origin::default());
        let settings = Arc::new(Sourced {
            value: settings,
            origin,
        });
        Breaker::new("app:m".to_owned(), &settings, None)
    }

    fn call(breaker: &Breaker, success: bool) -> Result<(), NotAdmitted> {
        let permit = breaker.admit()?;
        if success {
            permit.succeeded();
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_breaker_opens_on_the_sixth_failure_in_a_row() {
        let breaker = breaker(1, None, None);
        for success in [false, false, false, true, false, false, false, false, false] {
            call(&breaker, success).unwrap();
        }
        assert_eq!(breaker.state(), State::Closed);
        call(&breaker, false).unwrap();
        assert_eq!(breaker.state(), State::Open);
        assert_eq!(call(&breaker, true), Err(NotAdmitted::Open));
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_open_breaker_closes_after_as_many_successes_as_it_admits() {
        let breaker = breaker(2, None, Some("consecutiveFailures >= 1"));
        call(&breaker, false).unwrap();
        tokio::time::advance(SECOND).await;
        assert_eq!(breaker.state(), State::Open);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(breaker.state(), State::HalfOpen);
        let (first, second) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        assert_eq!(call(&breaker, true), Err(NotAdmitted::TooManyRequests));
        first.succeeded();
        assert_eq!(breaker.state(), State::HalfOpen);
        second.succeeded();
        assert_eq!(breaker.state(), State::Closed);
        assert!(breaker.is_at_rest());
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_open_breaker_opens_again_on_a_failure_even_of_a_call_that_was_given_up() {
        let breaker = breaker(1, None, Some("consecutiveFailures >= 1"));
        call(&breaker, false).unwrap();
        tokio::time::advance(2 * SECOND).await;
        drop(breaker.admit().unwrap());
        assert_eq!(breaker.state(), State::Open);
        tokio::time::advance(2 * SECOND).await;
        call(&breaker, true).unwrap();
        assert_eq!(breaker.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_of_an_earlier_period_do_not_count() {
        let breaker = breaker(1, None, Some("totalFailures >= 1"));
        let late = breaker.admit().unwrap();
        call(&breaker, false).unwrap();
        tokio::time::advance(2 * SECOND).await;
        call(&breaker, true).unwrap();
        drop(late);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn counts_are_cleared_every_interval() {
        let breaker = breaker(1, Some(SECOND), Some("totalFailures >= 2"));
        for _ in 0..3 {
            call(&breaker, false).unwrap();
            assert!(!breaker.is_at_rest());
            tokio::time::advance(2 * SECOND).await;
        }
        call(&breaker, false).unwrap();
        call(&breaker, false).unwrap();
        assert_eq!(breaker.state(), State::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn an_expression_decides_when_the_breaker_opens() {
        for (trip, opens) in [
            ("requests >= 2 && totalFailures * 2 >= requests", true),
            ("consecutiveSuccesses > 0", false),
            ("true", true),
        ] {
            let breaker = breaker(1, None, Some(trip));
            call(&breaker, true).unwrap();
            call(&breaker, false).unwrap();
            assert_eq!(breaker.state() == State::Open, opens, "{trip}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trip_that_fails_counts_as_none() {
        for trip in ["totalFailures", "totalFailures / totalSuccesses > 0"] {
            let breaker = breaker(1, None, Some(trip));
            for _ in 0..5 {
                call(&breaker, false).unwrap();
                assert_eq!(breaker.state(), State::Closed, "{trip}");
            }
            call(&breaker, false).unwrap();
            assert_eq!(breaker.state(), State::Open, "{trip}");
        }
    }
}
