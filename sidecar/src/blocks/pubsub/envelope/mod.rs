//! CloudEvents, the envelope of messages.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>,
//! <https://docs.dapr.io/developing-applications/building-blocks/pubsub/pubsub-cloudevents/>

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::{Timestamp, Zoned};
use outrider_components::Pairs;
use outrider_kit::duration;
use prost::Message as _;
use serde::Deserialize as _;
use serde_json::value::RawValue;

use crate::blocks::json;
use crate::blocks::json::members::Members;
use crate::blocks::json::shape::Shape;
use outrider_call::metadata::Text;
use outrider_trace as trace;

pub const CONTENT_TYPE: &str = "application/cloudevents+json";
const SPEC_VERSION: &str = "1.0";
const TYPE: &str = "com.dapr.event.sent";
const SOURCE: &str = "Dapr";

/// An event: attributes, sorted by name. Those of an event that was read share
/// its text, and keep it as it came.
#[derive(Debug, Clone, Default)]
pub struct Event<'a>(Vec<(Text, Value<'a>)>);

/// The value of an attribute.
#[derive(Debug, Clone)]
enum Value<'a> {
    /// Becomes a string of JSON.
    Text(Cow<'a, str>),
    /// JSON as a publisher gave it.
    Json(&'a str),
    /// The same, as a part of the text that the event was read from.
    Shared(Text),
}

impl Value<'_> {
    fn json(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => {
                let mut json = Vec::new();
                json::write_text(&mut json, text);
                Cow::Owned(String::from_utf8(json).unwrap_or_default())
            }
            Self::Json(json) => Cow::Borrowed(json),
            Self::Shared(json) => Cow::Borrowed(json.as_str()),
        }
    }
}

/// Any object.
const EVENT: Shape = Shape::Map("map[string]interface {}", &Shape::Any);

/// Attributes that an event has room for before it is known how many it has.
const ATTRIBUTES: usize = 16;

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

impl<'a> Event<'a> {
    fn new() -> Self {
        Self(Vec::with_capacity(ATTRIBUTES))
    }

    /// The event for what a publisher gave: an envelope around data, or its
    /// own event with what is missing filled in.
    pub fn of_publisher(given: Given<'a>, metadata: &'a Pairs) -> Result<Self, String> {
        let over = |name: &str| find(metadata, &format!("cloudevent.{name}"));
        if is(given.content_type, CONTENT_TYPE) {
            return Self::adopted(given, over);
        }
        Ok(Self::around(given, over))
    }

    /// The event around data. `over` is what stands in place of an attribute.
    pub fn around(given: Given<'a>, over: impl Fn(&str) -> Option<&'a str>) -> Self {
        let trace_id = over("traceparent")
            .or_else(|| over("traceid"))
            .unwrap_or(&given.trace.parent);
        let content_type = match given.content_type {
            "" => "text/plain",
            named => named,
        };
        let own = match given.app_id {
            "" => SOURCE,
            app_id => app_id,
        };
        // In the order of the names.
        let mut event = Self::new();
        event.set_data(content_type, given.data);
        event.set("datacontenttype", content_type);
        match over("id") {
            Some(id) => event.set("id", id),
            None => event.set("id", uuid::Uuid::new_v4().to_string()),
        }
        event.set("pubsubname", given.pubsub);
        event.set("source", over("source").unwrap_or(own));
        event.set("specversion", SPEC_VERSION);
        if let Some(subject) = over("subject") {
            event.set("subject", subject);
        }
        event.set("time", now());
        event.set("topic", given.topic);
        event.set("traceid", trace_id);
        event.set("traceparent", trace_id);
        event.set(
            "tracestate",
            over("tracestate").unwrap_or(&given.trace.state),
        );
        event.set("type", over("type").unwrap_or(TYPE));
        event
    }

