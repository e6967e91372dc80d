//! The task that owns the engine: what happens goes in, what it wants is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use outrider_host::Target;
use outrider_proto::scheduler::v1::WatchJobsResponse;
use outrider_scheduler_engine::{
    Answer, Effect, Engine, Event, Member, Now, Settings, StreamId, Subscription, key,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::jobs::{self, Jobs};
use crate::kv::Change;
use crate::metrics::Metrics;

/// Clocks may be set, so no sleep is longer than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How long a job may be on its way to a stream before the process is not healthy.
const OVERDUE: Duration = Duration::from_secs(5);
/// Answers of sidecars that wait for the engine.
const ANSWERS: usize = 4096;
/// Between two reports of health and numbers.
const REPORT: Duration = Duration::from_millis(250);
/// Steps after which the clocks are read again.
const STEPS: usize = 256;

/// One job for a stream, with the id that its answer has.
pub type Outgoing = mpsc::UnboundedReceiver<WatchJobsResponse>;

enum Input {
    Open {
        stream: StreamId,
        subscription: Subscription,
        sender: mpsc::UnboundedSender<WatchJobsResponse>,
    },
    Event(Event, Option<OwnedSemaphorePermit>),
    /// Answered when all changes before it are known.
    Flush(oneshot::Sender<()>),
}

/// To the engine. Cloning shares it.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::UnboundedSender<Input>,
    answers: Arc<Semaphore>,
    last_stream: Arc<AtomicU64>,
    connected: watch::Receiver<bool>,
}

impl Handle {
    /// What comes out of the receiver is no more than the engine allows.
    pub fn open(&self, subscription: Subscription) -> (StreamId, Outgoing) {
        let stream = self.last_stream.fetch_add(1, Ordering::Relaxed);
        let (sender, outgoing) = mpsc::unbounded_channel();
        let _ = self.inputs.send(Input::Open {
            stream,
            subscription,
            sender,
        });
        (stream, outgoing)
    }

    pub fn close(&self, stream: StreamId) {
        self.send(Event::Closed { stream }, None);
    }

    pub fn sent(&self, stream: StreamId, id: u64) {
        self.send(Event::Sent { stream, id }, None);
    }

    pub async fn answer(&self, stream: StreamId, id: u64, answer: Answer) {
        let permit = self.answers.clone().acquire_owned().await.ok();
        self.send(Event::Answered { stream, id, answer }, permit);
    }

    pub fn members(&self, members: Vec<Member>, own: usize) {
        self.send(Event::Members { members, own }, None);
    }

    /// Whether a sidecar is connected.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Waits until the engine knows what is stored by now.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.inputs.send(Input::Flush(done)).is_ok() {
            let _ = flushed.await;
        }
    }

    fn send(&self, event: Event, permit: Option<OwnedSemaphorePermit>) {
        let _ = self.inputs.send(Input::Event(event, permit));
    }
}

/// The engine, and what it needs.
pub struct Runner {
    engine: Engine,
    jobs: Jobs,
    inputs: mpsc::UnboundedReceiver<Input>,
    changes: mpsc::Receiver<Change>,
    streams: HashMap<StreamId, mpsc::UnboundedSender<WatchJobsResponse>>,
    connected: watch::Sender<bool>,
    under_way: FuturesUnordered<BoxFuture<'static, Event>>,
    metrics: Metrics,
    /// Ready while nothing is overdue.
    health: Target,
    started: Instant,
    /// When health and numbers were last reported.
    reported: Option<Duration>,
}

impl Runner {
    pub fn new(
        workers: usize,
        jobs: Jobs,
        changes: mpsc::Receiver<Change>,
        metrics: Metrics,
        health: Target,
    ) -> (Self, Handle) {
        let (inputs_tx, inputs) = mpsc::unbounded_channel();
        let (connected_tx, connected) = watch::channel(false);
        let handle = Handle {
            connected,
            inputs: inputs_tx,
            answers: Arc::new(Semaphore::new(ANSWERS)),
            last_stream: Arc::default(),
        };
        let runner = Self {
            engine: Engine::new(Settings { workers }),
            jobs,
            inputs,
            changes,
            streams: HashMap::new(),
            connected: connected_tx,
            under_way: FuturesUnordered::new(),
            metrics,
            health,
            started: Instant::now(),
            reported: None,
        };
        (runner, handle)
    }

    /// Until the members are known, all jobs are of others.
    pub fn own_nothing(&mut self) {
        let other = Member { id: 0, idle: false };
        let (members, own) = (vec![other], 1);
        self.handle(Event::Members { members, own });
    }

    fn now(&self) -> Now {
        Now {
            wall: Timestamp::now(),
            steady: self.started.elapsed(),
        }
    }

