//! Calls to hosts outside the mesh: by URL, or by the name of an HTTPEndpoint.
//! <https://docs.dapr.io/developing-applications/building-blocks/service-invocation/howto-invoke-non-dapr-endpoints/>
//!
//! These hosts are strangers: they get neither the application's API token nor
//! any word about who calls, and their certificates are always verified.

mod dial;
mod endpoint;
mod pool;
mod redirect;

use async_trait::async_trait;
use http::{HeaderMap, Uri};
use http_body::Body as _;
use outrider_call::method;
use outrider_call::pipeline::{self, Pipeline};
use outrider_components::middleware::{self, End, Outcome};
use outrider_net::body::{self, Body};
use outrider_peer::local;
use tonic::{Code, Status};

pub use endpoint::Endpoint;
pub use pool::Pools;

use outrider_call::channel::http as channel;
use outrider_call::message::{Data, Request, Response};
use outrider_metrics as metrics;
use pool::Pool;

/// Redirects that are followed in a row.
const REDIRECTS: usize = 10;

/// Calls hosts outside the mesh.
pub struct Client {
    /// For hosts that are known by their URL only.
    pool: Pool,
    /// What every call passes, where the Configuration has any.
    pipeline: Option<Pipeline>,
    metrics: metrics::http::Client,
    calls: metrics::service::Calls,
}

/// What is called, and how.
struct Host<'a> {
    /// As the client named it.
    name: &'a str,
    base: &'a str,
    pool: &'a Pool,
    /// Headers of each request, which win over the client's.
    headers: Option<&'a HeaderMap>,
    follows_redirects: bool,
}

impl Client {
    pub fn new(pools: &Pools, pipeline: Option<Pipeline>, metrics: &metrics::Metrics) -> Self {
        Self {
            pool: pools.verifying(),
            pipeline,
            metrics: metrics.http_client(),
            calls: metrics.calls(),
        }
    }

    pub async fn url(&self, url: &str, request: Request) -> Result<Response, Status> {
        let target = Host {
            name: url,
            base: url,
            pool: &self.pool,
            headers: None,
            follows_redirects: false,
        };
        self.call(target, request).await
    }

    pub async fn endpoint(
        &self,
        endpoint: &Endpoint,
        request: Request,
    ) -> Result<Response, Status> {
        let ready = endpoint.ready.as_ref();
        let ready = ready.map_err(|cause| local::status(Code::Internal, cause.as_str()))?;
        let target = Host {
            name: &endpoint.name,
            base: &endpoint.base_url,
            pool: &ready.pool,
            headers: Some(&ready.headers),
            follows_redirects: true,
        };
        self.call(target, request).await
    }

    async fn call(&self, target: Host<'_>, request: Request) -> Result<Response, Status> {
        let verb = channel::verb(&request).map_err(local::marked)?;
        let asked_verb = verb.clone();
        let uri = address(target.base, &request).map_err(|e| local::status(Code::Internal, e))?;
        let permit = target.pool.permit().await;
        let calling = self.calls.sent(target.name, false);
        let called = self.metrics.call(&verb, &request.method);
        let is_empty = matches!(&request.body, Data::Whole(bytes) if bytes.is_empty());
        let mut outgoing = channel::compose(request, verb, uri).map(|body| called.request(body));
        for (name, value) in target.headers.into_iter().flatten() {
            outgoing.headers_mut().insert(name, value.clone());
        }
        let sent = match self.pipeline.as_ref().and_then(Pipeline::chain) {
            None => target.send(outgoing, is_empty).await,
            Some(chain) => {
                let request = pipeline::request(outgoing);
                let passed = pipeline::run(&chain, request, &Behind(&target, is_empty)).await;
                passed.map_err(|error| error.to_string())
            }
        };
        let answer = match sent {
            Ok(answer) => answer,
            Err(text) => {
                called.failed();
                return Err(local::status(Code::Internal, text));
            }
        };
        let mut response = channel::decode(answer, &asked_verb, |status, body| {
            called.answer(status, body)
        })
        .map_err(local::marked)?;
        calling.ended(response.code.number());
        if let Some(permit) = permit {
            response.body = body::hold(response.body, permit);
        }
        Ok(response)
    }
}

impl Host<'_> {
    /// Sends a request, and follows redirects if it is to. The error says also
    /// what was asked for.
    async fn send(
        &self,
        mut request: http::Request<Body>,
        is_empty: bool,
    ) -> Result<http::Response<Body>, String> {
        let mut followed = 0;
        loop {
            let sent = redirect::Sent::of(&request);
            let asked = sent.shown();
            let answer = self.pool.send(request).await;
            let answer = answer.map_err(|cause| format!("{asked}: {cause}"))?;
            let next = self
                .follows_redirects
                .then(|| redirect::next(sent, &answer, is_empty, self.headers));
            match next.flatten() {
                None => return Ok(channel::received(answer)),
                Some(_) if followed == REDIRECTS => {
                    return Err(format!("{asked}: stopped after {REDIRECTS} redirects"));
                }
                Some(next) => request = next,
            }
            followed += 1;
        }
    }
}

/// A host behind middleware, and whether requests have no body.
struct Behind<'a>(&'a Host<'a>, bool);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unanswered(String);

#[async_trait]
impl End for Behind<'_> {
    async fn answer(&self, request: middleware::Request) -> Outcome {
        let Self(host, is_empty) = self;
        let request = request.map(pipeline::received);
        let is_empty = *is_empty && request.body().is_end_stream();
        let sent = host.send(request, is_empty).await;
        Ok(pipeline::answer(sent.map_err(Unanswered)?))
    }
}

/// Where a method of a host is.
fn address(base: &str, request: &Request) -> Result<Uri, String> {
    let path = method::escape(&request.method).map_err(|e| e.message().to_owned())?;
    let (base, path) = (base.trim_end_matches('/'), path.trim_start_matches('/'));
    let mut text = if path.is_empty() {
        base.to_owned()
    } else {
        format!("{base}/{path}")
    };
    if !request.query.is_empty() {
        text.push('?');
        text.push_str(&request.query);
    }
    let wrong = |cause: &dyn std::fmt::Display| {
        format!("parse {}: {cause}", outrider_kit::quote::go(&text))
    };
    let uri: Uri = text.parse().map_err(|e| wrong(&e))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        Some("http" | "https") => Err(wrong(&"no Host in request URL")),
        _ => Err(wrong(&"unsupported protocol scheme")),
    }
}

#[cfg(test)]
mod tests;
