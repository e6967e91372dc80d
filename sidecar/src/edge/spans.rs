//! Names and attributes of the spans of requests.
//! Nothing here happens where a request is not sampled.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use outrider_call::token;
use outrider_net::body::{self, Body, Meter};
use outrider_net::grpc;
use outrider_net::path::query_unescape;
use outrider_proto::runtime::v1 as wire;
use outrider_trace::{Recording, Span, cut};
use tonic::Request;

use super::router;
use super::userinfo::Without;
use crate::blocks::invoke::address;

/// Headers with this beginning become attributes.
const OURS: &str = "dapr-";
/// Values of gRPC that are not text.
const BINARY: &str = "-bin";
const INVOCATION: &str = "ServiceInvocation";

/// Describes a request of the HTTP API. `clean` is the cleaned path.
pub fn http(recording: &mut Recording, parts: &Parts, clean: &str) {
    let verb = &parts.method;
    recording.name(Without(clean));
    of_client(recording, &parts.headers);
    let call = format!("{verb} {}", Without(clean));
    match router::target(verb, clean) {
        Some((group @ ("state" | "secrets" | "bindings"), name, _)) => {
            recording.set("db.system", group);
            recording.set("db.connection_string", group);
            recording.set("db.statement", call.as_str());
            recording.set("db.name", unescaped(name));
        }
        Some(("publish", _, topic)) => {
            recording.set("messaging.system", "pubsub");
            recording.set("messaging.destination.name", unescaped(topic));
        }
        Some(("actors", kind, id)) => {
            if let Some((_, method)) = clean.split_once("/method/") {
                recording.name(call_actor(kind, method));
                recording.set("rpc.service", INVOCATION);
            }
            let (kind, id) = (unescaped(kind), unescaped(id));
            recording.set(
                "dapr.actor",
                cut(format_args!("{}.{}", Without(&kind), Without(&id))),
            );
        }
        Some(_) => {}
        None => {
            if let Ok(address) = address::of_http(&parts.headers, clean) {
                invocation(recording, &address.target, &address.method);
            }
        }
    }
    recording.set("dapr.protocol", "http");
    recording.set("dapr.api", call);
    recording.set("http.request.method", verb);
    // Queries have secrets in them, as the keys of APIs.
    recording.set("url.full", Without(parts.uri.path()));
    let host = parts.headers.get(http::header::HOST);
    let host = host.and_then(|host| host.to_str().ok()?.parse().ok());
    let authority = host.or_else(|| parts.uri.authority().cloned());
    if let Some(authority) = authority {
        recording.set("server.address", authority.host());
        if let Some(port) = authority.port_u16() {
            recording.set("server.port", port);
        }
    }
}

/// Tells how a request of the HTTP API went.
pub fn http_ended(recording: &mut Recording, status: StatusCode) {
    recording.set("dapr.status_code", status.as_str());
    recording.answered(status.as_u16());
}

fn invocation(recording: &mut Recording, target: &str, method: &str) {
    recording.name(call_local(target, method));
    recording.set("rpc.service", INVOCATION);
    recording.set("net.peer.name", Without(target));
}

fn call_local(target: &str, method: &str) -> String {
    cut(format_args!(
        "CallLocal/{}/{}",
        Without(target),
        Without(method)
    ))
}

fn call_actor(kind: &str, method: &str) -> String {
    cut(format_args!(
        "CallActor/{}/{}",
        Without(kind),
        Without(method)
    ))
}

fn unescaped(name: &str) -> String {
    query_unescape(name).map_or_else(|_| name.to_owned(), |name| name.into_owned())
}

/// What the client wants to see in its traces. Tokens are nobody's business.
fn of_client(recording: &mut Recording, headers: &HeaderMap) {
    for (name, value) in headers {
        let lower = name.as_str();
        if lower.starts_with(OURS)
            && !lower.ends_with(BINARY)
            && lower != token::HEADER
            && let Ok(value) = value.to_str()
        {
            recording.set(lower.to_owned(), Without(value));
        }
    }
}

/// Describes a request of the gRPC API. What its message says is added where
/// the message is decoded.
pub fn grpc<B>(recording: &mut Recording, request: &mut http::Request<B>) -> Details {
    let method = cut(request.uri().path());
    recording.name(&method);
    of_client(recording, request.headers());
    recording.set("dapr.protocol", "grpc");
    recording.set("dapr.api", &method);
    let said = Said {
        method,
        ..Said::default()
    };
    let details = Details(Arc::new(Mutex::new(said)));
    request.extensions_mut().insert(details.clone());
    details
}

/// Describes a call that is passed on to an application.
pub fn proxied<B>(recording: &mut Recording, request: &http::Request<B>) {
    recording.name(request.uri().path());
    of_client(recording, request.headers());
}

/// What the message of a request says, on its way to the span.
#[derive(Clone)]
pub struct Details(Arc<Mutex<Said>>);

