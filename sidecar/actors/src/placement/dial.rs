//! Connections to the service that says where actors are. Each knows when something came
//! on it last: what ends a stream does not say whether the other end knows that it
//! has ended.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use outrider_security::Connector;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// When a connection is asked whether anybody is there.
#[derive(Debug, Clone, Copy)]
pub struct Pings {
    /// After so much silence.
    pub after: Duration,
    /// The connection is given up without an answer by then.
    pub timeout: Duration,
}

/// A connection without anything for so long has not been closed by the other end.
const QUIET: Duration = Duration::from_millis(2800);
/// One whose other end asks regularly whether anybody is there is given up after so
/// much silence.
const SILENCE: Duration = Duration::from_millis(3500);
/// How late a question may be.
const LATE: Duration = Duration::from_millis(1500);
/// Pauses that show that it does: placement asks each 2 s.
const REGULAR: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_millis(2600);

/// When something came on a connection last.
#[derive(Debug, Clone)]
pub struct Heard(Arc<Mutex<Last>>);

#[derive(Debug, Clone, Copy)]
struct Last {
    at: Instant,
    /// How many pauses in a row were regular.
    regular: u32,
    /// After so much silence nobody is there, where the other end has said how often
    /// it asks.
    limit: Option<Duration>,
}

impl Heard {
    fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Last {
            at: now,
            regular: 0,
            limit: None,
        })))
    }

    /// The other end says that it asks this often.
    pub fn expect(&self, every: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).limit = Some(every + LATE);
    }

    /// Whether a stream that has ended now was silent before: perhaps the other end
    /// does not know that it has ended.
    pub fn was_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last().at) >= QUIET
    }

    /// Whether nobody seems to be there any more.
    pub fn is_silent(&self, now: Instant) -> bool {
        let last = self.last();
        let learned = (last.regular >= 3).then_some(SILENCE);
        let limit = last.limit.or(learned);
        limit.is_some_and(|limit| now.saturating_duration_since(last.at) >= limit)
    }

    fn last(&self) -> Last {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, now: Instant) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = now.saturating_duration_since(last.at);
        if REGULAR.contains(&pause) {
            last.regular = last.regular.saturating_add(1);
        } else if pause > *REGULAR.end() {
            last.regular = 0;
        }
        last.at = now;
    }
}

/// A channel with one connection, `address` is `host:port`.
pub async fn connect(
    address: impl std::fmt::Display,
    connector: Connector,
    pings: Option<Pings>,
) -> Result<(Channel, Heard), Status> {
    let mut endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Status::invalid_argument(format!("address {address}: {error}")))?
        .connect_timeout(DIAL_LIMIT);
    if let Some(pings) = pings {
        endpoint = endpoint
            .http2_keep_alive_interval(pings.after)
            .keep_alive_timeout(pings.timeout)
            .keep_alive_while_idle(true);
    }
    let heard = Heard::new(Instant::now());
    let connecting = endpoint.connect_with_connector(Listening {
        inner: connector,
        heard: heard.clone(),
    });
    let channel = connecting.await.map_err(|error| {
        Status::unavailable(format!("{address}: {}", outrider_kit::error::chain(&error)))
    })?;
    Ok((channel, heard))
}

/// A connector, or a connection, of which it is known when something came last.
#[derive(Clone)]
struct Listening<T> {
    inner: T,
    heard: Heard,
}

impl Service<Uri> for Listening<Connector> {
    type Response = TokioIo<Listening<TokioIo<<Connector as Service<Uri>>::Response>>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connecting = self.inner.call(target);
        let heard = self.heard.clone();
        Box::pin(async move {
            let inner = TokioIo::new(connecting.await?);
            heard.hear(Instant::now());
            Ok(TokioIo::new(Listening { inner, heard }))
        })
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Listening<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            this.heard.hear(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listening<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn bytes_are_heard_and_the_end_is_not() {
        let (inner, mut other) = tokio::io::duplex(64);
        let heard = Heard::new(Instant::now());
        let mut listening = Listening {
            inner,
            heard: heard.clone(),
        };
        let before = heard.last().at;
        other.write_all(b"x").await.unwrap();
        listening.read_u8().await.unwrap();
        let after = heard.last().at;
        assert!(after > before);
        drop(other);
        assert_eq!(listening.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(heard.last().at, after);
    }

    #[test]
    fn only_one_that_asks_regularly_is_given_up_for_its_silence() {
        let mut now = Instant::now();
        let heard = Heard::new(now);
        assert!(
            !heard.is_silent(now + SILENCE * 10),
            "it may not ask at all"
        );
        for _ in 0..2 {
            now += Duration::from_secs(10);
            heard.hear(now);
        }
        assert!(!heard.is_silent(now + SILENCE * 10), "it asks seldom");
        for _ in 0..3 {
            now += Duration::from_secs(2);
            heard.hear(now);
        }
        assert!(!heard.is_silent(now + Duration::from_secs(3)));
        assert!(heard.is_silent(now + SILENCE));
        assert!(heard.was_silent(now + SILENCE) && !heard.was_silent(now));
        let other = Heard::new(now);
        other.expect(Duration::from_secs(10));
        assert!(!other.is_silent(now + Duration::from_secs(11)));
        assert!(other.is_silent(now + Duration::from_secs(12)));
    }
}
