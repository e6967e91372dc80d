//! What publishing means.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderValue;
use outrider_components::Pairs;
use outrider_components::pubsub::{
    BulkPublishRequest, Entry, FailedEntry, Feature, PublishRequest,
};
use outrider_kit::boolean;

use super::envelope::{self, Event, Given};
use super::{Api, Broker, bulk, error};
use crate::blocks::error::{Error, Result};
use outrider_trace as trace;

/// One message, as a client gave it.
#[derive(Debug, Default)]
pub struct Publish {
    pub data: Bytes,
    pub content_type: String,
    pub metadata: Pairs,
    pub trace: trace::Parent,
}

/// Where messages go, once it is known that they may be given at all.
pub struct Topic<'a> {
    pub broker: Arc<Broker>,
    pub topic: &'a str,
    /// Whether messages go without an envelope.
    pub raw: bool,
}

impl Api {
    /// Checks what can be checked before the messages are looked at.
    pub fn topic<'a>(&self, pubsub: &str, topic: &'a str, metadata: &Pairs) -> Result<Topic<'a>> {
        if pubsub.is_empty() {
            return Err(error::no_name(metadata));
        }
        let broker = self
            .brokers
            .get(pubsub)
            .ok_or_else(|| error::not_found(pubsub, metadata))?;
        if topic.is_empty() {
            return Err(error::no_topic(pubsub, metadata));
        }
        let raw = is_raw(metadata).map_err(|cause| error::metadata(pubsub, metadata, &cause))?;
        Ok(Topic { broker, topic, raw })
    }

    pub async fn publish(&self, to: &Topic<'_>, mut message: Publish) -> Result<()> {
        let data = if to.raw {
            for (name, value) in [
                ("traceid", &message.trace.parent),
                ("tracestate", &message.trace.state),
            ] {
                if !value.is_empty() {
                    message.metadata.insert(name.to_owned(), value.clone());
                }
            }
            message.data
        } else {
            let (data, content_type) = (&message.data, &message.content_type);
            self.wrap(to, data, content_type, &message.metadata, &message.trace)?
        };
        self.allow(to)?;
        let started = Instant::now();
        let sent = to.broker.send(to.topic, data, message.metadata).await;
        let (metrics, took) = (&to.broker.metrics, started.elapsed());
        metrics.published(to.topic, sent.is_ok(), took);
        sent.map_err(|cause| error::publish(to.broker.instance.name(), to.topic, &cause))
    }

    /// Begins the span of a message in a bulk request, if spans are made.
    fn child(&self, parent: &trace::Parent, call: &str) -> Option<trace::Span> {
        if !self.tracer.is_on() {
            return None;
        }
        let context = trace::Context::parse(parent.parent.as_bytes());
        let state = HeaderValue::try_from(parent.state.as_str()).ok();
        let state = state.filter(|state| !state.is_empty());
        let mut span = self.tracer.start(context, state, trace::Kind::Producer)?;
        if let Some(recording) = span.recording() {
            recording.name(call);
        }
        Some(span)
    }

    /// Publishes what it can; the answer names what failed. `call` names the
    /// request in traces.
    pub async fn bulk_publish(
        &self,
        to: &Topic<'_>,
        mut entries: Vec<Entry>,
        metadata: Pairs,
        trace: &trace::Parent,
        call: &str,
    ) -> Result<Vec<FailedEntry>> {
        let name = to.broker.instance.name();
        let mut ids = HashSet::new();
        if !entries
            .iter()
            .all(|entry| !entry.id.is_empty() && ids.insert(&entry.id))
        {
            return Err(error::entry_id(name, to.topic, &self.app_id));
        }
        // Each message has a span of its own, which ends when all are published.
        let mut spans = Vec::new();
        if !to.raw {
            for entry in &mut entries {
                let span = self.child(trace, call);
                let own = span.as_ref().map(trace::Parent::of_span);
                let trace = own.as_ref().unwrap_or(trace);
                entry.data =
                    self.wrap(to, &entry.data, &entry.content_type, &entry.metadata, trace)?;
                spans.extend(span);
            }
        }
        self.allow(to)?;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let request = BulkPublishRequest {
            topic: to.broker.wire_topic(to.topic),
            entries,
            metadata,
        };
        let started = Instant::now();
        let sent = bulk::publish(&to.broker.instance, &request).await;
        let (metrics, took) = (&to.broker.metrics, started.elapsed());
        let lost = sent.as_ref().map_or(request.entries.len(), Vec::len);
        let taken = request.entries.len().saturating_sub(lost);
        metrics.published_bulk(to.topic, lost == 0, taken, took);
        if let Err(cause) = &sent {
            for recording in spans.iter_mut().filter_map(trace::Span::recording) {
                recording.fail(cause.to_string());
            }
        }
        sent.map_err(|cause| error::publish(name, to.topic, &cause.to_string()))
    }

    /// The error for messages of a bulk request that failed.
    pub fn partly_failed(&self, to: &Topic<'_>, failed: &[FailedEntry]) -> Error {
        let causes: Vec<String> = failed.iter().map(|f| f.error.to_string()).collect();
        error::publish(to.broker.instance.name(), to.topic, &causes.join("\n"))
    }

    fn wrap(
        &self,
        to: &Topic<'_>,
        data: &[u8],
        content_type: &str,
        metadata: &Pairs,
        trace: &trace::Parent,
    ) -> Result<Bytes> {
        let name = to.broker.instance.name();
        let given = Given {
            app_id: &self.app_id,
            pubsub: name,
            topic: to.topic,
            data,
            content_type,
            trace,
        };
        let mut event = Event::of_publisher(given, metadata)
            .map_err(|cause| error::no_cloud_event(name, &self.app_id, &cause))?;
        if !to
            .broker
            .instance
            .direct()
            .features()
            .contains(&Feature::MessageTtl)
        {
            event.expire(metadata);
        }
        Ok(event.to_bytes())
    }

    fn allow(&self, to: &Topic<'_>) -> Result<()> {
        if to.broker.scopes.may_publish(to.topic) {
            Ok(())
        } else {
            Err(error::forbidden(
                to.broker.instance.name(),
                to.topic,
                &self.app_id,
            ))
        }
    }
}

impl Broker {
    /// The name of a topic as the broker knows it.
    pub fn wire_topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// The name of a topic as the application knows it.
    pub fn app_topic(&self, topic: &str) -> String {
        if self.prefix.is_empty() {
            return topic.to_owned();
        }
        topic.replacen(&self.prefix, "", 1)
    }

    /// Publishes a message that is ready to go.
    pub async fn send(
        &self,
        topic: &str,
        data: Bytes,
        metadata: Pairs,
    ) -> std::result::Result<(), String> {
        let request = PublishRequest {
            topic: self.wire_topic(topic),
            data,
            metadata,
            content_type: None,
        };
        self.instance
            .call(|broker| broker.publish(&request))
            .await
            .map_err(|e| e.to_string())
    }
}

/// Whether messages have no envelope.
pub fn is_raw(metadata: &Pairs) -> std::result::Result<bool, String> {
    match envelope::find(metadata, "rawPayload").unwrap_or_default() {
        "" => Ok(false),
        given => boolean::parse(given)
            .map_err(|_| format!("rawPayload value must be a valid boolean: actual is '{given}'")),
    }
}
