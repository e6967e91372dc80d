//! One HTTP/2 connection to a sidecar or to an application.
//!
//! A request leaves together with a body that is at hand, in one write; a body
//! that is still coming is passed on piece by piece, as fast as the other end
//! takes it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use http_body::{Body as _, Frame};
use outrider_host::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status};

use crate::body::{Body, BoxError};
use crate::expiry;
use crate::grpc;

/// The other end is asked for a sign of life this often, and given up when it
/// does not answer in the time below.
const PING_AFTER: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of headers that an answer may have.
const HEADERS: u32 = 256 << 10;
/// How long before the other end's certificate expires a connection gets no
/// further exchanges. A server tells its clients later than that.
const RETIRE_BEFORE: Duration = Duration::from_secs(60);

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A stream to a target.
pub struct Dialled {
    pub io: Box<dyn Io>,
    /// When the other end's certificate expires.
    pub expires: Option<tokio::time::Instant>,
}

pub fn boxed(stream: impl Io + 'static) -> Dialled {
    Dialled {
        io: Box::new(stream),
        expires: None,
    }
}

/// Cloning shares the connection, which ends with its last clone.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    sender: SendRequest<Bytes>,
    /// How every request names the target: many servers refuse one without
    /// scheme and authority (RFC 9113, section 8.3.1), or with others' ones.
    target: (Scheme, Authority),
    closed: Arc<AtomicBool>,
    /// Exchanges that have begun and not ended.
    open: AtomicUsize,
    tasks: Tasks,
}

impl Connection {
    pub async fn open(
        Dialled { io, expires }: Dialled,
        target: (Scheme, Authority),
        tasks: &Tasks,
    ) -> Result<Self, h2::Error> {
        let (sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .max_header_list_size(HEADERS)
            .handshake(io)
            .await?;
        let closed = Arc::new(AtomicBool::new(false));
        let pings = connection.ping_pong();
        let ended = closed.clone();
        let retired = closed.clone();
        let retire = async move {
            match expires {
                None => std::future::pending().await,
                Some(end) => tokio::time::sleep_until(expiry::before(end, RETIRE_BEFORE)).await,
            }
            // Exchanges that have begun may still end well.
            retired.store(true, Ordering::Release);
            std::future::pending::<()>().await;
        };
        tasks.spawn("peer connection", async move {
            tokio::select! {
                () = retire => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(target: "dapr.runtime.grpc", "a connection ended: {error}");
                },
                () = unanswered(pings) => {
                    tracing::debug!(target: "dapr.runtime.grpc", "a connection was given up: no sign of life for {}s", PING_TIMEOUT.as_secs());
                }
            }
            ended.store(true, Ordering::Release);
        });
        Ok(Self(Arc::new(Shared {
            sender,
            target,
            closed,
            open: AtomicUsize::new(0),
            tasks: tasks.clone(),
        })))
    }

    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// Exchanges that have begun and not ended.
    pub fn open_exchanges(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// A place for one exchange.
    pub fn place(&self) -> Place {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Place(self.clone())
    }
}

/// One exchange of a connection, until it is dropped.
pub struct Place(Connection);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place {
    /// Sends a request and waits for the head of its answer.
    pub async fn send(self, request: Request<Body>) -> Result<Response<Received>, Status> {
        let shared = &self.0.0;
        let sender = shared.sender.clone().ready().await;
        let mut sender = sender.map_err(|error| {
            // Takes no more requests, even if it still answers others.
            shared.closed.store(true, Ordering::Release);
            explain(&error)
        })?;
        let (mut parts, body) = request.into_parts();
        parts.version = Version::HTTP_2;
        parts.uri = shared.uri(&parts.uri);
        let request = Request::from_parts(parts, ());
        let send = |end| sender.send_request(request, end).map_err(|e| explain(&e));
        let (answer, pump) = match body {
            Body::Empty | Body::Full(None) => (send(true)?.0, None),
            Body::Full(Some(bytes)) => {
                let (answer, mut stream) = send(false)?;
                stream.send_data(bytes, true).map_err(|e| explain(&e))?;
                (answer, None)
            }
            body => {
                let (answer, stream) = send(false)?;
                (answer, shared.pump(body, stream).await)
            }
        };
        let Some(Pump { failed, end }) = pump else {
            return received(answer.await, None, self);
        };
        let mut failed = pin!(failed);
        let mut answer = pin!(answer);
        tokio::select! {
            biased;
            // A body that broke ends the exchange: its error comes first.
            failed = failed.as_mut() => match failed {
                Ok(error) => Err(broken(error)),
                // The body is sent; the answer is still to come.
                Err(_) => received(answer.await, Some(end), self),
            },
            answer = answer.as_mut() => received(answer, Some(end), self),
        }
    }
}

impl Shared {
    /// Where the request goes on this connection, whatever it said.
    fn uri(&self, given: &Uri) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.target.0.clone());
        parts.authority = Some(self.target.1.clone());
        parts.path_and_query = Some(
            given
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
        );
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Passes `body` on. What is there at once is sent at once, and nothing is
    /// left to do if that was all.
    async fn pump(&self, mut body: Body, mut stream: SendStream<Bytes>) -> Option<Pump> {
        let first = poll_fn(|context| Poll::Ready(Pin::new(&mut body).poll_frame(context))).await;
        let first = match first {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if body.is_end_stream() => {
                    let _ = stream.send_data(data, true);
                    return None;
                }
                Ok(data) => Some(Ok(Frame::data(data))),
                Err(frame) => Some(Ok(frame)),
            },
            Poll::Ready(Some(Err(error))) => Some(Err(error)),
            Poll::Ready(None) => {
                let _ = stream.send_data(Bytes::new(), true);
                return None;
            }
            Poll::Pending => None,
        };
        let cancelled = CancellationToken::new();
        let end = cancelled.clone().drop_guard();
        let (tell, failed) = oneshot::channel();
        self.tasks.spawn("request body", async move {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                passed = pass(body, first, &mut stream) => if let Err(error) = passed {
                    stream.send_reset(Reason::INTERNAL_ERROR);
                    // There is no receiver when the answer has come before.
                    let _ = tell.send(error);
                }
            }
        });
        Some(Pump { failed, end })
    }
}

