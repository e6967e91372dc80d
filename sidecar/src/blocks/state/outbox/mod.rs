//! The outbox: what a transaction writes is also published, if and only if the
//! transaction happens.
//! <https://docs.dapr.io/developing-applications/building-blocks/state-management/howto-outbox/>
//!
//! Every write gets a marker, an item of the same transaction, and an event with
//! the marker's key as its id. The event goes to a topic of this application
//! first. Who gets it there publishes it once the marker is found, and deletes
//! the marker.

mod absent;
mod event;
pub mod relay;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use outrider_components::Metadata;
use outrider_components::state::{Operation, SetRequest, Value};
use outrider_kit::boolean;
use outrider_trace as trace;

use crate::blocks::pubsub::Broker;
use crate::components::map::Map;
use absent::{Absent, Markers};

/// Metadata of a write that is only published, in place of the value of the
/// write of the same key.
const PROJECTION: &str = "outbox.projection";
const MARKER: &[u8] = b"\"0\"";

/// What the properties of a store say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where events go in the end.
    pub pubsub: String,
    pub topic: String,
    /// The broker of the topic in between.
    pub inner_pubsub: String,
    /// Whether an event is dropped whose transaction did not happen.
    pub discard: bool,
}

impl Settings {
    /// Nothing unless broker and topic are named.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let exact = |name: &str| {
            let found = metadata.iter().filter(|(known, _)| *known == name).last();
            found.map_or("", |(_, value)| value)
        };
        let (pubsub, topic) = (exact("outboxPublishPubsub"), exact("outboxPublishTopic"));
        if pubsub.is_empty() || topic.is_empty() {
            return None;
        }
        let inner_pubsub = match exact("outboxPubsub") {
            "" => pubsub,
            named => named,
        };
        Some(Self {
            pubsub: pubsub.to_owned(),
            topic: topic.to_owned(),
            inner_pubsub: inner_pubsub.to_owned(),
            discard: boolean::truthy(exact("outboxDiscardWhenMissingState")),
        })
    }
}

/// Whose outbox it is, and what it publishes with.
pub struct Outbox {
    pub app_id: String,
    pub namespace: String,
    pub brokers: Arc<Map<Broker>>,
    absent: Absent,
}

fn marker(key: &str) -> Operation {
    Operation::Upsert(SetRequest::new(
        key,
        Value::Json(Bytes::from_static(MARKER)),
    ))
}

impl Outbox {
    pub fn new(app_id: String, namespace: String, brokers: Arc<Map<Broker>>) -> Self {
        Self {
            app_id,
            namespace,
            brokers,
            absent: Absent::default(),
        }
    }

    /// Of a transaction without events.
    pub fn no_markers(&self) -> Markers<'_> {
        Markers::new(&self.absent)
    }

    /// The topic in between.
    fn inner_topic(&self, settings: &Settings) -> String {
        let topic = &settings.topic;
        format!("{}{}{topic}outbox", self.namespace, self.app_id)
    }

    /// Publishes the events of a transaction to the topic in between. Returns the
    /// markers, which belong into the transaction. Writes that are only published are
    /// taken out of it.
    pub async fn publish(
        &self,
        settings: &Settings,
        operations: &mut Vec<Operation>,
        trace: &trace::Parent,
    ) -> Result<Markers<'_>, String> {
        let projections = take_projections(operations);
        let mut markers = self.no_markers();
        for operation in operations.iter() {
            let Operation::Upsert(write) = operation else {
                continue;
            };
            let key = format!("outbox-{}", uuid::Uuid::new_v4());
            let projected = projections.iter().rev().find(|p| p.key == write.key);
            let given = event::Given {
                app_id: &self.app_id,
                pubsub: &settings.inner_pubsub,
                id: &key,
                published: projected.unwrap_or(write),
                attributes: &write.metadata,
                trace,
            };
            let event = event::of_write(&given);
            // Also of what is not sent, but may be.
            markers.push(key);
            self.send(&settings.inner_pubsub, &self.inner_topic(settings), event)
                .await?;
        }
        Ok(markers)
    }

    /// Publishes an event as the application could do it.
    async fn send(&self, pubsub: &str, topic: &str, event: Bytes) -> Result<(), String> {
        let broker = self
            .brokers
            .get(pubsub)
            .ok_or_else(|| format!("pubsub '{pubsub}' not found"))?;
        if !broker.scopes.may_publish(topic) {
            let app_id = &self.app_id;
            return Err(format!("topic {topic} is not allowed for app id {app_id}"));
        }
        broker.send(topic, event, Default::default()).await
    }
}

/// Takes the writes that are only published out of a transaction.
fn take_projections(operations: &mut Vec<Operation>) -> Vec<SetRequest> {
    let is_projection = |operation: &mut Operation| match operation {
        Operation::Upsert(write) => {
            let said = write.metadata.get(PROJECTION);
            said.is_some_and(|said| boolean::truthy(said))
        }
        Operation::Delete(_) => false,
    };
    let taken = operations.extract_if(.., is_projection);
    taken
        .filter_map(|operation| match operation {
            Operation::Upsert(write) => Some(write),
            Operation::Delete(_) => None,
        })
        .collect()
}
