//! The accepting side: streams that know who is at the other end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::stream::Connection;
use crate::tls::HANDSHAKE;

/// Turns an accepted socket into a [`Connection`], with or without TLS.
#[derive(Clone)]
pub struct Acceptor(Option<TlsAcceptor>);

impl Acceptor {
    pub fn plaintext() -> Self {
        Self(None)
    }

    /// TLS as `config` says, for servers whose certificate is not the process's
    /// own.
    pub fn tls(config: ServerConfig) -> Self {
        Self(Some(TlsAcceptor::from(Arc::new(config))))
    }

    pub fn is_tls(&self) -> bool {
        self.0.is_some()
    }

    /// Finishes the handshake, within ten seconds.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<Connection> {
        socket.set_nodelay(true)?;
        let Some(tls) = &self.0 else {
            return Connection::plain(socket);
        };
        let stream = tokio::time::timeout(HANDSHAKE, tls.accept(socket))
            .await
            .map_err(|_| {
                let message = format!("no TLS handshake within {}s", HANDSHAKE.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, message)
            })??;
        Connection::secured(stream.into())
    }

    /// The same for an accept loop, which goes on after an error: it is logged,
    /// and nothing is returned.
    pub async fn admit(&self, socket: TcpStream, peer: SocketAddr) -> Option<Connection> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let error = match self.accept(socket).await {
            Ok(connection) => return Some(connection),
            Err(error) => error,
        };
        // Port probes connect and close without sending a byte.
        if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) {
            tracing::debug!(target: "dapr.runtime.security", "a connection from {peer} ended in the TLS handshake: {error}");
        } else {
            tracing::warn!(target: "dapr.runtime.security", "a connection from {peer} was refused: {error}");
        }
        None
    }
}
