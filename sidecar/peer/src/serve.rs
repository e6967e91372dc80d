//! Calls from other sidecars to this one's application.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use outrider_proto::Any;
use outrider_proto::common::v1::{InvokeResponse, http_extension};
use outrider_security::acl::{self, AccessControl, Call, Verb};
use outrider_security::{Peer, SpiffeId};
use outrider_trace::{self as trace, Context, Kind, Span, Tracer, Wire};
use prost::Message as _;
use tonic::Status;

use super::call::{CALL, Framed, Pieces};
use super::wire::{self, Headers};
use outrider_call::channel::Channel;
use outrider_call::headers::{self, Parties};
use outrider_call::message::{self, Data, Origin};
use outrider_call::metadata;
use outrider_call::method;
use outrider_metrics::grpc::Counted;
use outrider_metrics::service::Calls;
use outrider_net::body::{self, Body};
use outrider_net::grpc::{self, Messages};
use outrider_net::server::phase::Incoming;

/// The call for callers that know unary calls only.
pub const UNARY: &str = "/dapr.proto.internals.v1.ServiceInvocation/CallLocal";

/// Answers `CallLocal` and `CallLocalStream`.
pub struct Callee {
    /// None if no header can have it.
    pub app_id: Option<HeaderValue>,
    pub channel: Option<Arc<Channel>>,
    /// None allows everything.
    pub access: Option<AccessControl>,
    /// Bytes that a message may have.
    pub limit: Option<usize>,
    pub calls: Calls,
    pub tracer: Tracer,
}

/// How a call came.
struct Came<'a> {
    headers: &'a HeaderMap,
    /// The method of this service.
    api: &'static str,
}

