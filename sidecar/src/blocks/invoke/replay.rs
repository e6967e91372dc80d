//! Proxied calls that may be sent more than once: those whose request is one
//! message.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use outrider_resiliency::Failure;
use tonic::Status;

use super::ops::code_number;
use outrider_net::body::{self, Body, BoxError, ReadError};
use outrider_net::grpc;

/// Flag and length before a message.
const PREFIX: usize = 5;

/// A request with its first message at hand.
pub struct Replay {
    parts: http::request::Parts,
    first: Bytes,
    rest: Arc<Rest>,
}

/// What comes behind the first message, which should be the end.
struct Rest {
    body: Mutex<Body>,
    /// There was another message.
    more: AtomicBool,
}

impl Replay {
    /// Waits for the first message, of at most `limit` bytes.
    pub async fn read(request: http::Request<Body>, limit: Option<usize>) -> Result<Self, Status> {
        let (parts, mut body) = request.into_parts();
        let mut first = BytesMut::new();
        while !is_whole(&first, limit)? {
            match body.frame().await {
                None => break,
                Some(frame) => {
                    let frame = frame.map_err(|e| grpc::transport_error(e.as_ref()))?;
                    if let Ok(data) = frame.into_data() {
                        first.extend_from_slice(&data);
                    }
                }
            }
        }
        let end = length(&first).map_or(first.len(), |length| PREFIX + length);
        let more = first.len() > end;
        let rest = Rest {
            body: Mutex::new(body),
            more: AtomicBool::new(more),
        };
        Ok(Self {
            parts,
            first: first.freeze(),
            rest: Arc::new(rest),
        })
    }

    /// The request, once more.
    pub fn request(&self) -> http::Request<Body> {
        let body = if self.rest.is_empty() {
            body::full(self.first.clone())
        } else {
            body::stream(Once {
                first: Some(self.first.clone()).filter(|first| !first.is_empty()),
                rest: self.rest.clone(),
            })
        };
        http::Request::from_parts(self.parts.clone(), body)
    }

    /// The failure of a call that turned out to be a stream, which cannot be
    /// repeated.
    pub fn streaming(&self) -> Option<Status> {
        self.rest.streaming()
    }

    /// An answer that ends as it should if the call turns out to be a stream.
    pub fn watch(&self, answer: Body) -> Body {
        let rest = self.rest.clone();
        closing(answer, move || rest.streaming())
    }
}

impl Rest {
    /// Whether it is known that nothing comes.
    fn is_empty(&self) -> bool {
        let body = self.body.lock().unwrap_or_else(|e| e.into_inner());
        body.is_end_stream() && !self.more.load(Ordering::Acquire)
    }

    fn streaming(&self) -> Option<Status> {
        self.more.load(Ordering::Acquire).then(|| {
            Status::failed_precondition(
                "cannot use resiliency policies with retries on streaming RPCs",
            )
        })
    }
}

fn length(buffer: &[u8]) -> Option<usize> {
    let mut prefix = buffer.get(1..PREFIX)?;
    Some(prefix.get_u32() as usize)
}

fn is_whole(buffer: &[u8], limit: Option<usize>) -> Result<bool, Status> {
    let Some(length) = length(buffer) else {
        return Ok(false);
    };
    match limit {
        Some(limit) if length > limit => Err(Status::resource_exhausted(format!(
            "grpc: received message larger than max ({length} vs. {limit})"
        ))),
        _ => Ok(buffer.len() >= PREFIX + length),
    }
}

/// The body of one attempt.
struct Once {
    first: Option<Bytes>,
    rest: Arc<Rest>,
}

impl http_body::Body for Once {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(status) = self.rest.streaming() {
            return Poll::Ready(Some(Err(status.into())));
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let rest = self.rest.clone();
        let mut body = rest.body.lock().unwrap_or_else(|e| e.into_inner());
        loop {
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    if frame.data_ref().is_some_and(|data| !data.is_empty()) {
                        self.rest.more.store(true, Ordering::Release);
                        let status = self.rest.streaming();
                        return Poll::Ready(status.map(|status| Err(status.into())));
                    }
                }
                other => return other,
            }
        }
    }
}

