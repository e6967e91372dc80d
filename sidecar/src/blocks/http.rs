//! Requests of the HTTP API as building blocks see them, and answers to them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body::{Frame, SizeHint};
use outrider_components::middleware;
use outrider_net::body::{self, Body, BoxError, ReadError};
use outrider_net::server::phase::Incoming;

use super::error::Error;

/// A request to the API.
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Content,
    /// Bytes that the body may have.
    pub limit: Option<usize>,
}

/// The body of a request.
pub enum Content {
    /// As the client sends it.
    Client(Incoming),
    /// As middleware passes it on. In a lock that nobody else takes, because
    /// requests are shared between threads and such bodies are not.
    Passed(Mutex<middleware::Body>),
}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Client(body) => {
                let frame = Pin::new(body).poll_frame(context);
                frame.map(|frame| frame.map(|frame| frame.map_err(BoxError::from)))
            }
            Self::Passed(body) => {
                let body = body.get_mut().unwrap_or_else(PoisonError::into_inner);
                Pin::new(body).poll_frame(context)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body) => body.is_end_stream(),
            Self::Passed(body) => locked(body).is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body) => body.size_hint(),
            Self::Passed(body) => locked(body).size_hint(),
        }
    }
}

fn locked(body: &Mutex<middleware::Body>) -> MutexGuard<'_, middleware::Body> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Request {
    pub fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    /// The first value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.query().as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// The query's `metadata.` parameters, without the prefix.
    pub fn metadata(&self) -> HashMap<String, String> {
        let mut metadata = HashMap::new();
        for (key, value) in form_urlencoded::parse(self.query().as_bytes()) {
            if let Some(key) = key.strip_prefix(METADATA_PREFIX) {
                metadata
                    .entry(key.to_owned())
                    .or_insert_with(|| value.into_owned());
            }
        }
        metadata
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The whole body.
    pub async fn bytes(&mut self) -> Result<Bytes, ReadError> {
        body::collect(&mut self.body, self.limit).await
    }
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response
}

pub fn no_content() -> Response<Body> {
    empty(StatusCode::NO_CONTENT)
}

/// An answer that says it is JSON, which it need not be.
pub fn json(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    response
}

impl From<Error> for Response<Body> {
    fn from(error: Error) -> Self {
        let mut answer = json(error.http, error.body());
        if let Some(known) = error.known() {
            answer.extensions_mut().insert(known);
        }
        answer
    }
}

/// Before the names of headers with what a component says besides its answer.
pub const METADATA_PREFIX: &str = "metadata.";

/// Adds `metadata.<key>` headers, with blanks for line breaks; pairs that make no
/// header are left out.
pub fn add_metadata(headers: &mut HeaderMap, metadata: &HashMap<String, String>) {
    for (key, value) in metadata {
        let name = HeaderName::try_from(format!("{METADATA_PREFIX}{key}"));
        let value = HeaderValue::try_from(value.replace(['\r', '\n'], " "));
        if let (Ok(name), Ok(value)) = (name, value) {
            let _ = headers.try_insert(name, value);
        }
    }
}
