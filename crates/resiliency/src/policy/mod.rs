//! Running an operation under the policies of its target.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use outrider_kit::duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::SCOPE;
use crate::breaker::{Breaker, NotAdmitted, Settings};
use crate::metrics::{Kind, Sourced, Watch};
use crate::parse::Matching;
use crate::retry::Retry;

/// A failed operation, as far as policies look at it.
pub trait Failure: fmt::Display {
    /// The HTTP status (100 and above) or gRPC code of the failure, for
    /// retries that are for some codes only. Failures without are always
    /// tried again.
    fn code(&self) -> Option<u16> {
        None
    }

    /// Whether retries for some codes only are for this failure too.
    fn is_among(&self, codes: &Matching) -> bool {
        self.code().is_none_or(|code| codes.has(code))
    }

    /// Whether trying again is useless or impossible.
    fn is_permanent(&self) -> bool {
        false
    }
}

impl Failure for String {}

/// How an operation failed in the end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error<E> {
    /// It took longer than allowed.
    #[error("context deadline exceeded")]
    TimedOut,
    /// The breaker is open.
    #[error("circuit breaker is open")]
    Open,
    /// The breaker is half open and tries others first.
    #[error("too many requests")]
    TooManyRequests,
    /// The operation itself failed.
    #[error("{0}")]
    Failed(E),
}

/// One try of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// When the policy's time for it is over.
    pub deadline: Option<Instant>,
}

/// The name of an operation in log lines.
#[derive(Debug, Clone)]
pub(crate) enum Name {
    Endpoint(String, String),
    Actor(String, String),
    Input(String),
    Output(String),
    BuiltIn(&'static str),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Endpoint(app, endpoint) => write!(f, "endpoint[{app}, {endpoint}]"),
            Name::Actor(kind, id) => write!(f, "actor[{kind}, {id}]"),
            Name::Input(component) => write!(f, "component[{component}] input"),
            Name::Output(component) => write!(f, "component[{component}] output"),
            Name::BuiltIn(name) => f.write_str(name),
        }
    }
}

/// The policies of one target, by reference to what resources say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bundle {
    pub timeout: Option<Arc<Sourced<Duration>>>,
    pub retry: Option<Arc<Sourced<Retry>>>,
    pub breaker: Option<Arc<Sourced<Settings>>>,
}

impl Bundle {
    pub fn is_empty(&self) -> bool {
        self.timeout.is_none() && self.retry.is_none() && self.breaker.is_none()
    }
}

/// What applies to one call. Made for each call; the breaker in it is shared.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) name: Name,
    pub(crate) bundle: Bundle,
    pub(crate) breaker: Option<Arc<Breaker>>,
    pub(crate) watch: Option<Watch>,
    pub(crate) stop: Option<CancellationToken>,
}

impl Policy {
    /// Whether an operation may be tried more than once.
    pub fn has_retries(&self) -> bool {
        let retry = self.bundle.retry.as_ref();
        retry.is_some_and(|retry| retry.most != Some(0))
    }

    /// The same policy, which begins no further attempt once `stop` is
    /// cancelled. The attempt that is under way then goes on.
    #[must_use]
    pub fn until(mut self, stop: &CancellationToken) -> Policy {
        self.stop = Some(stop.clone());
        self
    }

    /// Runs `operation`, as often as the policies want it. An attempt whose
    /// time is over is dropped.
    pub async fn run<T, E, F, Running>(&self, mut operation: F) -> Result<T, Error<E>>
    where
        E: Failure,
        F: FnMut(Attempt) -> Running,
        Running: Future<Output = Result<T, E>>,
    {
        self.count();
        let retry = self.bundle.retry.as_ref();
        let mut waits = retry.map(|retry| retry.waits());
        let mut number = 1;
        loop {
            let failure = match self.attempt(number, &mut operation).await {
                Ok(value) => {
                    if number > 1 {
                        tracing::info!(target: SCOPE, "Recovered processing operation {} after {number} attempts", self.name);
                    }
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            let (Some(retry), Some(waits)) = (retry, &mut waits) else {
                return Err(failure);
            };
            if self.is_stopped() || !failure.is_retried(retry) {
                return Err(failure);
            }
            let Some(wait) = waits.next() else {
                return Err(failure);
            };
            if number == 1 {
                tracing::warn!(target: SCOPE, "Error processing operation {}. Retrying in {}\u{2026}", self.name, duration::format(wait));
                tracing::debug!(target: SCOPE, "Error for operation {} was: {failure}", self.name);
            }
            if let Some(watch) = &self.watch {
                watch.activated(Kind::Retry, &retry.origin, None);
            }
            if !self.sleep(wait).await {
                return Err(failure);
            }
            number = number.saturating_add(1);
        }
    }

    async fn attempt<T, E, F, Running>(&self, number: u32, operation: &mut F) -> Result<T, Error<E>>
    where
        F: FnMut(Attempt) -> Running,
        Running: Future<Output = Result<T, E>>,
    {
        let permit = match self.breaker.as_ref().map(|breaker| breaker.admit()) {
            None => None,
            Some(Ok(permit)) => Some(permit),
            Some(Err(NotAdmitted::Open)) => return Err(Error::Open),
            Some(Err(NotAdmitted::TooManyRequests)) => return Err(Error::TooManyRequests),
        };
        let timeout = self.bundle.timeout.as_ref();
        let deadline = timeout.map(|timeout| Instant::now() + timeout.value);
        let running = operation(Attempt { number, deadline });
        let result = match (timeout, deadline) {
            (Some(timeout), Some(deadline)) => {
                let ended = tokio::time::timeout_at(deadline, running).await;
                ended.map_or_else(
                    |_| {
                        if let Some(watch) = &self.watch {
                            watch.activated(Kind::Timeout, &timeout.origin, None);
                        }
                        Err(Error::TimedOut)
                    },
                    |result| result.map_err(Error::Failed),
                )
            }
            _ => running.await.map_err(Error::Failed),
        };
        if let (Some(permit), true) = (permit, result.is_ok()) {
            permit.succeeded();
        }
        result
    }

    fn count(&self) {
        let Some(watch) = &self.watch else { return };
        let Bundle { timeout, retry, .. } = &self.bundle;
        if let Some(timeout) = timeout {
            watch.applied(Kind::Timeout, &timeout.origin, None);
        }
        if let Some(retry) = retry {
            watch.applied(Kind::Retry, &retry.origin, None);
        }
        if let (Some(breaker), Some(settings)) = (&self.breaker, &self.bundle.breaker) {
            watch.applied(Kind::Breaker, &settings.origin, Some(breaker.state()));
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.is_cancelled())
    }

    /// Returns false if it was interrupted by `stop`.
    async fn sleep(&self, wait: Duration) -> bool {
        match &self.stop {
            None => {
                tokio::time::sleep(wait).await;
                true
            }
            Some(stop) => tokio::time::timeout(wait, stop.cancelled()).await.is_err(),
        }
    }
}

impl<E: Failure> Error<E> {
    fn is_retried(&self, retry: &Retry) -> bool {
        match self {
            Error::TimedOut => true,
            Error::Open | Error::TooManyRequests => false,
            Error::Failed(failure) => !failure.is_permanent() && failure.is_among(&retry.matching),
        }
    }
}

#[cfg(test)]
mod tests;
