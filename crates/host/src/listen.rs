//! Listening sockets.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long to wait for a busy port, as when a process is restarted on the
/// ports of one that is still ending.
const RETRY_FOR: Duration = Duration::from_secs(10);

/// Listens on `host:port`; an empty host means every interface, IPv6 included
/// where the machine has it.
pub async fn tcp(host: &str, port: u16) -> io::Result<TcpListener> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return match TcpListener::bind(("::", port)).await {
            Ok(listener) => Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
        };
    }
    TcpListener::bind((host, port)).await
}

/// The same, retried for ten seconds while the port is taken.
pub async fn tcp_with_retries(host: &str, port: u16) -> io::Result<TcpListener> {
    let deadline = tokio::time::Instant::now() + RETRY_FOR;
    let mut pause = Duration::from_millis(100);
    loop {
        match tcp(host, port).await {
            Ok(listener) => return Ok(listener),
            Err(error) if tokio::time::Instant::now() + pause >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(500));
    }
}

/// Calls `each` with every accepted connection until `stopping` is cancelled.
/// Errors of a single accept (too many open files, a peer that gave up) never
/// end the loop.
pub async fn accept<F>(
    listener: TcpListener,
    stopping: CancellationToken,
    mut each: impl FnMut(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()>,
{
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                each(stream, peer).await;
            }
            Err(error) => {
                tracing::warn!(target: "dapr.host", "a connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
