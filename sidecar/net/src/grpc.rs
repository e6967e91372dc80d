//! gRPC on the wire, for the paths that handle messages as bytes:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use outrider_kit::error;
use tonic::{Code, Status};

use crate::body::{self, BoxError};

pub const CONTENT_TYPE: &str = "application/grpc";
/// Flag and length before every message.
const PREFIX: usize = 5;
/// Bytes that are reserved for a message before they are there.
const AHEAD: usize = 64 * 1024;

/// A message with its prefix.
pub fn frame(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX + length);
    buffer.put_u8(0);
    buffer.put_u32(length as u32);
    // `encode` would ask for the length once more.
    message.encode_raw(&mut buffer);
    buffer.freeze()
}

/// The messages of a body, as bytes.
pub struct Messages<B> {
    body: B,
    buffer: BytesMut,
    /// Bytes that one message may have; none without a limit.
    limit: Option<usize>,
    trailers: Option<HeaderMap>,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    pub fn new(body: B, limit: Option<usize>) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            limit,
            trailers: None,
        }
    }

    /// The next message; none when the body has ended.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match self.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None if self.buffer.is_empty() => return Poll::Ready(None),
                None => {
                    self.buffer.clear();
                    return Poll::Ready(Some(Err(Status::internal("unexpected EOF"))));
                }
                Some(Err(error)) => {
                    let error: BoxError = error.into();
                    return Poll::Ready(Some(Err(transport_error(error.as_ref()))));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.buffer.is_empty() => {
                        // The usual case, one message in one frame, is not copied.
                        if let Some(message) = whole(&data, self.limit) {
                            return Poll::Ready(Some(Ok(message)));
                        }
                        self.buffer.extend_from_slice(&data);
                    }
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    pub async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// The trailers, once the body has ended.
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((mut prefix, _)) = self.buffer.split_at_checked(PREFIX) else {
            return Ok(None);
        };
        if prefix.get_u8() != 0 {
            return Err(Status::unimplemented(
                "compressed messages are not supported here",
            ));
        }
        let length = prefix.get_u32() as usize;
        check(length, self.limit)?;
        if self.buffer.len() < PREFIX + length {
            // A length costs its sender nothing: memory follows what arrives.
            let missing = PREFIX + length - self.buffer.len();
            self.buffer.reserve(missing.min(AHEAD));
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

fn whole(data: &Bytes, limit: Option<usize>) -> Option<Bytes> {
    let mut prefix = data.get(..PREFIX)?;
    let flag = prefix.get_u8();
    let length = prefix.get_u32() as usize;
    (flag == 0 && data.len() == PREFIX + length && limit.is_none_or(|l| length <= l))
        .then(|| data.slice(PREFIX..))
}

fn check(length: usize, limit: Option<usize>) -> Result<(), Status> {
    match limit {
        Some(limit) if length > limit => Err(Status::resource_exhausted(format!(
            "grpc: received message larger than max ({length} vs. {limit})"
        ))),
        _ => Ok(()),
    }
}

/// The status that an HTTP/2 failure amounts to.
pub fn transport_error(error: &(dyn std::error::Error + 'static)) -> Status {
    let status = causes(error).find_map(|cause| cause.downcast_ref::<Status>());
    status.map_or_else(|| Status::unavailable(error::chain(error)), Status::clone)
}

/// An error and what it came from, outermost first.
pub fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Whether an answer's trailers, or its headers if it has no body, have a
/// status. Fails with one that is a failure.
pub fn check_status(headers: &HeaderMap) -> Result<bool, Status> {
    match headers.get("grpc-status") {
        None => Ok(false),
        Some(status) if status == "0" => Ok(true),
        Some(_) => match status_of(headers) {
            Some(status) if status.code() != Code::Ok => Err(status),
            found => Ok(found.is_some()),
        },
    }
}

/// How long the caller waits, if it says so.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The status in an answer's trailers, or in its headers if it has no body.
pub fn status_of(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}

/// Bytes of a status's message that are sent. One that quotes what a client sent
/// may be as long, and long headers make the other end close the connection,
/// with the calls of others on it.
const MESSAGE: usize = 4 << 10;

fn bounded(status: &Status) -> Cow<'_, Status> {
    let message = status.message();
    if message.len() <= MESSAGE {
        return Cow::Borrowed(status);
    }
    let cut = &message[..message.floor_char_boundary(MESSAGE)];
    Cow::Owned(Status::with_details_and_metadata(
        status.code(),
        format!("{cut}... ({} bytes)", message.len()),
        Bytes::copy_from_slice(status.details()),
        status.metadata().clone(),
    ))
}

/// An answer with nothing but a status.
pub fn refuse(status: &Status) -> Response<body::Body> {
    let mut response = Response::new(body::empty());
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static(CONTENT_TYPE),
    );
    if bounded(status).add_header(response.headers_mut()).is_err() {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response
}

/// Trailers that carry `status`.
pub fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    if status.code() == Code::Ok && status.message().is_empty() {
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
    } else if bounded(status).add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    trailers
}

/// The frame with which an answer ends well.
pub fn ok_trailers() -> Frame<Bytes> {
    Frame::trailers(trailers(&Status::new(Code::Ok, "")))
}

/// A code by the name that Go gives it.
pub fn code_name(code: Code) -> &'static str {
    outrider_kit::grpc::code_name(code as i32)
}

