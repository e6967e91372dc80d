//! What a leader has: the engine, and a channel to each stream.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use outrider_kit::duration;
use outrider_placement_engine::before::{Before, Hosts};
use outrider_placement_engine::{Effect, Event, Membership, Placement, Settings, StreamId};
use outrider_placement_stream::Orders;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::wire;
use crate::metrics::Metrics;

/// Orders that a stream has not taken. A round has three; a sidecar that is
/// several rounds behind is closed, and asks again.
const QUEUE: usize = 64;

/// Cloning shares it.
#[derive(Clone)]
pub struct Lead(Arc<Shared>);

struct Shared {
    id: String,
    settings: Settings,
    replication_factor: i64,
    metrics: Metrics,
    state: Mutex<State>,
    /// The next deadline may be another.
    changed: Notify,
}

enum State {
    Following,
    Leading(Box<Leading>),
    /// The process ends.
    Stopped,
}

struct Leading {
    engine: Placement,
    streams: HashMap<StreamId, mpsc::Sender<Result<Bytes, Status>>>,
    next: u64,
    /// Namespaces with metrics.
    counted: HashSet<String>,
}

impl Lead {
    pub fn new(id: String, settings: Settings, replication_factor: i64, metrics: Metrics) -> Self {
        metrics.leads(false);
        Self(Arc::new(Shared {
            id,
            settings,
            replication_factor,
            metrics,
            state: Mutex::new(State::Following),
            changed: Notify::new(),
        }))
    }

    /// Begins to serve. Returns whether that is a change. A leader that takes
    /// over from another one waits for its hosts.
    pub fn begin(&self, before: Option<Before>) -> bool {
        let mut state = self.state();
        if !matches!(*state, State::Following) {
            return false;
        }
        *state = State::Leading(Box::new(Leading {
            engine: Placement::new(self.0.settings, before),
            streams: HashMap::new(),
            next: 0,
            counted: HashSet::new(),
        }));
        self.0.metrics.leads(true);
        true
    }

    /// Ends the streams that are open: another replica serves. Returns whether
    /// that is a change.
    pub fn follow(&self) -> bool {
        let mut state = self.state();
        if !matches!(*state, State::Leading(_)) {
            return false;
        }
        if let State::Leading(leading) = std::mem::replace(&mut *state, State::Following) {
            self.end(&leading, &self.not_leader());
        }
        self.0.metrics.leads(false);
        self.0.changed.notify_one();
        true
    }

    /// Ends all streams; none is served any more.
    pub fn stop(&self) {
        let before = std::mem::replace(&mut *self.state(), State::Stopped);
        if let State::Leading(leading) = before {
            let text = "cancelling context, received signal terminated";
            self.end(&leading, &Status::unknown(text));
        }
    }

    /// Whether a stream may open now.
    pub fn serves(&self) -> Result<(), Status> {
        match &*self.state() {
            State::Leading(_) => Ok(()),
            State::Following => Err(self.not_leader()),
            State::Stopped => Err(Status::unavailable("placement server is shutting down")),
        }
    }

    /// Lets a stream in; `opened` is the event of its first message.
    pub fn open(
        &self,
        opened: impl FnOnce(StreamId) -> Event,
    ) -> Result<(StreamId, Orders), Status> {
        self.serves()?;
        let mut state = self.state();
        let State::Leading(leading) = &mut *state else {
            return Err(self.not_leader());
        };
        leading.next += 1;
        let stream = StreamId(leading.next);
        let (orders_tx, orders) = mpsc::channel(QUEUE);
        leading.streams.insert(stream, orders_tx);
        let event = opened(stream);
        if let Event::Opened { host, .. } = &event {
            tracing::info!(target: "dapr.placement.server", "Received status report connection from new namespace={} id={} host={}", host.namespace, host.app_id, host.name);
        }
        self.apply(leading, event);
        Ok((stream, orders))
    }

    pub fn handle(&self, event: Event) {
        if let State::Leading(leading) = &mut *self.state() {
            self.apply(leading, event);
        }
    }

    pub fn close(&self, stream: StreamId) {
        if let State::Leading(leading) = &mut *self.state()
            && leading.streams.remove(&stream).is_some()
        {
            self.apply(leading, Event::Closed { stream });
        }
    }

