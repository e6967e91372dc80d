//! The gRPC API's edge.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use outrider_proto::runtime::v1::dapr_server::DaprServer;
use outrider_security::Peer;
use outrider_trace::{Kind, Wire};
use tonic::Status;
use tower_service::Service as _;

use crate::blocks;
use crate::blocks::descriptor::V1;
use crate::blocks::http::METADATA_PREFIX;
use crate::blocks::invoke::grpc::APP_STATUS;
use crate::blocks::invoke::proxy;
use crate::edge::Apis;
use crate::edge::log::Call;
use crate::edge::service::Service;
use crate::edge::spans;
use outrider_call::token;
use outrider_net::body::{self, Body};
use outrider_net::grpc;
use outrider_net::limit;
use outrider_net::server::Handler;
use outrider_net::server::phase::Incoming;

const OURS: &str = "/dapr.proto.runtime.v1.Dapr/";
const INVOKE: &str = "/dapr.proto.runtime.v1.Dapr/InvokeService";
/// These last as long as a client stays, which is no latency of anything.
const SUBSCRIBE: [&str; 4] = [
    "/dapr.proto.runtime.v1.Dapr/SubscribeActorEventsAlpha1",
    "/dapr.proto.runtime.v1.Dapr/SubscribeTopicEventsAlpha1",
    "/dapr.proto.runtime.v1.Dapr/SubscribeConfiguration",
    "/dapr.proto.runtime.v1.Dapr/SubscribeConfigurationAlpha1",
];

/// The handler of the gRPC API's listeners.
#[derive(Clone)]
pub struct Edge {
    apis: Arc<Apis>,
    service: DaprServer<Service>,
}

impl Edge {
    pub fn new(apis: Arc<Apis>) -> Self {
        // The edge has limits of its own.
        let service = DaprServer::new(Service { apis: apis.clone() })
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Self { apis, service }
    }
}

impl Handler for Edge {
    async fn call(&self, request: Request<Incoming>, _: Option<&Peer>) -> Response<Body> {
        let log = self.apis.log;
        let mut logged = log.map(|log| log.grpc(request.uri().path(), request.headers()));
        let answer = with_separate_trailers(self.answer(request, &mut logged).await);
        match logged {
            Some(call) => call.grpc(answer),
            None => answer,
        }
    }
}

/// An answer that has nothing but a status is one frame, whose fields clients
/// take for trailers. The application's own status is a header, and so is what
/// a binding says besides its error: where there is such a thing, headers and
/// trailers come one after the other, and it is in both.
fn with_separate_trailers(answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers();
    let is_header =
        |name: &HeaderName| name == APP_STATUS || name.as_str().starts_with(METADATA_PREFIX);
    if !headers.contains_key("grpc-status") || !headers.keys().any(is_header) {
        return answer;
    }
    let (mut parts, _) = answer.into_parts();
    let mut trailers = parts.headers.clone();
    trailers.remove(http::header::CONTENT_TYPE);
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        parts.headers.remove(name);
    }
    let end = Ok::<_, body::BoxError>(Frame::trailers(trailers));
    let frames = futures_util::stream::iter([end]);
    Response::from_parts(parts, body::stream(StreamBody::new(frames)))
}

impl Edge {
    async fn answer(
        &self,
        mut request: Request<Incoming>,
        logged: &mut Option<Call>,
    ) -> Response<Body> {
        let method = request.uri().path().strip_prefix(OURS);
        if let Some((name, version)) = method.map(group)
            && !self.apis.allowed.grpc(version, name)
        {
            return grpc::refuse(&Status::unimplemented("Not Implemented"));
        }
        let is_ours = method.is_some();
        if !token::admit(request.headers_mut(), self.apis.token.as_deref()) {
            return grpc::refuse(&Status::unauthenticated("Unauthorized"));
        }
        let metrics = &self.apis.grpc_metrics;
        if !is_ours && !self.apis.allowed.allows_proxying() {
            return grpc::refuse(&Status::unimplemented("Not Implemented"));
        }
        let tracer = &self.apis.tracer;
        let is_called = !is_ours
            && tracer.is_on()
            && proxy::is_for(&self.apis.blocks.invoke, request.headers());
        let kind = match is_called {
            true => Kind::Server,
            false => Kind::Client,
        };
        let begun = tracer.request(request.headers_mut(), kind, Wire::Grpc);
        let mut traced = match begun {
            Ok(traced) => traced,
            Err(invalid) => return grpc::refuse(&Status::invalid_argument(invalid.to_string())),
        };
        if let Some(call) = logged {
            call.of_trace(traced.context());
        }
        let details = match traced.recording() {
            Some(recording) if is_ours => Some(spans::grpc(recording, &mut request)),
            Some(recording) => {
                spans::proxied(recording, &request);
                None
            }
            None => None,
        };
        // Applications answer with contexts of their own.
        let says = is_ours && request.uri().path() != INVOKE;
        let mut answer = match is_ours {
            true => self.own(request).await,
            false if proxy::is_addressed(request.headers()) => {
                let served = metrics.proxied(request.uri().path());
                served.answer(proxy::outbound(&self.apis.blocks.invoke, request).await)
            }
            false => proxy::outbound(&self.apis.blocks.invoke, request).await,
        };
        traced.answer_grpc(answer.headers_mut(), says);
        if let (Some(details), Some(recording)) = (details, traced.recording()) {
            details.tell(recording);
        }
        match traced.span {
            Some(span) => spans::ending(span, answer),
            None => answer,
        }
    }

    /// Answers a call of this API.
    async fn own(&self, request: Request<Incoming>) -> Response<Body> {
        if SUBSCRIBE.contains(&request.uri().path()) {
            return self.serve(request).await;
        }
        let served = self.apis.grpc_metrics.call(request.uri().path());
        let request = request.map(|body| served.request(body));
        served.answer(self.serve(request).await)
    }

    async fn serve<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static,
    {
        let most = self.apis.max_body;
        let request = request.map(|body| limit::request(body, most));
        match self.service.clone().call(request).await {
            Ok(response) => response.map(|body| body::stream(limit::answer(body, most))),
            Err(never) => match never {},
        }
    }
}

/// The group and version that lists of allowed APIs know a method by.
fn group(method: &str) -> (&'static str, &'static str) {
    let mut all = blocks::ALL.iter().flat_map(|block| block.methods);
    let found = all.find(|known| known.name == method);
    found.map_or(("", V1), |known| (known.group, known.version))
}

#[cfg(test)]
mod tests {
    use super::group;
    use crate::blocks;

    const PROTO: &str = include_str!("../../../proto/dapr/proto/runtime/v1/dapr.proto");

    #[test]
    fn every_method_of_the_service_is_of_one_block() {
        let (_, service) = PROTO.split_once("service Dapr {").unwrap();
        let (service, _) = service.split_once("\n}").unwrap();
        let names = service.split("rpc ").skip(1);
        let names: Vec<&str> = names.map(|rest| rest.split('(').next().unwrap()).collect();
        assert!(names.len() > 60, "{names:?}");
        for name in names {
            let methods = blocks::ALL.iter().flat_map(|block| block.methods);
            assert_eq!(methods.filter(|m| m.name == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn groups_and_versions() {
        assert_eq!(group("GetState"), ("state", "v1"));
        assert_eq!(group("GetActorState"), ("actors", "v1"));
        assert_eq!(group("BulkPublishEventAlpha1"), ("publish", "v1alpha1"));
        assert_eq!(group("GetWorkflowBeta1"), ("workflows", "v1beta1"));
        assert_eq!(group("GetStates"), ("", "v1"));
    }
}
