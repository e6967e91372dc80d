//! Subscriptions: what is asked for, and keeping it running.
//! <https://docs.dapr.io/developing-applications/building-blocks/pubsub/subscription-methods/>

pub(crate) mod app;
pub(crate) mod bulk;
pub(crate) mod deliver;
mod inlet;
pub(crate) mod rules;
pub mod stream;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use outrider_components::pubsub::SubscribeRequest;
use outrider_components::{Kind, Pairs};
use outrider_crds::subscription::Spec;
use outrider_host::{Tasks, Workers};
use outrider_resiliency::{BuiltIn, Resiliency};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Broker, ops};
use crate::blocks::state::Store;
use crate::blocks::state::outbox::Outbox;
use crate::blocks::state::outbox::relay::Relay;
use crate::components::map::Map;
use inlet::{Inlet, To};
use outrider_call::channel::Channel;
use rules::Rules;
use stream::Outlet;

const SCOPE: &str = "dapr.runtime.processor.subscription";
/// Pauses between tries to start a subscription.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a broker may take to pause.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// Who asked for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Declarative,
    Programmatic,
    Streaming,
}

/// A subscription that makes sense.
#[derive(Debug)]
pub struct Subscription {
    pub source: Source,
    pub spec: Spec,
    pub rules: Rules,
    /// Whether messages come without an envelope.
    raw: bool,
}

impl Subscription {
    pub fn new(source: Source, spec: Spec) -> Result<Self, String> {
        let metadata: Pairs = spec.metadata.clone().into_iter().collect();
        Ok(Self {
            source,
            rules: Rules::compile(&spec.routes)?,
            raw: ops::is_raw(&metadata)?,
            spec,
        })
    }
}

/// Keeps the subscriptions running that are wanted: those of resources and of
/// the application while it is healthy, those of streams while they last.
#[derive(Clone)]
pub struct Subscriber(Arc<Inner>);

struct Inner {
    app_id: String,
    brokers: Arc<Map<Broker>>,
    channel: Option<Arc<Channel>>,
    /// Whether the application may be asked what it subscribes to.
    asks: bool,
    resiliency: Resiliency,
    workers: Workers,
    tasks: Tasks,
    /// Cancelled when subscriptions end for good.
    ending: CancellationToken,
    outbox: Arc<Outbox>,
    relay: Relay,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With the names of their resources.
    declared: Vec<(String, Arc<Subscription>)>,
    /// Why others of resources are not in use, by name.
    refused: BTreeMap<String, String>,
    programmatic: Vec<Arc<Subscription>>,
    asked: bool,
    /// Whether the application takes messages.
    up: bool,
    streams: BTreeMap<u64, Stream>,
    next_stream: u64,
    running: HashMap<Key, Running>,
}

struct Stream {
    subscription: Arc<Subscription>,
    outlet: Arc<Outlet>,
    /// Told how the first try to subscribe went.
    first: Option<oneshot::Sender<Result<(), String>>>,
}

/// Component, topic and stream.
type Key = (String, String, Option<u64>);

/// A subscription that has to run.
struct Wanted {
    key: Key,
    broker: Arc<Broker>,
    subscription: Arc<Subscription>,
    to: To,
}

struct Running {
    broker: Arc<Broker>,
    subscription: Arc<Subscription>,
    stop: CancellationToken,
    /// Cancelled after the first try to subscribe.
    tried: CancellationToken,
    /// Cancelled when nothing of it is left.
    done: CancellationToken,
}

pub struct Options {
    pub app_id: String,
    pub brokers: Arc<Map<Broker>>,
    pub channel: Option<Arc<Channel>>,
    pub asks: bool,
    pub resiliency: Resiliency,
    pub workers: Workers,
    pub tasks: Tasks,
    /// Whose outboxes are emptied; whatever becomes of the application.
    pub stores: Arc<Map<Store>>,
    pub namespace: String,
}

impl Subscriber {
    pub fn new(options: Options) -> Self {
        let (app_id, brokers) = (options.app_id.clone(), options.brokers.clone());
        let outbox = Arc::new(Outbox::new(app_id, options.namespace, brokers));
        let (workers, tasks) = (options.workers.clone(), options.tasks.clone());
        let relay = Relay::new(outbox.clone(), options.stores, workers, tasks);
        Self(Arc::new(Inner {
            app_id: options.app_id,
            brokers: options.brokers,
            channel: options.channel,
            asks: options.asks,
            resiliency: options.resiliency,
            workers: options.workers,
            tasks: options.tasks,
            ending: CancellationToken::new(),
            outbox,
            relay,
            state: Mutex::default(),
        }))
    }