    /// Learns all jobs of the store.
    pub async fn load(&mut self) -> Result<(), Status> {
        let jobs = self.jobs.clone();
        let mut pages = jobs.pages(key::JOBS.into());
        while let Some(page) = pages.next().await? {
            let names = |kv: &outrider_proto::etcd::mvccpb::KeyValue| {
                jobs::name_of(&kv.key).unwrap_or_default().to_owned()
            };
            let (Some(first), Some(last)) = (page.first(), page.last()) else {
                break;
            };
            let counters = jobs.counters(&names(first), &names(last)).await?;
            let mut counters = counters.into_iter().peekable();
            for kv in &page {
                let name = names(kv);
                let name_of = |key: &[u8]| {
                    let key = std::str::from_utf8(key).unwrap_or_default();
                    key.strip_prefix(key::COUNTERS)
                        .unwrap_or_default()
                        .to_owned()
                };
                while counters.next_if(|it| name_of(&it.key) < name).is_some() {}
                let counter = counters.next_if(|it| name_of(&it.key) == name);
                let value = counter.as_ref().map(|it| &*it.value);
                if let Some(event) = jobs::stored(kv, value) {
                    self.handle(event);
                }
            }
        }
        Ok(())
    }

    /// Runs until `stopping` is cancelled, or the store has no changes any more.
    pub async fn run(mut self, stopping: CancellationToken) {
        loop {
            let now = self.now();
            self.report(now);
            let deadline = self.engine.next_deadline(now).unwrap_or(LONGEST_SLEEP);
            let sleep = tokio::time::sleep(deadline.min(LONGEST_SLEEP));
            tokio::select! {
                () = stopping.cancelled() => return,
                Some(input) = self.inputs.recv() => self.input(input),
                change = self.changes.recv() => match change {
                    Some(change) => self.change(change),
                    None => return,
                },
                Some(event) = self.under_way.next() => self.handle(event),
                () = sleep => self.handle(Event::Tick),
            }
            self.catch_up();
        }
    }

    /// What is there already, so that the clocks are not read for each.
    fn catch_up(&mut self) {
        for _ in 0..STEPS {
            if let Ok(change) = self.changes.try_recv() {
                self.change(change);
            } else if let Ok(input) = self.inputs.try_recv() {
                self.input(input);
            } else {
                return;
            }
        }
    }

    fn change(&mut self, change: Change) {
        if let Some(event) = jobs::event_of(change) {
            self.handle(event);
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Open {
                stream,
                subscription,
                sender,
            } => {
                self.streams.insert(stream, sender);
                self.count_streams();
                self.handle(Event::Opened {
                    stream,
                    subscription,
                });
            }
            Input::Event(event, _permit) => {
                if let Event::Closed { stream } = &event {
                    self.streams.remove(stream);
                    self.count_streams();
                }
                self.handle(event);
            }
            Input::Flush(done) => {
                while let Ok(change) = self.changes.try_recv() {
                    self.change(change);
                }
                let _ = done.send(());
            }
        }
    }

    fn count_streams(&self) {
        self.metrics.sidecars(self.streams.len());
        let connected = !self.streams.is_empty();
        self.connected
            .send_if_modified(|it| std::mem::replace(it, connected) != connected);
    }

    fn handle(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.engine.handle(self.now(), event, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Read { job, name } => {
                let jobs = self.jobs.clone();
                let read = async move { jobs.read(job, &name).await };
                self.under_way.push(Box::pin(read));
            }
            Effect::Commit { job, commit } => {
                let jobs = self.jobs.clone();
                let commit = async move { jobs.commit(job, commit).await };
                self.under_way.push(Box::pin(commit));
            }
            Effect::Send {
                stream,
                id,
                delivery,
            } => {
                let response = WatchJobsResponse {
                    name: delivery.name,
                    id,
                    data: delivery.payload,
                    metadata: Some(delivery.metadata),
                };
                // A stream that is gone is closed by an event of its own.
                if let Some(sender) = self.streams.get(&stream)
                    && sender.send(response).is_err()
                {
                    self.metrics.send_failed();
                }
            }
            Effect::Count(counted) => self.metrics.count(&counted),
            Effect::UnknownAnswer { id, .. } => {
                tracing::warn!(target: "dapr.scheduler.server", "Dropping unknown trigger response {id}");
            }
            Effect::Broken { name, why } => {
                tracing::error!(target: "dapr.scheduler.server", "job '{name}' in the store cannot be understood and does not fire: {why}");
            }
        }
    }

    fn report(&mut self, now: Now) {
        let recent = |at| now.steady.saturating_sub(at) < REPORT;
        if self.reported.is_some_and(recent) {
            return;
        }
        self.reported = Some(now.steady);
        let overdue = self.engine.overdue(now);
        let since = overdue.as_ref().map(|it| it.since).unwrap_or_default();
        self.metrics.overdue(since, self.engine.staged());
        match overdue {
            Some(job) if job.since > OVERDUE => {
                let seconds = job.since.as_secs();
                if self.health.is_ready() {
                    tracing::warn!(target: "dapr.scheduler.server", "job '{}' is due and could be delivered, and is not since {seconds}s", job.name);
                }
                self.health
                    .not_ready_because(format!("job '{}' is overdue since {seconds}s", job.name));
            }
            _ => self.health.ready(),
        }
    }
}
