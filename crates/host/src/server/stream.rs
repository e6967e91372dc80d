//! A connection that has sent its first bytes, and that reports further ones.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use outrider_security::Connection;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::activity::Activity;

/// Bytes that HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: usize = 24;

/// A connection whose client has sent the first bytes of its protocol. Until
/// then it has no buffers.
pub(super) struct Greeted {
    pub connection: Connection,
    first: [u8; PREFACE],
    length: usize,
}

impl Greeted {
    /// Waits for the first bytes: all of the preface, or one of a request.
    pub async fn read(mut connection: Connection) -> io::Result<Self> {
        let mut first = [0; PREFACE];
        let length = match connection.protocol() {
            Some(b"h2") => PREFACE,
            _ => 1,
        };
        connection.read_exact(&mut first[..length]).await?;
        Ok(Self {
            connection,
            first,
            length,
        })
    }

    pub fn is_http2(&self) -> bool {
        self.connection.protocol() == Some(b"h2")
    }
}

/// A connection. Where it serves one request after another, bytes between two
/// of them are the head of the next; HTTP/2 has frames for other things.
pub(super) struct Watched {
    connection: Connection,
    /// Bytes that were read already, and how many of them are passed on.
    first: [u8; PREFACE],
    length: usize,
    passed: usize,
    activity: Option<Activity>,
}

impl Watched {
    pub fn new(greeted: Greeted, activity: Option<Activity>) -> Self {
        Self {
            connection: greeted.connection,
            first: greeted.first,
            length: greeted.length,
            passed: 0,
            activity,
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.passed < this.length && buffer.remaining() > 0 {
            let rest = &this.first[this.passed..this.length];
            let length = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..length]);
            this.passed += length;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.connection).poll_read(context, buffer);
        if let Some(activity) = &this.activity
            && buffer.filled().len() > before
        {
            activity.bytes();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(context)
    }
}
