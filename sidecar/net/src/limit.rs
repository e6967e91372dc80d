//! The size of gRPC messages, both ways. The codec has limits of its own, with
//! codes that gRPC has for other things.
//! <https://grpc.io/docs/guides/status-codes/>

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use outrider_host::server::{Framing, Piece};
use tonic::Status;

use crate::body::BoxError;
use crate::grpc;

/// A body whose messages have at most `limit` bytes, if there is a limit.
pub struct Limited<B> {
    /// None once it was cut off.
    body: Option<B>,
    /// None where messages may be of any size.
    limit: Option<usize>,
    direction: Direction,
    framing: Framing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

/// The messages of a client; what is too long is an error.
pub fn request<B>(body: B, limit: Option<usize>) -> Limited<B> {
    Limited::new(body, limit, Direction::Request)
}

/// The messages of an answer, which ends with a status before one that is too
/// long.
pub fn answer<B>(body: B, limit: Option<usize>) -> Limited<B> {
    Limited::new(body, limit, Direction::Answer)
}

impl<B> Limited<B> {
    fn new(body: B, limit: Option<usize>, direction: Direction) -> Self {
        Self {
            body: Some(body),
            limit,
            direction,
            framing: Framing::default(),
        }
    }

    fn follow(&mut self, mut data: &[u8]) -> Result<(), Status> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        while let Some(piece) = self.framing.next(&mut data) {
            if let Piece::Begin(length) = piece {
                self.check(length, limit)?;
            }
        }
        Ok(())
    }

    fn check(&self, length: usize, limit: usize) -> Result<(), Status> {
        if length <= limit {
            return Ok(());
        }
        let doing = match self.direction {
            Direction::Request => "received message",
            Direction::Answer => "trying to send message",
        };
        Err(Status::resource_exhausted(format!(
            "grpc: {doing} larger than max ({length} vs. {limit})"
        )))
    }
}

impl<B> http_body::Body for Limited<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
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
        let frame = match ready!(Pin::new(body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
        };
        let checked = frame.data_ref().map_or(Ok(()), |data| this.follow(data));
        let Err(status) = checked else {
            return Poll::Ready(Some(Ok(frame)));
        };
        this.body = None;
        Poll::Ready(Some(match this.direction {
            Direction::Request => Err(status.into()),
            Direction::Answer => Ok(Frame::trailers(grpc::trailers(&status))),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(B::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;

    fn body(
        bytes: &[u8],
        cut: usize,
    ) -> impl http_body::Body<Data = Bytes, Error = BoxError> + Unpin {
        let pieces = [&bytes[..cut], &bytes[cut..]].map(Bytes::copy_from_slice);
        let frames = pieces.map(|piece| Ok::<_, BoxError>(Frame::data(piece)));
        StreamBody::new(futures_util::stream::iter(frames))
    }

    #[tokio::test]
    async fn messages_are_measured_however_they_are_cut() {
        let good = grpc::frame(&"hello".to_owned());
        let long = grpc::frame(&"x".repeat(100));
        let all = [good.clone(), good, long].concat();
        for cut in 0..all.len() {
            let passed = request(body(&all[..24], cut.min(24)), Some(10))
                .collect()
                .await;
            assert_eq!(passed.unwrap().to_bytes().len(), 24);
            let refused = request(body(&all, cut), Some(10)).collect().await;
            let refused = refused.unwrap_err().downcast::<Status>().unwrap();
            assert_eq!(refused.code(), Code::ResourceExhausted);
            let ended = answer(body(&all, cut), Some(10)).collect().await.unwrap();
            let status = ended.trailers().and_then(grpc::status_of).unwrap();
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert!(ended.to_bytes().len() < all.len());
            let whole = answer(body(&all, cut), None).collect().await.unwrap();
            assert_eq!(whole.to_bytes().len(), all.len());
        }
    }
}
