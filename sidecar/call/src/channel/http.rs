//! An application that speaks HTTP.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tonic::Status;

use super::Permit;
use super::connect::Connector;
use super::pool::{self, Answer, Pool};
use crate::headers;
use crate::message::{Code, Request, Response};
use crate::method;
use crate::pipeline::{self, Pipeline};
use crate::token;
use outrider_components::middleware::{self, End, Outcome};
use outrider_metrics as metrics;
use outrider_net::body::{self, Body};
use outrider_net::grpc;

/// Of the answer to a probe nobody reads the body: so much of it is read, in
/// this time.
const UNREAD: usize = 64 << 10;
const UNREAD_TIME: Duration = Duration::from_millis(20);

/// An application, and the connections to it.
pub struct Client {
    pool: Pool,
    /// What its URLs begin with.
    base: String,
    /// Sent with every call.
    token: Option<HeaderValue>,
    /// Bytes of headers that an answer may have.
    read_buffer: usize,
    /// What every call passes but probes, where the Configuration has any.
    pipeline: Option<Pipeline>,
    pub metrics: metrics::http::Client,
}

/// An application that gave no answer, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unanswered(String);

/// The application, behind its middleware.
struct Application<'a> {
    client: &'a Client,
    permit: &'a Permit,
}

#[async_trait]
impl End for Application<'_> {
    async fn answer(&self, request: middleware::Request) -> Outcome {
        let request = request.map(pipeline::received);
        let sent = self.client.send(self.permit, request).await;
        Ok(pipeline::answer(received(sent.map_err(Unanswered)?)))
    }
}

impl Client {
    /// With `h2c` it speaks HTTP/2 without being asked whether it can.
    pub fn new(
        connector: Connector,
        h2c: bool,
        token: Option<&str>,
        read_buffer: usize,
        slots: usize,
        pipeline: Option<Pipeline>,
        metrics: metrics::http::Client,
    ) -> Result<Self, http::Error> {
        Ok(Self {
            base: format!("{}://{}", connector.scheme(), connector.address()),
            pool: Pool::new(connector, h2c, read_buffer, slots)?,
            token: token.and_then(|t| HeaderValue::try_from(t).ok()),
            read_buffer,
            pipeline,
            metrics,
        })
    }

