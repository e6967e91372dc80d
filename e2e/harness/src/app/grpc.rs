use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use outrider_proto::common::v1::{InvokeRequest, InvokeResponse};
use outrider_proto::placement::v1::placement_server::{Placement, PlacementServer};
use outrider_proto::placement::v1::{Host, PlacementOrder};
use outrider_proto::runtime::v1::app_callback_server::{AppCallback, AppCallbackServer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

type Invoke = dyn Fn(InvokeRequest) -> Result<InvokeResponse, Status> + Send + Sync;
type Seen = Arc<Mutex<Vec<(MetadataMap, InvokeRequest)>>>;

/// A gRPC application. Besides being invoked it serves one method
/// with streams both ways, to be called through the proxy: it is
/// `Placement/ReportDaprStatus`, and it answers every host with an order whose
/// operation is the host's name.
pub struct GrpcApp {
    port: u16,
    seen: Seen,
    _server: JoinSet<()>,
}

struct Service {
    invoke: Box<Invoke>,
    seen: Seen,
}

impl GrpcApp {
    pub async fn start(
        invoke: impl Fn(InvokeRequest) -> Result<InvokeResponse, Status> + Send + Sync + 'static,
    ) -> Result<GrpcApp> {
        let seen = Seen::default();
        let service = Service {
            invoke: Box::new(invoke),
            seen: Arc::clone(&seen),
        };
        GrpcApp::with(service, seen).await
    }

    /// The same with callbacks of the test's own, which are not recorded.
    pub async fn serving(callbacks: impl AppCallback) -> Result<GrpcApp> {
        GrpcApp::with(callbacks, Seen::default()).await
    }

    async fn with(service: impl AppCallback, seen: Seen) -> Result<GrpcApp> {
        let listener = TcpListener::bind(("127.0.0.1", crate::port::free())).await?;
        let port = listener.local_addr()?.port();
        let router = tonic::transport::Server::builder()
            .add_service(AppCallbackServer::new(service))
            .add_service(PlacementServer::new(Streams));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let _ = router
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await;
        });
        Ok(GrpcApp {
            port,
            seen,
            _server: server,
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The latest invocation, with its metadata.
    pub fn last(&self) -> Option<(MetadataMap, InvokeRequest)> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last()
            .cloned()
    }
}

#[tonic::async_trait]
impl AppCallback for Service {
    async fn on_invoke(
        &self,
        request: Request<InvokeRequest>,
    ) -> Result<Response<InvokeResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let answer = (self.invoke)(message.clone());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((metadata, message));
        answer.map(Response::new)
    }
}

struct Streams;

type BoxStream<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Placement for Streams {
    async fn report_dapr_status(
        &self,
        request: Request<Streaming<Host>>,
    ) -> Result<Response<BoxStream<PlacementOrder>>, Status> {
        let orders = request.into_inner().map(|host| {
            Ok(PlacementOrder {
                operation: host?.name,
                ..PlacementOrder::default()
            })
        });
        let mut response = Response::new(Box::pin(orders) as BoxStream<PlacementOrder>);
        response.metadata_mut().insert(
            "streams",
            tonic::metadata::MetadataValue::from_static("both"),
        );
        Ok(response)
    }
}

/// A stream of requests that is fed by hand.
pub fn feed<T>() -> (mpsc::Sender<T>, ReceiverStream<T>) {
    let (sender, receiver) = mpsc::channel(4);
    (sender, ReceiverStream::new(receiver))
}
