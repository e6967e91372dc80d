//! The one body type of every answer and every outgoing request.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, LengthLimitError};
use tokio::time::Instant;
use tonic::{Code, Status};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body: nothing, bytes at hand, or a stream.
pub enum Body {
    Empty,
    Full(Option<Bytes>),
    Stream(UnsyncBoxBody<Bytes, BoxError>),
    /// A stream that is counted as it passes.
    Metered(UnsyncBoxBody<Bytes, BoxError>, Metering),
}

/// Counts a body as it passes.
pub trait Meter: Send + 'static {
    fn data(&mut self, bytes: usize);

    fn trailers(&mut self, _trailers: &HeaderMap) {}

    /// Nothing follows, whether the body ended well or not. Called once.
    fn over(&mut self);
}

/// A meter until its body is over.
pub struct Metering(Option<Box<dyn Meter>>);

impl Metering {
    fn over(&mut self) {
        if let Some(mut meter) = self.0.take() {
            meter.over();
        }
    }
}

impl Drop for Metering {
    fn drop(&mut self) {
        self.over();
    }
}

pub fn empty() -> Body {
    Body::Empty
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    let bytes = bytes.into();
    if bytes.is_empty() {
        Body::Empty
    } else {
        Body::Full(Some(bytes))
    }
}

pub fn stream<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Body::Stream(body.map_err(Into::into).boxed_unsync())
}

/// `body`, counted by `meter` as it passes.
pub fn metered(body: Body, mut meter: impl Meter) -> Body {
    match body {
        Body::Empty | Body::Full(None) => {
            meter.over();
            Body::Empty
        }
        Body::Full(Some(bytes)) => {
            meter.data(bytes.len());
            meter.over();
            Body::Full(Some(bytes))
        }
        Body::Stream(stream) => Body::Metered(stream, Metering(Some(Box::new(meter)))),
        metered @ Body::Metered(..) => {
            Body::Metered(metered.boxed_unsync(), Metering(Some(Box::new(meter))))
        }
    }
}

/// `first`, then what `rest` holds.
pub fn prepend(first: Bytes, rest: Body) -> Body {
    struct Prepended {
        first: Option<Bytes>,
        rest: Body,
    }

    impl http_body::Body for Prepended {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let this = self.get_mut();
            match this.first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => Pin::new(&mut this.rest).poll_frame(context),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.first.is_none() && self.rest.is_end_stream()
        }
    }

    stream(Prepended {
        first: Some(first),
        rest,
    })
}

/// A body whose frames are polled by `poll`; its end and size are its own.
struct Polled<P> {
    body: Body,
    poll: P,
}

type PolledFrame = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

impl<P> http_body::Body for Polled<P>
where
    P: FnMut(Pin<&mut Body>, &mut Context<'_>) -> PolledFrame + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        let this = self.get_mut();
        (this.poll)(Pin::new(&mut this.body), context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// `body`, keeping `guard` until it is dropped.
pub fn hold<G: Send + Unpin + 'static>(body: Body, guard: G) -> Body {
    let poll = move |body: Pin<&mut Body>, context: &mut Context<'_>| {
        let _held = &guard;
        body.poll_frame(context)
    };
    stream(Polled { body, poll })
}

/// `body`, which breaks off with [`ReadError::Late`] at the deadline.
pub fn until(body: Body, deadline: Instant) -> Body {
    if matches!(body, Body::Empty | Body::Full(_)) {
        return body;
    }
    let mut late = Box::pin(tokio::time::sleep_until(deadline));
    let poll = move |body: Pin<&mut Body>, context: &mut Context<'_>| {
        let polled = body.poll_frame(context);
        if polled.is_pending() && late.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(ReadError::Late.into())));
        }
        polled
    };
    stream(Polled { body, poll })
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Body::Stream(stream) => Pin::new(stream).poll_frame(context),
            Body::Metered(stream, meter) => {
                let polled = ready!(Pin::new(&mut *stream).poll_frame(context));
                match &polled {
                    Some(Ok(frame)) => {
                        if let Some(meter) = &mut meter.0 {
                            if let Some(data) = frame.data_ref() {
                                meter.data(data.len());
                            } else if let Some(trailers) = frame.trailers_ref() {
                                meter.trailers(trailers);
                            }
                        }
                        if stream.is_end_stream() {
                            meter.over();
                        }
                    }
                    Some(Err(_)) | None => meter.over(),
                }
                Poll::Ready(polled)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty | Body::Full(None) => true,
            Body::Full(Some(_)) => false,
            Body::Stream(stream) | Body::Metered(stream, _) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty | Body::Full(None) => SizeHint::with_exact(0),
            Body::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Body::Stream(stream) | Body::Metered(stream, _) => stream.size_hint(),
        }
    }
}

