//! Connections of clients, from accept to close.
//!
//! A connection is served on one worker from its first byte to its last.

pub mod phase;
mod stream;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body::Body as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use outrider_host::server::{Gate, Limits, Place};
use outrider_host::{Tasks, Workers, listen};
use outrider_security::{Acceptor, Peer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::Instant;

use self::phase::{Incoming, Leaving, Phase};
use self::stream::{HEAD_TIMEOUT, Stream};
use crate::body::{self, Body};
use crate::expiry::before;

/// Clients of gRPC are pinged after this much silence, and given up when they
/// do not answer in the time below.
const PING_AFTER: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests of one connection at once. Clients wait with more.
const MOST_STREAMS: u32 = 4096;
/// How long before its certificate expires a client is asked to connect anew.
const RETIRE_BEFORE: Duration = Duration::from_secs(30);

/// Whatever answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// `peer` is who the connection belongs to, where TLS says so.
    fn call(
        &self,
        request: Request<Incoming>,
        peer: Option<&Peer>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    pub http1: bool,
    pub http2: bool,
    /// Bytes of headers that a request may have.
    pub headers: usize,
}

/// A set of listeners with the same handler.
#[derive(Clone)]
pub struct Server<H> {
    pub handler: H,
    pub protocol: Protocol,
    pub workers: Workers,
    /// Owns listeners and connections.
    pub tasks: Tasks,
    pub leaving: Leaving,
}

impl<H: Handler> Server<H> {
    /// Serves plaintext connections of `listener` until the tasks stop. They are
    /// the application's: many of them at once are no reason to close one.
    pub fn listen(&self, listener: TcpListener) {
        self.listen_with(listener, None);
    }

    /// The same for other sidecars, with TLS if `acceptor` asks for it. When the
    /// listener is full, connections that have sent nothing are closed first.
    pub fn listen_tls(&self, listener: TcpListener, acceptor: Acceptor) {
        self.listen_with(listener, Some(acceptor));
    }

    fn listen_with(&self, listener: TcpListener, acceptor: Option<Acceptor>) {
        let server = self.clone();
        self.tasks.spawn("listener", async move {
            let stopping = server.tasks.stopping();
            let gate = acceptor
                .is_some()
                .then(|| Gate::new("sidecar", Limits::SIDECAR));
            listen::accept(listener, stopping, |stream, peer| {
                let place = gate.as_ref().map(|gate| gate.admit(peer));
                // None is admitted where all places are taken.
                if place.as_ref().is_none_or(Option::is_some) {
                    let place = place.flatten();
                    let worker = server.workers.next();
                    let (acceptor, connection) = (acceptor.clone(), server.clone());
                    server.tasks.spawn_on(&worker, "connection", async move {
                        if let Some(stream) = moved(stream) {
                            connection.greet(stream, peer, acceptor, place).await;
                        }
                    });
                }
                async {}
            })
            .await;
        });
    }

    /// Waits for the client to say something, and then serves it.
    async fn greet(
        self,
        stream: TcpStream,
        address: SocketAddr,
        acceptor: Option<Acceptor>,
        place: Option<Place>,
    ) {
        let stopping = self.tasks.stopping();
        tokio::select! {
            biased;
            heard = stream.readable() => if heard.is_err() { return },
            () = evicted(place.as_ref()) => return,
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(HEAD_TIMEOUT) => return,
        }
        if let Some(place) = &place {
            place.heard();
        }
        // What serving takes is boxed, so that a connection that sends nothing
        // costs little.
        let Some(acceptor) = acceptor else {
            return Box::pin(self.serve(stream, Some(address), None, None, place)).await;
        };
        let secured = tokio::select! {
            biased;
            secured = acceptor.admit(stream, address) => secured,
            () = evicted(place.as_ref()) => return,
        };
        if let Some(stream) = secured {
            let (peer, expires) = (stream.peer().clone(), stream.expires());
            Box::pin(self.serve(stream, Some(address), Some(peer), expires, place)).await;
        }
    }

    /// Serves connections of a unix socket.
    pub fn listen_unix(&self, listener: UnixListener) {
        let server = self.clone();
        self.tasks.spawn("listener", async move {
            let stopping = server.tasks.stopping();
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = stopping.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, _)) => {
                        let worker = server.workers.next();
                        let connection = server.clone();
                        server.tasks.spawn_on(&worker, "connection", async move {
                            let moved = stream.into_std().and_then(tokio::net::UnixStream::from_std);
                            if let Ok(stream) = moved {
                                connection.serve(stream, None, None, None, None).await;
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(target: "dapr.runtime", "a connection could not be accepted: {error}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        });
    }

    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        address: Option<SocketAddr>,
        peer: Option<Peer>,
        expires: Option<Instant>,
        place: Option<Place>,
    ) {
        let stopping = self.tasks.stopping();
        let (handler, peer) = (self.handler.clone(), &peer);
        let phase = Phase::new(self.leaving.clone(), address);
        let io = TokioIo::new(Stream::new(stream, phase.clone()));
        let first = std::sync::Once::new();
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let (handler, peer, phase) = (handler.clone(), peer.clone(), phase.clone());
            first.call_once(|| {
                if let Some(place) = &place {
                    place.served();
                }
            });
            async move {
                let single = request.version() < Version::HTTP_2;
                let is_head = *request.method() == Method::HEAD;
                let request = request.map(|body| Incoming::new(body, phase.clone()));
                // Boxed: the future of the connection stays small and is cheap to move.
                let mut answer = Box::pin(handler.call(request, peer.as_ref())).await;
                if is_head && !single {
                    answer = without_body(answer);
                }
                // A client that is refused while it sends must not send the next
                // request behind a body that is not read.
                let unread = answer.status().as_u16() >= 400 && phase.is_sending();
                if single && (unread || phase.is_last()) {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let builder = self.builder();
        let connection = builder.serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        // The stream itself ends with the client's certificate.
        let retire = async {
            match expires {
                None => std::future::pending().await,
                Some(end) => tokio::time::sleep_until(before(end, RETIRE_BEFORE)).await,
            }
        };
        let mut retire = std::pin::pin!(retire);
        let mut evicted = std::pin::pin!(evicted(place.as_ref()));
        let (mut retired, mut stopped) = (false, false);
        loop {
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                () = evicted.as_mut() => return,
                () = retire.as_mut(), if !retired => retired = true,
                () = stopping.cancelled(), if !stopped => {
                    phase.rest();
                    stopped = true;
                }
            }
            connection.as_mut().graceful_shutdown();
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .max_buf_size((self.protocol.headers + 4096).max(8192))
            .half_close(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(self.protocol.headers).unwrap_or(u32::MAX))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_concurrent_streams(MOST_STREAMS)
            .keep_alive_interval(Some(PING_AFTER))
            .keep_alive_timeout(PING_TIMEOUT);
        match (self.protocol.http1, self.protocol.http2) {
            (true, false) => builder.http1_only(),
            (false, true) => builder.http2_only(),
            _ => builder,
        }
    }
}

/// Waits until the connection has to make room for others.
async fn evicted(place: Option<&Place>) {
    match place {
        None => std::future::pending().await,
        Some(place) => place.evicted().await,
    }
}

/// The answer to HEAD, with the length of what it leaves out. Of HTTP/1 this is
/// taken care of.
fn without_body(answer: Response<Body>) -> Response<Body> {
    let (mut parts, content) = answer.into_parts();
    if let Some(length) = content.size_hint().exact().filter(|length| *length > 0) {
        let length = HeaderValue::from(length);
        parts
            .headers
            .entry(header::CONTENT_LENGTH)
            .or_insert(length);
    }
    Response::from_parts(parts, body::empty())
}

/// A stream registered with the runtime of the thread that is to serve it.
fn moved(stream: TcpStream) -> Option<TcpStream> {
    stream.into_std().and_then(TcpStream::from_std).ok()
}