    /// The publisher's own event. Its trace stays; without one, that of its
    /// metadata counts, and else that of the request.
    fn adopted(given: Given<'a>, over: impl Fn(&str) -> Option<&'a str>) -> Result<Self, String> {
        std::str::from_utf8(given.data).map_err(|_| "the event is not UTF-8".to_owned())?;
        let mut event: Self = Event::read(&Bytes::copy_from_slice(given.data))?;
        event.set("topic", given.topic);
        event.set("pubsubname", given.pubsub);
        if !event.has("traceid") {
            let own = event.trace().parent;
            let stated = over("traceparent").or_else(|| over("traceid"));
            let (parent, state) = match (own.as_str(), stated) {
                ("", None) => (
                    Cow::Borrowed(given.trace.parent.as_str()),
                    given.trace.state.as_str(),
                ),
                ("", Some(stated)) => (
                    Cow::Borrowed(stated),
                    over("tracestate").unwrap_or_default(),
                ),
                _ => (Cow::Owned(own), ""),
            };
            event.set("traceid", parent.clone());
            event.set("traceparent", parent);
            if !event.has("tracestate") {
                event.set("tracestate", state);
            }
        }
        if !event.has("tracestate") {
            event.set("tracestate", given.trace.state.as_str());
        }
        if !event.has("time") {
            event.set("time", now());
        }
        for (name, default) in [
            ("source", SOURCE),
            ("type", TYPE),
            ("specversion", SPEC_VERSION),
        ] {
            if event.json(name).is_none_or(|json| json == "null") {
                event.set(name, default);
            }
        }
        Ok(event)
    }

    /// The event around a message that a subscription takes without one.
    pub fn of_raw_message(
        data: &[u8],
        topic: &'a str,
        pubsub: &'a str,
        metadata: &'a Pairs,
    ) -> Self {
        let mut event = Self::new();
        event.set("id", uuid::Uuid::new_v4().to_string());
        event.set("specversion", SPEC_VERSION);
        event.set("source", SOURCE);
        event.set("type", TYPE);
        event.set("datacontenttype", "application/octet-stream");
        event.set("topic", topic);
        event.set("pubsubname", pubsub);
        event.set("data_base64", STANDARD.encode(data));
        for name in ["traceid", "traceparent", "tracestate"] {
            if let Some(value) = metadata.get(name) {
                event.set(name, value.as_str());
            }
        }
        if let Some(parent) = metadata.get("traceparent") {
            event.set("traceid", parent.as_str());
        }
        event
    }

    /// The event whose attributes travel beside its data.
    /// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md#31-binary-content-mode>
    pub fn of_binary_message(data: &[u8], content_type: &'a str, metadata: &'a Pairs) -> Self {
        let mut event = Self::new();
        for (key, value) in metadata {
            if let Some(name) = key.to_ascii_lowercase().strip_prefix("ce_") {
                let value = Value::Text(Cow::Borrowed(value));
                event.insert(Text::from(name.to_owned()), value);
            }
        }
        event.set("datacontenttype", content_type);
        event.set("data_base64", STANDARD.encode(data));
        event
    }