impl From<Full<Bytes>> for Body {
    fn from(body: Full<Bytes>) -> Self {
        stream(body.map_err(|e: Infallible| match e {}))
    }
}

impl From<Empty<Bytes>> for Body {
    fn from(_: Empty<Bytes>) -> Self {
        Body::Empty
    }
}

/// Why a body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The words that clients of Dapr know.
    #[error("stream too large")]
    TooLarge,
    /// The time of a policy is over.
    #[error("context deadline exceeded")]
    Late,
    #[error("{0}")]
    Broken(BoxError),
}

impl ReadError {
    fn of(error: BoxError) -> Self {
        match error.is::<LengthLimitError>() {
            true => Self::TooLarge,
            false => Self::Broken(error),
        }
    }

    /// The same for a gRPC client, behind a few words of what was done.
    pub fn status(&self, doing: &str) -> Status {
        let code = match self {
            ReadError::TooLarge => Code::ResourceExhausted,
            ReadError::Late => Code::DeadlineExceeded,
            ReadError::Broken(_) => Code::Internal,
        };
        Status::new(code, format!("{doing}{self}"))
    }
}

/// All of `body`, at most `limit` bytes of it.
pub async fn collect<B>(mut body: B, limit: Option<usize>) -> Result<Bytes, ReadError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let limit = limit.unwrap_or(usize::MAX);
    if body.size_hint().lower() > limit as u64 {
        return Err(ReadError::TooLarge);
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ReadError::of(e.into()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len() > limit {
            return Err(ReadError::TooLarge);
        }
        match &first {
            // A body of one frame is handed on as it came.
            None => first = Some(data),
            Some(head) => {
                if rest.is_empty() {
                    rest.reserve(head.len() + data.len());
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    let head = first.unwrap_or_default();
    if rest.is_empty() {
        return Ok(head);
    }
    let mut whole = BytesMut::with_capacity(head.len() + rest.len());
    whole.extend_from_slice(&head);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

/// All of `body` if it has no more than `most` bytes; of another one as much
/// as that, and then the rest as it comes.
pub async fn at_hand(mut body: Body, most: usize) -> Result<Body, ReadError> {
    let mut first = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ReadError::Broken)?.into_data() else {
            continue;
        };
        first.extend_from_slice(&data);
        if first.len() > most {
            return Ok(prepend(first.freeze(), body));
        }
    }
    Ok(full(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_large_is_passed_on() {
        let small = at_hand(chunks(&[3, 4]), 10).await.unwrap();
        assert_eq!(http_body::Body::size_hint(&small).exact(), Some(7));
        let frames = std::iter::repeat_with(|| Ok::<_, BoxError>(Frame::data(Bytes::from("xxxx"))));
        let endless = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let mut large = at_hand(stream(endless), 10).await.unwrap();
        for length in [12, 4, 4] {
            let frame = large.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap().len(), length);
        }
    }

    fn chunks(sizes: &[usize]) -> Body {
        let frames: Vec<_> = sizes
            .iter()
            .map(|n| Ok::<_, BoxError>(Frame::data(Bytes::from(vec![b'x'; *n]))))
            .collect();
        stream(http_body_util::StreamBody::new(futures_util::stream::iter(
            frames,
        )))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_breaks_off_when_it_is_late() {
        let deadline = Instant::now() + std::time::Duration::from_secs(1);
        let endless = http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, BoxError>,
        >());
        let error = collect(until(stream(endless), deadline), None).await;
        assert_eq!(error.unwrap_err().to_string(), "context deadline exceeded");
        let quick = collect(until(chunks(&[3]), deadline), None).await;
        assert_eq!(quick.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn collects_up_to_the_limit() {
        assert_eq!(
            collect(chunks(&[3, 4, 5]), Some(12)).await.unwrap().len(),
            12
        );
        assert_eq!(collect(chunks(&[]), Some(0)).await.unwrap().len(), 0);
        assert!(matches!(
            collect(chunks(&[3, 4, 5]), Some(11)).await,
            Err(ReadError::TooLarge)
        ));
        assert!(matches!(
            collect(full("0123456789ab"), Some(11)).await,
            Err(ReadError::TooLarge)
        ));
    }
}
