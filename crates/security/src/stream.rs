//! Streams that know who is at the other end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::chain;
use crate::id::SpiffeId;

/// Who is at the other end. Our servers add it to the extensions of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// Set when the peer proved an id by its certificate.
    pub id: Option<SpiffeId>,
}

/// A connection, accepted or dialled.
pub struct Connection {
    peer: Peer,
    stream: Stage,
}

enum Stage {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    pub(crate) fn plain(socket: TcpStream) -> io::Result<Self> {
        let address = Some(socket.peer_addr()?);
        Ok(Self {
            peer: Peer { address, id: None },
            stream: Stage::Plain(socket),
        })
    }

    /// The verifier has judged the certificate already; here it is only read.
    pub(crate) fn secured(stream: TlsStream<TcpStream>) -> io::Result<Self> {
        let (socket, session) = stream.get_ref();
        let address = Some(socket.peer_addr()?);
        let id = session
            .peer_certificates()
            .and_then(|presented| presented.first())
            .map(chain::id_of)
            .transpose()
            .map_err(io::Error::other)?;
        Ok(Self {
            peer: Peer { address, id },
            stream: Stage::Tls(Box::new(stream)),
        })
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The application protocol that was negotiated, `h2` for instance.
    pub fn protocol(&self) -> Option<&[u8]> {
        match &self.stream {
            Stage::Plain(_) => None,
            Stage::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stage::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stage::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stage::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Stage::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stage::Plain(s) => Pin::new(s).poll_flush(cx),
            Stage::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stage::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Stage::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stage::Plain(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Stage::Tls(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stage::Plain(s) => s.is_write_vectored(),
            Stage::Tls(s) => s.is_write_vectored(),
        }
    }
}
