//! `ReportActorTypes` beside the other methods of a scheduler. It is not the
//! generated one, because that would encode the same tables for each stream.

use std::convert::Infallible;
use std::future::Ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use outrider_proto::scheduler::v1::ReportActorTypesRequest;
use outrider_security::Peer;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Status, Streaming};
use tower_service::Service;

use super::session::{Session, caller};
use super::{Placement, wire};

/// A report, in bytes.
const LARGEST: usize = 1 << 20;

/// The generated service, and placement.
#[derive(Clone)]
pub struct WithPlacement<S> {
    pub inner: S,
    pub placement: Placement,
    /// Whether callers have certificates.
    pub mtls: bool,
    pub stopping: CancellationToken,
}

impl<S: NamedService> NamedService for WithPlacement<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for WithPlacement<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != "/dapr.proto.scheduler.v1.Scheduler/ReportActorTypes" {
            return Box::pin(self.inner.call(request));
        }
        let method = Method {
            placement: self.placement.clone(),
            mtls: self.mtls,
            stopping: self.stopping.clone(),
        };
        Box::pin(async move {
            let grpc = Grpc::new(wire::OrderCodec);
            let mut grpc = grpc.apply_max_message_size_config(Some(LARGEST), None);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct Method {
    placement: Placement,
    mtls: bool,
    stopping: CancellationToken,
}

impl StreamingService<ReportActorTypesRequest> for Method {
    type Response = Bytes;
    type ResponseStream = Session;
    type Future = Ready<Result<tonic::Response<Session>, Status>>;

    fn call(
        &mut self,
        request: tonic::Request<Streaming<ReportActorTypesRequest>>,
    ) -> Self::Future {
        std::future::ready(self.session(request))
    }
}

impl Method {
    fn session(
        &self,
        request: tonic::Request<Streaming<ReportActorTypesRequest>>,
    ) -> Result<tonic::Response<Session>, Status> {
        self.placement.serves()?;
        let peer = request.extensions().get::<Peer>();
        let id = peer.and_then(|peer| peer.id.clone());
        if self.mtls && caller(id.as_ref()).is_none() {
            let text = "failed to get client ID from context";
            return Err(Status::unauthenticated(text));
        }
        let messages = request.into_inner();
        let placement = self.placement.clone();
        let session = Session::new(placement, messages, id, &self.stopping);
        Ok(tonic::Response::new(session))
    }
}
