//! HTTP middleware: what requests pass on their way, and answers on their way
//! back. Bodies stream; a middleware that does not read one does not hold it up.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use percent_encoding::percent_decode_str;

use crate::Error;

/// Any error, for what only passes it on.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A body on its way.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A request. Of a call of the sidecar's API its extensions have the
/// [`Client`] that made it.
pub type Request = http::Request<Body>;

/// An answer.
pub type Response = http::Response<Body>;

/// The error is that of a callee that gave no answer at all.
pub type Outcome = Result<Response, BoxError>;

/// The address of the client that sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client(pub SocketAddr);

/// A middleware component.
#[async_trait]
pub trait Middleware: Send + Sync {
    /// Answers the request, or has `next` do so.
    async fn handle(&self, request: Request, next: Next<'_>) -> Outcome;

    /// Releases what the component holds. Called once, when no request is in it.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Where requests get to in the end.
#[async_trait]
pub trait End: Send + Sync {
    /// Answers a request that has passed all middleware.
    async fn answer(&self, request: Request) -> Outcome;
}

/// What is behind a middleware.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    rest: &'a [Arc<dyn Middleware>],
    end: &'a dyn End,
}

impl<'a> Next<'a> {
    /// `chain`, the outermost first, and behind it `end`.
    pub fn new(chain: &'a [Arc<dyn Middleware>], end: &'a dyn End) -> Next<'a> {
        Next { rest: chain, end }
    }

    /// Passes a request on.
    pub async fn run(self, request: Request) -> Outcome {
        let Next { rest, end } = self;
        match rest.split_first() {
            Some((first, rest)) => first.handle(request, Next { rest, end }).await,
            None => end.answer(request).await,
        }
    }
}

/// A body of bytes at hand.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|e| match e {})
        .boxed_unsync()
}

/// An answer of a middleware itself: a status with plain text.
pub fn refusal(status: StatusCode, text: impl Into<Bytes>) -> Response {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// The same with the words of the status itself.
pub fn refusal_by_status(status: StatusCode) -> Response {
    let words = status.canonical_reason();
    match words {
        Some(words) => refusal(status, words),
        None => refusal_by_status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// Path and query of a request, as they were sent.
pub fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

/// The path with its escapes decoded. What is not UTF-8 then is replaced.
pub fn decoded_path(uri: &Uri) -> Cow<'_, str> {
    percent_decode_str(uri.path()).decode_utf8_lossy()
}

/// Replaces path and query; the host stays.
pub fn set_target(uri: &mut Uri, target: &str) -> Result<(), http::Error> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target)?);
    *uri = Uri::from_parts(parts)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds its name to the path, and to the answer.
    struct Named(&'static str);

    #[async_trait]
    impl Middleware for Named {
        async fn handle(&self, mut request: Request, next: Next<'_>) -> Outcome {
            if target(request.uri()).ends_with("stop") {
                return Ok(refusal_by_status(StatusCode::FORBIDDEN));
            }
            let path = format!("{}{}", target(request.uri()), self.0);
            set_target(request.uri_mut(), &path)?;
            let mut response = next.run(request).await?;
            response
                .headers_mut()
                .append("via", HeaderValue::from_static(self.0));
            Ok(response)
        }
    }

    /// Answers with the URI.
    struct Echo;

    #[async_trait]
    impl End for Echo {
        async fn answer(&self, request: Request) -> Outcome {
            match request.uri().path() {
                "/lostab" => Err("no connection".into()),
                _ => Ok(Response::new(full(request.uri().to_string()))),
            }
        }
    }

    async fn send(uri: &str) -> Outcome {
        let chain: [Arc<dyn Middleware>; 2] = [Arc::new(Named("a")), Arc::new(Named("b"))];
        let mut request = Request::new(full(""));
        *request.uri_mut() = uri.parse().expect("a URI");
        Next::new(&chain, &Echo).run(request).await
    }

    #[tokio::test]
    async fn requests_pass_the_first_one_first_and_answers_the_last_one() {
        let response = send("http://host/x").await.expect("an answer");
        let via: Vec<_> = response.headers().get_all("via").iter().collect();
        assert_eq!(via, ["b", "a"]);
        let body = response.into_body().collect().await.expect("a body");
        assert_eq!(body.to_bytes(), "http://host/xab");
    }

    #[tokio::test]
    async fn one_may_answer_itself_and_failures_are_passed_back() {
        let refused = send("/stop").await.expect("an answer");
        assert_eq!(refused.status(), 403);
        let body = refused.into_body().collect().await.expect("a body");
        assert_eq!(body.to_bytes(), "Forbidden");
        let error = send("/lost").await.expect_err("nobody answers");
        assert_eq!(error.to_string(), "no connection");
    }
}