    /// Sends any request to the application; the token is added. Whoever
    /// calls this holds a permit.
    async fn send(
        &self,
        _: &Permit,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Answer>, String> {
        token::replace(request.headers_mut(), self.token.as_ref());
        let sent = self.pool.send(request).await;
        sent.map_err(|error| self.explain(&error))
    }

    /// Sends a request through the middleware.
    async fn pass(
        &self,
        permit: &Permit,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, String> {
        let Some(chain) = self.pipeline.as_ref().and_then(Pipeline::chain) else {
            return self.send(permit, request).await.map(received);
        };
        let client = self;
        let application = Application { client, permit };
        pipeline::run(&chain, pipeline::request(request), &application)
            .await
            .map_err(|error| error.to_string())
    }

    fn explain(&self, error: &pool::Error) -> String {
        for inner in grpc::causes(error) {
            if let Some(hyper) = inner.downcast_ref::<hyper::Error>()
                && hyper.is_parse_too_large()
            {
                return format!(
                    "net/http: HTTP/1.x transport connection broken: server response headers exceeded {} bytes; aborted",
                    self.read_buffer
                );
            }
            if let Some(io) = inner.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::ConnectionRefused
            {
                let address = self
                    .base
                    .split_once("://")
                    .map_or(self.base.as_str(), |(_, a)| a);
                return format!("dial tcp {address}: connect: connection refused");
            }
            if let Some(read) = inner.downcast_ref::<body::ReadError>() {
                return read.to_string();
            }
        }
        outrider_kit::error::chain(error)
    }

    /// Calls a method. The answer's body holds the permit. With `traced` a call
    /// without a trace context gets the context of zeros.
    pub async fn invoke(
        &self,
        permit: Permit,
        request: Request,
        traced: bool,
    ) -> Result<Response, Status> {
        let verb = verb(&request)?;
        let uri = uri(&method::escape(&request.method)?, &request.query);
        let uri = uri.map_err(Status::internal)?;
        let (asked, asked_uri) = (verb.clone(), uri.clone());
        let called = self.metrics.call(&verb, &request.method);
        let mut outgoing = compose(request, verb, uri).map(|body| called.request(body));
        if !traced {
            headers::remove_zero_trace(outgoing.headers_mut());
        }
        match self.pass(&permit, outgoing).await {
            Ok(answer) => decode(answer, &asked, |status, body| {
                permit.hold(called.answer(status, body))
            }),
            Err(cause) => {
                called.failed();
                let uri = outrider_kit::quote::go(&format!("{}{asked_uri}", self.base));
                let asked = title(&asked);
                Err(Status::internal(format!("{asked} {uri}: {cause}")))
            }
        }
    }

    /// A call of the runtime itself, such as `GET /dapr/config`: status and
    /// body.
    pub async fn ask(
        &self,
        permit: Permit,
        path: &str,
        app_id: &str,
    ) -> Result<(StatusCode, Bytes), String> {
        let called = self.metrics.call(&Method::GET, path);
        let mut request = http::Request::new(called.request(body::empty()));
        *request.uri_mut() = uri(path, "")?;
        if let Ok(id) = HeaderValue::try_from(app_id) {
            request
                .headers_mut()
                .insert(HeaderName::from_static("dapr-app-id"), id);
        }
        let answer = match self.pass(&permit, request).await {
            Ok(answer) => answer,
            Err(cause) => {
                called.failed();
                return Err(cause);
            }
        };
        let status = answer.status();
        let body = called.answer(status, answer.into_body());
        let bytes = body::collect(body, Some(16 << 20))
            .await
            .map_err(|e| e.to_string())?;
        Ok((status, bytes))
    }

    /// A probe: no token, nothing but the status.
    pub async fn probe(&self, path: &str) -> Result<StatusCode, String> {
        let mut request = http::Request::new(body::empty());
        *request.uri_mut() = uri(path, "")?;
        let sent = self.pool.send(request).await;
        let answer = sent.map_err(|error| self.explain(&error))?;
        let status = answer.status();
        // A short body that is there is read, so that the connection is used again.
        let rest = body::collect(answer.into_body(), Some(UNREAD));
        let _ = tokio::time::timeout(UNREAD_TIME, rest).await;
        Ok(status)
    }
}

/// A path of the application, with a query.
fn uri(path: &str, query: &str) -> Result<Uri, String> {
    let path = path.trim_start_matches('/');
    let mut text = String::with_capacity(path.len() + query.len() + 2);
    text.push('/');
    text.push_str(path);
    if !query.is_empty() {
        text.push('?');
        // It would begin a fragment, which is not sent.
        text.push_str(&query.replace('#', "%23"));
    }
    let parsed = Uri::from_maybe_shared(Bytes::from(text.clone()));
    parsed.map_err(|error| format!("parse {}: {error}", outrider_kit::quote::go(&text)))
}

/// The verb of a call, if HTTP can send it.
pub fn verb(request: &Request) -> Result<Method, Status> {
    let Some(verb) = request.verb.clone() else {
        return Err(Status::invalid_argument("missing HTTP extension field"));
    };
    if verb == Method::CONNECT || verb.as_str() == "NONE" {
        return Err(Status::invalid_argument("invalid HTTP verb"));
    }
    Ok(verb)
}

/// A call as an HTTP request.
pub fn compose(request: Request, verb: Method, uri: Uri) -> http::Request<Body> {
    let mut outgoing = http::Request::new(request.body.into_body());
    *outgoing.method_mut() = verb;
    *outgoing.uri_mut() = uri;
    let into = outgoing.headers_mut();
    headers::to_http(request.metadata, request.origin, into);
    let content_type = request.content_type.as_deref();
    if let Some(content_type) = content_type.and_then(|c| HeaderValue::try_from(c).ok()) {
        into.insert(header::CONTENT_TYPE, content_type);
    }
    if let Some(length) = request.content_length.filter(|length| *length > 0) {
        into.insert(header::CONTENT_LENGTH, length.into());
    }
    if !into.contains_key(header::USER_AGENT) {
        into.insert(
            header::USER_AGENT,
            HeaderValue::from_static("Go-http-client/1.1"),
        );
    }
    outgoing
}

/// The answer to a request with `verb`, with its body passed through `body`.
pub fn decode(
    answer: http::Response<Body>,
    verb: &Method,
    body: impl FnOnce(StatusCode, Body) -> Body,
) -> Result<Response, Status> {
    let (parts, incoming) = answer.into_parts();
    let content_type = headers::content_type(&parts.headers)
        .map_err(|_| Status::internal("the answer's content type is not UTF-8"))?;
    Ok(Response {
        code: Code::Http(parts.status.as_u16()),
        headers: headers::of_answer(&parts.headers, *verb == Method::HEAD),
        trailers: Vec::new(),
        content_type,
        data_type_url: String::new(),
        body: body(parts.status, incoming),
    })
}

/// An answer as it comes from a connection.
pub fn received<B>(answer: http::Response<B>) -> http::Response<Body>
where
    B: http_body::Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static,
{
    let has_length = answer.headers().contains_key(header::CONTENT_LENGTH);
    answer.map(|incoming| {
        let incoming = incoming.map_err(body::BoxError::from);
        match has_length {
            true => body::stream(Declared(incoming)),
            false => body::stream(incoming),
        }
    })
}

/// A body with a length that the application declared. Some declare too much:
/// what came is the answer, with a warning.
struct Declared<B>(B);

impl<B> http_body::Body for Declared<B>
where
    B: http_body::Body<Data = Bytes, Error = body::BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = body::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::BoxError>>> {
        let body = &mut self.get_mut().0;
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        if let Some(Err(error)) = &frame
            && ended_early(error.as_ref())
        {
            let missing = body.size_hint().lower();
            tracing::warn!(target: "dapr.runtime.channel.http", "the application's answer ended {missing} bytes before the length that it declared: send a content-length that is true, or none");
            return Poll::Ready(None);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    // Nor is the length passed on: it may not be true.
}

fn ended_early(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = grpc::causes(error).find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof)
}

/// `GET` as `Get`, the way Go's client begins its errors.
pub fn title(method: &Method) -> String {
    let lower = method.as_str().to_ascii_lowercase();
    let mut chars = lower.chars();
    chars.next().map_or(String::new(), |c| {
        c.to_ascii_uppercase().to_string() + chars.as_str()
    })
}
