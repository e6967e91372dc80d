//! Calls of other sidecars for actors of this one.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use outrider_call::headers::{self, Parties};
use outrider_call::message::{self, Code, Data};
use outrider_call::{metadata, method};
use outrider_net::body::{self, Body};
use outrider_net::grpc::{self, Messages};
use outrider_peer::serve::decode;
use outrider_peer::wire::{self, Headers};
use outrider_proto::Any;
use outrider_proto::common::v1::InvokeResponse;
use outrider_proto::internals::v1 as internals;
use outrider_security::Peer;
use outrider_trace::{Context, Kind, Span, TRACEPARENT, Tracer, Wire};
use prost::Message as _;
use tokio::time::Instant;
use tonic::Status;

use crate::actor::Actor;
use crate::actors::{Actors, Call};
use crate::any;
use crate::error::detailed;
use crate::message::{Answer, Message, Reminder};
use crate::names;
use crate::remote::CANCEL;
pub use crate::remote::{CALL, REMIND};
use crate::waiting::{Place, Waiting};

/// Types of the workflow runtime begin with it.
const INTERNAL: &str = "dapr.internal.";

/// What answers other sidecars.
#[derive(Clone)]
pub struct Callee {
    pub actors: Actors,
    pub waiting: Waiting,
    pub tracer: Tracer,
    /// Bytes that a message may have.
    pub limit: Option<usize>,
}

impl Callee {
    /// Answers a call of [`CALL`] or [`REMIND`].
    pub async fn answer<B>(&self, request: http::Request<B>, peer: Option<&Peer>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: Into<body::BoxError>,
    {
        let (parts, body) = request.into_parts();
        let deadline = grpc::timeout(&parts.headers).map(|left| Instant::now() + left);
        let answered = async {
            check_peer(self.actors.inner().remote.namespace.as_deref(), peer)?;
            let mut messages = Messages::new(body, self.limit);
            let missing = || Status::internal("the call has no message");
            let bytes = messages.next().await.ok_or_else(missing)??;
            match parts.uri.path() {
                CALL => {
                    let frame = self.call(bytes, &parts.headers, peer, deadline).await?;
                    Ok((frame, false))
                }
                _ => self.remind(bytes, deadline).await,
            }
        };
        match answered.await {
            Err(status) => grpc::refuse(&detailed(status)),
            Ok((frame, cancel)) => {
                let frames = [
                    Ok::<_, body::BoxError>(http_body::Frame::data(frame)),
                    Ok(grpc::ok_trailers()),
                ];
                let frames = futures_util::stream::iter(frames);
                let mut response =
                    Response::new(body::stream(http_body_util::StreamBody::new(frames)));
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static(grpc::CONTENT_TYPE),
                );
                if cancel {
                    let yes = HeaderValue::from_static("true");
                    response.headers_mut().insert(CANCEL, yes);
                }
                response
            }
        }
    }

    /// Lets a call with so many bytes wait for its actor.
    fn admit(&self, actor: &Actor, bytes: usize) -> Result<Place, Status> {
        let admitted = self.waiting.admit(actor, bytes);
        admitted.map_err(|why| Status::resource_exhausted(why.to_string()))
    }

    async fn call(
        &self,
        bytes: Bytes,
        headers: &HeaderMap,
        peer: Option<&Peer>,
        deadline: Option<Instant>,
    ) -> Result<Bytes, Status> {
        let mut head = wire::Request::decode(bytes).map_err(|error| {
            Status::invalid_argument(format!("parsing InternalInvokeRequest error: {error}"))
        })?;
        let actor = head.actor.take().unwrap_or_default();
        let actor = named(actor.actor_type, actor.actor_id)?;
        let (mut request, data) = decode(head)?;
        request.method = method::normal(request.method)?;
        let data_length = data.len();
        request.content_length = Some(data_length as u64);
        request.body = Data::Whole(data);
        let last = |name: &str| {
            let mut last_first = request.metadata.iter().rev();
            let (_, value) = last_first.find(|(known, _)| known.as_bytes() == name.as_bytes())?;
            Some(value.clone())
        };
        let parties = Parties::of_peer(peer, last, None);
        parties.set_in_metadata(&mut request.metadata);
        let _place = self.admit(&actor, data_length)?;
        let mut span = self.begin(&actor, &mut request, headers);
        let call = Call {
            actor,
            message: Message::Method(Box::new(request)),
            deadline,
        };
        let answered = match self.actors.call_here(call).await {
            Ok(Answer::Method(response)) => self.encode(*response).await,
            Ok(Answer::Handled { .. }) => Err(Status::internal("the answer is none of a method")),
            Err(error) => Err(error.to_peer()),
        };
        let recording = span.as_mut().and_then(Span::recording);
        if let (Some(recording), Err(status)) = (recording, &answered) {
            recording.fail(status.message());
        }
        answered
    }