/// A status as Go prints it.
pub fn text(status: &Status) -> String {
    outrider_kit::grpc::status(status.code() as i32, status.message())
}

/// The HTTP status that a gRPC code becomes.
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The gRPC code that the answer of an HTTP application becomes.
pub fn code_of_app(status: u16) -> Code {
    match status {
        400 => Code::InvalidArgument,
        other => code_of(other),
    }
}

/// The gRPC code that the HTTP status of a server's answer becomes. Not the
/// inverse of the above.
pub fn code_of(status: u16) -> Code {
    match status {
        200..300 => Code::Ok,
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 => Code::Cancelled,
        409 => Code::AlreadyExists,
        429 => Code::ResourceExhausted,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut() {
        let status = Status::internal("é".repeat(1 << 20));
        for headers in [refuse(&status).headers().clone(), trailers(&status)] {
            assert!(headers["grpc-message"].len() < 16 << 10);
            let read = status_of(&headers).unwrap();
            assert_eq!(read.code(), Code::Internal);
            assert!(read.message().ends_with("... (2097152 bytes)"));
        }
        let short = Status::internal("short");
        assert_eq!(trailers(&short)["grpc-message"], "short");
    }
    use http_body_util::StreamBody;
    use prost::Message as _;

    async fn read(chunks: Vec<Bytes>, limit: Option<usize>) -> Vec<Result<Bytes, Code>> {
        let frames = chunks
            .into_iter()
            .map(|c| Ok::<_, BoxError>(Frame::data(c)));
        let mut messages =
            Messages::new(StreamBody::new(futures_util::stream::iter(frames)), limit);
        let mut all = Vec::new();
        while let Some(next) = messages.next().await {
            let failed = next.is_err();
            all.push(next.map_err(|s| s.code()));
            if failed {
                break;
            }
        }
        all
    }

    #[tokio::test]
    async fn messages_survive_any_cut() {
        let one = frame(&"hello".to_owned());
        let two = frame(&"world, a little longer".to_owned());
        let all = [one.clone(), two.clone()].concat();
        for cut in 0..all.len() {
            let chunks = vec![
                Bytes::copy_from_slice(&all[..cut]),
                Bytes::copy_from_slice(&all[cut..]),
            ];
            let got = read(chunks, None).await;
            let texts: Vec<_> = got
                .into_iter()
                .map(|m| String::decode(m.unwrap()).unwrap())
                .collect();
            assert_eq!(texts, ["hello", "world, a little longer"], "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn limits_and_broken_ends() {
        let message = frame(&"hello".to_owned());
        assert_eq!(
            read(vec![message.clone()], Some(3)).await,
            [Err(Code::ResourceExhausted)]
        );
        assert_eq!(
            read(vec![message.slice(..7)], None).await,
            [Err(Code::Internal)]
        );
        // Four gigabytes are announced, and three bytes come.
        let huge = Bytes::from_static(b"\0\xff\xff\xff\xffabc");
        let mut messages = Messages::new(http_body_util::Full::new(huge), None);
        assert!(messages.next().await.is_some_and(|m| m.is_err()));
        assert!(messages.buffer.capacity() < 1 << 20);
        let compressed = Bytes::from_static(&[1, 0, 0, 0, 0]);
        assert_eq!(
            read(vec![compressed], None).await,
            [Err(Code::Unimplemented)]
        );
    }
}
