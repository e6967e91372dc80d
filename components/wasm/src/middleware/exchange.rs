//! A request and its answer, as a guest sees and changes them.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use outrider_components::middleware::{Body, Client, Request, Response, full, set_target, target};

/// Bytes of a body that a guest writes, or that is kept for it.
pub const LARGEST: usize = 16 << 20;

/// What guests ask for: <https://http-wasm.io/http-handler-abi/#features>.
pub const BUFFER_REQUEST: u32 = 1;
pub const BUFFER_RESPONSE: u32 = 2;

/// One request.
pub struct Exchange {
    pub method: Method,
    uri: Uri,
    pub version: Version,
    pub client: Option<Client>,
    pub request_headers: HeaderMap,
    pub request: Content,
    extensions: http::Extensions,
    pub status: StatusCode,
    pub response_headers: HeaderMap,
    pub response: Content,
    /// Whether the answer is there.
    pub after_next: bool,
    pub features: u32,
}

/// A body.
#[derive(Default)]
pub struct Content {
    /// What is still to come.
    rest: Option<Body>,
    /// What has come, and has not been read.
    at_hand: Bytes,
    /// What has been read, where it is kept for who comes next.
    read: BytesMut,
    /// What the guest wrote in its place.
    written: Option<BytesMut>,
}

impl Content {
    fn of(body: Body) -> Content {
        Content {
            rest: Some(body),
            ..Content::default()
        }
    }

    /// As many bytes as are wanted, or all that there are; whether nothing
    /// follows.
    pub async fn read(&mut self, wanted: usize, keeps: bool) -> Result<(Bytes, bool), String> {
        let mut got = BytesMut::new();
        while got.len() < wanted {
            if self.at_hand.is_empty() && !self.fetch().await? {
                return Ok((self.take(got, keeps)?, true));
            }
            let count = self.at_hand.len().min(wanted - got.len());
            got.extend_from_slice(&self.at_hand[..count]);
            self.at_hand.advance(count);
        }
        Ok((self.take(got, keeps)?, false))
    }

    fn take(&mut self, got: BytesMut, keeps: bool) -> Result<Bytes, String> {
        if keeps {
            append(&mut self.read, &got)?;
        }
        Ok(got.freeze())
    }

    /// Whether there is more.
    async fn fetch(&mut self) -> Result<bool, String> {
        while let Some(body) = &mut self.rest {
            match body.frame().await {
                None => self.rest = None,
                Some(Err(error)) => return Err(format!("error reading body: {error}")),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.at_hand = data;
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Adds to what takes the place of the body.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        append(self.written.get_or_insert_default(), bytes)
    }

    /// What goes on, and whether its length may be another one.
    fn into_body(mut self) -> (Body, bool) {
        if let Some(written) = self.written {
            return (full(written.freeze()), true);
        }
        if self.read.is_empty() && self.at_hand.is_empty() {
            return (self.rest.unwrap_or_else(|| full("")), false);
        }
        self.read.extend_from_slice(&self.at_hand);
        let first = full(self.read.freeze());
        match self.rest {
            None => (first, true),
            Some(rest) => (Chained { first, rest }.boxed_unsync(), true),
        }
    }
}

fn append(to: &mut BytesMut, bytes: &[u8]) -> Result<(), String> {
    if to.len() + bytes.len() > LARGEST {
        return Err(format!("a body has more than {LARGEST} bytes"));
    }
    to.extend_from_slice(bytes);
    Ok(())
}

/// A body behind another one.
struct Chained {
    first: Body,
    rest: Body,
}

impl http_body::Body for Chained {
    type Data = Bytes;
    type Error = outrider_components::middleware::BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if !this.first.is_end_stream() {
            let polled = std::pin::Pin::new(&mut this.first).poll_frame(context);
            match polled {
                std::task::Poll::Ready(None) => {}
                other => return other,
            }
        }
        std::pin::Pin::new(&mut this.rest).poll_frame(context)
    }
}

impl Exchange {
    pub fn new(request: Request, features: u32) -> Exchange {
        let (parts, body) = request.into_parts();
        Exchange {
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            client: parts.extensions.get().copied(),
            request_headers: parts.headers,
            request: Content::of(body),
            extensions: parts.extensions,
            status: StatusCode::OK,
            response_headers: HeaderMap::new(),
            response: Content::default(),
            after_next: false,
            features,
        }
    }

    pub fn has(&self, feature: u32) -> bool {
        self.features & feature != 0
    }

    /// Path and query.
    pub fn uri(&self) -> &str {
        target(&self.uri)
    }

    pub fn set_uri(&mut self, given: &str) -> Result<(), String> {
        let given = if given.is_empty() { "/" } else { given };
        set_target(&mut self.uri, given).map_err(|error| error.to_string())
    }

    /// The request as it goes on.
    pub fn request(&mut self) -> Request {
        let (body, changed) = std::mem::take(&mut self.request).into_body();
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.request_headers.clone();
        *request.extensions_mut() = std::mem::take(&mut self.extensions);
        if changed {
            request.headers_mut().remove(http::header::CONTENT_LENGTH);
        }
        request
    }

    /// The answer has come. What the guest cannot change goes on at once.
    pub fn answered(&mut self, response: Response) -> Option<Response> {
        self.after_next = true;
        self.status = response.status();
        self.response_headers = response.headers().clone();
        if !self.has(BUFFER_RESPONSE) {
            return Some(response);
        }
        let (_, body) = response.into_parts();
        self.response = Content::of(body);
        None
    }

    /// The answer as the guest left it.
    pub fn response(self) -> Response {
        let (body, changed) = self.response.into_body();
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.response_headers;
        if changed {
            response.headers_mut().remove(http::header::CONTENT_LENGTH);
        }
        response
    }
}
