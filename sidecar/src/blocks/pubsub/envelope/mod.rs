//! CloudEvents, the envelope of messages.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>,
//! <https://docs.dapr.io/developing-applications/building-blocks/pubsub/pubsub-cloudevents/>

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::{Timestamp, Zoned};
use outrider_components::Pairs;
use outrider_kit::duration;
use prost::Message as _;
use serde_json::value::RawValue;

use crate::blocks::json;
use outrider_trace as trace;

pub const CONTENT_TYPE: &str = "application/cloudevents+json";
const SPEC_VERSION: &str = "1.0";
const TYPE: &str = "com.dapr.event.sent";
const SOURCE: &str = "Dapr";

/// An event: attributes with values that keep the text they came with, sorted
/// by name.
#[derive(Debug, Clone, Default)]
pub struct Event(BTreeMap<String, Box<RawValue>>);

/// What a publisher gives besides metadata.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    pub app_id: &'a str,
    pub pubsub: &'a str,
    pub topic: &'a str,
    pub data: &'a [u8],
    pub content_type: &'a str,
    pub trace: &'a trace::Parent,
}

impl Event {
    /// The event for what a publisher gave: an envelope around data, or its
    /// own event with what is missing filled in.
    pub fn of_publisher(given: Given<'_>, metadata: &Pairs) -> Result<Self, String> {
        let over = |name: &str| find(metadata, &format!("cloudevent.{name}"));
        if is(given.content_type, CONTENT_TYPE) {
            return Self::adopted(given, over);
        }
        let trace_id = over("traceparent")
            .or_else(|| over("traceid"))
            .unwrap_or(&given.trace.parent);
        let mut event = Self::default();
        match over("id") {
            Some(id) => event.set("id", id),
            None => event.set("id", &uuid::Uuid::new_v4().to_string()),
        }
        let own = if given.app_id.is_empty() {
            SOURCE
        } else {
            given.app_id
        };
        event.set("source", over("source").unwrap_or(own));
        event.set("type", over("type").unwrap_or(TYPE));
        event.set("specversion", SPEC_VERSION);
        let content_type = match given.content_type {
            "" => "text/plain",
            named => named,
        };
        event.set("datacontenttype", content_type);
        event.set("topic", given.topic);
        event.set("pubsubname", given.pubsub);
        event.set("time", &now());
        event.set("traceid", trace_id);
        event.set("traceparent", trace_id);
        event.set(
            "tracestate",
            over("tracestate").unwrap_or(&given.trace.state),
        );
        if let Some(subject) = over("subject") {
            event.set("subject", subject);
        }
        event.set_data(content_type, given.data);
        Ok(event)
    }

    /// The publisher's own event. Its trace stays; without one, that of its
    /// metadata counts, and else that of the request.
    fn adopted<'a>(
        given: Given<'a>,
        over: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Self, String> {
        std::str::from_utf8(given.data).map_err(|_| "the event is not UTF-8".to_owned())?;
        let mut event = Self::read(given.data)?;
        event.set("topic", given.topic);
        event.set("pubsubname", given.pubsub);
        if !event.has("traceid") {
            let own = event.trace().parent;
            let stated = over("traceparent").or_else(|| over("traceid"));
            let (parent, state) = match (own.as_str(), stated) {
                ("", None) => (given.trace.parent.as_str(), given.trace.state.as_str()),
                ("", Some(stated)) => (stated, over("tracestate").unwrap_or_default()),
                (own, _) => (own, ""),
            };
            let parent = parent.to_owned();
            event.set("traceid", &parent);
            event.set("traceparent", &parent);
            if !event.has("tracestate") {
                event.set("tracestate", state);
            }
        }
        if !event.has("tracestate") {
            event.set("tracestate", &given.trace.state);
        }
        if !event.has("time") {
            event.set("time", &now());
        }
        for (name, default) in [
            ("source", SOURCE),
            ("type", TYPE),
            ("specversion", SPEC_VERSION),
        ] {
            if event.raw(name).is_none_or(|raw| raw == "null") {
                event.set(name, default);
            }
        }
        Ok(event)
    }

