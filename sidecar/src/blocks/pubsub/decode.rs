//! Bodies of bulk requests over HTTP.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use outrider_components::Pairs;
use outrider_components::pubsub::Entry;
use serde_json::value::RawValue;

use super::envelope;
use crate::blocks::json;
use crate::blocks::json::shape::{self, Shape};

/// What is wrong with a bulk request.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is no list of entries.
    Form(String),
    /// An entry's event is not what its content type says.
    Event(String),
}

/// The members of an entry.
type Item<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

/// A bulk request.
const ENTRIES: Shape = Shape::List(
    "[]http.bulkPublishMessageEntry",
    &Shape::Struct(
        "http.bulkPublishMessageEntry",
        &[
            ("entryId", Shape::Text),
            ("event", Shape::Any),
            ("contentType", Shape::Text),
            ("metadata", shape::PAIRS),
        ],
    ),
);

/// The entries of a bulk request. An entry with metadata of its own gets the
/// request's besides. Keys match in any case.
pub fn entries(body: &[u8], metadata: &Pairs) -> Result<Vec<Entry>, Wrong> {
    let form = |error: serde_json::Error| Wrong::Form(json::decode_error(&error, body, &ENTRIES));
    let first: &RawValue = serde_json::Deserializer::from_slice(body)
        .into_iter()
        .next()
        .unwrap_or_else(|| serde_json::from_slice(b""))
        .map_err(form)?;
    let items: Option<Vec<Option<Item<'_>>>> = serde_json::from_str(first.get()).map_err(form)?;
    items
        .unwrap_or_default()
        .into_iter()
        .map(|item| entry(&item.unwrap_or_default(), metadata, body))
        .collect()
}

fn entry(item: &Item<'_>, metadata: &Pairs, body: &[u8]) -> Result<Entry, Wrong> {
    let field = |name: &str| {
        item.iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, raw)| raw.get())
            .filter(|raw| *raw != "null")
    };
    let form = |error: serde_json::Error| Wrong::Form(json::decode_error(&error, body, &ENTRIES));
    let text = |name: &str| -> Result<String, Wrong> {
        field(name).map_or_else(
            || Ok(String::new()),
            |raw| serde_json::from_str(raw).map_err(form),
        )
    };
    let content_type = text("contentType")?;
    let own: Option<Pairs> = field("metadata")
        .map(|raw| serde_json::from_str(raw).map_err(form))
        .transpose()?;
    Ok(Entry {
        id: text("entryId")?,
        data: data(field("event").unwrap_or("null"), &content_type).map_err(Wrong::Event)?,
        metadata: own.map_or_else(Pairs::new, |own| merged(metadata, own)),
        content_type,
    })
}

/// The request's metadata under an entry's own.
pub fn merged(request: &Pairs, own: Pairs) -> Pairs {
    let mut all = request.clone();
    all.extend(own);
    all
}

fn data(event: &str, content_type: &str) -> Result<Bytes, String> {
    let kind = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let text = || {
        serde_json::from_str::<String>(event)
            .map_err(|_| "error: mismatch between contentType and event".to_owned())
    };
    match kind.as_str() {
        "application/json" | envelope::CONTENT_TYPE => Ok(Bytes::copy_from_slice(event.as_bytes())),
        "application/octet-stream" => STANDARD.decode(text()?).map(Bytes::from).map_err(|cause| {
            format!("error: unable to decode base64 application/octect-stream data: {cause}")
        }),
        "application/xml" => text().map(Bytes::from),
        kind if kind.starts_with("text/") => text().map(Bytes::from),
        _ => Err("error: mismatch between contentType and event".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ok(body: &str) -> Vec<Entry> {
        let metadata = Pairs::from([
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), "2".to_owned()),
        ]);
        entries(body.as_bytes(), &metadata).unwrap()
    }

    #[test]
    fn events_by_content_type() {
        for (event, content_type, expected) in [
            (r#"{"a": 1.0}"#, "application/json", r#"{"a": 1.0}"#),
            (r#""x\n""#, "text/plain; charset=utf-8", "x\n"),
            (r#""<a/>""#, "application/XML", "<a/>"),
            (r#""aGk=""#, "application/octet-stream", "hi"),
        ] {
            let body = format!(
                r#"[{{"ENTRYID":"1","event":{event},"contentType":"{content_type}"}}] rest"#
            );
            assert_eq!(ok(&body)[0].data, expected);
        }
        for (event, content_type) in [
            ("1", "text/plain"),
            ("{}", "application/octet-stream"),
            ("{}", ""),
            ("\"x\"", "image/png"),
            ("\"%\"", "application/octet-stream"),
        ] {
            let body =
                format!(r#"[{{"entryId":"1","event":{event},"contentType":"{content_type}"}}]"#);
            let wrong = entries(body.as_bytes(), &Pairs::new()).unwrap_err();
            assert!(matches!(wrong, Wrong::Event(_)), "{body}");
        }
    }

    #[test]
    fn metadata_of_the_request_only_beside_an_entrys_own() {
        let entries = ok(
            r#"[{"entryId":"1","event":1,"contentType":"application/json"},
            {"entryId":"2","event":1,"contentType":"application/json","metadata":{"b":"3"}}]"#,
        );
        assert!(entries[0].metadata.is_empty());
        assert_eq!(
            (
                entries[1].metadata["a"].as_str(),
                entries[1].metadata["b"].as_str()
            ),
            ("1", "3")
        );
    }

    #[test]
    fn what_is_no_list() {
        let wrong = |body: &str| entries(body.as_bytes(), &Pairs::new()).unwrap_err();
        let type_error =
            "json: cannot unmarshal object into Go value of type []http.bulkPublishMessageEntry";
        assert_eq!(wrong(r#"{"entryID": ""}"#), Wrong::Form(type_error.into()));
        assert_eq!(
            wrong(r#"{"entryID": "}"#),
            Wrong::Form("unexpected EOF".into())
        );
        assert_eq!(wrong(""), Wrong::Form("EOF".into()));
        assert!(ok("null").is_empty() && ok("[]").is_empty());
    }

    proptest! {
        #[test]
        fn prop_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = entries(&body, &Pairs::new());
        }
    }
}
