//! Calls of actors that other sidecars have.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Uri, header};
use outrider_call::message::{Code, Request, Response};
use outrider_call::metadata::{self, Metadata, Name};
use outrider_net::body::{self, Body};
use outrider_net::connection::Place;
use outrider_net::grpc::{self, Messages};
use outrider_net::pool::Destination;
use outrider_peer::call::Peers;
use outrider_peer::wire::{self, Headers};
use outrider_proto::Any;
use outrider_proto::common::v1::{HttpExtension, InvokeRequest, http_extension};
use outrider_proto::internals::v1 as internals;
use prost::Message as _;
use tokio::time::Instant;
use tonic::Status;

use crate::actor::Actor;
use crate::any;
use crate::error::Error;
use crate::hosts::Host;
use crate::message::{Answer, Message, Reminder};

pub const CALL: &str = "/dapr.proto.internals.v1.ServiceInvocation/CallActor";
pub const REMIND: &str = "/dapr.proto.internals.v1.ServiceInvocation/CallActorReminder";
/// A header of an answer: the application wants no further tick of what is due.
pub(crate) const CANCEL: &str = "x-daprremindercancel";
/// Tells the other sidecar that the call has come from one.
const REMOTE: &str = "X-Dapr-Remote";
/// A host that cannot be connected to in this time is looked for anew.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The way to other sidecars.
pub struct Remote {
    pub peers: Peers,
    /// Of those that prove who they are.
    pub namespace: Option<String>,
}

impl Remote {
    pub async fn call(
        &self,
        host: &Host,
        actor: &Actor,
        message: Message,
        deadline: Option<Instant>,
    ) -> Result<Answer, Error> {
        let namespace = self.namespace.as_ref();
        let target = Destination {
            address: host.address.to_string(),
            app: namespace.map(|namespace| (namespace.clone(), host.app_id.to_string())),
        };
        let (trace, frame, path) = match message {
            Message::Method(request) => {
                let trace = metadata::find(&request.metadata, outrider_trace::TRACEPARENT);
                (trace.cloned(), encode(actor, *request).await?, CALL)
            }
            Message::Reminder(due) => (None, reminder(actor, due), REMIND),
            Message::Timer(_) => {
                let why = "timers fire on the host of their actor only";
                return Err(Error::Invalid(why.to_owned()));
            }
        };
        let request = post(path, frame, trace, deadline);
        let place = self.place(&target).await?;
        let answered = self.exchange(place, request).await;
        let (bytes, cancel) = answered.map_err(|status| {
            if status.code() == tonic::Code::Unavailable {
                self.peers.forget(&target);
            }
            match outrider_net::connection::is_refused(&status) {
                true => unsent(status),
                false => Error::Remote(Box::new(status)),
            }
        })?;
        match path {
            CALL => decode(bytes)
                .map(Answer::Method)
                .map_err(|status| Error::Remote(Box::new(status))),
            _ => Ok(Answer::Handled { cancel }),
        }
    }

    /// A place on a connection to a sidecar, be it one that is there or a new one.
    async fn place(&self, target: &Destination) -> Result<Place, Error> {
        if let Some(place) = self.peers.open(target) {
            return Ok(place);
        }
        match tokio::time::timeout(CONNECT_LIMIT, self.peers.place(target)).await {
            Ok(placed) => placed.map_err(unsent),
            Err(_) => {
                let text = format!("{} cannot be reached", target.address);
                Err(unsent(Status::unavailable(text)))
            }
        }
    }

    /// The one message of the answer, and whether it ends a reminder.
    async fn exchange(
        &self,
        place: Place,
        request: http::Request<Body>,
    ) -> Result<(Bytes, bool), Status> {
        let answer = place.send(request).await?;
        let (parts, incoming) = answer.into_parts();
        grpc::check_status(&parts.headers)?;
        let cancel = parts.headers.contains_key(CANCEL);
        let mut messages = Messages::new(incoming, self.peers.limit);
        let first = messages.next().await.transpose()?;
        if messages.next().await.transpose()?.is_some() {
            return Err(Status::internal("more than one message"));
        }
        let ended = grpc::check_status(&messages.trailers().unwrap_or_default())?;
        let bytes = first
            .filter(|_| ended)
            .ok_or_else(|| Status::unavailable("the answer has broken off"))?;
        Ok((bytes, cancel))
    }
}

fn post(
    path: &'static str,
    frame: Bytes,
    trace: Option<HeaderValue>,
    deadline: Option<Instant>,
) -> http::Request<Body> {
    let mut request = http::Request::new(body::full(frame));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(grpc::CONTENT_TYPE),
    );
    if let Some(trace) = trace {
        headers.insert(outrider_trace::TRACEPARENT, trace);
    }
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        headers.insert("grpc-timeout", timeout(left));
    }
    request
}

/// A timeout as gRPC writes it: at most eight digits and a unit.
fn timeout(left: Duration) -> HeaderValue {
    let millis = left.as_millis().min(99_999_999);
    HeaderValue::try_from(format!("{millis}m")).unwrap_or(HeaderValue::from_static("1S"))
}

async fn encode(actor: &Actor, request: Request) -> Result<Bytes, Error> {
    let mut metadata: Metadata = request.metadata;
    metadata.retain(|(name, _)| !name.is(REMOTE));
    metadata.push((Name::from_static(REMOTE), HeaderValue::from_static("true")));
    let data = request.body.collect(None).await;
    let data = data.map_err(|status| Error::Invalid(status.message().to_owned()))?;
    let verb = request
        .verb
        .as_ref()
        .and_then(|verb| http_extension::Verb::from_str_name(verb.as_str()));
    let message = wire::Request {
        ver: wire::ApiVersion::V1.into(),
        metadata: Headers::new(metadata),
        message: Some(InvokeRequest {
            method: request.method,
            data: Some(Any {
                type_url: request.data_type_url,
                value: data.into(),
            }),
            content_type: request.content_type.unwrap_or_default(),
            http_extension: Some(HttpExtension {
                verb: verb.unwrap_or(http_extension::Verb::Post).into(),
                querystring: request.query,
            }),
        }),
        actor: Some(internals::Actor {
            actor_type: actor.kind.to_string(),
            actor_id: actor.id.to_string(),
        }),
    };
    Ok(grpc::frame(&message))
}

fn decode(bytes: Bytes) -> Result<Box<Response>, Status> {
    let response = wire::Response::decode(bytes)
        .map_err(|error| Status::internal(format!("the answer cannot be decoded: {error}")))?;
    let status = response.status.unwrap_or_default();
    let message = response.message.unwrap_or_default();
    let data = message.data.unwrap_or_default();
    Ok(Box::new(Response {
        code: match status.code {
            code if code >= 100 => Code::Http(u16::try_from(code).unwrap_or(500)),
            code => Code::Grpc(Status::new(tonic::Code::from_i32(code), status.message)),
        },
        headers: response.headers.into_metadata()?,
        trailers: response.trailers.into_metadata()?,
        content_type: Some(message.content_type).filter(|kind| !kind.is_empty()),
        data_type_url: data.type_url,
        body: body::full(data.value),
    }))
}

fn unsent(status: Status) -> Error {
    Error::Unsent(Box::new(status))
}

fn reminder(actor: &Actor, due: Reminder) -> Bytes {
    grpc::frame(&internals::Reminder {
        actor_id: actor.id.to_string(),
        actor_type: actor.kind.to_string(),
        name: due.name,
        data: due.data.map(any::of),
        period: due.period,
        due_time: due.due_time,
        skip_lock: due.beside,
        ..Default::default()
    })
}