    /// The sidecars with actors that follow this replica, if it leads, or the
    /// one before.
    pub fn hosts(&self) -> Option<Option<Hosts>> {
        match &*self.state() {
            State::Leading(leading) => Some(leading.engine.followed()),
            _ => None,
        }
    }

    /// The hosts of each namespace; none if this replica does not lead.
    pub fn memberships(&self) -> Option<BTreeMap<String, Membership>> {
        match &*self.state() {
            State::Leading(leading) => {
                let all = leading.engine.memberships();
                Some(all.map(|(name, it)| (name.to_owned(), it)).collect())
            }
            _ => None,
        }
    }

    /// Wakes the engine at its deadlines.
    pub async fn keep_time(self, stopping: CancellationToken) {
        loop {
            let deadline = match &*self.state() {
                State::Leading(leading) => leading.engine.next_deadline(),
                _ => None,
            };
            let wake = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.0.changed.notified() => {}
                () = wake => self.handle(Event::Woken),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn not_leader(&self) -> Status {
        Status::failed_precondition(format!(
            "node id={} is not a leader. Only the leader can serve requests",
            self.0.id
        ))
    }

    /// Has the engine handle an event, and does what it says. A stream whose
    /// queue is full leaves, which is another event.
    fn apply(&self, leading: &mut Leading, event: Event) {
        let mut events = vec![event];
        let mut changed = false;
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            changed |= !matches!(event, Event::Acknowledged { .. });
            leading.engine.handle(Instant::now(), event, &mut effects);
            changed |= !effects.is_empty();
            for effect in effects {
                self.perform(leading, effect, &mut events);
            }
        }
        // Most acknowledgements change nothing, and counting looks at all hosts.
        if changed {
            self.count(leading);
            self.0.changed.notify_one();
        }
    }

    fn perform(&self, leading: &mut Leading, effect: Effect, events: &mut Vec<Event>) {
        match effect {
            Effect::Send { streams, order } => {
                let bytes = wire::encode(&order, self.0.replication_factor);
                for stream in streams {
                    let Some(orders_tx) = leading.streams.get(&stream) else {
                        continue;
                    };
                    if orders_tx.try_send(Ok(bytes.clone())).is_err() {
                        leading.streams.remove(&stream);
                        events.push(Event::Closed { stream });
                    }
                }
            }
            Effect::Close {
                streams,
                timeout,
                version,
            } => {
                let text = format!(
                    "dissemination timeout after {} for version {version}",
                    duration::format(timeout)
                );
                tracing::warn!(target: "dapr.placement.server", "{text}: {} sidecars are disconnected", streams.len());
                for stream in streams {
                    if let Some(orders_tx) = leading.streams.remove(&stream) {
                        finish(&orders_tx, Status::deadline_exceeded(text.as_str()));
                    }
                }
            }
        }
    }

    fn end(&self, leading: &Leading, status: &Status) {
        for orders_tx in leading.streams.values() {
            finish(orders_tx, status.clone());
        }
        self.count_none(&leading.counted);
    }

    fn count(&self, leading: &mut Leading) {
        let mut gone = std::mem::take(&mut leading.counted);
        for (name, membership) in leading.engine.memberships() {
            let set = |gauges: &outrider_telemetry::metrics::IntGaugeVec, number: usize| {
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                gauges.with_label_values(&[name]).set(number);
            };
            set(&self.0.metrics.runtimes, membership.streams);
            set(&self.0.metrics.actor_runtimes, membership.hosts.len());
            gone.remove(name);
            leading.counted.insert(name.to_owned());
        }
        self.count_none(&gone);
    }

    fn count_none(&self, namespaces: &HashSet<String>) {
        for name in namespaces {
            self.0.metrics.runtimes.with_label_values(&[name]).set(0);
            let hosts = &self.0.metrics.actor_runtimes;
            hosts.with_label_values(&[name]).set(0);
        }
    }
}

/// A stream whose queue is full ends without the reason.
fn finish(orders_tx: &mpsc::Sender<Result<Bytes, Status>>, status: Status) {
    let _full = orders_tx.try_send(Err(status));
}