    /// The same, keeping nothing of what it was made of.
    pub fn into_owned(self) -> Event<'static> {
        let owned = self.0.into_iter().map(|(name, value)| {
            let value = match value {
                Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
                Value::Json(json) => Value::Shared(Text::from(json.to_owned())),
                Value::Shared(json) => Value::Shared(json),
            };
            (name, value)
        });
        Event(owned.collect())
    }

    /// An event as JSON.
    pub fn read(text: &Bytes) -> Result<Event<'static>, String> {
        let text = match std::str::from_utf8(text) {
            Ok(_) => text.clone(),
            Err(_) => Bytes::from(String::from_utf8_lossy(text).into_owned()),
        };
        let checked = std::str::from_utf8(&text).unwrap_or_default();
        // Only the first value counts.
        let mut first = serde_json::Deserializer::from_str(checked);
        let Members(mut members) = Members::deserialize(&mut first)
            .map_err(|error| json::decode_error(&error, &text, &EVENT))?;
        // Stable: of one name the last value counts.
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        members.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0;
            if is_same {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        let share = |part: &str| Text::new(text.slice_ref(part.as_bytes()));
        let attributes = members.into_iter().filter_map(|(name, json)| {
            let name = match name {
                Cow::Borrowed(name) => share(name)?,
                Cow::Owned(name) => Text::from(name),
            };
            Some((name, Value::Shared(share(json.get())?)))
        });
        Ok(Event(attributes.collect()))
    }

    /// Fills in the trace that the broker carried beside the message.
    pub fn add_trace(&mut self, metadata: &Pairs) {
        let carried = |name: &str| metadata.get(name).cloned();
        if let (false, Some(id)) = (self.has("traceid"), carried("traceid")) {
            self.set("traceid", id);
        }
        if let (false, Some(parent)) = (self.has("traceparent"), carried("traceparent")) {
            self.set("traceparent", parent.clone());
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
                expiration.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            );
        }
    }

    /// The time of expiry, if it has passed. What is no time never expires.
    pub fn expired(&self) -> Option<String> {
        let text = self.text("expiration")?;
        let expiration: Timestamp = text.parse().ok()?;
        (expiration < Timestamp::now()).then(|| text.into_owned())
    }

    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(known, _)| known.as_bytes().cmp(name))
    }

    fn has(&self, name: &str) -> bool {
        self.find(name.as_bytes()).is_ok()
    }

    fn set(&mut self, name: &'static str, value: impl Into<Cow<'a, str>>) {
        self.insert(Text::from_static(name), Value::Text(value.into()));
    }

    /// Sets an attribute to text.
    pub fn set_attribute(&mut self, name: String, value: impl Into<Cow<'a, str>>) {
        self.insert(Text::from(name), Value::Text(value.into()));
    }

    fn insert(&mut self, name: Text, value: Value<'a>) {
        match self.find(name.as_bytes()) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (name, value)),
        }
    }

    fn set_data(&mut self, content_type: &str, data: &'a [u8]) {
        if is(content_type, "application/json") {
            // Only the first value counts; what is not JSON is text.
            let first = serde_json::Deserializer::from_slice(data)
                .into_iter::<&'a RawValue>()
                .next();
            if let Some(Ok(json)) = first {
                self.insert(Text::from_static("data"), Value::Json(json.get()));
                return;
            }
        } else if is_binary(content_type, data) {
            self.set("data_base64", STANDARD.encode(data));
            return;
        }
        match std::str::from_utf8(data) {
            Ok(text) => self.set("data", text),
            // Text in another encoding keeps its bytes.
            Err(_) => self.set("data_base64", STANDARD.encode(data)),
        }
    }

    /// An attribute as JSON.
    pub fn json(&self, name: &str) -> Option<Cow<'_, str>> {
        Some(self.value(name)?.json())
    }

    fn value(&self, name: &str) -> Option<&Value<'a>> {
        let at = self.find(name.as_bytes()).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// An attribute that is text.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        let json = match self.value(name)? {
            Value::Text(text) => return Some(Cow::Borrowed(text)),
            Value::Json(json) => json,
            Value::Shared(json) => json.as_str(),
        };
        match serde_json::from_str::<&str>(json) {
            Ok(plain) => Some(Cow::Borrowed(plain)),
            Err(_) => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
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

    /// Names and JSON.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let attributes = self.0.iter();
        attributes.map(|(name, value)| (name.as_str(), value.json()))
    }

    pub fn to_bytes(&self) -> Bytes {
        let lengths = self.0.iter().map(|(name, value)| {
            let value = match value {
                Value::Text(text) => text.len() + 2,
                Value::Json(json) => json.len(),
                Value::Shared(json) => json.as_bytes().len(),
            };
            name.as_bytes().len() + value + 4
        });
        let mut json = Vec::with_capacity(lengths.sum::<usize>() + 2);
        json.push(b'{');
        for (at, (name, value)) in self.0.iter().enumerate() {
            if at > 0 {
                json.push(b',');
            }
            json::write_text(&mut json, name.as_str());
            json.push(b':');
            match value {
                Value::Text(text) => json::write_text(&mut json, text),
                Value::Json(text) => json.extend_from_slice(text.as_bytes()),
                Value::Shared(text) => json.extend_from_slice(text.as_bytes()),
            }
        }
        json.push(b'}');
        json.into()
    }

    /// The data in the form in which gRPC applications get it.
    pub fn data(&self) -> Bytes {
        if let Some(encoded) = self.text("data_base64") {
            return STANDARD
                .decode(encoded.as_bytes())
                .unwrap_or_default()
                .into();
        }
        let (Some(json), Some(kind)) = (self.json("data"), self.text("datacontenttype")) else {
            return Bytes::new();
        };
        let kind = media(&kind);
        if kind.starts_with("text/") || kind == "application/xml" {
            return self.text("data").unwrap_or_default().into_owned().into();
        }
        if kind == "application/json" || kind == CONTENT_TYPE {
            return match serde_json::from_str(&json) {
                Ok(value) => json::normal(&value).into(),
                Err(_) => Bytes::new(),
            };
        }
        Bytes::new()
    }
}

/// A content type in lower case, without parameters.
fn media(content_type: &str) -> String {
    plain(content_type).to_ascii_lowercase()
}

/// A content type without parameters.
fn plain(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default()
}

pub fn is(content_type: &str, expected: &str) -> bool {
    plain(content_type).eq_ignore_ascii_case(expected)
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
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(0));
    let now = Zoned::now();
    if now.offset().is_zero() {
        PRINTER.timestamp_to_string(&now.timestamp())
    } else {
        PRINTER.timestamp_with_offset_to_string(&now.timestamp(), now.offset())
    }
}

#[cfg(test)]
mod tests;
