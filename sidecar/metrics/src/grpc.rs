//! gRPC: calls of the API, calls to the application and the control plane.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use outrider_telemetry::metrics::{Cache, Counter, Family, Histogram, Slots};
use tonic::Code;

use super::{ErrorCode, Errors, Names};
use outrider_net::body::{self, Body, Meter};
use outrider_net::grpc;
use outrider_net::server::phase::Incoming;

/// Bytes before every message.
const PREFIX: u64 = 5;

pub struct Grpc {
    app_id: String,
    errors: Option<Arc<Errors>>,
    server: Side,
    client: Side,
    probes: Family<Counter>,
    probe_latency: Family<Histogram>,
}

/// Calls in one direction.
struct Side {
    received: Family<Histogram>,
    sent: Family<Histogram>,
    latency: Family<Histogram>,
    completed: Family<Counter>,
    methods: Cache<Method>,
}

/// What is counted of one method.
struct Method {
    path: String,
    /// By code.
    series: Slots<Series>,
    /// Received and sent: only of calls with one message each way.
    bytes: std::sync::OnceLock<(Arc<Histogram>, Arc<Histogram>)>,
}

struct Series {
    completed: Arc<Counter>,
    latency: Arc<Histogram>,
}

impl Grpc {
    pub(super) fn new(names: &Names<'_>, errors: Option<Arc<Errors>>) -> Self {
        const PROBES: &[&str] = &["app_id", "grpc_client_status"];
        Self {
            app_id: names.app_id.to_owned(),
            errors,
            server: Side::server(names),
            client: Side::client(names),
            probes: names.counter(
                "grpc_io_healthprobes_completed_count",
                "Health probes of the application.",
                PROBES,
                &[],
            ),
            probe_latency: names.latency(
                "grpc_io_healthprobes_roundtrip_latency",
                "Milliseconds that health probes took.",
                PROBES,
                &[],
            ),
        }
    }
}

impl Side {
    /// Calls of clients.
    fn server(names: &Names<'_>) -> Self {
        const SERVER: (&[&str], &[&str]) = (
            &["app_id", "grpc_server_method", "grpc_server_status"],
            &["grpc_server_method"],
        );
        const SERVER_BYTES: &[&str] = &["app_id", "grpc_server_method"];
        Self {
            received: names.bytes(
                "grpc_io_server_received_bytes_per_rpc",
                "Bytes in the requests of calls to the gRPC API.",
                SERVER_BYTES,
                SERVER.1,
            ),
            sent: names.bytes(
                "grpc_io_server_sent_bytes_per_rpc",
                "Bytes in the answers of the gRPC API.",
                SERVER_BYTES,
                SERVER.1,
            ),
            latency: names.latency(
                "grpc_io_server_server_latency",
                "Milliseconds from a call of the gRPC API to the end of its answer.",
                SERVER.0,
                SERVER.1,
            ),
            completed: names.counter(
                "grpc_io_server_completed_rpcs",
                "Calls of the gRPC API.",
                SERVER.0,
                SERVER.1,
            ),
            methods: Cache::default(),
        }
    }

    /// Calls of the sidecar.
    fn client(names: &Names<'_>) -> Self {
        const CLIENT: (&[&str], &[&str]) = (
            &["app_id", "grpc_client_method", "grpc_client_status"],
            &["grpc_client_method"],
        );
        const CLIENT_BYTES: &[&str] = &["app_id", "grpc_client_method"];
        Self {
            received: names.bytes(
                "grpc_io_client_received_bytes_per_rpc",
                "Bytes in the answers to gRPC calls of the sidecar.",
                CLIENT_BYTES,
                CLIENT.1,
            ),
            sent: names.bytes(
                "grpc_io_client_sent_bytes_per_rpc",
                "Bytes in the requests of gRPC calls of the sidecar.",
                CLIENT_BYTES,
                CLIENT.1,
            ),
            latency: names.latency(
                "grpc_io_client_roundtrip_latency",
                "Milliseconds from a gRPC call of the sidecar to the end of its answer.",
                CLIENT.0,
                CLIENT.1,
            ),
            completed: names.counter(
                "grpc_io_client_completed_rpcs",
                "gRPC calls of the sidecar.",
                CLIENT.0,
                CLIENT.1,
            ),
            methods: Cache::default(),
        }
    }

    fn method(&self, path: &str) -> Arc<Method> {
        self.methods.get(path, || Method {
            path: path.to_owned(),
            series: Slots::default(),
            bytes: Default::default(),
        })
    }

    fn completed(&self, app_id: &str, method: &Method, code: Code, took: Duration) {
        let series = method.series.get(code as u32, || {
            let labels = [app_id, &method.path, grpc::code_name(code)];
            Series {
                completed: self.completed.with(&labels),
                latency: self.latency.with(&labels),
            }
        });
        series.completed.inc();
        series.latency.record_duration(took);
    }