    /// Begins the span of a call, if spans are made, and has the application get
    /// its context.
    fn begin(
        &self,
        actor: &Actor,
        request: &mut message::Request,
        headers: &HeaderMap,
    ) -> Option<Span> {
        if !self.tracer.is_on() {
            return None;
        }
        let said = metadata::find(&request.metadata, TRACEPARENT);
        let parent =
            Context::of_headers(headers, Wire::Grpc).or_else(|| Context::parse(said?.as_bytes()));
        let mut span = self.tracer.start(parent, None, Kind::Server)?;
        headers::set_trace(&mut request.metadata, request.origin, &span);
        if let Some(recording) = span.recording() {
            let (kind, method) = (&actor.kind, &request.method);
            recording.name(format_args!("CallActor/{kind}/{method}"));
            recording.set("rpc.service", "ServiceInvocation");
            recording.set("dapr.actor", format!("{kind}.{}", actor.id));
            recording.set("dapr.protocol", "grpc");
            recording.set("dapr.api", CALL);
        }
        Some(span)
    }

    async fn encode(&self, mut response: message::Response) -> Result<Bytes, Status> {
        let data = body::collect(&mut response.body, self.limit).await;
        let data = data.map_err(|error| error.status("error invoke actor method: "))?;
        let (code, text) = match &response.code {
            Code::Http(code) => (i32::from(*code), String::new()),
            Code::Grpc(status) => (status.code() as i32, status.message().to_owned()),
        };
        Ok(grpc::frame(&wire::Response {
            status: Some(wire::Status {
                code,
                message: text,
                details: Vec::new(),
            }),
            headers: Headers::new(response.headers),
            trailers: Headers::new(response.trailers),
            message: Some(InvokeResponse {
                data: Some(Any {
                    type_url: response.data_type_url,
                    value: data.into(),
                }),
                content_type: response.content_type.unwrap_or_default(),
            }),
        }))
    }

    /// The answer, and whether the application wants no further tick.
    async fn remind(
        &self,
        bytes: Bytes,
        deadline: Option<Instant>,
    ) -> Result<(Bytes, bool), Status> {
        let due = internals::Reminder::decode(bytes).map_err(|error| {
            Status::invalid_argument(format!("the reminder cannot be decoded: {error}"))
        })?;
        if due.is_timer {
            let why = "timers fire on the host of their actor only";
            return Err(Status::invalid_argument(why));
        }
        names::check(&due.name).map_err(Status::invalid_argument)?;
        // The workflow runtime has such; others have no reason to pass a turn.
        let beside = due.skip_lock && due.actor_type.starts_with(INTERNAL);
        let actor = named(due.actor_type, due.actor_id)?;
        let data = due.data.map(|data| {
            any::bytes(&data)
                .map_err(|_| Status::invalid_argument("the data of the reminder is no BytesValue"))
        });
        let data = data.transpose()?;
        let _place = self.admit(&actor, data.as_ref().map_or(0, Bytes::len))?;
        let message = Message::Reminder(Reminder {
            name: due.name,
            data,
            due_time: due.due_time,
            period: due.period,
            beside,
        });
        let call = Call {
            actor,
            message,
            deadline,
        };
        match self.actors.call_here(call).await {
            Ok(answer) => {
                let cancel = matches!(answer, Answer::Handled { cancel: true });
                Ok((grpc::frame(&()), cancel))
            }
            Err(error) => Err(error.to_peer()),
        }
    }
}

/// Placement tables are of one namespace: nobody of another one has a reason to
/// call. Without one of its own the sidecar does not know who calls.
fn check_peer(own: Option<&str>, peer: Option<&Peer>) -> Result<(), Status> {
    let Some(own) = own else {
        return Ok(());
    };
    let workload = peer.and_then(|peer| peer.id.as_ref()?.as_workload());
    match workload.is_some_and(|workload| workload.namespace == own) {
        true => Ok(()),
        false => Err(Status::permission_denied(
            "actors are called by sidecars of their own namespace only",
        )),
    }
}

/// The actor that a message names.
fn named(kind: String, id: String) -> Result<Actor, Status> {
    if kind.is_empty() || id.is_empty() {
        return Err(Status::invalid_argument("the call names no actor"));
    }
    for text in [&kind, &id] {
        names::check_segment(text).map_err(Status::invalid_argument)?;
    }
    Ok(Actor::new(kind, id))
}

#[cfg(test)]
mod tests {
    use outrider_security::SpiffeId;

    use super::*;

    #[test]
    fn actors_of_peers_have_ids_that_are_short_and_lead_nowhere() {
        let refused = |kind: &str, id: &str| {
            let named = named(kind.to_owned(), id.to_owned());
            named.unwrap_err().code()
        };
        let long = "x".repeat(names::LONGEST + 1);
        for (kind, id) in [
            ("T", ".."),
            ("..", "1"),
            ("", "1"),
            ("T", ""),
            ("T", &*long),
        ] {
            assert_eq!(refused(kind, id), tonic::Code::InvalidArgument);
        }
        assert!(named("T".to_owned(), "a||b/c".to_owned()).is_ok());
    }

    #[test]
    fn only_sidecars_of_the_own_namespace_call_actors() {
        let peer = |namespace| {
            let domain = "cluster.local".parse().unwrap();
            Peer {
                address: None,
                id: Some(SpiffeId::workload(&domain, namespace, "app").unwrap()),
            }
        };
        let refused = |own: Option<&str>, peer: Option<&Peer>| check_peer(own, peer).is_err();
        assert!(!refused(Some("ns"), Some(&peer("ns"))));
        assert!(refused(Some("ns"), Some(&peer("other"))));
        assert!(refused(Some("ns"), None), "nobody has proved who it is");
        assert!(!refused(None, None), "there is no mTLS");
    }
}