    /// What transactions publish with, and the subscriptions to what they published.
    pub fn outbox(&self) -> Arc<Outbox> {
        self.0.outbox.clone()
    }

    /// Replaces the subscriptions of resources. One that makes no sense leaves
    /// the one before of its name in use. Returns why, by the names of those.
    pub fn declare(&self, resources: Vec<outrider_crds::Subscription>) -> BTreeMap<String, String> {
        let mut declared = Vec::with_capacity(resources.len());
        let mut refused = BTreeMap::new();
        let mut state = self.0.state();
        for resource in resources {
            let name = resource.metadata.name;
            let before = state.declared.iter().find(|(old, _)| *old == name);
            let before = before.map(|(_, subscription)| subscription.clone());
            match Subscription::new(Source::Declarative, resource.spec) {
                Ok(subscription) => declared.push((name, Arc::new(subscription))),
                Err(cause) => {
                    // Other changes say nothing new about this one.
                    if state.refused.get(&name) != Some(&cause) {
                        let meanwhile = match before {
                            Some(_) => "cannot be used, the one before stays in use",
                            None => "is left out",
                        };
                        tracing::error!(target: SCOPE, "subscription {name} {meanwhile}, correct it: {cause}");
                    }
                    declared.extend(before.map(|before| (name.clone(), before)));
                    refused.insert(name, cause);
                }
            }
        }
        // An unchanged subscription goes on undisturbed.
        for (_, new) in &mut declared {
            let mut old = state.declared.iter().map(|(_, old)| old);
            if let Some(old) = old.find(|old| old.spec == new.spec) {
                *new = old.clone();
            }
        }
        state.declared = declared;
        state.refused = refused.clone();
        self.0.reconcile(&mut state);
        refused
    }

    /// Begins deliveries to the application, which is healthy now. Returns
    /// when every broker has been asked once.
    pub async fn start(&self) {
        self.0.state().up = true;
        self.refresh().await;
        self.0.announce();
        let tried = self
            .0
            .state()
            .running
            .values()
            .map(|r| r.tried.clone())
            .collect::<Vec<_>>();
        for tried in tried {
            tried.cancelled().await;
        }
    }

    /// Ends deliveries to the application, which is unhealthy now.
    pub fn stop(&self) {
        let mut state = self.0.state();
        state.up = false;
        self.0.reconcile(&mut state);
    }

    /// Follows a change of the brokers.
    pub async fn refresh(&self) {
        if self.0.takes_its_turn_to_ask() {
            let programmatic = self.0.ask().await;
            self.0.state().programmatic = programmatic;
        }
        self.0.reconcile(&mut self.0.state());
    }

    /// Ends every subscription for good. Messages at hand are still delivered.
    pub fn finish(&self) {
        self.0.ending.cancel();
        self.0.reconcile(&mut self.0.state());
    }

    /// The same, and waits for the messages at hand.
    pub async fn end(&self) {
        self.finish();
        self.0.tasks.stop(None).await;
    }

    fn ending(&self) -> CancellationToken {
        self.0.ending.clone()
    }

    /// What there is, for the metadata API.
    pub fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        let state = self.0.state();
        let mut all = state.of_app();
        all.extend(state.streams.values().map(|s| s.subscription.clone()));
        all
    }

    /// Subscribes for a stream; the number is for [`Subscriber::remove`].
    async fn add(
        &self,
        subscription: Arc<Subscription>,
        outlet: Arc<Outlet>,
    ) -> Result<u64, String> {
        let (first, answer) = oneshot::channel();
        let number = {
            let mut state = self.0.state();
            if self.0.ending.is_cancelled() {
                return Err("stream closed".to_owned());
            }
            let number = state.next_stream;
            state.next_stream += 1;
            let stream = Stream {
                subscription,
                outlet,
                first: Some(first),
            };
            state.streams.insert(number, stream);
            self.0.reconcile(&mut state);
            number
        };
        match answer.await {
            Ok(Ok(())) => Ok(number),
            failed => {
                self.remove(number);
                Err(failed
                    .ok()
                    .and_then(Result::err)
                    .unwrap_or_else(|| "stream closed".to_owned()))
            }
        }
    }

    fn remove(&self, stream: u64) {
        let mut state = self.0.state();
        state.streams.remove(&stream);
        self.0.reconcile(&mut state);
    }
}

