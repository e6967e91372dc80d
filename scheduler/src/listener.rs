//! gRPC over connections that know who is at the other end. Unlike the listeners
//! of other services these carry streams in both directions that never end.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use outrider_host::server::{Gate, Limits, Messages, Place};
use outrider_host::{Tasks, listen};
use outrider_security::{Acceptor, Connection, Peer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

const PING_AFTER: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections whose handshake is done, on their way to the server.
const ACCEPTED: usize = 64;
/// Of one connection at once.
const MOST_STREAMS: u32 = 512;
/// Of messages that have not come whole, of all clients together, in bytes.
const UNFINISHED: usize = 64 << 20;
/// Of headers, in bytes.
const LARGEST_HEADERS: u32 = 16 << 10;

/// A connection in its place among all.
struct Accepted {
    connection: Connection,
    _place: Place,
}

impl Connected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.connection.peer().clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

/// Serves until the tasks stop and the requests under way are answered. `name` is
/// for the log.
pub fn serve(
    name: &'static str,
    listener: TcpListener,
    acceptor: Acceptor,
    routes: Routes,
    tasks: &Tasks,
) {
    let gate = Gate::new(name, Limits::WORKLOADS);
    let (accepted, incoming) = mpsc::channel::<io::Result<Accepted>>(ACCEPTED);
    let (handshakes, stopping) = (tasks.clone(), tasks.stopping());
    tasks.spawn("accept", async move {
        let each = |socket, peer| {
            if let Some(place) = gate.admit(peer) {
                let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
                handshakes.spawn("handshake", async move {
                    if let Some(connection) = acceptor.admit(socket, peer).await {
                        place.served();
                        let connection = Accepted {
                            connection,
                            _place: place,
                        };
                        let _ = accepted.send(Ok(connection)).await;
                    }
                });
            }
            std::future::ready(())
        };
        listen::accept(listener, stopping, each).await;
    });
    let stopping = tasks.stopping();
    let messages = Messages::new(UNFINISHED);
    let measure = tower::util::MapRequestLayer::new(move |request| measured(&messages, request));
    tasks.spawn(name, async move {
        let server = Server::builder()
            .http2_keepalive_interval(Some(PING_AFTER))
            .http2_keepalive_timeout(Some(PING_TIMEOUT))
            .max_concurrent_streams(Some(MOST_STREAMS))
            .http2_max_header_list_size(LARGEST_HEADERS)
            .layer(measure)
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                ReceiverStream::new(incoming),
                stopping.cancelled_owned(),
            );
        if let Err(error) = server.await {
            tracing::error!(target: "dapr.scheduler.server", "{name}: the gRPC server ended: {error}");
        }
    });
}

fn measured(messages: &Messages, request: Request<Body>) -> Request<Body> {
    let peer = request.extensions().get::<Peer>();
    let address = peer.and_then(|peer| peer.address);
    let source = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |it| it.ip());
    request.map(|body| Body::new(messages.of(source.into(), body)))
}
