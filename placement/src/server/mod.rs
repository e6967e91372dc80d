//! The gRPC API that sidecars use.

mod lead;
mod session;
mod wire;

use std::convert::Infallible;
use std::future::Ready;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use outrider_host::server::Messages;
use outrider_placement_stream::{LARGEST, OrderCodec, Session, identify};
use outrider_proto::placement::v1::Host;
use outrider_security::Peer;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Status, Streaming};

pub use lead::Lead;
use session::Sidecar;

/// Of reports that have not come whole, of all clients together, in bytes.
pub const UNFINISHED: usize = 16 << 20;

/// `dapr.proto.placement.v1.Placement`. It is not the generated one, because
/// that would encode the same tables for each stream.
#[derive(Clone)]
pub struct Server {
    pub lead: Lead,
    /// Whether callers have certificates.
    pub mtls: bool,
    /// What has not come whole.
    pub messages: Messages,
    /// How often sidecars are asked whether they are there.
    pub ping_after: Duration,
}

/// Tells sidecars how often they hear something: they give up a service that is
/// silent for longer.
const PINGS: &str = "outrider-ping-milliseconds";

impl NamedService for Server {
    const NAME: &'static str = "dapr.proto.placement.v1.Placement";
}

impl<B> tower_service::Service<Request<B>> for Server
where
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/dapr.proto.placement.v1.Placement/ReportDaprStatus" {
                return Ok(Status::unimplemented("").into_http());
            }
            let peer = request.extensions().get::<Peer>();
            let address = peer.and_then(|peer| peer.address);
            let source = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |it| it.ip());
            let request = request.map(|body| server.messages.of(source.into(), body));
            let grpc = Grpc::new(OrderCodec::default());
            let mut grpc = grpc.apply_max_message_size_config(Some(LARGEST), None);
            Ok(grpc.streaming(server, request).await)
        })
    }
}

impl StreamingService<Host> for Server {
    type Response = Bytes;
    type ResponseStream = Session<Sidecar>;
    type Future = Ready<Result<tonic::Response<Session<Sidecar>>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Host>>) -> Self::Future {
        std::future::ready(self.session(request))
    }
}

impl Server {
    fn session(
        &self,
        request: tonic::Request<Streaming<Host>>,
    ) -> Result<tonic::Response<Session<Sidecar>>, Status> {
        self.lead.serves()?;
        let id = identify(&request, self.mtls)?;
        let sidecar = Sidecar::new(self.lead.clone(), id);
        let session = Session::new(sidecar, request.into_inner());
        let mut response = tonic::Response::new(session);
        let every = u64::try_from(self.ping_after.as_millis()).unwrap_or(u64::MAX);
        response.metadata_mut().insert(PINGS, every.into());
        Ok(response)
    }
}
