//! What reads bytes of peers, clients and applications, for the crate
//! `outrider-fuzz`. A target fails by panicking.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use outrider_components::Pairs;
use outrider_crds::{Configuration, decode, yaml};
use prost::Message as _;

use crate::blocks::bindings;
use crate::blocks::crypto::document;
use crate::blocks::crypto::document::header::Manifest;
use crate::blocks::invoke::address;
use crate::blocks::pubsub;
use crate::blocks::pubsub::envelope::{CONTENT_TYPE, Event, Given};
use crate::blocks::pubsub::subscribe::rules::{Rules, Subject};
use crate::blocks::pubsub::subscribe::{app, bulk};
use crate::blocks::state;
use crate::config;
use outrider_call::{headers, method};
use outrider_net::body::BoxError;
use outrider_net::grpc::Messages;
use outrider_peer::serve;
use outrider_peer::wire;
use outrider_trace as trace;

/// gRPC's frames, cut anywhere: the first byte says where, the second how
/// large a message may be.
pub fn frames(bytes: &[u8]) {
    let [cut, limit, body @ ..] = bytes else {
        return;
    };
    let chunks: Vec<_> = body
        .chunks(usize::from(*cut).max(1))
        .map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::copy_from_slice(chunk))))
        .collect();
    let body = StreamBody::new(futures_util::stream::iter(chunks));
    let limit = (*limit != 0).then_some(usize::from(*limit));
    let mut messages = Messages::new(body, limit);
    while let Some(Some(Ok(message))) = messages.next().now_or_never() {
        assert!(limit.is_none_or(|limit| message.len() <= limit));
    }
}

/// A path in the first line, headers in the others.
pub fn address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let path = lines.next().unwrap_or_default();
    let headers = header_map(lines);
    let Ok(address) = address::of_http(&headers, path) else {
        return;
    };
    let _ = address::target(&address.target, "default", |_| false);
    if let Ok(method) = method::normal(address.method) {
        // Judged and called are the same.
        assert_eq!(method::normal(method.clone()).ok(), Some(method));
    }
}

fn header_map<'a>(lines: impl Iterator<Item = &'a str>) -> HeaderMap {
    lines
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let name = HeaderName::try_from(name).ok()?;
            Some((name, HeaderValue::try_from(value.trim()).ok()?))
        })
        .collect()
}

/// An encrypted document, cut anywhere: the first byte says where.
pub fn documents(bytes: &[u8]) {
    let [cut, body @ ..] = bytes else {
        return;
    };
    for line in body.split(|byte| *byte == b'\n') {
        if let Some(manifest) = Manifest::parse(line) {
            assert_eq!(Manifest::parse(&manifest.write()), Some(manifest));
        }
    }
    let pieces: Vec<_> = body
        .chunks(usize::from(*cut).max(1))
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let source = futures_util::stream::iter(pieces).boxed();
    let Some(Ok(begun)) = document::begin("key", source).now_or_never() else {
        return;
    };
    if let Ok(mut document) = begun.decrypt(&[0; 32]) {
        while let Some(Ok(Some(_))) = document.next().now_or_never() {}
    }
}

/// A call of another sidecar.
pub fn peer(bytes: &[u8]) {
    let Ok(message) = wire::Request::decode(bytes) else {
        return;
    };
    let Ok((call, _)) = serve::decode(message) else {
        return;
    };
    let _ = method::normal(call.method);
    headers::to_http(call.metadata.clone(), call.origin, &mut HeaderMap::new());
    headers::to_grpc(&call.metadata, call.origin, &mut HeaderMap::new());
}

/// An event: as a publisher gives it, and as a broker brings it.
pub fn event(bytes: &[u8]) {
    let trace = trace::Parent::default();
    for content_type in [CONTENT_TYPE, "application/json", "text/plain", "image/png"] {
        let given = Given {
            app_id: "app",
            pubsub: "broker",
            topic: "topic",
            data: bytes,
            content_type,
            trace: &trace,
        };
        if let Ok(event) = Event::of_publisher(given, &Pairs::default()) {
            check(&event);
        }
    }
    if let Ok(event) = Event::read(&Bytes::copy_from_slice(bytes)) {
        check(&event);
    }
}

fn check(event: &Event<'_>) {
    let _ = (event.id(), event.trace(), event.data(), event.expired());
    let written = event.to_bytes();
    assert!(Event::read(&written).is_ok(), "{written:?}");
}

/// Bodies of the state API and of bulk publishing.
pub fn bodies(bytes: &[u8]) {
    let metadata = HashMap::new();
    for item in state::decode::save(bytes).into_iter().flatten() {
        let _ = item.into_set(&metadata);
    }
    let _ = state::decode::first::<state::decode::BulkGet>(bytes, &state::decode::BULK_GET);
    if let Ok(transaction) =
        state::decode::first::<state::decode::Transaction>(bytes, &state::decode::TRANSACTION)
    {
        for operation in transaction.operations {
            let _ = operation.into_operation(&metadata);
        }
    }
    let _ = outrider_components::state::Query::parse(bytes);
    let _ = pubsub::decode::entries(bytes, &Pairs::default());
    if let Ok(request) = bindings::decode::request(&Bytes::copy_from_slice(bytes)) {
        assert!(serde_json::from_slice::<serde_json::Value>(&request.data).is_ok());
    }
}

/// What an application answers: its subscriptions, with their conditions, the
/// outcomes of a batch, and what is to be done after the event of a binding.
pub fn answers(bytes: &[u8]) {
    let _ = bindings::read::answer::of_http(&Bytes::copy_from_slice(bytes), "b");
    let _ = bulk::statuses(bytes);
    let event = Event::read(&Bytes::from_static(
        br#"{"id": "1", "type": "t", "data": {"n": 1}}"#,
    ))
    .unwrap_or_default();
    for spec in app::decode(bytes).unwrap_or_default() {
        if let Ok(rules) = Rules::compile(&spec.routes) {
            let _ = rules.find(Subject::Event(&event));
        }
    }
}

/// Trace context in headers, one a line.
pub fn traces(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let headers = header_map(text.lines());
    for wire in [trace::Wire::Http, trace::Wire::Grpc] {
        let parent = trace::Parent::of_headers(&headers, wire);
        assert!(parent.parent.is_empty() || trace::is_valid(parent.parent.as_bytes()));
    }
    if let Some(parsed) = trace::of_binary(&text) {
        assert!(trace::is_valid(parsed.as_bytes()));
    }
    let _ = trace::baggage::check(bytes);
    let _ = trace::state::is_valid(bytes);
}

/// A Configuration with what follows from it.
pub fn configuration(bytes: &[u8]) {
    let environment = HashMap::from([("NAME".to_owned(), "value".to_owned())]);
    let text = outrider_kit::environment::expand(&String::from_utf8_lossy(bytes), &environment);
    for document in yaml::documents(&text).flatten() {
        if let Ok(configuration) = decode::from_value::<Configuration>(&document) {
            let _ = config::features(&configuration.spec);
            let _ = config::access(&configuration.spec);
        }
    }
}
