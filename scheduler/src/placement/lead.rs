//! What a leader has: the engine, and a channel to each stream.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use outrider_kit::duration;
use outrider_placement_engine::by_type::{Content, Effect, Event, Placement, Size};
use outrider_placement_engine::{Host, Settings, StreamId};
use outrider_placement_stream::Orders;
use tokio::sync::mpsc;
use tonic::Status;

use super::metrics::Metrics;
use super::{SCOPE, wire};

/// Orders that a stream has not taken. A sidecar has to answer each before the
/// next of the same round, so more than these are of one that does not read: it
/// is closed, and asks again.
const QUEUE: usize = 128;
/// How long a leader that begins waits for the sidecars that there are.
const GRACE: Duration = Duration::from_secs(1);
/// Streams of one namespace.
const MOST_STREAMS: usize = 16_384;
/// Hosts of all types of one namespace together.
const MOST_HOSTS: usize = 1 << 18;

pub struct Lead {
    engine: Placement,
    streams: HashMap<StreamId, Open>,
    next: u64,
}

struct Open {
    namespace: Arc<str>,
    orders_tx: mpsc::Sender<Result<Bytes, Status>>,
}

impl Lead {
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            engine: Placement::new(settings, now + GRACE),
            streams: HashMap::new(),
            next: 0,
        }
    }

    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.engine.next_deadline()
    }

    pub fn open(&mut self, host: Host, metrics: &Metrics) -> Result<(StreamId, Orders), Status> {
        let size = self.engine.size_of(&host.namespace);
        if size.streams >= MOST_STREAMS {
            let text = format!("namespace {} has {MOST_STREAMS} streams", host.namespace);
            return Err(Status::resource_exhausted(text));
        }
        has_room(size, &host)?;
        self.next += 1;
        let stream = StreamId(self.next);
        let (orders_tx, orders) = mpsc::channel(QUEUE);
        let namespace: Arc<str> = host.namespace.as_str().into();
        let open = Open {
            namespace: namespace.clone(),
            orders_tx,
        };
        self.streams.insert(stream, open);
        self.handle(Event::Opened { stream, host }, metrics);
        self.count(&namespace, metrics);
        Ok((stream, orders))
    }

    pub fn report(
        &mut self,
        stream: StreamId,
        host: Host,
        metrics: &Metrics,
    ) -> Result<(), Status> {
        let Some(Open { namespace, .. }) = self.streams.get(&stream) else {
            return Ok(());
        };
        if **namespace != *host.namespace {
            let text = "the namespace of a stream cannot change";
            return Err(Status::invalid_argument(text));
        }
        has_room(self.engine.size_of(namespace), &host)?;
        self.handle(Event::Reported { stream, host }, metrics);
        Ok(())
    }

    /// Has the engine handle an event, and does what it says. A stream whose
    /// queue is full leaves, which is another event. Returns whether anything
    /// follows.
    pub fn handle(&mut self, event: Event, metrics: &Metrics) -> bool {
        let mut events = vec![event];
        let mut left = HashSet::new();
        let mut is_changed = false;
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.engine.handle(Instant::now(), event, &mut effects);
            is_changed |= !effects.is_empty();
            for effect in effects {
                self.perform(effect, &mut events, &mut left, metrics);
            }
        }
        for namespace in left {
            self.count(&namespace, metrics);
        }
        is_changed
    }

    pub fn close(&mut self, stream: StreamId, metrics: &Metrics) {
        if let Some(open) = self.streams.remove(&stream) {
            self.handle(Event::Closed { stream }, metrics);
            self.count(&open.namespace, metrics);
        }
    }

    /// Ends all streams.
    pub fn end(self, status: &Status, metrics: &Metrics) {
        for open in self.streams.values() {
            open.finish(status.clone());
            metrics.forget(&open.namespace);
        }
    }

    /// Adds events that follow, and namespaces of which streams have ended.
    fn perform(
        &mut self,
        effect: Effect,
        events: &mut Vec<Event>,
        left: &mut HashSet<Arc<str>>,
        metrics: &Metrics,
    ) {
        match effect {
            Effect::Send { streams, order } => {
                match &order.content {
                    Content::Lock(types) if !types.is_empty() => metrics.begun(),
                    Content::Unlock(types) => metrics.updated(types),
                    Content::Lock(_) | Content::Update(_) => {}
                }
                let bytes = wire::encode(&order);
                for stream in streams {
                    let Some(open) = self.streams.get(&stream) else {
                        continue;
                    };
                    if open.orders_tx.try_send(Ok(bytes.clone())).is_err() {
                        left.insert(open.namespace.clone());
                        self.streams.remove(&stream);
                        events.push(Event::Closed { stream });
                    }
                }
            }
            Effect::Ended { took } => metrics.ended(took),
            Effect::Close {
                streams,
                timeout,
                seq,
            } => {
                let timeout = duration::format(timeout);
                let text = format!("dissemination timeout after {timeout} for round {seq}");
                tracing::warn!(target: SCOPE, "{text}: {} sidecars are disconnected", streams.len());
                for stream in streams {
                    if let Some(open) = self.streams.remove(&stream) {
                        open.finish(Status::deadline_exceeded(text.as_str()));
                        left.insert(open.namespace);
                    }
                }
            }
        }
    }

    fn count(&self, namespace: &str, metrics: &Metrics) {
        match self.engine.size_of(namespace).streams {
            0 => metrics.forget(namespace),
            streams => metrics.streams(namespace, streams),
        }
    }
}

fn has_room(size: Size, host: &Host) -> Result<(), Status> {
    if size.hosts + host.actor_types.len() > MOST_HOSTS {
        let text = format!(
            "namespace {} has {MOST_HOSTS} hosts of actor types",
            host.namespace
        );
        return Err(Status::resource_exhausted(text));
    }
    Ok(())
}

impl Open {
    /// A stream whose queue is full ends without the reason.
    fn finish(&self, status: Status) {
        let _full = self.orders_tx.try_send(Err(status));
    }
}