impl Callee {
    pub async fn stream(
        &self,
        request: http::Request<Incoming>,
        peer: Option<&Peer>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let came = Came {
            headers: &parts.headers,
            api: CALL,
        };
        let mut pieces = Pieces::<wire::RequestPiece, _>::new(body, self.limit);
        let called = async {
            let first = pieces
                .next_message()
                .await?
                .ok_or_else(|| Status::internal("no request received from stream"))?;
            let head = first.request.ok_or_else(missing)?;
            if let Some(payload) = first.payload {
                pieces.queue(payload)?;
            }
            let (mut call, data) = decode(head)?;
            call.body = if data.is_empty() {
                Data::Stream(pieces.into_body())
            } else {
                Data::Whole(data)
            };
            self.call(call, peer, &came).await
        };
        match called.await {
            Err(status) => grpc::refuse(&status),
            Ok(answer) => {
                let mut response = Response::new(encode_stream(answer));
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static(grpc::CONTENT_TYPE),
                );
                response
            }
        }
    }

    /// The same for callers that know unary calls only.
    pub async fn unary(
        &self,
        request: http::Request<Counted>,
        peer: Option<&Peer>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let came = Came {
            headers: &parts.headers,
            api: UNARY,
        };
        let called = async {
            let mut messages = Messages::new(body, self.limit);
            let bytes = messages.next().await.ok_or_else(missing)??;
            let head = wire::Request::decode(bytes).map_err(|e| {
                Status::invalid_argument(format!("parsing InternalInvokeRequest error: {e}"))
            })?;
            let (mut call, data) = decode(head)?;
            call.content_length = Some(data.len() as u64);
            call.body = Data::Whole(data);
            let mut answer = self.call(call, peer, &came).await?;
            let data = body::collect(&mut answer.body, self.limit)
                .await
                .map_err(|e| e.status("error invoking app channel: "))?;
            let (head, _) = encode(answer, Some(data));
            Ok(grpc::frame(&head))
        };
        match called.await {
            Err(status) => grpc::refuse(&status),
            Ok(frame) => {
                let frames = [
                    Ok::<_, body::BoxError>(http_body::Frame::data(frame)),
                    Ok(grpc::ok_trailers()),
                ];
                let mut response = Response::new(body::stream(http_body_util::StreamBody::new(
                    futures_util::stream::iter(frames),
                )));
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static(grpc::CONTENT_TYPE),
                );
                response
            }
        }
    }

    async fn call(
        &self,
        mut call: message::Request,
        peer: Option<&Peer>,
        came: &Came<'_>,
    ) -> Result<message::Response, Status> {
        call.method = method::normal(call.method)?;
        let Some(channel) = &self.channel else {
            return Err(Status::internal("app channel is not initialized"));
        };
        let way = if channel.is_grpc() {
            Call::Grpc
        } else {
            Call::Http(verb(call.verb.as_ref()))
        };
        // A caller who may not call makes no spans.
        self.admit(peer.and_then(|p| p.id.as_ref()), &call.method, way)?;
        let Some(mut span) = self.begin(&mut call, came) else {
            return self.admitted(channel, call, peer).await;
        };
        let answered = self.admitted(channel, call, peer).await;
        let Some(recording) = span.recording() else {
            return answered;
        };
        match answered {
            Ok(mut answer) => {
                // It ends with the body.
                answer.body = body::hold(answer.body, span);
                Ok(answer)
            }
            Err(status) => {
                recording.fail(status.message());
                Err(status)
            }
        }
    }

    /// Begins the span of a call, if spans are made, and has the application
    /// get its context.
    fn begin(&self, call: &mut message::Request, came: &Came<'_>) -> Option<Span> {
        if !self.tracer.is_on() {
            return None;
        }
        let said = |name| metadata::find(&call.metadata, name);
        let parent = Context::of_headers(came.headers, Wire::Grpc)
            // Of a caller that says it with the call only.
            .or_else(|| Context::parse(said(trace::TRACEPARENT)?.as_bytes()))
            .or_else(|| Context::parse_binary(said(trace::BINARY)?.as_bytes()));
        let state = parent.and_then(|_| said(trace::TRACESTATE).cloned());
        let state = state.filter(|state| trace::state::is_valid(state.as_bytes()));
        let mut span = self.tracer.start(parent, state, Kind::Server)?;
        headers::set_trace(&mut call.metadata, call.origin, &span);
        if let Some(recording) = span.recording() {
            let own = self.app_id.as_ref().map(HeaderValue::as_bytes);
            let own = String::from_utf8_lossy(own.unwrap_or_default());
            recording.name(format_args!("CallLocal/{own}/{}", call.method));
            recording.set("rpc.service", "ServiceInvocation");
            recording.set("dapr.invoke_method", call.method.as_str());
            recording.set("dapr.protocol", "grpc");
            recording.set("dapr.api", came.api);
        }
        Some(span)
    }

    async fn admitted(
        &self,
        channel: &Channel,
        mut call: message::Request,
        peer: Option<&Peer>,
    ) -> Result<message::Response, Status> {
        let last = |name: &str| {
            let mut last_first = call.metadata.iter().rev();
            let (_, value) = last_first.find(|(known, _)| known.as_bytes() == name.as_bytes())?;
            Some(value.clone())
        };
        let parties = Parties::of_peer(peer, last, self.app_id.clone());
        let answering = self.calls.received(parties.caller());
        parties.set_in_metadata(&mut call.metadata);
        let wants_events = wants_events(&call);
        let answered = channel.invoke(call).await.and_then(|answer| {
            // A caller that reads events cannot do with anything else.
            match answer.code {
                message::Code::Http(code) if wants_events && !(200..300).contains(&code) => {
                    Err(Status::internal("no response received from stream"))
                }
                _ => Ok(answer),
            }
        });
        match answered {
            Ok(answer) => {
                answering.ended(answer.code.number());
                Ok(answer)
            }
            Err(status) => {
                answering.ended(tonic::Code::Internal as u32);
                Err(Status::internal(format!(
                    "error invoking app channel: {}",
                    status.message()
                )))
            }
        }
    }

    /// Whether the caller may call everything, whatever its name.
    pub fn allows_all(&self, caller: Option<&SpiffeId>) -> bool {
        let access = self.access.as_ref();
        access.is_none_or(|access| access.allows_all(caller))
    }

    /// Whether the caller may call `operation`.
    pub fn admit(
        &self,
        caller: Option<&SpiffeId>,
        operation: &str,
        call: Call,
    ) -> Result<(), Status> {
        let everything = acl::Decision {
            allowed: true,
            rule: acl::Rule::Global,
        };
        let access = self.access.as_ref();
        let decision = access.map_or(everything, |a| a.evaluate(caller, operation, call));
        self.calls.decided(caller, decision);
        if decision.allowed {
            return Ok(());
        }
        let denial = acl::denial(caller, operation, call);
        tracing::debug!(target: "dapr.acl", "{denial}");
        Err(Status::permission_denied(denial))
    }
}

