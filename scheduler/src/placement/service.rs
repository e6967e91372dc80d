//! `ReportActorTypes` beside the other methods of a scheduler. It is not the
//! generated one, because that would encode the same tables for each stream.

use std::convert::Infallible;
use std::future::Ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use outrider_placement_stream::{LARGEST, OrderCodec, Session, identify};
use outrider_proto::scheduler::v1::ReportActorTypesRequest;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Status, Streaming};
use tower_service::Service;

use super::Placement;
use super::session::Sidecar;

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
            let grpc = Grpc::new(OrderCodec::default());
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
    type ResponseStream = Session<Sidecar>;
    type Future = Ready<Result<tonic::Response<Session<Sidecar>>, Status>>;

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
    ) -> Result<tonic::Response<Session<Sidecar>>, Status> {
        self.placement.serves()?;
        let id = identify(&request, self.mtls)?;
        let sidecar = Sidecar::new(self.placement.clone(), id, &self.stopping);
        let session = Session::new(sidecar, request.into_inner());
        Ok(tonic::Response::new(session))
    }
}
