//! How processes serve connections: a handshake does not hold up accepts, each
//! step of a connection has a time limit, and where clients open too many
//! connections or send too large bodies, their own slowest connections are
//! closed first.

mod activity;
mod body;
mod framing;
mod gate;
mod limits;
mod messages;
mod slots;
mod stream;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use outrider_security::{Acceptor, Peer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

pub use body::{Answer, BodyError, Received};
pub use framing::{Framing, Piece};
pub use gate::{Gate, Place};
pub use limits::Limits;
pub use messages::{Measured, Messages};
pub use slots::Source;

use crate::{Tasks, listen};
use activity::{Activity, Due};
use stream::{Greeted, Watched};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What HTTP/2 clients may send ahead of the reader, per connection.
const WINDOW: u32 = 64 << 10;
/// How long before its certificate expires a client is asked to reconnect.
const RECONNECT_BEFORE: Duration = Duration::from_secs(30);
/// For the graceful shutdown of a connection without requests under way.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Something that answers requests: a service of tonic or a router of axum.
pub trait Service<B>:
    tower_service::Service<
        Request<Received>,
        Response = Response<B>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<B, S> Service<B> for S where
    S: tower_service::Service<
            Request<Received>,
            Response = Response<B>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// Serves connections of `listener` until the tasks stop and the requests under
/// way are answered. `name` is for the log.
///
/// Requests carry the [`Peer`] among their extensions.
pub async fn serve<B, S>(
    name: &'static str,
    listener: TcpListener,
    acceptor: Acceptor,
    limits: Limits,
    service: S,
    tasks: &Tasks,
) where
    S: Service<B>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let gate = Gate::new(name, limits);
    listen::accept(listener, tasks.stopping(), |socket, peer| {
        if let Some(place) = gate.admit(peer) {
            let server = Server {
                acceptor: acceptor.clone(),
                service: service.clone(),
                tasks: tasks.clone(),
                peer,
            };
            tasks.spawn("connection", server.run(socket, place));
        }
        std::future::ready(())
    })
    .await;
}

/// What serves one connection.
struct Server<S> {
    acceptor: Acceptor,
    service: S,
    tasks: Tasks,
    peer: SocketAddr,
}

impl<S> Server<S> {
    async fn run<B>(self, socket: TcpStream, place: Place)
    where
        S: Service<B>,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let stopping = self.tasks.stopping();
        let activity = Activity::new(&place);
        let first_bytes = async {
            // A connection that sends nothing costs its socket and little more:
            // the state of what follows is allocated after the first byte.
            if let Err(error) = socket.readable().await {
                tracing::debug!(target: "dapr.host", "{}: a connection from {} ended: {error}", place.gate.name, self.peer);
                return None;
            }
            activity.heard();
            Box::pin(self.greet(socket, &place)).await
        };
        let connection = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = place.evicted.cancelled() => return,
            () = until_due(activity.due()) => {
                let seconds = place.gate.limits.head_time.as_secs();
                let missing = match self.acceptor.is_tls() {
                    true => "no TLS handshake",
                    false => "no request",
                };
                place.gate.refused(self.peer, &format!("{missing} within {seconds}s"));
                return;
            }
            connection = first_bytes => connection,
        };
        if let Some(connection) = connection {
            Box::pin(self.serve(connection, activity, &place)).await;
        }
    }

    /// Finishes the handshake, and waits for the first bytes after it.
    async fn greet(&self, socket: TcpStream, place: &Place) -> Option<Greeted> {
        let connection = match self.acceptor.accept(socket).await {
            Ok(connection) => connection,
            Err(error) if is_disconnect(&error) => {
                tracing::debug!(target: "dapr.host", "{}: a connection from {} ended in the TLS handshake: {error}", place.gate.name, self.peer);
                return None;
            }
            Err(error) => {
                place.gate.refused(self.peer, &error.to_string());
                return None;
            }
        };
        Greeted::read(connection).await.ok()
    }

    async fn serve<B>(self, greeted: Greeted, activity: Activity, place: &Place)
    where
        S: Service<B>,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let stopping = self.tasks.stopping();
        let peer = greeted.connection.peer().clone();
        let expiry = greeted.connection.expires().map(shortly_before);
        let single = !greeted.is_http2();
        let builder = builder(&place.gate.limits, single);
        let stream = Watched::new(greeted, single.then(|| activity.clone()));
        let (service, requests) = (&self.service, &activity);
        let answer = service_fn(|request| answer(service.clone(), request, requests, &peer));
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), answer));
        let mut shutdown_since: Option<Instant> = None;
        loop {
            let due = activity.due();
            tokio::select! {
                biased;
                ended = serving.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(target: "dapr.host", "{}: a connection from {} ended: {error}", place.gate.name, self.peer);
                    }
                    return;
                }
                () = place.evicted.cancelled() => return,
                () = stopping.cancelled(), if shutdown_since.is_none() => {
                    serving.as_mut().graceful_shutdown();
                    shutdown_since = Some(Instant::now());
                }
                () = until_expiry(expiry), if shutdown_since.is_none() => {
                    serving.as_mut().graceful_shutdown();
                    shutdown_since = Some(Instant::now());
                }
                () = until_due(due) => match due {
                    Due::Shutdown(_) if shutdown_since.is_none() => {
                        serving.as_mut().graceful_shutdown();
                        shutdown_since = Some(Instant::now());
                    }
                    Due::Shutdown(_) => if let Some(since) = shutdown_since {
                        tokio::select! {
                            _ = serving.as_mut() => {}
                            () = tokio::time::sleep_until(since + SHUTDOWN_TIMEOUT) => {}
                        }
                        return;
                    }
                    _ => {
                        place.gate.refused(self.peer, "it did not send the rest of a request, or did not read the answer, in time");
                        return;
                    }
                },
                () = activity.changed() => {}
            }
        }
    }
}