impl State {
    /// One subscription per topic: the first resource, or what the
    /// application says instead.
    fn of_app(&self) -> Vec<Arc<Subscription>> {
        let mut all: Vec<Arc<Subscription>> = Vec::new();
        let same = |a: &Subscription, b: &Subscription| {
            a.spec.pubsubname == b.spec.pubsubname && a.spec.topic == b.spec.topic
        };
        for (_, declared) in &self.declared {
            if !all.iter().any(|have| same(have, declared)) {
                all.push(declared.clone());
            }
        }
        for programmatic in &self.programmatic {
            match all.iter_mut().find(|have| same(have, programmatic)) {
                Some(have) => *have = programmatic.clone(),
                None => all.push(programmatic.clone()),
            }
        }
        all
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether the application is to be asked, which happens once.
    fn takes_its_turn_to_ask(&self) -> bool {
        let mut state = self.state();
        let turn = state.up && !state.asked && !self.brokers.load().is_empty();
        state.asked |= turn;
        turn
    }

    async fn ask(&self) -> Vec<Arc<Subscription>> {
        let Some(channel) = &self.channel else {
            return Vec::new();
        };
        if !self.asks {
            tracing::warn!(target: SCOPE, "Skipping programmatic subscription loading (see 'disable-init-endpoints' flag/annotation)");
            return Vec::new();
        }
        let specs = {
            let policy = self.resiliency.built_in(BuiltIn::Initialization);
            app::ask(channel, &self.app_id, &policy).await
        };
        let compile = |spec: Spec| {
            let topic = spec.topic.clone();
            match Subscription::new(Source::Programmatic, spec) {
                Ok(subscription) => Some(Arc::new(subscription)),
                Err(cause) => {
                    tracing::error!(target: SCOPE, "error getting topics from app: the subscription to topic {topic} is left out, correct it: {cause}");
                    None
                }
            }
        };
        specs.into_iter().filter_map(compile).collect()
    }

    fn announce(&self) {
        let mut topics: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for subscription in self.state().of_app() {
            let spec = &subscription.spec;
            let topics = topics.entry(spec.pubsubname.clone()).or_default();
            topics.push(spec.topic.clone());
        }
        for (pubsub, topics) in topics {
            let topics = topics.join(" ");
            tracing::info!(target: SCOPE, "app is subscribed to the following topics: [[{topics}]] through pubsub={pubsub}");
        }
    }

    /// Stops what is not wanted any more and starts what is missing.
    fn reconcile(self: &Arc<Self>, state: &mut State) {
        self.relay.follow(self.ending.is_cancelled());
        let wanted = self.wanted(state);
        let kept: HashSet<&Key> = wanted.iter().map(|w| &w.key).collect();
        state.running.retain(|key, running| {
            let keep = kept.contains(key);
            if !keep {
                running.stop.cancel();
            }
            keep
        });
        for wanted in wanted {
            let Wanted {
                key,
                broker,
                subscription,
                to,
            } = wanted;
            let before = state.running.get(&key).filter(|r| !r.done.is_cancelled());
            if before.is_some_and(|r| {
                Arc::ptr_eq(&r.broker, &broker) && Arc::ptr_eq(&r.subscription, &subscription)
            }) {
                continue;
            }
            // Two subscriptions at one broker would both get every message; one
            // at a broker that takes over begins while the one before finishes.
            let before = before.and_then(|running| {
                running.stop.cancel();
                Arc::ptr_eq(&running.broker, &broker).then(|| running.done.clone())
            });
            let first = key.2.and_then(|n| state.streams.get_mut(&n)?.first.take());
            let running = Running {
                broker,
                subscription,
                stop: CancellationToken::new(),
                tried: CancellationToken::new(),
                done: CancellationToken::new(),
            };
            let job = Job {
                inlet: Inlet {
                    broker: running.broker.clone(),
                    subscription: running.subscription.clone(),
                    to,
                    stop: running.stop.clone(),
                    resiliency: self.resiliency.clone(),
                },
                stop: running.stop.clone(),
                ending: self.ending.clone(),
                tried: Some(running.tried.clone().drop_guard()),
                first,
            };
            let done = running.done.clone();
            state.running.insert(key, running);
            self.tasks
                .spawn_on(&self.workers.next(), "subscription", async move {
                    let _done = done.drop_guard();
                    if let Some(before) = before {
                        before.cancelled().await;
                    }
                    job.run().await;
                });
        }
    }

    fn wanted(&self, state: &State) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        if self.ending.is_cancelled() {
            return wanted;
        }
        let mut want = |subscription: &Arc<Subscription>, stream: Option<u64>, to: To| {
            let spec = &subscription.spec;
            if let Some(broker) = self.brokers.get(&spec.pubsubname) {
                let key = (spec.pubsubname.clone(), spec.topic.clone(), stream);
                wanted.push(Wanted {
                    key,
                    broker,
                    subscription: subscription.clone(),
                    to,
                });
            }
        };
        if let (true, Some(channel)) = (state.up, &self.channel) {
            for subscription in state.of_app() {
                want(&subscription, None, To::App(channel.clone()));
            }
        }
        for (number, stream) in &state.streams {
            want(
                &stream.subscription,
                Some(*number),
                To::Stream(stream.outlet.clone()),
            );
        }
        wanted
    }
}