/// A body on its way.
struct Pump {
    failed: oneshot::Receiver<BoxError>,
    /// Ends it when the answer is over.
    end: DropGuard,
}

/// Sends a body to its end, unless the other end wants no more of it. An error
/// is the body's own.
async fn pass(
    mut body: Body,
    mut first: Option<Result<Frame<Bytes>, BoxError>>,
    stream: &mut SendStream<Bytes>,
) -> Result<(), BoxError> {
    loop {
        let next = match first.take() {
            Some(first) => Some(first),
            None => {
                let next = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
                tokio::select! {
                    biased;
                    _ = poll_fn(|context| stream.poll_reset(context)) => return Ok(()),
                    next = next => next,
                }
            }
        };
        let Some(frame) = next.transpose()? else {
            let _ = stream.send_data(Bytes::new(), true);
            return Ok(());
        };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    let _ = stream.send_trailers(trailers);
                    return Ok(());
                }
                continue;
            }
        };
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let Some(Ok(granted)) = poll_fn(|context| stream.poll_capacity(context)).await else {
                return Ok(());
            };
            let piece = data.split_to(granted.min(data.len()));
            if stream.send_data(piece, false).is_err() {
                return Ok(());
            }
        }
    }
}

async fn unanswered(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(PING_AFTER).await;
        match tokio::time::timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection's own future knows why.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

fn received(
    answer: Result<Response<RecvStream>, h2::Error>,
    end: Option<DropGuard>,
    place: Place,
) -> Result<Response<Received>, Status> {
    match answer {
        Ok(answer) => Ok(answer.map(|stream| Received {
            stream,
            _end: end,
            _place: place,
        })),
        Err(error) => Err(explain(&error)),
    }
}

/// What the answer's body is while it comes in. Dropping it ends the exchange.
pub struct Received {
    stream: RecvStream,
    _end: Option<DropGuard>,
    _place: Place,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let stream = &mut self.get_mut().stream;
        match ready!(stream.poll_data(context)) {
            Some(Ok(data)) => {
                let _ = stream.flow_control().release_capacity(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(explain(&error)))),
            None => match ready!(stream.poll_trailers(context)) {
                Ok(trailers) => Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t)))),
                Err(error) => Poll::Ready(Some(Err(explain(&error)))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// What a failure of the other end amounts to. Unavailable leaves open
/// whether it saw the request.
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors>
fn explain(error: &h2::Error) -> Status {
    let status = grpc::transport_error(error);
    if !(error.is_reset() && error.is_remote()) {
        return status;
    }
    let code = match error.reason() {
        Some(Reason::CANCEL) => Code::Cancelled,
        Some(Reason::REFUSED_STREAM) => Code::Unavailable,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        _ => Code::Internal,
    };
    let mut explained = Status::new(code, status.message());
    if error.reason() == Some(Reason::REFUSED_STREAM) {
        explained.set_source(Arc::new(Refused));
    }
    explained
}

/// The other end did not look at the request.
#[derive(Debug, thiserror::Error)]
#[error("refused stream before processing any application logic")]
struct Refused;

/// Whether the request may be sent again, whatever it does (RFC 9113, section
/// 8.7).
pub fn is_refused(status: &Status) -> bool {
    let mut causes = grpc::causes(status);
    causes.any(|cause| cause.is::<Refused>())
}

/// What the failure of a body amounts to.
fn broken(error: BoxError) -> Status {
    match error.downcast::<Status>() {
        Ok(status) => *status,
        Err(error) => Status::internal(outrider_kit::error::chain(error.as_ref())),
    }
}

#[cfg(test)]
mod tests;
