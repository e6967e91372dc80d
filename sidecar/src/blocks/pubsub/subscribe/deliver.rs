//! One event to the application.
//! <https://docs.dapr.io/reference/api/pubsub_api/#provide-routes-for-dapr-to-deliver-topic-events>

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use outrider_components::Pairs;
use outrider_proto::runtime::v1 as wire;
use outrider_proto::runtime::v1::topic_event_response::TopicEventResponseStatus as Status;
use prost_types::Struct;
use serde_json::Value;
use tonic::Code;

use super::inlet::{Incoming, Outcome};
use crate::blocks::invoke::ops::code_number;
use crate::blocks::proto_json::to_message;
use crate::blocks::pubsub::envelope::{self, Event};
use outrider_call::channel::{Channel, Kind, Permit, grpc};
use outrider_call::headers;
use outrider_call::message::{self, Data, Origin, Request};
use outrider_call::metadata::{self, Metadata, Name};
use outrider_net::body;
use outrider_trace::{self as trace, Span};

const SCOPE: &str = "dapr.runtime.processor.pubsub.subscription";
/// Bytes of an answer that are looked at.
const ANSWER_LIMIT: usize = 4 << 20;

pub async fn one(channel: &Channel, incoming: &Incoming, path: &str) -> Outcome {
    match &channel.kind {
        Kind::Http(_) => over_http(channel, incoming, path).await,
        Kind::Grpc(client) if channel.healthy.is_healthy() => {
            over_grpc(channel, client, channel.permit().await, incoming, path).await
        }
        Kind::Grpc(_) => Outcome::failed("app is not in a healthy state"),
    }
}

async fn over_http(channel: &Channel, incoming: &Incoming, path: &str) -> Outcome {
    let id = incoming.event.id();
    let mut span = begin(channel, &incoming.topic, &incoming.event);
    let trace = passed_on(span.as_ref(), &incoming.event);
    let metadata = of_message(&incoming.metadata, &trace);
    let request = post(
        path,
        metadata,
        envelope::CONTENT_TYPE,
        incoming.data.clone(),
    );
    let (status, body) = match send(channel, request).await {
        Ok(answer) => {
            if let Some(recording) = span.as_mut().and_then(Span::recording) {
                recording.answered(answer.0);
            }
            answer
        }
        Err(cause) => {
            if let Some(recording) = span.as_mut().and_then(Span::recording) {
                recording.fail(cause.as_str());
            }
            return Outcome::failed(format!(
                "error returned from app channel while sending pub/sub event to app: {cause}"
            ));
        }
    };
    match status {
        200..300 => match said(&body).as_deref() {
            None | Some("" | "SUCCESS") => Outcome::Done,
            Some("RETRY") => Outcome::failed(format!(
                "RETRY status returned from app while processing pub/sub event {id}"
            )),
            Some("DROP") => {
                tracing::warn!(target: SCOPE, "DROP status returned from app while processing pub/sub event {id}");
                Outcome::Dropped
            }
            Some(other) => Outcome::failed(format!(
                "unknown status returned from app while processing pub/sub event {id}, status: {other}"
            )),
        },
        404 => {
            let body = String::from_utf8_lossy(&body);
            tracing::error!(target: SCOPE, "non-retriable error returned from app while processing pub/sub event {id}: {body}. status code returned: 404");
            Outcome::Refused
        }
        _ => {
            let (topic, body) = (&incoming.topic, String::from_utf8_lossy(&body));
            let cause = format!(
                "retriable error returned from app while processing pub/sub event {id}, topic: {topic}, body: {body}. status code returned: {status}"
            );
            tracing::warn!(target: SCOPE, "{cause}");
            Outcome::refused(status, cause)
        }
    }
}

/// Begins the span of a delivery, if spans are made.
pub fn begin(channel: &Channel, topic: &str, event: &Event<'_>) -> Option<Span> {
    if !channel.tracer.is_on() {
        return None;
    }
    let trace = event.trace();
    let parent = trace::Context::parse(trace.parent.as_bytes());
    let state = parent.and_then(|_| HeaderValue::try_from(trace.state).ok());
    let state = state.filter(|state| trace::state::is_valid(state.as_bytes()));
    let mut span = channel.tracer.start(parent, state, trace::Kind::Client)?;
    if let Some(recording) = span.recording() {
        recording.name(format_args!("pubsub/{topic}"));
        recording.set("messaging.system", "pubsub");
        recording.set("messaging.destination.name", topic);
    }
    Some(span)
}

