//! A call on its way, whatever it came by and will leave by.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Method;
use http_body::Frame;
use tonic::Status;

use crate::server::body::{self, Body, BoxError};

/// Names and values; a name may stand more than once. Values are bytes, since
/// those of HTTP need not be text.
pub type Metadata = Vec<(String, Bytes)>;

/// What the caller spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Http,
    Grpc,
}

/// The data of a call.
pub enum Data {
    /// At hand: may be sent more than once.
    Whole(Bytes),
    /// Passing through, once.
    Stream(Body),
}

impl Data {
    pub fn into_body(self) -> Body {
        match self {
            Data::Whole(bytes) => body::full(bytes),
            Data::Stream(stream) => stream,
        }
    }

    pub async fn collect(self, limit: Option<usize>) -> Result<Bytes, Status> {
        match self {
            Data::Whole(bytes) => Ok(bytes),
            Data::Stream(stream) => body::collect(stream, limit)
                .await
                .map_err(|e| Status::internal(e.to_string())),
        }
    }
}

pub struct Request {
    /// Decoded and cleaned, without a leading slash.
    pub method: String,
    /// None if a gRPC caller gave none.
    pub verb: Option<Method>,
    /// As the client wrote it.
    pub query: String,
    pub metadata: Metadata,
    pub origin: Origin,
    pub content_type: Option<String>,
    /// None if the client did not say.
    pub content_length: Option<u64>,
    /// Type of the data in gRPC calls.
    pub data_type_url: String,
    pub body: Data,
}

impl Request {
    /// Whether the data passes through, so that it can be sent once only.
    pub fn is_streaming(&self) -> bool {
        matches!(self.body, Data::Stream(_))
    }

    /// The same again, if the data is at hand.
    pub fn again(&self) -> Option<Self> {
        let Data::Whole(bytes) = &self.body else {
            return None;
        };
        Some(Self {
            method: self.method.clone(),
            verb: self.verb.clone(),
            query: self.query.clone(),
            metadata: self.metadata.clone(),
            origin: self.origin,
            content_type: self.content_type.clone(),
            content_length: self.content_length,
            data_type_url: self.data_type_url.clone(),
            body: Data::Whole(bytes.clone()),
        })
    }
}

/// What the application answered with.
#[derive(Debug, Clone)]
pub enum Code {
    Http(u16),
    Grpc(Status),
}

pub struct Response {
    pub code: Code,
    pub headers: Metadata,
    pub trailers: Metadata,
    pub content_type: Option<String>,
    /// Type of the data that a gRPC application answered with.
    pub data_type_url: String,
    pub body: Body,
}

/// What typed data is, whatever else its sender said.
pub const PROTOBUF: &str = "application/x-protobuf";

impl Response {
    /// How the body is to be read.
    pub fn content_type(&self) -> Option<&str> {
        if self.data_type_url.is_empty() {
            self.content_type.as_deref()
        } else {
            Some(PROTOBUF)
        }
    }

    /// Whether policies take the answer for a failure.
    pub fn is_failure(&self) -> bool {
        match &self.code {
            Code::Http(code) => !(200..400).contains(code),
            Code::Grpc(status) => status.code() != tonic::Code::Ok,
        }
    }
}

/// `body`, keeping `guard` until it is dropped.
pub fn hold<G: Send + Unpin + 'static>(body: Body, guard: G) -> Body {
    struct Holding<G> {
        body: Body,
        _guard: G,
    }

    impl<G: Unpin> http_body::Body for Holding<G> {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Pin::new(&mut self.get_mut().body).poll_frame(context)
        }

        fn is_end_stream(&self) -> bool {
            self.body.is_end_stream()
        }

        fn size_hint(&self) -> http_body::SizeHint {
            self.body.size_hint()
        }
    }

    body::stream(Holding {
        body,
        _guard: guard,
    })
}

/// A method as the path of a URL. Escapes that the client had escaped once
/// more become escapes; a percent sign that begins none is refused.
pub fn escape(method: &str) -> Result<String, Status> {
    let mut path = String::with_capacity(method.len() + 8);
    let bytes = method.as_bytes();
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'%' => {
                let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
                if !hex(index + 1) || !hex(index + 2) {
                    let rest: String = method[index..].chars().take(3).collect();
                    return Err(Status::internal(format!(
                        "invalid URL escape {}",
                        outrider_kit::quote::go(&rest)
                    )));
                }
                path.push('%');
            }
            b if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]".contains(b) => {
                path.push(char::from(*b))
            }
            b => path.push_str(&format!("%{b:02X}")),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping() {
        assert_eq!(escape("a b/c+d").unwrap(), "a%20b/c+d");
        assert_eq!(escape("a%41b").unwrap(), "a%41b");
        assert_eq!(escape("x\"*\\\u{e9}").unwrap(), "x%22*%5C%C3%A9");
        assert_eq!(
            escape("50%").unwrap_err().message(),
            "invalid URL escape \"%\""
        );
        assert_eq!(
            escape("50%zz").unwrap_err().message(),
            "invalid URL escape \"%zz\""
        );
    }
}
