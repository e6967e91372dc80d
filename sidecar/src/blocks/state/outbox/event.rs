//! The event of a write.

use std::borrow::Cow;

use bytes::Bytes;
use outrider_components::Pairs;
use outrider_components::state::{SetRequest, Value};
use outrider_trace as trace;

use crate::blocks::pubsub::envelope::{self, Event};

/// Attributes that metadata of a write cannot have.
const RESERVED: [&str; 3] = ["data", "data_base64", "id"];

pub struct Given<'a> {
    pub app_id: &'a str,
    pub pubsub: &'a str,
    /// The key of the marker.
    pub id: &'a str,
    /// The write whose value is the data.
    pub published: &'a SetRequest,
    /// What the write says about its event besides.
    pub attributes: &'a Pairs,
    pub trace: &'a trace::Parent,
}

/// The event as it goes to the topic in between. Data of a write that says it
/// is JSON is JSON; other values are text, strings without their quotes.
pub fn of_write(given: &Given<'_>) -> Bytes {
    let published = given.published;
    let content_type = content_type(published)
        .or_else(|| given.attributes.get("datacontenttype").map(String::as_str))
        .unwrap_or_default();
    let data: Cow<'_, [u8]> = match &published.value {
        Value::Json(json) if !envelope::is(content_type, "application/json") => text(json),
        value => Cow::Borrowed(&value.bytes()[..]),
    };
    let around = envelope::Given {
        app_id: given.app_id,
        pubsub: given.pubsub,
        topic: "",
        data: &data,
        content_type,
        trace: given.trace,
    };
    let mut event = Event::around(around, |name| (name == "id").then_some(given.id));
    for (name, value) in given.attributes {
        if !RESERVED.contains(&name.as_str()) {
            event.set_attribute(name.clone(), value);
        }
    }
    event.to_bytes()
}

fn content_type(write: &SetRequest) -> Option<&str> {
    let named = write.metadata.get("contentType").map(String::as_str);
    let stated = write.content_type.as_deref().or(named);
    stated.filter(|stated| !stated.is_empty())
}

/// JSON as text: a string's own text, of anything else its JSON.
fn text(json: &Bytes) -> Cow<'_, [u8]> {
    match serde_json::from_slice::<String>(json) {
        Ok(text) => Cow::Owned(text.into_bytes()),
        Err(_) => Cow::Borrowed(&json[..]),
    }
}