/// One subscription from its start to its end.
struct Job {
    inlet: Inlet,
    stop: CancellationToken,
    /// Cancelled before `stop` when the process ends.
    ending: CancellationToken,
    tried: Option<DropGuard>,
    first: Option<oneshot::Sender<Result<(), String>>>,
}

impl Job {
    async fn run(mut self) {
        let spec = &self.inlet.subscription.spec;
        let (pubsub, topic) = (spec.pubsubname.clone(), spec.topic.clone());
        let mut pause = FIRST_PAUSE;
        for tries in 0.. {
            let cause = match self.subscribe(tries).await {
                Ok(()) => return,
                Err(cause) => cause,
            };
            self.tried = None;
            if let Some(first) = self.first.take() {
                let _ = first.send(Err(cause));
                return;
            }
            if tries == 0 {
                tracing::error!(target: SCOPE, "Failed to start subscription for pubsub {pubsub}, topic {topic}: {cause}");
            } else {
                tracing::error!(target: SCOPE, "Retry failed for subscription pubsub {pubsub}, topic {topic}: {cause}. Will retry.");
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 3 / 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Subscribes and stays until `stop` is cancelled; fails only at the start.
    async fn subscribe(&mut self, tries: u32) -> Result<(), String> {
        let (broker, spec) = (&self.inlet.broker, &self.inlet.subscription.spec);
        let (pubsub, topic) = (&spec.pubsubname, &spec.topic);
        if !broker.scopes.may_subscribe(topic) {
            return Err(format!(
                "subscription to topic '{topic}' on pubsub '{pubsub}' is not allowed"
            ));
        }
        let request = SubscribeRequest {
            topic: broker.wire_topic(topic),
            metadata: spec.metadata.clone().into_iter().collect(),
        };
        let (handler, batches) = bulk::handler(&self.inlet);
        let subscription = broker
            .instance
            .direct()
            .subscribe(request, handler)
            .await
            .map_err(|cause| format!("failed to subscribe to topic {topic}: {cause}"))?;
        if tries > 0 {
            tracing::info!(target: SCOPE, "Successfully started subscription after retry for pubsub {pubsub}, topic {topic}");
        }
        self.tried = None;
        if let Some(first) = self.first.take() {
            let _ = first.send(Ok(()));
        }
        let until_stopped = async {
            self.stop.cancelled().await;
            let pausing = async {
                if self.ending.is_cancelled() {
                    self.pause().await;
                }
            };
            // The broker is asked first, but no message is taken while it
            // answers.
            tokio::join!(pausing, subscription.close());
        };
        match batches {
            None => until_stopped.await,
            // Batches end when the subscription has let go of its handler.
            Some(batches) => {
                tokio::join!(until_stopped, batches.run(&self.inlet));
            }
        }
        Ok(())
    }

    /// Asks the broker to send no more while what is at hand is delivered.
    /// Most cannot, and are just not read from any more.
    async fn pause(&self) {
        let topic = &self.inlet.subscription.spec.topic;
        match tokio::time::timeout(PAUSE_LIMIT, self.inlet.broker.instance.direct().pause()).await {
            Ok(Ok(())) => {
                tracing::info!(target: SCOPE, "pausing subscription on topic {topic} during graceful shutdown");
            }
            Ok(Err(cause)) if cause.kind() == Kind::Unsupported => {}
            Ok(Err(cause)) => {
                tracing::warn!(target: SCOPE, "subscription on topic {topic} could not be paused: {cause}");
            }
            Err(_) => {
                tracing::warn!(target: SCOPE, "subscription on topic {topic} could not be paused: no answer within {}s", PAUSE_LIMIT.as_secs());
            }
        }
    }
}

#[cfg(test)]
mod tests;
