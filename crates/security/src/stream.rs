//! Streams that know who is at the other end.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls_pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
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
    /// Set when the peer proved an id: how long the proof is good.
    expiry: Option<Pin<Box<Sleep>>>,
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
            expiry: None,
        })
    }

    /// The certificate is verified already; here it is only read.
    pub(crate) fn secured(stream: TlsStream<TcpStream>) -> io::Result<Self> {
        let (socket, session) = stream.get_ref();
        let address = Some(socket.peer_addr()?);
        let leaf = session
            .peer_certificates()
            .and_then(|presented| presented.first());
        let id = leaf
            .map(chain::id_of)
            .transpose()
            .map_err(io::Error::other)?;
        let left = leaf
            .map(|leaf| chain::time_left(leaf, UnixTime::now()))
            .transpose()
            .map_err(io::Error::other)?;
        Ok(Self {
            peer: Peer { address, id },
            stream: Stage::Tls(Box::new(stream)),
            expiry: left.map(|left| Box::pin(tokio::time::sleep(left))),
        })
    }

    /// When the peer's certificate expires, and the connection ends with it.
    pub fn expires(&self) -> Option<Instant> {
        self.expiry.as_ref().map(|expiry| expiry.deadline())
    }

    /// Whether the peer's certificate is still valid. A reader that waits for
    /// bytes is woken when it expires.
    fn check(&mut self, waiting: Option<&mut Context<'_>>) -> io::Result<()> {
        let Some(expiry) = &mut self.expiry else {
            return Ok(());
        };
        let is_over = match waiting {
            Some(context) => expiry.as_mut().poll(context).is_ready(),
            None => expiry.is_elapsed(),
        };
        if is_over {
            return Err(io::Error::other("the peer's certificate has expired"));
        }
        Ok(())
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
        self.check(None)?;
        let polled = match &mut self.stream {
            Stage::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stage::Tls(s) => Pin::new(s).poll_read(cx, buf),
        };
        if polled.is_pending() {
            self.check(Some(cx))?;
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(None)?;
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
        self.check(None)?;
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
