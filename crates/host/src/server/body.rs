//! Bodies of requests within their limits, and bodies of answers that end their
//! request when they do.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::activity::Request;
use super::limits::Limits;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the body of a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the request body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("too many request bodies are being received: try again later")]
    TooMany,
    #[error("the request body did not arrive within {0} seconds")]
    TooSlow(u64),
}

impl BodyError {
    pub(super) fn http_status(self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// For gRPC, whose answers have a code of their own.
    pub(super) fn status(self) -> tonic::Status {
        let text = self.to_string();
        match self {
            Self::TooLarge(_) | Self::TooMany => tonic::Status::resource_exhausted(text),
            Self::TooSlow(_) => tonic::Status::deadline_exceeded(text),
        }
    }
}

/// The body of a request.
pub struct Received {
    body: hyper::body::Incoming,
    /// Nothing once the body is here.
    owed: Option<Owed>,
    is_grpc: bool,
}

struct Owed {
    request: Arc<Request>,
    /// Bytes that may still come.
    left: usize,
    limits: Limits,
    time: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Received {
    pub(super) fn new(
        body: hyper::body::Incoming,
        request: Arc<Request>,
        limits: Limits,
        is_grpc: bool,
    ) -> Self {
        let owed = match limits.body_time {
            Some(time) if !body.is_end_stream() => Some(Owed {
                request,
                left: limits.body,
                limits,
                time,
                deadline: Box::pin(tokio::time::sleep(time)),
            }),
            _ => {
                request.received();
                None
            }
        };
        Self {
            body,
            owed,
            is_grpc,
        }
    }

    fn refuse(&self, refused: BodyError) -> BoxError {
        if let Some(owed) = &self.owed {
            owed.request.refuse(refused);
        }
        match self.is_grpc {
            true => refused.status().into(),
            false => refused.into(),
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(owed) = &mut this.owed else {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        };
        if owed.deadline.as_mut().poll(context).is_ready() {
            let refused = BodyError::TooSlow(owed.time.as_secs());
            return Poll::Ready(Some(Err(this.refuse(refused))));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let refused = match owed.left.checked_sub(data.len()) {
                None => Some(BodyError::TooLarge(owed.limits.body)),
                Some(_) if !owed.request.hold(data.len()) => Some(BodyError::TooMany),
                Some(left) => {
                    owed.left = left;
                    None
                }
            };
            if let Some(refused) = refused {
                return Poll::Ready(Some(Err(this.refuse(refused))));
            }
        }
        if frame.is_none() || this.body.is_end_stream() {
            owed.request.received();
            this.owed = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, which holds its request until it ends.
pub struct Answer<B> {
    body: B,
    _request: Arc<Request>,
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, request: Arc<Request>) -> Self {
        let _request = request;
        Self { body, _request }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