/// Whether the caller wants server-sent events.
/// <https://html.spec.whatwg.org/multipage/server-sent-events.html>
fn wants_events(call: &message::Request) -> bool {
    let accept = metadata::text(&call.metadata, "accept");
    accept.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

fn missing() -> Status {
    Status::internal("request does not contain the required fields in the leading chunk")
}

fn verb(method: Option<&http::Method>) -> Verb {
    let all = [
        Verb::Get,
        Verb::Head,
        Verb::Post,
        Verb::Put,
        Verb::Delete,
        Verb::Connect,
        Verb::Options,
        Verb::Trace,
        Verb::Patch,
    ];
    let given = method.map_or("", http::Method::as_str);
    all.into_iter()
        .find(|verb| verb.as_str() == given)
        .unwrap_or(Verb::None)
}

/// The call that a caller's head describes, and data that came with it.
pub fn decode(head: wire::Request) -> Result<(message::Request, Bytes), Status> {
    let message = head.message.ok_or_else(|| {
        Status::invalid_argument("parsing InternalInvokeRequest error: Message field is nil")
    })?;
    let data = message.data.unwrap_or_default();
    let metadata = head.metadata.into_metadata()?;
    let find = |name: &str| metadata::text(&metadata, name);
    // A gRPC caller's content type says so.
    let origin = match find("content-type") {
        Some(kind) if kind.starts_with(grpc::CONTENT_TYPE) => Origin::Grpc,
        _ => Origin::Http,
    };
    let content_length = find("content-length").and_then(|v| v.parse().ok());
    let (verb, query) = match message.http_extension {
        None => (None, String::new()),
        Some(extension) => {
            let verb = match http_extension::Verb::try_from(extension.verb) {
                Ok(http_extension::Verb::None | http_extension::Verb::Connect) => {
                    http::Method::CONNECT
                }
                Ok(verb) => http::Method::from_bytes(verb.as_str_name().as_bytes())
                    .unwrap_or(http::Method::POST),
                Err(_) => http::Method::POST,
            };
            (Some(verb), extension.querystring)
        }
    };
    let call = message::Request {
        method: message.method,
        verb,
        query,
        metadata,
        origin,
        content_type: Some(message.content_type).filter(|c| !c.is_empty()),
        content_length,
        data_type_url: data.type_url,
        body: Data::Whole(Bytes::new()),
    };
    Ok((call, data.value.into()))
}

/// The head of an answer; `data` goes with it where there are no pieces.
fn encode(answer: message::Response, data: Option<Bytes>) -> (wire::Response, Body) {
    let status = match answer.code {
        message::Code::Http(code) => wire::Status {
            code: code.into(),
            ..Default::default()
        },
        message::Code::Grpc(status) => wire::Status {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: tonic_types::Status::decode(status.details())
                .map(|s| s.details)
                .unwrap_or_default(),
        },
    };
    let type_url = answer.data_type_url;
    let head = wire::Response {
        status: Some(status),
        headers: Headers::new(answer.headers),
        trailers: Headers::new(answer.trailers),
        message: Some(InvokeResponse {
            data: (data.is_some() || !type_url.is_empty()).then(|| Any {
                type_url,
                value: data.unwrap_or_default().into(),
            }),
            content_type: answer.content_type.unwrap_or_default(),
        }),
    };
    (head, answer.body)
}

/// The answer's messages: the head with the first piece, if that is there.
fn encode_stream(answer: message::Response) -> Body {
    let (head, body) = encode(answer, None);
    let frame = |head: Option<wire::Response>, payload| {
        grpc::frame(&wire::ResponsePiece {
            response: head,
            payload,
        })
    };
    body::stream(Framed::new(body, head, frame).ending(grpc::ok_trailers()))
}