#[derive(Default)]
pub struct Said {
    method: String,
    name: Option<String>,
    attributes: Vec<(&'static str, String)>,
}

impl Details {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn tell(&self, recording: &mut Recording) {
        let said = std::mem::take(&mut *self.lock());
        if let Some(name) = said.name {
            recording.name(name);
        }
        for (name, value) in said.attributes {
            recording.set(name, value);
        }
    }
}

/// A message that says something about its request.
pub trait Described {
    fn describe(&self, said: &mut Said);
}

/// Notes what a message says, where its request is sampled.
pub fn describe<M: Described>(request: &Request<M>) {
    if let Some(details) = request.extensions().get::<Details>() {
        request.get_ref().describe(&mut details.lock());
    }
}

impl Said {
    fn set(&mut self, name: &'static str, value: impl Display) {
        self.attributes.push((name, cut(value)));
    }

    fn component(&mut self, system: &str, name: &str) {
        self.set("rpc.service", "Dapr");
        self.set("db.system", system);
        self.set("db.connection_string", system);
        self.set("db.name", name);
        let method = self.method.clone();
        self.set("db.statement", &method);
    }

    fn topic(&mut self, topic: &str) {
        self.set("rpc.service", "Dapr");
        self.set("messaging.system", "pubsub");
        self.set("messaging.destination.name", topic);
    }
}

impl Described for wire::InvokeServiceRequest {
    fn describe(&self, said: &mut Said) {
        let method = self.message.as_ref().map_or("", |m| m.method.as_str());
        said.name = Some(call_local(&self.id, method));
        said.set("rpc.service", INVOCATION);
        said.set("net.peer.name", Without(&self.id));
    }
}

impl Described for wire::InvokeActorRequest {
    fn describe(&self, said: &mut Said) {
        said.name = Some(call_actor(&self.actor_type, &self.method));
        said.set("rpc.service", INVOCATION);
        let (kind, id) = (Without(&self.actor_type), Without(&self.actor_id));
        said.set("dapr.actor", format_args!("{kind}.{id}"));
    }
}

/// Requests about reminders and timers: their spans have the type in their name,
/// and neither id nor name.
macro_rules! later {
    ($request:ty, $operation:literal) => {
        impl Described for $request {
            fn describe(&self, said: &mut Said) {
                let kind = Without(&self.actor_type);
                said.name = Some(cut(format_args!(
                    concat!($operation, "/{kind}"),
                    kind = kind
                )));
            }
        }
    };
}

later!(wire::RegisterActorTimerRequest, "RegisterActorTimer");
later!(wire::UnregisterActorTimerRequest, "UnregisterActorTimer");
later!(wire::GetActorTimerRequest, "GetActorTimer");
later!(wire::ListActorTimersRequest, "ListActorTimers");
later!(wire::RegisterActorReminderRequest, "RegisterActorReminder");
later!(
    wire::UnregisterActorReminderRequest,
    "UnregisterActorReminder"
);
later!(
    wire::UnregisterActorRemindersByTypeRequest,
    "UnregisterActorRemindersByType"
);
later!(wire::GetActorReminderRequest, "GetActorReminder");
later!(wire::ListActorRemindersRequest, "ListActorReminders");

impl Described for wire::PublishEventRequest {
    fn describe(&self, said: &mut Said) {
        said.topic(&self.topic);
    }
}

impl Described for wire::BulkPublishRequest {
    fn describe(&self, said: &mut Said) {
        said.topic(&self.topic);
    }
}

impl Described for wire::GetStateRequest {
    fn describe(&self, said: &mut Said) {
        said.component("state", &self.store_name);
    }
}

impl Described for wire::SaveStateRequest {
    fn describe(&self, said: &mut Said) {
        said.component("state", &self.store_name);
    }
}

impl Described for wire::DeleteStateRequest {
    fn describe(&self, said: &mut Said) {
        said.component("state", &self.store_name);
    }
}

impl Described for wire::GetSecretRequest {
    fn describe(&self, said: &mut Said) {
        said.component("secrets", &self.store_name);
    }
}

impl Described for wire::InvokeBindingRequest {
    fn describe(&self, said: &mut Said) {
        said.component("bindings", &self.name);
    }
}

impl Described for wire::ConversationRequest {
    fn describe(&self, said: &mut Said) {
        said.set("rpc.system", &self.name);
    }
}

impl Described for wire::ConversationRequestAlpha2 {
    fn describe(&self, said: &mut Said) {
        said.set("rpc.system", &self.name);
    }
}

/// Has a sampled span end with the answer of a gRPC call, whose status is in
/// its head or behind its body.
pub fn ending(mut span: Span, answer: Response<Body>) -> Response<Body> {
    let Some(recording) = span.recording() else {
        return answer;
    };
    if let Some(status) = grpc::status_of(answer.headers()) {
        if status.code() != tonic::Code::Ok {
            recording.fail(status.message());
        }
        return answer;
    }
    answer.map(|body| body::metered(body, Ending(span)))
}

/// A span that ends with its answer.
struct Ending(Span);

impl Meter for Ending {
    fn data(&mut self, _: usize) {}

    fn trailers(&mut self, trailers: &HeaderMap) {
        let failed = grpc::status_of(trailers).filter(|s| s.code() != tonic::Code::Ok);
        if let (Some(status), Some(recording)) = (failed, self.0.recording()) {
            recording.fail(status.message());
        }
    }

    fn over(&mut self) {}
}