    fn bytes(&self, app_id: &str, method: &Method, received: u64, sent: u64) {
        let labels = [app_id, &method.path];
        let (receiving, sending) = method
            .bytes
            .get_or_init(|| (self.received.with(&labels), self.sent.with(&labels)));
        receiving.record(received);
        sending.record(sent);
    }
}

/// What counts calls of the gRPC API.
#[derive(Clone, Default)]
pub struct Server(pub(super) Option<Arc<Grpc>>);

/// A call that is being answered.
pub struct Served(Option<Proxied>);

impl Server {
    /// A call with one message each way.
    pub fn call(&self, path: &str) -> Served {
        Served(self.0.as_ref().map(|grpc| Proxied {
            received: Some(Arc::default()),
            ..Proxied::new(grpc, grpc.server.method(path), true)
        }))
    }

    /// A call that is passed on to another application.
    pub fn proxied(&self, path: &str) -> Served {
        let grpc = self.0.as_ref();
        Served(grpc.map(|grpc| Proxied::new(grpc, grpc.server.method(path), true)))
    }
}

impl Served {
    pub fn request(&self, body: Incoming) -> Counted {
        let counter = self.0.as_ref().and_then(|call| call.received.clone());
        Counted { body, counter }
    }

    /// The same answer, which is counted when it is over.
    pub fn answer(self, answer: Response<Body>) -> Response<Body> {
        let Some(mut call) = self.0 else {
            return answer;
        };
        if let Some(errors) = &call.grpc.errors {
            let status = answer.extensions().get::<tonic::Status>();
            let known = status.and_then(ErrorCode::of).copied();
            known.into_iter().for_each(|known| errors.count(known));
        }
        call.trailers(answer.headers());
        answer.map(|body| body::metered(body, call))
    }
}

/// Counts a request as it is read.
pub struct Counted {
    body: Incoming,
    counter: Option<Arc<AtomicU64>>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let (Some(counter), Some(Ok(frame))) = (&this.counter, &polled)
            && let Some(data) = frame.data_ref()
        {
            counter.fetch_add(data.len() as u64, Relaxed);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A call whose answer is on its way.
pub struct Proxied {
    grpc: Arc<Grpc>,
    method: Arc<Method>,
    is_server: bool,
    started: Instant,
    /// Present where bytes are counted.
    received: Option<Arc<AtomicU64>>,
    bytes: u64,
    /// A call that ends without a status was given up.
    code: Code,
}

impl Proxied {
    fn new(grpc: &Arc<Grpc>, method: Arc<Method>, is_server: bool) -> Self {
        Self {
            grpc: grpc.clone(),
            method,
            is_server,
            started: Instant::now(),
            received: None,
            bytes: 0,
            code: Code::Cancelled,
        }
    }
}

impl Meter for Proxied {
    fn data(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.code = code_of(trailers).unwrap_or(self.code);
    }

    fn over(&mut self) {
        let (app_id, method) = (&self.grpc.app_id, &self.method);
        let side = if self.is_server {
            &self.grpc.server
        } else {
            &self.grpc.client
        };
        side.completed(app_id, method, self.code, self.started.elapsed());
        if let Some(received) = &self.received {
            let received = received.load(Relaxed).saturating_sub(PREFIX);
            side.bytes(app_id, method, received, self.bytes.saturating_sub(PREFIX));
        }
    }
}

/// The code of a call, if these headers have it.
pub(super) fn code_of(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get("grpc-status")?;
    Some(Code::from_bytes(status.as_bytes()))
}

/// What counts calls to an application or to the control plane.
#[derive(Clone, Default)]
pub struct Client(pub(super) Option<Arc<Grpc>>);

impl Client {
    /// A call with one message each way that is over.
    pub fn called(&self, path: &str, code: Code, sent: usize, received: usize, took: Duration) {
        let Some(grpc) = &self.0 else { return };
        let method = grpc.client.method(path);
        grpc.client.completed(&grpc.app_id, &method, code, took);
        let (received, sent) = (received as u64, sent as u64);
        grpc.client.bytes(&grpc.app_id, &method, received, sent);
    }

    /// A call that another sidecar passes on to the application.
    pub fn proxied(&self, path: &str) -> Served {
        let grpc = self.0.as_ref();
        Served(grpc.map(|grpc| Proxied::new(grpc, grpc.client.method(path), false)))
    }

    /// A health probe that answered, or did not within its time.
    pub fn probed(&self, code: Code, took: Duration) {
        let Some(grpc) = &self.0 else { return };
        let labels = [&*grpc.app_id, grpc::code_name(code)];
        grpc.probes.with(&labels).inc();
        grpc.probe_latency.with(&labels).record_duration(took);
    }
}