    /// The event around a message that a subscription takes without one.
    pub fn of_raw_message(data: &[u8], topic: &str, pubsub: &str, metadata: &Pairs) -> Self {
        let mut event = Self::default();
        event.set("id", &uuid::Uuid::new_v4().to_string());
        event.set("specversion", SPEC_VERSION);
        event.set("source", SOURCE);
        event.set("type", TYPE);
        event.set("datacontenttype", "application/octet-stream");
        event.set("topic", topic);
        event.set("pubsubname", pubsub);
        event.set("data_base64", &STANDARD.encode(data));
        for name in ["traceid", "traceparent", "tracestate"] {
            if let Some(value) = metadata.get(name) {
                event.set(name, value);
            }
        }
        if let Some(parent) = metadata.get("traceparent") {
            event.set("traceid", parent);
        }
        event
    }

    /// The event whose attributes travel beside its data.
    /// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md#31-binary-content-mode>
    pub fn of_binary_message(data: &[u8], content_type: &str, metadata: &Pairs) -> Self {
        let mut event = Self::default();
        for (key, value) in metadata {
            if let Some(name) = key.to_ascii_lowercase().strip_prefix("ce_") {
                event.set(name, value);
            }
        }
        event.set("datacontenttype", content_type);
        event.set("data_base64", &STANDARD.encode(data));
        event
    }

    /// An event as JSON.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let lossy;
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(_) => {
                lossy = String::from_utf8_lossy(text);
                &lossy
            }
        };
        serde_json::from_str(text)
            .map(Self)
            .map_err(|error| json::decode_error(&error, text.as_bytes()))
    }

    /// Fills in the trace that the broker carried beside the message.
    pub fn add_trace(&mut self, metadata: &Pairs) {
        let carried = |name: &str| metadata.get(name).map(String::as_str);
        if let (false, Some(id)) = (self.has("traceid"), carried("traceid")) {
            self.set("traceid", id);
        }
        if let (false, Some(parent)) = (self.has("traceparent"), carried("traceparent")) {
            self.set("traceparent", parent);
            self.set("traceid", parent);
        }
        if let (false, Some(state)) = (self.has("tracestate"), carried("tracestate")) {
            self.set("tracestate", state);
        }
    }

    /// Puts the time of expiry into an event for a broker that does not expire
    /// messages itself.
    pub fn expire(&mut self, metadata: &Pairs) {
        if let Some(expiration) =
            time_to_live(metadata).and_then(|ttl| Timestamp::now().checked_add(ttl).ok())
        {
            self.set(
                "expiration",
                &expiration.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            );
        }
    }

    /// The time of expiry, if it has passed. What is no time never expires.
    pub fn expired(&self) -> Option<String> {
        let text = self.text("expiration")?;
        let expiration: Timestamp = text.parse().ok()?;
        (expiration < Timestamp::now()).then(|| text.into_owned())
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn set(&mut self, name: &str, value: &str) {
        if let Ok(raw) = serde_json::value::to_raw_value(value) {
            self.0.insert(name.to_owned(), raw);
        }
    }

    fn set_data(&mut self, content_type: &str, data: &[u8]) {
        if is(content_type, "application/json") {
            // Only the first value counts; what is not JSON is text.
            let first = serde_json::Deserializer::from_slice(data)
                .into_iter::<Box<RawValue>>()
                .next();
            if let Some(Ok(raw)) = first {
                self.0.insert("data".to_owned(), raw);
                return;
            }
        } else if is_binary(content_type, data) {
            self.set("data_base64", &STANDARD.encode(data));
            return;
        }
        match std::str::from_utf8(data) {
            Ok(text) => self.set("data", text),
            // Text in another encoding keeps its bytes.
            Err(_) => self.set("data_base64", &STANDARD.encode(data)),
        }
    }

    /// An attribute as JSON.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|raw| raw.get())
    }

    /// An attribute that is text.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        let raw = self.raw(name)?;
        match serde_json::from_str::<&str>(raw) {
            Ok(plain) => Some(Cow::Borrowed(plain)),
            Err(_) => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
        }
    }

    /// For logs.
    pub fn id(&self) -> Cow<'_, str> {
        self.text("id").unwrap_or(Cow::Borrowed("<nil>"))
    }

    /// The trace of its publisher; nothing if it has none that makes
    /// sense.
    pub fn trace(&self) -> trace::Parent {
        let valid = |name: &str| self.text(name).filter(|t| trace::is_valid(t.as_bytes()));
        let parent = valid("traceparent").or_else(|| valid("traceid"));
        trace::Parent {
            state: match &parent {
                Some(_) => self.text("tracestate").unwrap_or_default().into_owned(),
                None => String::new(),
            },
            parent: parent.unwrap_or_default().into_owned(),
        }
    }

    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, raw)| (name.as_str(), raw.get()))
    }

    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(json::to_vec(&self.0))
    }

    /// The data in the form in which gRPC applications get it.
    pub fn data(&self) -> Bytes {
        if let Some(encoded) = self.text("data_base64") {
            return STANDARD
                .decode(encoded.as_bytes())
                .unwrap_or_default()
                .into();
        }
        let (Some(raw), Some(kind)) = (self.raw("data"), self.text("datacontenttype")) else {
            return Bytes::new();
        };
        let kind = media(&kind);
        if kind.starts_with("text/") || kind == "application/xml" {
            return self.text("data").unwrap_or_default().into_owned().into();
        }
        if kind == "application/json" || kind == CONTENT_TYPE {
            return match serde_json::from_str(raw) {
                Ok(value) => json::normal(&value).into(),
                Err(_) => Bytes::new(),
            };
        }
        Bytes::new()
    }
}

