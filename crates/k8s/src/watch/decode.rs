//! Watch events from the pieces of a body: JSON values one after the other, with or without anything between.

use bytes::{Buf, BytesMut};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, PartialEq)]
pub enum Event {
    /// Added or modified; the store knows which.
    Changed(Value),
    Deleted(Value),
    /// Nothing changed up to this version.
    Bookmark(String),
    /// The code of the status that the server sent.
    Error(u64),
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    object: Value,
}

/// Takes the whole events off the front of `buffer` and leaves the rest.
pub fn take(buffer: &mut BytesMut) -> Result<Vec<Event>, serde_json::Error> {
    let mut events = Vec::new();
    let mut values = serde_json::Deserializer::from_slice(buffer).into_iter::<Wire>();
    let mut taken = 0;
    loop {
        match values.next() {
            Some(Ok(wire)) => {
                taken = values.byte_offset();
                events.extend(event(wire));
            }
            Some(Err(error)) if error.is_eof() => break,
            Some(Err(error)) => return Err(error),
            None => {
                taken = values.byte_offset();
                break;
            }
        }
    }
    buffer.advance(taken);
    Ok(events)
}

fn event(Wire { kind, object }: Wire) -> Option<Event> {
    match kind.as_str() {
        "ADDED" | "MODIFIED" => Some(Event::Changed(object)),
        "DELETED" => Some(Event::Deleted(object)),
        "BOOKMARK" => Some(Event::Bookmark(super::version_of(&object).to_owned())),
        "ERROR" => Some(Event::Error(object["code"].as_u64().unwrap_or_default())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_split_wherever_the_body_is_cut() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"a":1}}{"type":"DELETED","object":{"a":2}}"#,
            "\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}{"type":"ERROR","object":{"code":410}}"#,
        );
        let expected = [
            Event::Changed(json!({"a": 1})),
            Event::Deleted(json!({"a": 2})),
            Event::Bookmark("7".into()),
            Event::Error(410),
        ];
        // Cut at every place.
        for cut in 0..text.len() {
            let mut buffer = BytesMut::from(&text[..cut]);
            let mut events = take(&mut buffer).unwrap();
            buffer.extend_from_slice(&text.as_bytes()[cut..]);
            events.extend(take(&mut buffer).unwrap());
            assert_eq!(events, expected, "cut at {cut}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_body_that_is_not_json_is_an_error() {
        assert!(take(&mut BytesMut::from("<html>")).is_err());
    }
}