/// The trace that the application gets with an event.
fn passed_on(span: Option<&Span>, event: &Event<'_>) -> trace::Parent {
    span.map_or_else(|| event.trace(), trace::Parent::of_span)
}

/// The status in an answer, if it has one that is text.
fn said(body: &[u8]) -> Option<String> {
    if body.is_empty() {
        return None;
    }
    let answer: Value = serde_json::from_slice(body).ok()?;
    let (_, status) = answer
        .as_object()?
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case("status"))?;
    status.as_str().map(str::to_owned)
}

/// A request of the runtime to a path of an HTTP application.
pub fn post(path: &str, metadata: Metadata, content_type: &str, data: bytes::Bytes) -> Request {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Request {
        method: path.trim_start_matches('/').to_owned(),
        verb: Some(Method::POST),
        query: query.to_owned(),
        metadata,
        origin: Origin::Http,
        content_type: Some(content_type.to_owned()),
        content_length: None,
        data_type_url: String::new(),
        body: Data::Whole(data),
    }
}

/// Status and body of an HTTP application's answer.
pub async fn send(channel: &Channel, request: Request) -> Result<(u16, bytes::Bytes), String> {
    let answer = channel
        .invoke(request)
        .await
        .map_err(|status| status.message().to_owned())?;
    let message::Code::Http(status) = answer.code else {
        return Err("the application does not speak HTTP".to_owned());
    };
    let body = body::collect(answer.body, Some(ANSWER_LIMIT))
        .await
        .map_err(|e| e.to_string())?;
    Ok((status, body))
}

/// Trace headers of a publisher; those of the event's trace replace them.
const TRACE: [&str; 4] = [
    trace::TRACEPARENT,
    trace::TRACESTATE,
    "traceid",
    trace::BINARY,
];

/// What is known about a message, as headers.
pub fn of_message(metadata: &Pairs, trace: &trace::Parent) -> Metadata {
    let mut pairs: Metadata = metadata
        .iter()
        .filter(|(name, _)| {
            let is_trace = |trace: &str| name.eq_ignore_ascii_case(trace);
            !headers::is_reserved(name.as_bytes()) && !TRACE.into_iter().any(is_trace)
        })
        .filter_map(|(name, value)| Some((name.as_str().into(), metadata::value(value)?)))
        .collect();
    if !trace.parent.is_empty() {
        let parent = metadata::value(&trace.parent);
        pairs.extend(parent.map(|parent| (Name::from_static(trace::TRACEPARENT), parent)));
        let state = metadata::value(&trace.state).filter(|state| !state.is_empty());
        pairs.extend(state.map(|state| (Name::from_static(trace::TRACESTATE), state)));
    }
    pairs
}

/// The same for a gRPC application.
pub fn grpc_metadata(metadata: &Pairs, trace: &trace::Parent) -> HeaderMap {
    let mut into = HeaderMap::new();
    let pairs: Metadata = of_message(metadata, trace)
        .into_iter()
        .filter(|(name, _)| {
            let lower = name.as_bytes().to_ascii_lowercase();
            !lower.starts_with(b"grpc-")
                && !matches!(lower.as_slice(), b"content-type" | b"content-length")
        })
        .collect();
    headers::to_grpc(&pairs, Origin::Grpc, &mut into);
    into.entry(HeaderName::from_static(trace::TRACEPARENT))
        .or_insert(HeaderValue::from_static(trace::NOTHING));
    into
}

async fn over_grpc(
    channel: &Channel,
    client: &grpc::Client,
    permit: Permit,
    incoming: &Incoming,
    path: &str,
) -> Outcome {
    let id = incoming.event.id();
    let mut span = begin(channel, &incoming.topic, &incoming.event);
    let trace = passed_on(span.as_ref(), &incoming.event);
    let metadata = grpc_metadata(&incoming.metadata, &trace);
    let event = topic_event(incoming, path);
    let answered = client
        .unary::<_, wire::TopicEventResponse>(
            permit,
            "/dapr.proto.runtime.v1.AppCallback/OnTopicEvent",
            &event,
            metadata,
        )
        .await;
    if let (Err(status), Some(span)) = (&answered, &mut span)
        && let Some(recording) = span.recording()
    {
        recording.fail(status.message());
    }
    match answered {
        Ok((answer, _, _)) => of_status(answer.status, &id),
        Err(status) if status.code() == Code::Unimplemented => {
            let cause = outrider_net::grpc::text(&status);
            tracing::warn!(target: SCOPE, "non-retriable error returned from app while processing pub/sub event {id}: {cause}");
            Outcome::Ignored
        }
        Err(status) => {
            let cause = outrider_net::grpc::text(&status);
            let cause =
                format!("error returned from app while processing pub/sub event {id}: {cause}");
            Outcome::refused(code_number(status.code()), cause)
        }
    }
}

