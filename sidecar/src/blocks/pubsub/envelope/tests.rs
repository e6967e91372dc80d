use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn publish(content_type: &str, data: &[u8], metadata: &[(&str, &str)]) -> Result<Value, String> {
    let given = Given {
        app_id: "app",
        pubsub: "p",
        topic: "t",
        data,
        content_type,
        trace: &trace::Parent::default(),
    };
    Event::of_publisher(given, &pairs(metadata))
        .map(|event| serde_json::from_slice(&event.to_bytes()).unwrap())
}

fn pairs(pairs: &[(&str, &str)]) -> Pairs {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn plain_data_gets_an_envelope() {
    let mut event = publish("", b"hello", &[]).unwrap();
    let time = event["time"].take();
    let id = event["id"].take();
    assert!(
        time.as_str().unwrap().parse::<Timestamp>().is_ok(),
        "{time}"
    );
    assert_eq!(id.as_str().unwrap().len(), 36);
    assert_eq!(
        event,
        json!({
            "data": "hello", "datacontenttype": "text/plain", "id": null, "pubsubname": "p",
            "source": "app", "specversion": "1.0", "time": null, "topic": "t", "traceid": "",
            "traceparent": "", "tracestate": "", "type": "com.dapr.event.sent",
        })
    );
}

#[test]
fn data_by_content_type() {
    let protobuf = [b"\x0a\x01i\x12\x01s\x22\x01t".as_slice(), b"\xff"];
    for (content_type, data, key, expected) in [
        (
            "application/json",
            b"{\"a\":1.0}".as_slice(),
            "data",
            json!({"a": 1.0}),
        ),
        (
            "Application/JSON; charset=utf-8",
            b"[1] 2",
            "data",
            json!([1]),
        ),
        ("application/json", b"{\"a\"", "data", json!("{\"a\"")),
        ("application/json", b"", "data", json!("")),
        ("application/vnd.x+json", b"{}", "data", json!("{}")),
        ("text/plain", b"a\xffb", "data_base64", json!("Yf9i")),
        (
            "application/octet-stream",
            b"\x01",
            "data_base64",
            json!("AQ=="),
        ),
        (
            "application/x-protobuf",
            protobuf[0],
            "data_base64",
            json!("CgFpEgFzIgF0"),
        ),
        (
            "application/x-protobuf",
            protobuf[1],
            "data_base64",
            json!("/w=="),
        ),
    ] {
        let event = publish(content_type, data, &[]).unwrap();
        assert_eq!(event[key], expected, "{content_type}");
        assert_eq!(event["datacontenttype"], content_type);
    }
    let given = publish("application/json", b"12345678901234567890123", &[]).unwrap();
    assert!(given["data"].is_number());
}

#[test]
fn overrides() {
    let event = publish(
        "text/plain",
        b"x",
        &[
            ("CloudEvent.ID", "1"),
            ("cloudevent.source", "s"),
            ("cloudevent.type", "k"),
            ("cloudevent.subject", "sub"),
            ("cloudevent.traceid", "lost"),
            ("cloudevent.traceparent", "won"),
            ("cloudevent.tracestate", "st"),
        ],
    )
    .unwrap();
    for (name, value) in [
        ("id", "1"),
        ("source", "s"),
        ("type", "k"),
        ("subject", "sub"),
        ("traceid", "won"),
        ("traceparent", "won"),
        ("tracestate", "st"),
    ] {
        assert_eq!(event[name], value);
    }
}

#[test]
fn an_event_is_taken_over() {
    let text = br#"{"id":"1","type":null,"topic":"other","traceparent":"x","extra":{"n":1e3}}"#;
    let event = publish(
        "application/cloudevents+json; charset=utf-8",
        text,
        &[("cloudevent.id", "2")],
    )
    .unwrap();
    assert_eq!(event["id"], "1");
    assert_eq!(event["topic"], "t");
    assert_eq!(event["pubsubname"], "p");
    assert_eq!(event["type"], "com.dapr.event.sent");
    assert_eq!(event["source"], "Dapr");
    assert_eq!(event["traceparent"], "");
    assert_eq!(event["extra"]["n"], 1e3);
    let kept = publish(CONTENT_TYPE, br#"{"traceid":5,"time":"t"}"#, &[]).unwrap();
    assert_eq!((&kept["traceid"], &kept["time"]), (&json!(5), &json!("t")));
    assert!(kept.get("traceparent").is_none() && kept.get("id").is_none());
    for wrong in ["", "[]", "{\"}", "1"] {
        publish(CONTENT_TYPE, wrong.as_bytes(), &[]).unwrap_err();
    }
}

#[test]
fn the_trace_of_an_event_that_is_taken_over() {
    const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let given = |data: &str, metadata: &[(&str, &str)]| {
        let trace = trace::Parent {
            parent: OTHER.to_owned(),
            state: "span=1".to_owned(),
        };
        let given = Given {
            app_id: "app",
            pubsub: "p",
            topic: "t",
            data: data.as_bytes(),
            content_type: CONTENT_TYPE,
            trace: &trace,
        };
        let metadata = pairs(metadata);
        let event = Event::of_publisher(given, &metadata).unwrap();
        ["traceid", "traceparent", "tracestate"].map(|name| event.text(name).unwrap().into_owned())
    };
    let own = format!(r#"{{"traceparent":"{PARENT}","tracestate":"a=b"}}"#);
    assert_eq!(given(&own, &[]), [PARENT, PARENT, "a=b"]);
    let own = format!(r#"{{"traceparent":"{PARENT}"}}"#);
    assert_eq!(
        given(&own, &[("cloudevent.traceparent", OTHER)]),
        [PARENT, PARENT, ""]
    );
    let metadata = [
        ("cloudevent.traceparent", PARENT),
        ("cloudevent.tracestate", "c=d"),
    ];
    assert_eq!(given("{}", &metadata), [PARENT, PARENT, "c=d"]);
    assert_eq!(given("{}", &[]), [OTHER, OTHER, "span=1"]);
}

#[test]
fn expiry() {
    let with = |ttl: &[(&str, &str)]| {
        let mut event = Event::default();
        event.expire(&pairs(ttl));
        event
    };
    for (key, value) in [
        ("ttlInSeconds", "60"),
        ("TTL", "1h"),
        ("ttlinseconds", "5m"),
    ] {
        let event = with(&[(key, value)]);
        assert!(event.text("expiration").unwrap().ends_with('Z'));
        assert!(event.expired().is_none(), "{key}");
    }
    for ignored in ["-5", "0", "soon", ""] {
        assert!(!with(&[("ttl", ignored)]).has("expiration"), "{ignored}");
    }
    let read = |text: &str| Event::read(&Bytes::from(text.to_owned())).unwrap();
    assert!(
        read(r#"{"expiration":"2020-01-01T00:00:00Z"}"#)
            .expired()
            .is_some()
    );
    assert!(
        read(r#"{"expiration":"2020-01-01T00:00:00+02:00"}"#)
            .expired()
            .is_some()
    );
    for never in [r#"{"expiration":"yesterday"}"#, r#"{"expiration":1}"#, "{}"] {
        assert!(read(never).expired().is_none(), "{never}");
    }
}

#[test]
fn an_event_that_was_read_is_written_as_it_was() {
    for (given, written) in [
        (r#"{"b": 1.0 ,"a":"\u00e9<"}"#, r#"{"a":"\u00e9<","b":1.0}"#),
        (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
        (r#"{"\u0061":1,"a":2,"\n":[ ]}"#, r#"{"\n":[ ],"a":2}"#),
        ("{}", "{}"),
    ] {
        let event = Event::read(&Bytes::from(given)).unwrap();
        assert_eq!(event.to_bytes(), written);
        assert_eq!(event.into_owned().to_bytes(), written);
    }
    let lossy = Event::read(&Bytes::from_static(b"{\"a\":\"\xff\"}")).unwrap();
    assert_eq!(lossy.text("a").unwrap(), "\u{fffd}");
}

#[test]
fn a_raw_message_gets_an_envelope() {
    let metadata = pairs(&[("traceid", "a"), ("traceparent", PARENT)]);
    let event = Event::of_raw_message(b"x", "t", "p", &metadata);
    assert_eq!(event.text("data_base64").as_deref(), Some("eA=="));
    assert_eq!(event.text("source").as_deref(), Some("Dapr"));
    assert_eq!(event.text("traceid").as_deref(), Some(PARENT));
    assert!(!event.has("time"));
    assert_eq!(event.data(), "x");
    assert_eq!(event.trace().parent, PARENT);
}

#[test]
fn data_for_grpc() {
    for (event, expected) in [
        (r#"{"data":"x","datacontenttype":"text/html; a=b"}"#, "x"),
        (
            r#"{"data":"<a/>","datacontenttype":"application/xml"}"#,
            "<a/>",
        ),
        (
            r#"{"data":{"b": 1, "a": 2.0},"datacontenttype":"application/json"}"#,
            r#"{"a":2,"b":1}"#,
        ),
        (
            r#"{"data":"x","datacontenttype":"application/json"}"#,
            "\"x\"",
        ),
        (r#"{"data":"x","datacontenttype":"image/png"}"#, ""),
        (r#"{"data":"x"}"#, ""),
        (
            r#"{"data_base64":"eA==","datacontenttype":"image/png"}"#,
            "x",
        ),
    ] {
        assert_eq!(
            Event::read(&Bytes::from(event)).unwrap().data(),
            expected,
            "{event}"
        );
    }
}

#[test]
fn traces_beside_the_message_fill_gaps_only() {
    let mut event = Event::read(&Bytes::from_static(br#"{"traceid":"kept"}"#)).unwrap();
    event.add_trace(&pairs(&[("traceid", "lost"), ("tracestate", "s")]));
    assert_eq!(event.text("traceid").as_deref(), Some("kept"));
    assert_eq!(event.text("tracestate").as_deref(), Some("s"));
    assert_eq!(
        Event::read(&Bytes::from_static(br#"{"traceid":5,"traceparent":{}}"#))
            .unwrap()
            .trace(),
        trace::Parent::default()
    );
}

proptest! {
    #[test]
    fn prop_whatever_is_published_can_be_read(
        content_type in "(application/json|text/plain|application/octet-stream|image/png|application/cloudevents\\+json|)",
        data in proptest::collection::vec(any::<u8>(), 0..60),
        topic in any::<String>(),
        subject in any::<String>(),
    ) {
        let parent = trace::Parent::default();
        let given = Given { app_id: "app", pubsub: "p", topic: &topic, data: &data, content_type: &content_type, trace: &parent };
        if let Ok(event) = Event::of_publisher(given, &pairs(&[("cloudevent.subject", &subject)])) {
            let read = Event::read(&event.to_bytes()).unwrap();
            prop_assert_eq!(read.text("topic").unwrap(), topic.as_str());
            if content_type == "application/octet-stream" {
                prop_assert_eq!(read.data(), data);
            }
        }
    }

    #[test]
    fn prop_reading_never_panics(data in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(event) = Event::read(&data.into()) {
            event.expired();
            event.data();
        }
    }
}
