//! HTTP/2 connections, kept per worker, so that a call never leaves the thread
//! it began on.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::uri::{PathAndQuery, Scheme, Uri};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outrider_host::{Tasks, Workers};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;

use crate::grpc;
use crate::server::body::Body;

const DIAL_LIMIT: Duration = Duration::from_secs(30);
const PING_AFTER: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that nobody used for this long is closed.
const IDLE: Duration = Duration::from_secs(180);

/// Whom a connection is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// `host:port`
    pub address: String,
    /// Namespace and app id that the peer has to prove, for sidecars.
    pub app: Option<(String, String)>,
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub fn boxed(stream: impl Io + 'static) -> Box<dyn Io> {
    Box::new(stream)
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;
type Dial = Arc<dyn Fn(&Target) -> Dialling + Send + Sync>;

#[derive(Clone)]
pub struct Pool {
    dial: Dial,
    /// Of targets that have no app to prove; to the others it is always TLS.
    scheme: Scheme,
    workers: Arc<[Mutex<HashMap<Target, Kept>>]>,
    tasks: Tasks,
}

struct Kept {
    sender: SendRequest<Body>,
    used: Instant,
}

impl Pool {
    pub fn new(
        workers: usize,
        scheme: Scheme,
        dial: impl Fn(&Target) -> Dialling + Send + Sync + 'static,
    ) -> Self {
        Self {
            dial: Arc::new(dial),
            scheme,
            workers: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            tasks: Tasks::new(),
        }
    }

    /// Sends a request over the connection of this worker. Any failure is
    /// Unavailable: whether the peer saw the request is not known.
    pub async fn send(
        &self,
        target: &Target,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Status> {
        *request.uri_mut() = self.absolute(target, request.uri())?;
        let mut sender = self.sender(target).await?;
        let sent = match sender.ready().await {
            Ok(()) => sender.send_request(request).await,
            Err(error) => Err(error),
        };
        sent.map_err(|error| {
            if sender.is_closed() {
                self.forget(target);
            }
            grpc::transport_error(&error)
        })
    }

    /// With the authority and the scheme of the target: many servers refuse a
    /// request without them (RFC 9113, section 8.3.1), or with others' ones.
    fn absolute(&self, target: &Target, uri: &Uri) -> Result<Uri, Status> {
        let scheme = match target.app {
            Some(_) => Scheme::HTTPS,
            None => self.scheme.clone(),
        };
        let path = uri.path_and_query().cloned();
        Uri::builder()
            .scheme(scheme)
            .authority(target.address.as_str())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()
            .map_err(|error| Status::internal(format!("{}: {error}", target.address)))
    }

    /// Drops the connection of this worker, so that the next call dials anew.
    pub fn forget(&self, target: &Target) {
        self.worker().remove(target);
    }

    fn worker(&self) -> std::sync::MutexGuard<'_, HashMap<Target, Kept>> {
        let index = Workers::current() % self.workers.len();
        self.workers[index]
            .lock()
            .unwrap_or_else(|e| e.into_inner())
    }

    fn kept(&self, target: &Target) -> Option<SendRequest<Body>> {
        let mut worker = self.worker();
        let kept = worker
            .get_mut(target)
            .filter(|kept| !kept.sender.is_closed())?;
        kept.used = Instant::now();
        Some(kept.sender.clone())
    }

    async fn sender(&self, target: &Target) -> Result<SendRequest<Body>, Status> {
        if let Some(sender) = self.kept(target) {
            return Ok(sender);
        }
        let unavailable = |cause: &dyn std::fmt::Display| {
            Status::unavailable(format!(
                "connection error: desc = \"transport: Error while dialing: dial tcp {}: {cause}\"",
                target.address
            ))
        };
        let dialled = tokio::time::timeout(DIAL_LIMIT, (self.dial)(target)).await;
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(unavailable(&"connect: connection refused"));
            }
            Ok(Err(error)) => return Err(unavailable(&error)),
            Err(_) => return Err(unavailable(&"i/o timeout")),
        };
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unavailable(&error))?;
        self.tasks.spawn("peer connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(target: "dapr.runtime.grpc", "a connection ended: {error}");
            }
        });
        let mut worker = self.worker();
        // Another call may have been faster; one of the two connections is enough.
        if let Some(kept) = worker.get(target).filter(|kept| !kept.sender.is_closed()) {
            return Ok(kept.sender.clone());
        }
        worker.retain(|_, kept| !kept.sender.is_closed() && kept.used.elapsed() < IDLE);
        worker.insert(
            target.clone(),
            Kept {
                sender: sender.clone(),
                used: Instant::now(),
            },
        );
        Ok(sender)
    }
}
