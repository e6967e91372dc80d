//! Publishes what waits in the topics in between.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_components::Error as Cause;
use outrider_components::pubsub::{Handler, Message, SubscribeRequest};
use outrider_components::state::{DeleteRequest, GetRequest};
use outrider_host::{Tasks, Workers};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Outbox, Settings};
use crate::blocks::pubsub::Broker;
use crate::blocks::pubsub::envelope::Event;
use crate::blocks::state::Store;
use crate::components::map::Map;

const SCOPE: &str = "dapr.outbox";
/// Pauses between looks for a marker, and how long it is looked for in all:
/// a transaction that takes longer is found when the event comes again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Before an event is rejected that nobody expects.
const REJECTION: Duration = Duration::from_millis(250);
const MARKER_LIMIT: Duration = Duration::from_secs(11);
/// How long a marker is tried to be deleted.
const DELETE_LIMIT: Duration = Duration::from_secs(10);
/// Between tries to subscribe.
const SUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_SUBSCRIBE_PAUSE: Duration = Duration::from_secs(60);

/// Keeps one subscription to each topic in between, for as long as there is a
/// store that writes to it and a broker that has it.
pub struct Relay(Arc<Inner>);

struct Inner {
    outbox: Arc<Outbox>,
    stores: Arc<Map<Store>>,
    workers: Workers,
    tasks: Tasks,
    running: Mutex<HashMap<Topic, Running>>,
}

/// Broker, and topic in between.
type Topic = (String, String);

struct Running {
    broker: Arc<Broker>,
    stop: CancellationToken,
}

impl Relay {
    pub fn new(
        outbox: Arc<Outbox>,
        stores: Arc<Map<Store>>,
        workers: Workers,
        tasks: Tasks,
    ) -> Self {
        Self(Arc::new(Inner {
            outbox,
            stores,
            workers,
            tasks,
            running: Mutex::default(),
        }))
    }

    /// Follows a change of stores or brokers. Ends all subscriptions once the
    /// process is `ending`.
    pub fn follow(&self, ending: bool) {
        let wanted = match ending {
            true => BTreeMap::new(),
            false => self.0.wanted(),
        };
        let mut running = self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        running.retain(|topic, running| {
            let same = wanted
                .get(topic)
                .is_some_and(|broker| Arc::ptr_eq(broker, &running.broker));
            if !same {
                running.stop.cancel();
            }
            same
        });
        for (topic, broker) in wanted {
            if running.contains_key(&topic) {
                continue;
            }
            let stop = CancellationToken::new();
            let subscribing = subscribe(
                broker.clone(),
                topic.clone(),
                Arc::new(Taker {
                    inner: self.0.clone(),
                    topic: topic.clone(),
                    stop: stop.clone(),
                }),
                stop.clone(),
            );
            running.insert(topic, Running { broker, stop });
            self.0
                .tasks
                .spawn_on(&self.0.workers.next(), "outbox", subscribing);
        }
    }
}

impl Inner {
    fn wanted(&self) -> BTreeMap<Topic, Arc<Broker>> {
        let mut wanted = BTreeMap::new();
        for (name, store) in self.stores.load().iter() {
            let Some(settings) = &store.outbox else {
                continue;
            };
            let pubsub = &settings.inner_pubsub;
            let Some(broker) = self.outbox.brokers.get(pubsub) else {
                tracing::warn!(target: SCOPE, "could not subscribe to internal outbox topic: outbox pubsub {pubsub} not loaded (state store {name})");
                continue;
            };
            let topic = (pubsub.clone(), self.outbox.inner_topic(settings));
            wanted.insert(topic, broker);
        }
        wanted
    }

    /// The stores that write to a topic in between.
    fn writers(&self, topic: &Topic) -> Vec<Arc<Store>> {
        let writes = |store: &&Arc<Store>| {
            store.outbox.as_ref().is_some_and(|settings| {
                settings.inner_pubsub == topic.0 && self.outbox.inner_topic(settings) == topic.1
            })
        };
        self.stores
            .load()
            .values()
            .filter(writes)
            .cloned()
            .collect()
    }
}

/// Subscribes, and stays until `stop` is cancelled.
async fn subscribe(
    broker: Arc<Broker>,
    (pubsub, topic): Topic,
    handler: Arc<dyn Handler>,
    stop: CancellationToken,
) {
    let mut pause = SUBSCRIBE_PAUSE;
    loop {
        let request = SubscribeRequest {
            topic: broker.wire_topic(&topic),
            ..SubscribeRequest::default()
        };
        let direct = broker.instance.direct();
        match direct.subscribe(request, handler.clone()).await {
            Ok(subscription) => {
                stop.cancelled().await;
                subscription.close().await;
                return;
            }
            Err(cause) => {
                tracing::error!(target: SCOPE, "failed to subscribe to outbox topics: topic {topic} of pubsub {pubsub}: {cause}. Will retry.");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_SUBSCRIBE_PAUSE),
        }
    }
}

