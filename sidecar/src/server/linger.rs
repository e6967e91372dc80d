//! Closing a connection on a client that is still sending.
//!
//! A socket that is closed with bytes unread resets the connection, and the
//! client never sees the answer that said why (RFC 9112, section 9.6). So the
//! writing half is closed first, and what still comes is thrown away until the
//! client closes too, for a short while.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a client may go on sending after its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Reads in a row before others get their turn.
const TURN: usize = 64;

/// Whether the client may be in the middle of a body.
#[derive(Clone, Default)]
pub struct Sending(Arc<AtomicBool>);

impl Sending {
    pub fn set(&self, sending: bool) {
        self.0.store(sending, Ordering::Relaxed);
    }

    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The body of a client's request, which knows when it is read to its end.
pub struct Incoming {
    body: hyper::body::Incoming,
    sending: Sending,
}

impl Incoming {
    pub fn new(body: hyper::body::Incoming, sending: Sending) -> Self {
        sending.set(!body.is_end_stream());
        Self { body, sending }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if frame.is_none() || this.body.is_end_stream() {
            this.sending.set(false);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that is closed in two steps while its client is sending.
pub struct Lingering<S> {
    stream: S,
    sending: Sending,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub fn new(stream: S, sending: Sending) -> Self {
        Self {
            stream,
            sending,
            deadline: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.deadline.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.sending.get() {
                return Poll::Ready(Ok(()));
            }
        }
        let deadline = this
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        if deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut scrap = [0; 16 << 10];
        for _ in 0..TURN {
            let mut buffer = ReadBuf::new(&mut scrap);
            let read = ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_is_heard_out() {
        let (mut client, server) = tokio::io::duplex(1024);
        let sending = Sending::default();
        sending.set(true);
        let mut server = Lingering::new(server, sending);
        let closing = async { server.shutdown().await.map(|()| server) };
        let sent = async {
            client.write_all(&[b'x'; 1 << 20]).await?;
            let mut rest = Vec::new();
            client.shutdown().await?;
            client.read_to_end(&mut rest).await
        };
        let (server, sent) = tokio::join!(closing, sent);
        assert_eq!(sent.unwrap(), 0);
        assert!(server.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let (_client, server) = tokio::io::duplex(1024);
        let sending = Sending::default();
        sending.set(true);
        let start = tokio::time::Instant::now();
        Lingering::new(server, sending).shutdown().await.unwrap();
        assert_eq!(start.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_client_that_is_done() {
        let (_client, server) = tokio::io::duplex(1024);
        let start = tokio::time::Instant::now();
        Lingering::new(server, Sending::default())
            .shutdown()
            .await
            .unwrap();
        assert!(start.elapsed().is_zero());
    }
}
