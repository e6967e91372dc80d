//! Bytes of a client: slow ones are given up, and those that are refused in
//! the middle of a body are read to the end.
//!
//! A socket that is closed with bytes unread resets the connection, and the
//! client never sees the answer that said why (RFC 9112, section 9.6). So the
//! writing half is closed first, and what still comes is thrown away until the
//! client closes too, for a short while.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::phase::Phase;

/// Time in which a client has to send the head of a request.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may go on sending after its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Reads in a row before others get their turn.
const TURN: usize = 64;

/// What HTTP/2 begins with (RFC 9113, section 3.4). Once it is there, pings
/// tell whether somebody is.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's stream: heads of requests come in time, and it is closed in two
/// steps while its client is sending. Between requests it may rest for as long
/// as it likes: closing it then may lose the next request.
pub struct Stream<S> {
    stream: S,
    phase: Phase,
    /// Bytes of the preface that came so far, until something else did.
    preface: Option<usize>,
    /// When the head has to be here, or the rest of the body is no longer read.
    deadline: Option<Pin<Box<Sleep>>>,
    closing: bool,
}

impl<S> Stream<S> {
    pub fn new(stream: S, phase: Phase) -> Self {
        Self {
            stream,
            phase,
            preface: Some(0),
            deadline: None,
            closing: false,
        }
    }

    /// Bytes came.
    fn came(&mut self, bytes: &[u8]) {
        if let Some(seen) = self.preface {
            let rest = &PREFACE[seen..];
            let length = bytes.len().min(rest.len());
            self.preface = (bytes[..length] == rest[..length]).then_some(seen + length);
            if self.preface == Some(PREFACE.len()) {
                self.preface = None;
                self.phase.share();
            }
        }
        if self.phase.is_resting() {
            self.phase.head();
            self.deadline = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if read.is_ready() {
            this.came(&buffer.filled()[before..]);
            return read;
        }
        if !this.phase.owes_head() {
            this.deadline = None;
            return Poll::Pending;
        }
        let deadline = this
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(HEAD_TIMEOUT)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
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
        if !this.closing {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            this.closing = true;
            this.deadline = None;
        }
        if !this.phase.is_sending() {
            return Poll::Ready(Ok(()));
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
    use tokio::time::{Instant, sleep};

    use super::*;

    fn sending() -> Phase {
        let phase = Phase::default();
        phase.body();
        phase
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_is_heard_out() {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut server = Stream::new(server, sending());
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
    async fn reading_the_rest_of_a_body_has_a_limit() {
        let (_client, server) = tokio::io::duplex(1024);
        let start = Instant::now();
        Stream::new(server, sending()).shutdown().await.unwrap();
        assert_eq!(start.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_is_closed_at_once() {
        let (_client, server) = tokio::io::duplex(1024);
        let start = Instant::now();
        let phase = Phase::default();
        phase.rest();
        Stream::new(server, phase).shutdown().await.unwrap();
        assert!(start.elapsed().is_zero());
    }

    /// How long the server waits for what does not come.
    async fn given_up(server: &mut Stream<tokio::io::DuplexStream>) -> Duration {
        let start = Instant::now();
        let read = tokio::time::timeout(Duration::from_hours(1), async {
            while server.read_u8().await.is_ok() {}
        });
        let _ = read.await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_given_up() {
        let (_client, server) = tokio::io::duplex(1024);
        let mut server = Stream::new(server, Phase::default());
        assert_eq!(given_up(&mut server).await, HEAD_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_it_rests_as_long_as_it_likes() {
        let (mut client, server) = tokio::io::duplex(1024);
        let phase = Phase::default();
        let mut server = Stream::new(server, phase.clone());
        client.write_all(b"G").await.unwrap();
        server.read_u8().await.unwrap();
        phase.rest();
        assert_eq!(given_up(&mut server).await, Duration::from_hours(1));
    }

    #[tokio::test(start_paused = true)]
    async fn dripping_does_not_prolong_the_head() {
        let (mut client, server) = tokio::io::duplex(1024);
        let phase = Phase::default();
        phase.rest();
        let mut server = Stream::new(server, phase);
        let drips = async {
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(3)).await;
            }
        };
        tokio::select! {
            () = drips => unreachable!("nobody closed it"),
            waited = given_up(&mut server) => assert_eq!(waited, HEAD_TIMEOUT),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn http2_rests_from_its_first_bytes() {
        for pieces in [&[PREFACE][..], &[b"P", b"RI * HT", &PREFACE[8..]]] {
            let (mut client, server) = tokio::io::duplex(1024);
            let mut server = Stream::new(server, Phase::default());
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                for _ in 0..piece.len() {
                    server.read_u8().await.unwrap();
                }
            }
            assert_eq!(given_up(&mut server).await, Duration::from_hours(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_is_given_up() {
        for length in 1..PREFACE.len() {
            let (mut client, server) = tokio::io::duplex(1024);
            let mut server = Stream::new(server, Phase::default());
            client.write_all(&PREFACE[..length]).await.unwrap();
            assert_eq!(given_up(&mut server).await, HEAD_TIMEOUT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_verb_that_begins_alike_is_no_preface() {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut server = Stream::new(server, Phase::default());
        client.write_all(b"PRINT / HTTP/1.1\r\n").await.unwrap();
        assert_eq!(given_up(&mut server).await, HEAD_TIMEOUT);
    }
}
