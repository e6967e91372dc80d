//! OpenTelemetry's protocol, over gRPC or as protobuf over HTTP.
//! <https://opentelemetry.io/docs/specs/otlp/>

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use prost::Message;

use super::client::{Answer, Client, Endpoint};
use super::{Failed, Resource, TRACER, Taken};
use crate::span::{Finished, Kind};

const GRPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HTTP: &str = "/v1/traces";
/// The longest time that a collector can ask for before a batch comes again.
const MOST_WAIT: Duration = Duration::from_secs(30);
/// Characters of a collector's text that are logged.
const TEXT: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

pub struct Otlp {
    client: Client,
    protocol: Protocol,
    headers: HeaderMap,
    /// What a batch may take.
    pub timeout: Duration,
}

impl Otlp {
    pub fn new(
        endpoint: Endpoint,
        protocol: Protocol,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Self {
        Self {
            client: Client::new(endpoint, protocol == Protocol::Grpc),
            protocol,
            headers,
            timeout,
        }
    }

    pub(super) async fn send(
        &mut self,
        batch: &[Arc<Finished>],
        resource: &Resource,
    ) -> Result<Taken, Failed> {
        let message = message(batch, resource);
        let request = self.request(&message);
        let request = request.map_err(|e| Failed::final_because(e.to_string()))?;
        let answer = self.client.send(request).await;
        let answer = answer.map_err(Failed::passing_because)?;
        match self.protocol {
            Protocol::Grpc => of_grpc(&answer),
            Protocol::Http => of_http(&answer),
        }
    }

    fn request(&self, message: &ExportRequest) -> Result<Request<Full<Bytes>>, http::Error> {
        let (path, kind) = match self.protocol {
            Protocol::Grpc => (GRPC, "application/grpc"),
            Protocol::Http => (HTTP, "application/x-protobuf"),
        };
        let uri = match self.protocol {
            Protocol::Grpc => self.client.endpoint.uri(path)?,
            Protocol::Http => path.parse()?,
        };
        let size = message.encoded_len();
        let mut body = BytesMut::with_capacity(size + 5);
        if self.protocol == Protocol::Grpc {
            body.put_u8(0);
            body.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
        }
        message.encode_raw(&mut body);
        let mut request = Request::new(Full::new(body.freeze()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        match self.protocol {
            Protocol::Grpc => {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
            }
            Protocol::Http => {
                let host = HeaderValue::try_from(self.client.endpoint.authority())?;
                headers.insert(header::HOST, host);
            }
        }
        headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static("outrider"));
        Ok(request)
    }
}

fn of_grpc(answer: &Answer) -> Result<Taken, Failed> {
    let said = [&answer.trailers, &answer.headers]
        .into_iter()
        .find_map(|headers| Some((headers.get("grpc-status")?, headers.get("grpc-message"))));
    let Some((code, message)) = said else {
        let status = answer.status;
        return Err(Failed::passing_because(format!(
            "the collector answered without a gRPC status ({status})"
        )));
    };
    if code == "0" {
        return Ok(taken(answer.body.get(5..).unwrap_or_default()));
    }
    let text = message.map_or(String::new(), |m| shown(m.as_bytes()));
    let code = code.to_str().unwrap_or_default();
    let cause = format!("the collector answered with the gRPC code {code}: {text}");
    // Cancelled, deadline exceeded, aborted, out of range, unavailable, data loss.
    Err(match code {
        "1" | "4" | "10" | "11" | "14" | "15" => Failed::passing_because(cause),
        _ => Failed::final_because(cause),
    })
}

fn of_http(answer: &Answer) -> Result<Taken, Failed> {
    if answer.status.is_success() {
        return Ok(taken(&answer.body));
    }
    let (status, text) = (answer.status, shown(&answer.body));
    let cause = format!("the collector answered {status}: {text}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = answer.headers.get(header::RETRY_AFTER);
            let seconds = after.and_then(|v| v.to_str().ok()?.parse().ok());
            let wait = Duration::from_secs(seconds.unwrap_or(0)).min(MOST_WAIT);
            Err(Failed {
                cause,
                again: Some(wait),
            })
        }
        _ => Err(Failed::final_because(cause)),
    }
}

/// A collector may take a part only.
fn taken(body: &[u8]) -> Taken {
    let partly = ExportResponse::decode(body)
        .ok()
        .and_then(|answer| answer.partial_success)
        .unwrap_or_default();
    Taken {
        refused: usize::try_from(partly.rejected_spans).unwrap_or(0),
        why: shown(partly.error_message.as_bytes()),
    }
}

fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let plain = text.chars().filter(|c| !c.is_control());
    plain.take(TEXT).collect()
}

/// Headers of a collector. Those that cannot be sent are left out, and the log
/// says so.
pub fn headers(pairs: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        match (
            HeaderName::try_from(name.trim()),
            HeaderValue::try_from(value.as_str()),
        ) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            _ => {
                let name = outrider_kit::quote::go(name);
                tracing::warn!(target: super::SCOPE, "the header {name} of the trace collector is left out: its name or its value cannot be sent");
            }
        }
    }
    headers
}

fn message(batch: &[Arc<Finished>], resource: &Resource) -> ExportRequest {
    let attributes = |(name, value): (&str, &str)| KeyValue::new(name, value);
    let resource = resource.iter().map(|(n, v)| attributes((n, v)));
    let spans = batch.iter().map(|span| SpanMessage {
        trace_id: span.context.trace_id.to_vec(),
        span_id: span.context.span_id.to_vec(),
        trace_state: span.state.clone(),
        parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        name: span.name.clone(),
        kind: match span.kind {
            Kind::Server => 2,
            Kind::Client => 3,
            Kind::Producer => 4,
        },
        start_time_unix_nano: nanoseconds(span.start),
        end_time_unix_nano: nanoseconds(span.end()),
        attributes: {
            let all = span.attributes.iter();
            all.map(|(n, v)| attributes((n, v))).collect()
        },
        status: Some(match &span.error {
            None => Status::default(),
            Some(message) => Status {
                message: message.clone(),
                code: 2,
            },
        }),
        flags: u32::from(span.context.flags),
    });
    ExportRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(ResourceMessage {
                attributes: resource.collect(),
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(Scope {
                    name: TRACER.to_owned(),
                }),
                spans: spans.collect(),
            }],
        }],
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

// The messages as far as they are used.
// <https://github.com/open-telemetry/opentelemetry-proto>

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<ResourceMessage>,
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceMessage {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<SpanMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(int32, tag = "6")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(int32, tag = "3")]
    pub code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

impl KeyValue {
    fn new(key: &str, value: &str) -> Self {
        Self {
            key: key.to_owned(),
            value: Some(AnyValue {
                string_value: Some(value.to_owned()),
            }),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    // One of several; the others are never sent.
    #[prost(string, optional, tag = "1")]
    pub string_value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub error_message: String,
}