/// A content type in lower case, without parameters.
fn media(content_type: &str) -> String {
    let name = content_type.split(';').next().unwrap_or_default();
    name.to_ascii_lowercase()
}

pub fn is(content_type: &str, expected: &str) -> bool {
    media(content_type) == expected
}

/// The first members of a CloudEvent in its own protobuf form.
/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/protobuf-format.md>
#[derive(Clone, PartialEq, prost::Message)]
struct Encoded {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, tag = "3")]
    spec_version: String,
    #[prost(string, tag = "4")]
    kind: String,
}

fn is_binary(content_type: &str, data: &[u8]) -> bool {
    match media(content_type).as_str() {
        "application/octet-stream" | "application/cloudevents+protobuf" => true,
        "application/x-protobuf" => Encoded::decode(data)
            .is_ok_and(|e| !e.id.is_empty() && !e.source.is_empty() && !e.kind.is_empty()),
        _ => false,
    }
}

/// The value of a key in any case.
pub fn find<'a>(metadata: &'a Pairs, name: &str) -> Option<&'a str> {
    metadata
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// Seconds or a duration. What makes no sense counts as absent; a negative
/// duration has passed at once.
fn time_to_live(metadata: &Pairs) -> Option<Duration> {
    let text = find(metadata, "ttlInSeconds").or_else(|| find(metadata, "ttl"))?;
    if let Ok(seconds) = text.parse::<i64>() {
        return u64::try_from(seconds)
            .ok()
            .filter(|s| *s > 0)
            .map(Duration::from_secs);
    }
    if let Some(negative) = text.strip_prefix('-') {
        return duration::parse(negative).ok().map(|_| Duration::ZERO);
    }
    duration::parse(text).ok()
}

/// RFC 3339 in the zone of the process.
fn now() -> String {
    let now = Zoned::now();
    if now.offset().is_zero() {
        now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        now.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

#[cfg(test)]
mod tests;