/// Takes the events of one topic in between.
struct Taker {
    inner: Arc<Inner>,
    topic: Topic,
    stop: CancellationToken,
}

/// A store that has the marker of an event.
struct Found {
    store: Arc<Store>,
    settings: Settings,
}

#[async_trait]
impl Handler for Taker {
    async fn handle(&self, message: Message) -> Result<(), Cause> {
        let mut event = Event::read(&message.data).map_err(Cause::invalid)?;
        let marker = event.id().into_owned();
        let Some(found) = self.find(&marker).await? else {
            return Ok(());
        };
        let Settings { pubsub, topic, .. } = &found.settings;
        event.set_attribute("topic".to_owned(), topic);
        event.set_attribute("pubsubname".to_owned(), pubsub);
        let event: Bytes = event.to_bytes();
        let sending = self.inner.outbox.send(pubsub, topic, event);
        sending.await.map_err(Cause::unavailable)?;
        delete(&found.store, &marker).await;
        Ok(())
    }
}

impl Taker {
    /// Waits for the marker of an event. Nothing means that the event is to be
    /// dropped.
    async fn find(&self, marker: &str) -> Result<Option<Found>, Cause> {
        let until = Instant::now() + MARKER_LIMIT;
        let mut pause = FIRST_PAUSE;
        loop {
            let stores = self.inner.writers(&self.topic);
            let mut why = None;
            for store in &stores {
                let Some(settings) = &store.outbox else {
                    continue;
                };
                let request = GetRequest::new(marker);
                match store.instance.direct().get(&request).await {
                    Ok(Some(item)) if !item.value.is_empty() => {
                        return Ok(Some(Found {
                            store: store.clone(),
                            settings: settings.clone(),
                        }));
                    }
                    Ok(_) => {}
                    Err(cause) => why = Some(cause),
                }
            }
            let is_over = Instant::now() + pause > until;
            let is_early = !is_over && self.rejects_early(&stores, marker);
            // What is rejected may be back at once.
            let waits = if is_early { REJECTION } else { pause };
            if is_over {
                return self.missing(&stores, why, marker);
            }
            tokio::select! {
                // The event is not acknowledged, and comes again.
                () = self.stop.cancelled() => return Err(Cause::unavailable("the outbox ends")),
                () = tokio::time::sleep(waits) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
            if is_early {
                return self.missing(&stores, why, marker);
            }
        }
    }

    /// Whether the marker of an event is not waited for, since nobody expects it. Where
    /// the event would be dropped it is always waited for.
    fn rejects_early(&self, stores: &[Arc<Store>], marker: &str) -> bool {
        !stores.iter().all(discards) && self.inner.outbox.absent.has(marker)
    }

    /// Says that an event has no marker. It is dropped if every store that it
    /// may be of says so, and each could be asked.
    fn missing(
        &self,
        stores: &[Arc<Store>],
        why: Option<Cause>,
        marker: &str,
    ) -> Result<Option<Found>, Cause> {
        let Some(settings) = stores.first().and_then(|store| store.outbox.as_ref()) else {
            return Err(Cause::not_found(
                "cannot get outbox state: state store not found",
            ));
        };
        let Settings { pubsub, topic, .. } = settings;
        let unreachable = why.is_some();
        let cause = why.unwrap_or_else(|| {
            Cause::not_found(format!(
                "cannot publish outbox message to topic {topic} with pubsub {pubsub}: outbox state not found"
            ))
        });
        if !unreachable {
            self.inner.outbox.absent.add(marker, Instant::now());
        }
        if !unreachable && stores.iter().all(discards) {
            tracing::error!(target: SCOPE, "failed to publish outbox topic to pubsub {pubsub}: {cause}, discarding message");
            return Ok(None);
        }
        tracing::error!(target: SCOPE, "failed to publish outbox topic to pubsub {pubsub}: {cause}, rejecting for later processing");
        Err(cause)
    }
}

fn discards(store: &Arc<Store>) -> bool {
    store.outbox.as_ref().is_some_and(|outbox| outbox.discard)
}

/// Deletes a marker whose event is published. If that fails the marker stays:
/// the event is not published again because of it.
async fn delete(store: &Store, marker: &str) {
    let until = Instant::now() + DELETE_LIMIT;
    let mut pause = FIRST_PAUSE;
    let request = DeleteRequest::new(marker);
    while let Err(cause) = store.instance.direct().delete(&request).await {
        if Instant::now() + pause > until {
            let store = store.instance.name();
            tracing::warn!(target: SCOPE, "the event {marker} is published, but its marker in the state store {store} could not be deleted: {cause}");
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