/// Waits until shortly before the client's certificate expires, and the
/// connection with it.
async fn until_expiry(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Some time before `end`, but no more than a tenth of what is left.
fn shortly_before(end: Instant) -> Instant {
    let tenth = end.saturating_duration_since(Instant::now()) / 10;
    end.checked_sub(tenth.min(RECONNECT_BEFORE)).unwrap_or(end)
}

/// Whether the client went away. Port probes connect and close without sending
/// a byte, so this is not worth a warning.
fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Waits until the time of what is due is over.
async fn until_due(due: Due) {
    match due {
        Due::Close(at) | Due::Shutdown(at) => tokio::time::sleep_until(at).await,
        Due::Nothing => std::future::pending().await,
    }
}

/// For the protocol that the client has begun with.
fn builder(limits: &Limits, single: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let headers = limits.headers;
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size((headers as usize).max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(headers)
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(Some(limits.ping_after))
        .keep_alive_timeout(limits.ping_timeout);
    match single {
        true => builder.http1_only(),
        false => builder.http2_only(),
    }
}

type Answered<B> = Response<Either<Answer<B>, Full<Bytes>>>;

/// Answers one request, within the limits of its body.
fn answer<B, S>(
    mut service: S,
    request: Request<hyper::body::Incoming>,
    activity: &Activity,
    peer: &Peer,
) -> Pin<Box<dyn Future<Output = Result<Answered<B>, Infallible>> + Send>>
where
    S: Service<B>,
    B: Send + 'static,
{
    let limits = activity.gate().limits;
    let current = activity.request();
    let is_grpc = is_grpc(request.headers());
    if let Some(refused) = declared_too_large(request.headers(), &limits) {
        let answer = error_response(refused, is_grpc);
        return Box::pin(std::future::ready(Ok(answer.map(Either::Right))));
    }
    let peer = peer.clone();
    Box::pin(async move {
        let body = current.clone();
        let mut request = request.map(|it| Received::new(it, body, limits, is_grpc));
        request.extensions_mut().insert(peer);
        let ready = std::future::poll_fn(|context| service.poll_ready(context)).await;
        ready?;
        let answer = service.call(request).await?;
        current.answered();
        if let Some(refused) = current.refused() {
            return Ok(error_response(refused, is_grpc).map(Either::Right));
        }
        Ok(answer.map(|body| Either::Left(Answer::new(body, current))))
    })
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}

/// Whether the body is too large by its content-length.
fn declared_too_large(headers: &HeaderMap, limits: &Limits) -> Option<BodyError> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    let length: u64 = length.parse().ok()?;
    (length > limits.body as u64).then_some(BodyError::TooLarge(limits.body))
}

fn error_response(refused: BodyError, is_grpc: bool) -> Response<Full<Bytes>> {
    if is_grpc {
        return refused.status().into_http();
    }
    let mut answer = Response::new(Full::from(format!("{refused}\n")));
    *answer.status_mut() = refused.http_status();
    let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, text);
    answer
}
