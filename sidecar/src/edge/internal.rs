//! The edge that other sidecars call.

use std::sync::Arc;

use http::{Request, Response};
use outrider_security::Peer;
use outrider_trace::Wire;
use tonic::Status;

use crate::blocks::invoke::proxy;
use crate::edge::spans;
use outrider_actors::serve as actors;
use outrider_metrics::Metrics;
use outrider_net::body::Body;
use outrider_net::grpc;
use outrider_net::server::Handler;
use outrider_net::server::phase::Incoming;
use outrider_peer::call::CALL;
use outrider_peer::serve::{Callee, UNARY};

const SERVICE: &str = "/dapr.proto.internals.v1.ServiceInvocation/";

/// The handler of the internal listener.
#[derive(Clone)]
pub struct Edge {
    pub app_id: Arc<str>,
    pub callee: Arc<Callee>,
    pub actors: actors::Callee,
    pub metrics: Metrics,
}

impl Handler for Edge {
    async fn call(&self, mut request: Request<Incoming>, peer: Option<&Peer>) -> Response<Body> {
        match request.uri().path() {
            CALL => self.callee.stream(request, peer).await,
            UNARY => {
                let served = self.metrics.grpc_server().call(UNARY);
                let request = request.map(|body| served.request(body));
                served.answer(self.callee.unary(request, peer).await)
            }
            path @ (actors::CALL | actors::REMIND) => {
                let served = self.metrics.grpc_server().call(path);
                let request = request.map(|body| served.request(body));
                served.answer(self.actors.answer(request, peer).await)
            }
            path if path.starts_with(SERVICE) => grpc::refuse(&absent(&path[SERVICE.len()..])),
            path => {
                let served = self.metrics.grpc_client().proxied(path);
                let mut span = self.callee.tracer.received(request.headers());
                if let Some(span) = &mut span {
                    span.replace(request.headers_mut(), Wire::Grpc);
                    if let Some(recording) = span.recording() {
                        spans::proxied(recording, &request);
                    }
                }
                let answer = proxy::inbound(&self.app_id, &self.callee, request, peer).await;
                served.answer(match span {
                    Some(span) => spans::ending(span, answer),
                    None => answer,
                })
            }
        }
    }
}

/// A method of the service of sidecars that is not served.
fn absent(method: &str) -> Status {
    Status::unimplemented(match method {
        "CallActorStream" => {
            "streams of actors are not part of this release of Outrider".to_owned()
        }
        method => format!("sidecars have no method {method} for each other"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_streams_of_actors_are_called_so() {
        assert!(
            absent("CallActorStream")
                .message()
                .starts_with("streams of actors ")
        );
        let unknown = absent("CallNobody");
        assert_eq!(
            unknown.message(),
            "sidecars have no method CallNobody for each other"
        );
    }
}