/// An answer that policies take for a failure, or none.
pub enum FailedAttempt {
    /// Passed on if it is the last.
    Answer(Box<http::Response<Body>>, u16),
    Failed(Status),
    /// One that cannot be repeated.
    Final(Status),
}

impl fmt::Display for FailedAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailedAttempt::Answer(_, code) => write!(f, "status {code}"),
            FailedAttempt::Failed(status) | FailedAttempt::Final(status) => {
                f.write_str(&grpc::text(status))
            }
        }
    }
}

impl Failure for FailedAttempt {
    fn code(&self) -> Option<u16> {
        Some(match self {
            FailedAttempt::Answer(_, code) => *code,
            FailedAttempt::Failed(status) | FailedAttempt::Final(status) => {
                code_number(status.code())
            }
        })
    }

    fn is_permanent(&self) -> bool {
        matches!(self, FailedAttempt::Final(_))
    }
}

/// Waits until an answer shows how the call went: by its status, or by its
/// first message. From then on it is passed on as it comes.
pub async fn examine(answer: http::Response<Body>) -> Result<http::Response<Body>, FailedAttempt> {
    let (parts, mut body) = answer.into_parts();
    let failed = |code: u16, parts, body| {
        let answer = http::Response::from_parts(parts, body);
        Err(FailedAttempt::Answer(Box::new(answer), code))
    };
    match code_in(&parts.headers) {
        Some(0) => return Ok(http::Response::from_parts(parts, body)),
        Some(code) => return failed(code, parts, body),
        None if parts.status != http::StatusCode::OK => {
            let code = grpc::code_of(parts.status.as_u16());
            return failed(code_number(code), parts, body);
        }
        None => {}
    }
    loop {
        let frame = match body.frame().await {
            None => return Ok(http::Response::from_parts(parts, body)),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                return Err(FailedAttempt::Failed(grpc::transport_error(error.as_ref())));
            }
        };
        let trailers = match frame.into_data() {
            Ok(data) if data.is_empty() => continue,
            Ok(data) => {
                let body = body::prepend(data, body);
                return Ok(http::Response::from_parts(parts, body));
            }
            Err(frame) => frame,
        };
        let code = trailers.trailers_ref().and_then(code_in).unwrap_or(0);
        let body = body::stream(StreamBody::new(futures_util::stream::iter([Ok::<
            _,
            BoxError,
        >(
            trailers
        )])));
        if code == 0 {
            return Ok(http::Response::from_parts(parts, body));
        }
        return failed(code, parts, body);
    }
}

