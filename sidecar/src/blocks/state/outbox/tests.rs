use outrider_components::Pairs;
use outrider_components::state::DeleteRequest;
use serde_json::{Value as Json, json};

use super::*;

fn settings(properties: &[(&str, &str)]) -> Option<Settings> {
    Settings::of(&Metadata::new("s", properties.iter().copied()))
}

fn pairs(pairs: &[(&str, &str)]) -> Pairs {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn write(key: &str, value: Value, metadata: &[(&str, &str)]) -> SetRequest {
    let mut write = SetRequest::new(key, value);
    write.metadata = pairs(metadata);
    write
}

fn value(text: &'static str) -> Value {
    Value::Json(Bytes::from_static(text.as_bytes()))
}

fn event_of(published: &SetRequest) -> Json {
    let trace = trace::Parent::default();
    let event = event::of_write(&event::Given {
        app_id: "app",
        pubsub: "inner",
        id: "outbox-1",
        published,
        attributes: &published.metadata,
        trace: &trace,
    });
    serde_json::from_slice(&event).unwrap()
}

#[test]
fn an_outbox_needs_a_broker_and_a_topic() {
    let both = [("outboxPublishPubsub", "p"), ("outboxPublishTopic", "t")];
    assert_eq!(settings(&both[..1]), None);
    assert_eq!(settings(&both[1..]), None);
    // Names of properties have one spelling.
    assert_eq!(settings(&[both[0], ("outboxpublishtopic", "t")]), None);
    let expected = Settings {
        pubsub: "p".into(),
        topic: "t".into(),
        inner_pubsub: "p".into(),
        discard: false,
    };
    assert_eq!(settings(&both), Some(expected.clone()));
    let more = [
        both[0],
        both[1],
        ("outboxPubsub", "i"),
        ("outboxDiscardWhenMissingState", "true"),
    ];
    let expected = Settings {
        inner_pubsub: "i".into(),
        discard: true,
        ..expected
    };
    assert_eq!(settings(&more), Some(expected));
}

#[test]
fn every_projection_is_taken_out_and_nothing_else() {
    let projection = [("outbox.projection", "true")];
    let upsert = |key, text, metadata: &[_]| Operation::Upsert(write(key, value(text), metadata));
    let mut operations = vec![
        upsert("a", "1", &projection),
        upsert("a", "2", &projection),
        upsert("a", "3", &[("outbox.projection", "no")]),
        Operation::Delete(DeleteRequest::new("b")),
        upsert("c", "4", &projection),
    ];
    let taken = take_projections(&mut operations);
    let values: Vec<_> = taken.iter().map(|taken| &taken.value.bytes()[..]).collect();
    assert_eq!(values, [&b"1"[..], b"2", b"4"]);
    let left: Vec<_> = operations.iter().map(Operation::key).collect();
    assert_eq!(left, ["a", "b"]);
}

#[test]
fn data_is_json_where_the_write_says_so_and_text_otherwise() {
    let data = |value, metadata: &[_]| {
        let event = event_of(&write("k", value, metadata));
        (event["datacontenttype"].clone(), event["data"].clone())
    };
    let object = || value("{\"a\": 1}");
    let is_json = json!("application/json");
    let is_text = json!("text/plain");
    assert_eq!(data(object(), &[]), (is_text.clone(), json!("{\"a\": 1}")));
    assert_eq!(data(value("\"2\""), &[]), (is_text.clone(), json!("2")));
    let bytes = |text: &'static [u8]| Value::Binary(Bytes::from_static(text));
    assert_eq!(data(bytes(b"hi"), &[]), (is_text, json!("hi")));
    for name in ["contentType", "datacontenttype"] {
        let says = [(name, "application/json")];
        assert_eq!(data(object(), &says), (is_json.clone(), json!({"a": 1})));
        assert_eq!(data(value("\"2\""), &says), (is_json.clone(), json!("2")));
        assert_eq!(
            data(bytes(b"{\"a\":2}"), &says),
            (is_json.clone(), json!({"a": 2}))
        );
    }
    let mut stated = write("k", object(), &[]);
    stated.content_type = Some("application/json".into());
    assert_eq!(event_of(&stated)["data"], json!({"a": 1}));
}

#[test]
fn metadata_become_attributes_but_id_and_data_do_not() {
    let metadata = [
        ("outbox.cloudevent.myapp", "myapp1"),
        ("data", "a"),
        ("id", "b"),
        ("type", "order"),
    ];
    let event = event_of(&write("k", value("1"), &metadata));
    for (name, expected) in [
        ("id", "outbox-1"),
        ("data", "1"),
        ("outbox.cloudevent.myapp", "myapp1"),
        ("type", "order"),
        ("source", "app"),
        ("pubsubname", "inner"),
        ("topic", ""),
        ("specversion", "1.0"),
    ] {
        assert_eq!(event[name], expected, "{name}");
    }
}