/// What a status of a gRPC application means for the event called `id`.
pub fn of_status(status: i32, id: &str) -> Outcome {
    match Status::try_from(status) {
        Ok(Status::Success) => Outcome::Done,
        Ok(Status::Retry) => Outcome::failed(format!(
            "RETRY status returned from app while processing pub/sub event {id}"
        )),
        Ok(Status::Drop) => {
            tracing::warn!(target: SCOPE, "DROP status returned from app while processing pub/sub event {id}");
            Outcome::Dropped
        }
        Err(_) => Outcome::failed(format!(
            "unknown status returned from app while processing pub/sub event {id}, status: {status}"
        )),
    }
}

/// An event as gRPC applications get it.
pub fn topic_event(incoming: &Incoming, path: &str) -> wire::TopicEventRequest {
    let event = &incoming.event;
    let text = |name: &str| event.text(name).unwrap_or_default().into_owned();
    wire::TopicEventRequest {
        id: text("id"),
        source: text("source"),
        r#type: text("type"),
        spec_version: text("specversion"),
        data_content_type: text("datacontenttype"),
        data: event.data(),
        topic: incoming.topic.clone(),
        pubsub_name: incoming.pubsub.clone(),
        path: path.to_owned(),
        extensions: Some(extensions(event)),
    }
}

/// Every attribute that has no field of its own.
pub fn extensions(event: &Event<'_>) -> Struct {
    let own = [
        "id",
        "source",
        "type",
        "specversion",
        "datacontenttype",
        "data",
        "data_base64",
    ];
    let fields = event
        .attributes()
        .filter(|(name, _)| !own.contains(name))
        .filter_map(|(name, json)| {
            let value: Value = serde_json::from_str(&json).ok()?;
            Some((name.to_owned(), to_message(value)))
        });
    Struct {
        fields: fields.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_says() {
        for (body, status) in [
            ("", None),
            ("OK", None),
            ("{}", None),
            ("[]", None),
            (r#"{"status":1}"#, None),
            (r#"{"status":""}"#, Some("")),
            (r#"{"STATUS":"RETRY"}"#, Some("RETRY")),
            (r#"{"status":"drop"}"#, Some("drop")),
        ] {
            assert_eq!(said(body.as_bytes()).as_deref(), status, "{body}");
        }
    }

    #[test]
    fn headers_carry_the_events_trace_only() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let metadata = Pairs::from([
            ("TraceParent".to_owned(), "old".to_owned()),
            ("key".to_owned(), "v".to_owned()),
            ("content-type".to_owned(), "x".to_owned()),
        ]);
        let trace = trace::Parent {
            parent: parent.to_owned(),
            state: String::new(),
        };
        let sent = grpc_metadata(&metadata, &trace);
        assert_eq!(
            (&sent["traceparent"], &sent["key"]),
            (
                &parent.parse::<HeaderValue>().unwrap(),
                &"v".parse().unwrap()
            )
        );
        assert!(sent.contains_key("grpc-trace-bin") && !sent.contains_key("content-type"));
        let sent = grpc_metadata(&metadata, &trace::Parent::default());
        assert_eq!(sent["traceparent"], trace::NOTHING);
    }

    #[test]
    fn an_event_for_grpc() {
        let event = br#"{"id":"1","source":"s","specversion":"1.0","type":"k","datacontenttype":"text/plain","data":"x","time":"t","n":{"a":[1,null,true]}}"#;
        let incoming = Incoming {
            pubsub: "p".into(),
            topic: "t".into(),
            event: Event::read(&bytes::Bytes::from_static(event)).unwrap(),
            data: bytes::Bytes::from_static(event),
            metadata: Pairs::new(),
        };
        let sent = topic_event(&incoming, "/r");
        assert_eq!(
            (sent.id.as_str(), sent.path.as_str(), &sent.data[..]),
            ("1", "/r", &b"x"[..])
        );
        let extensions = sent.extensions.unwrap().fields;
        let names: Vec<&str> = extensions.keys().map(String::as_str).collect();
        assert_eq!(names, ["n", "time"]);
    }

    #[test]
    fn statuses() {
        assert_eq!(of_status(0, "1"), Outcome::Done);
        assert_eq!(of_status(2, "1"), Outcome::Dropped);
        assert!(matches!(of_status(1, "1"), Outcome::Failed(_)));
        assert!(matches!(of_status(7, "1"), Outcome::Failed(_)));
    }
}