/// The code as it was sent, which may be one that gRPC does not define.
fn code_in(headers: &http::HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// `body`; where it breaks off for a reason that is known here, it ends with
/// that status instead.
pub fn closing(body: Body, reason: impl Fn() -> Option<Status> + Send + Unpin + 'static) -> Body {
    struct Closing<F> {
        body: Option<Body>,
        reason: F,
    }

    impl<F: Fn() -> Option<Status> + Unpin> http_body::Body for Closing<F> {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let this = self.get_mut();
            let Some(body) = &mut this.body else {
                return Poll::Ready(None);
            };
            let polled = Pin::new(body).poll_frame(context);
            let Poll::Ready(Some(Err(error))) = polled else {
                return polled;
            };
            this.body = None;
            let late = matches!(error.downcast_ref::<ReadError>(), Some(ReadError::Late));
            let status = late
                .then(|| Status::deadline_exceeded("context deadline exceeded"))
                .or_else(|| (this.reason)());
            Poll::Ready(Some(match status {
                Some(status) => Ok(Frame::trailers(grpc::trailers(&status))),
                None => Err(error),
            }))
        }
    }

    body::stream(Closing {
        body: Some(body),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;
    use tonic::Code;

    use super::*;

    fn frames(frames: Vec<Frame<Bytes>>) -> Body {
        let frames = frames.into_iter().map(Ok::<_, BoxError>);
        body::stream(StreamBody::new(futures_util::stream::iter(frames)))
    }

    fn message(text: &str) -> Bytes {
        grpc::frame(&text.to_owned())
    }

    async fn replay(parts: Vec<Bytes>) -> Result<Replay, Status> {
        let body = frames(parts.into_iter().map(Frame::data).collect());
        Replay::read(http::Request::new(body), Some(100)).await
    }

    #[tokio::test]
    async fn one_message_is_sent_again() {
        let whole = message("hello");
        for cut in 0..=whole.len() {
            let parts = vec![whole.slice(..cut), whole.slice(cut..)];
            let replay = replay(parts).await.unwrap();
            for _ in 0..3 {
                let sent = body::collect(replay.request().into_body(), None).await;
                assert_eq!(sent.unwrap(), whole);
            }
            assert!(replay.streaming().is_none());
        }
    }

    #[tokio::test]
    async fn a_second_message_is_refused() {
        let (one, two) = (message("hello"), message("world"));
        for parts in [
            vec![one.clone(), two.clone()],
            vec![[one, two].concat().into()],
        ] {
            let replay = replay(parts).await.unwrap();
            body::collect(replay.request().into_body(), None)
                .await
                .unwrap_err();
            assert_eq!(replay.streaming().unwrap().code(), Code::FailedPrecondition);
        }
        let long = message(&"x".repeat(200));
        let error = replay(vec![long]).await.err().unwrap();
        assert_eq!(error.code(), Code::ResourceExhausted);
    }

    fn trailers(code: Code) -> Frame<Bytes> {
        Frame::trailers(grpc::trailers(&Status::new(code, "refused")))
    }

    async fn examined(body: Vec<Frame<Bytes>>) -> Result<usize, u16> {
        match examine(http::Response::new(frames(body))).await {
            Ok(answer) => {
                let collected = answer.into_body().collect().await.unwrap();
                assert!(collected.trailers().is_some());
                Ok(collected.to_bytes().len())
            }
            Err(FailedAttempt::Answer(answer, code)) => {
                let collected = answer.into_body().collect().await.unwrap();
                let status = collected.trailers().and_then(grpc::status_of).unwrap();
                assert_eq!(status.message(), "refused");
                Err(code)
            }
            Err(refusal) => panic!("{refusal}"),
        }
    }

    #[tokio::test]
    async fn how_a_call_went() {
        let data = || Frame::data(message("hello"));
        let empty = || Frame::data(Bytes::new());
        let length = message("hello").len();
        assert_eq!(examined(vec![data(), trailers(Code::Ok)]).await, Ok(length));
        assert_eq!(
            examined(vec![data(), data(), trailers(Code::Aborted)]).await,
            Ok(2 * length)
        );
        assert_eq!(examined(vec![empty(), trailers(Code::Ok)]).await, Ok(0));
        assert_eq!(
            examined(vec![empty(), trailers(Code::Aborted)]).await,
            Err(10)
        );
        let mut unknown = http::HeaderMap::new();
        unknown.insert("grpc-status", 20.into());
        unknown.insert("grpc-message", http::HeaderValue::from_static("refused"));
        assert_eq!(examined(vec![Frame::trailers(unknown)]).await, Err(20));
        let refused = grpc::refuse(&Status::aborted("refused"));
        assert!(matches!(
            examine(refused).await,
            Err(FailedAttempt::Answer(_, 10))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_ends_with_its_status() {
        let endless = body::stream(StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, BoxError>,
        >()));
        let late = body::until(endless, Instant::now() + Duration::from_secs(1));
        let ended = closing(late, || None).collect().await.unwrap();
        let status = ended.trailers().and_then(grpc::status_of).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
}
