//! Finished spans, on their way to the collectors: a queue and a task for each.

mod client;
mod otlp;
mod queue;
mod stdout;
#[cfg(test)]
pub(crate) mod tests;
mod zipkin;

use std::sync::Arc;
use std::time::Duration;

use outrider_host::Tasks;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use client::Endpoint;
pub use otlp::{Otlp, Protocol, headers};
pub use queue::Batching;
use queue::Queue;
pub use zipkin::Zipkin;

use crate::span::Finished;

pub(crate) const SCOPE: &str = "dapr.runtime.trace";
/// What instrumentation calls itself, the same as that of the reference.
pub(crate) const TRACER: &str = "dapr-diagnostics";
/// How long a process that ends waits for a collector.
const FLUSH: Duration = Duration::from_secs(2);
/// Time between two lines about spans that did not arrive.
const QUIET: Duration = Duration::from_secs(30);

/// What every span says about this sidecar.
pub type Resource = Vec<(String, String)>;

/// The queues of all collectors.
#[derive(Default)]
pub struct Exporting(Vec<Arc<Queue>>);

/// How many spans a collector got, and how many were dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    pub exporter: &'static str,
    pub sent: u64,
    pub dropped: u64,
}

impl Exporting {
    /// Starts a task for each collector. It sends what is left when `tasks`
    /// are stopped, within a bounded time.
    pub(crate) fn start(
        collectors: Vec<Collector>,
        batching: Batching,
        resource: Resource,
        tasks: &Tasks,
    ) -> Self {
        let resource = Arc::new(resource);
        let queues = collectors.into_iter().map(|collector| {
            let queue = Arc::new(Queue::new(collector.name(), batching));
            let sending = Sending {
                queue: queue.clone(),
                collector,
                resource: resource.clone(),
                logged: Logged::default(),
            };
            tasks.spawn("trace exporter", sending.run(tasks.stopping()));
            queue
        });
        Self(queues.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&self, span: Finished) {
        let span = Arc::new(span);
        for queue in &self.0 {
            queue.push(span.clone());
        }
    }

    pub fn counts(&self) -> Vec<Counts> {
        let counts = self.0.iter().map(|queue| Counts {
            exporter: queue.name,
            sent: queue.sent(),
            dropped: queue.dropped(),
        });
        counts.collect()
    }
}

/// Where spans go.
pub enum Collector {
    Stdout,
    Zipkin(Zipkin),
    Otlp(Otlp),
}

/// Why a batch did not arrive.
#[derive(Debug)]
pub(crate) struct Failed {
    cause: String,
    /// How long to wait before it is sent again; none if that is no use.
    again: Option<Duration>,
}

impl Failed {
    fn final_because(cause: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            again: None,
        }
    }

    fn passing_because(cause: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            again: Some(Duration::ZERO),
        }
    }
}

/// What a collector made of a batch that arrived.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Spans that it does not want.
    refused: usize,
    why: String,
}

impl Collector {
    fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Zipkin(_) => "zipkin",
            Self::Otlp(_) => "otlp",
        }
    }

    /// The time that its configuration gives a batch.
    fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Otlp(otlp) => Some(otlp.timeout),
            Self::Stdout | Self::Zipkin(_) => None,
        }
    }
}

/// A collector with its queue.
struct Sending {
    queue: Arc<Queue>,
    collector: Collector,
    resource: Arc<Resource>,
    logged: Logged,
}

/// What the log says of dropped spans.
#[derive(Default)]
struct Logged {
    dropped: u64,
    /// When the last line about them was written.
    at: Option<Instant>,
}

impl Sending {
    async fn run(mut self, stopping: CancellationToken) {
        // The flush of the last spans has one time limit in all.
        let end = async {
            stopping.cancelled().await;
            tokio::time::sleep(FLUSH).await;
        };
        let working = async {
            while stopping
                .run_until_cancelled(self.queue.batch())
                .await
                .is_some()
            {
                self.send(&stopping).await;
            }
            while self.queue.len() > 0 {
                self.send(&stopping).await;
            }
        };
        tokio::select! {
            () = working => {}
            () = end => {
                // Those under way are not known to be lost.
                let left = self.queue.len();
                self.queue.lost(left);
                self.log_dropped("the sidecar ended before they were sent", true);
            }
        }
    }

    /// Sends a batch, again and again where that may help, but not once the
    /// sidecar is `stopping`.
    async fn send(&mut self, stopping: &CancellationToken) {
        let batch = self.queue.next();
        let limit = self.queue.batching.timeout;
        let limit = self.collector.timeout().map_or(limit, |own| own.min(limit));
        let deadline = Instant::now() + limit;
        let mut backoff = Duration::from_secs(1);
        loop {
            let sending = self.once(&batch);
            let sent = tokio::time::timeout_at(deadline, sending).await;
            let failed = match sent {
                Ok(Ok(taken)) => {
                    let refused = taken.refused.min(batch.len());
                    self.queue.arrived(batch.len() - refused);
                    self.queue.lost(refused);
                    self.log_dropped(&taken.why, false);
                    return;
                }
                Ok(Err(failed)) => failed,
                Err(_) => Failed::final_because(format!(
                    "the collector did not answer within {}",
                    outrider_kit::duration::format(limit)
                )),
            };
            let wait = failed.again.map(|wait| wait.max(backoff));
            let wait = wait.filter(|wait| Instant::now() + *wait < deadline);
            match wait.filter(|_| !stopping.is_cancelled()) {
                Some(wait) => {
                    let waiting = tokio::time::sleep(wait);
                    stopping.run_until_cancelled(waiting).await;
                }
                None => {
                    self.queue.lost(batch.len());
                    self.log_dropped(&failed.cause, false);
                    return;
                }
            }
            backoff *= 2;
        }
    }

    async fn once(&mut self, batch: &[Arc<Finished>]) -> Result<Taken, Failed> {
        match &mut self.collector {
            Collector::Stdout => {
                stdout::write(batch);
                Ok(Taken::default())
            }
            Collector::Zipkin(zipkin) => zipkin.send(batch, &self.resource).await,
            Collector::Otlp(otlp) => otlp.send(batch, &self.resource).await,
        }
    }

    /// Says how many spans were dropped since the last line about it, now and
    /// then.
    fn log_dropped(&mut self, cause: &str, last: bool) {
        let dropped = self.queue.dropped();
        let Logged {
            dropped: before,
            at: when,
        } = self.logged;
        let is_due = when.is_none_or(|when| when.elapsed() >= QUIET);
        if dropped == before || !(is_due || last) {
            return;
        }
        let number = dropped - before;
        let cause = match cause {
            "" => "the collector takes spans too slowly",
            cause => cause,
        };
        tracing::warn!(target: SCOPE, "{number} spans were dropped on their way to {}: {cause}", self.queue.name);
        self.logged = Logged {
            dropped,
            at: Some(Instant::now()),
        };
    }
}
