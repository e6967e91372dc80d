//! Calls of gRPC services that are not the sidecar's own, passed on as they
//! came.
//! <https://docs.dapr.io/developing-applications/building-blocks/service-invocation/howto-invoke-services-grpc/>

use http::{HeaderMap, Response};
use hyper::body::Incoming;
use outrider_security::{Peer, acl};
use tonic::{Code, Status};

use super::address::APP_ID;
use super::headers::CALLEE_ID;
use super::{Api, address};
use crate::channel::Kind;
use crate::grpc;
use crate::metrics::service::Passed;
use crate::peer::call::sign;
use crate::peer::connection::Received;
use crate::peer::serve::Callee;
use crate::server::body::{self, Body};
use crate::server::path;

/// Says that a call is a stream rather than one message each way.
const IS_STREAM: &str = "dapr-stream";

/// A call by a client of this sidecar.
pub async fn outbound(api: &Api, request: http::Request<Incoming>) -> Response<Body> {
    let passed = async {
        let text = target(request.headers()).ok_or_else(no_target)?;
        let is_endpoint = |_: &str| false;
        let found = address::target(&text, &api.namespace, is_endpoint)
            .map_err(Status::invalid_argument)?;
        let address::Target::App { app_id, namespace } = found else {
            return Err(Status::invalid_argument(format!(
                "failed to proxy request: {text} is not an app id"
            )));
        };
        if app_id == api.app_id && namespace == api.namespace {
            let answer = local(api.channel.as_deref(), None, request, None).await?;
            return Ok(answer.map(body::stream));
        }
        let peer = api.find(&app_id, &namespace).await.map_err(plain)?;
        let is_stream = request
            .headers()
            .get(IS_STREAM)
            .and_then(|v| v.to_str().ok());
        let calling = api
            .calls
            .sent(&app_id, is_stream.is_some_and(outrider_kit::truthy));
        let mut outgoing = passing(request);
        sign(outgoing.headers_mut(), &api.app_id, &api.namespace, &app_id);
        match api.peers.forward(&peer, outgoing).await {
            Ok(answer) => Ok(Passed::answer(calling, answer)),
            Err(status) => {
                calling.ended(status.code() as u32);
                if let Some(resolver) = &api.resolver {
                    let asked = outrider_components::resolve::Request {
                        app_id,
                        namespace,
                        port: api.peers.own_port,
                    };
                    resolver.suspect(&asked, &peer.address);
                }
                Err(status)
            }
        }
    };
    passed
        .await
        .unwrap_or_else(|status: Status| grpc::refuse(&status))
}

/// A call by another sidecar, for this one's application.
pub async fn inbound(
    app_id: &str,
    callee: &Callee,
    request: http::Request<Incoming>,
    peer: Option<&Peer>,
) -> Response<Body> {
    let passed = async {
        let text = target(request.headers()).ok_or_else(no_target)?;
        if text.split('.').next() != Some(app_id) {
            return Err(Status::not_found(format!(
                "failed to proxy request: this is the sidecar of {app_id}, not of {text}"
            )));
        }
        local(callee.channel.as_deref(), Some(callee), request, peer).await
    };
    match passed.await {
        Err(status) => grpc::refuse(&status),
        Ok(response) => response.map(body::stream),
    }
}

async fn local(
    channel: Option<&crate::channel::Channel>,
    callee: Option<&Callee>,
    request: http::Request<Incoming>,
    peer: Option<&Peer>,
) -> Result<Response<Received>, Status> {
    let Some(channel) = channel else {
        return Err(Status::internal("app channel is not initialized"));
    };
    let Kind::Grpc(client) = &channel.kind else {
        return Err(Status::failed_precondition(
            "failed to proxy request: the application does not speak gRPC: set its protocol to grpc",
        ));
    };
    let path = judged(request.uri().path())?;
    if let Some(callee) = callee {
        callee.admit(peer.and_then(|p| p.id.as_ref()), path, acl::Call::Grpc)?;
    }
    if !channel.healthy.is_healthy() {
        return Err(Status::internal("app is not in a healthy state"));
    }
    client.forward(passing(request)).await
}

/// The path, which is judged and passed on as it is. One with a second
/// spelling is refused: some servers would resolve what was not judged.
fn judged(path: &str) -> Result<&str, Status> {
    let invalid =
        |why: &dyn std::fmt::Display| Status::invalid_argument(format!("invalid method: {why}"));
    let normal = acl::normalise(&path::unescape(path)).map_err(|e| invalid(&e))?;
    if normal != path {
        return Err(invalid(&format!("{path} has to be {normal}")));
    }
    Ok(path)
}

/// The request without what concerned this hop.
fn passing(request: http::Request<Incoming>) -> http::Request<Body> {
    let (mut parts, incoming) = request.into_parts();
    parts.headers.remove(APP_ID);
    parts.headers.remove(http::header::HOST);
    parts.extensions.clear();
    http::Request::from_parts(parts, body::stream(incoming))
}

fn target(headers: &HeaderMap) -> Option<String> {
    let find = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .filter(|v| !v.is_empty())
    };
    find(CALLEE_ID).or_else(|| find(APP_ID)).map(str::to_owned)
}

/// Whether a call names an application.
pub fn is_addressed(headers: &HeaderMap) -> bool {
    headers.contains_key(CALLEE_ID) || headers.contains_key(APP_ID)
}

fn no_target() -> Status {
    Status::new(
        Code::Unknown,
        "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found",
    )
}

fn plain(status: Status) -> Status {
    Status::new(status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        let plain = "/pkg.Service/Method";
        assert_eq!(judged(plain).ok(), Some(plain));
        for other in [
            "//pkg.Service/Method",
            "/pkg.Service/Method/",
            "/pkg.Open/../pkg.Service/Method",
            "/pkg.Open/%2e%2e/pkg.Service/Method",
            "/pkg.Service%2FMethod",
            "/pkg.Service/./Method",
            "/pkg.Service/Method#",
        ] {
            assert!(judged(other).is_err(), "{other}");
        }
    }
}
