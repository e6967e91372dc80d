//! Calls to hosts outside the mesh: by URL, or by the name of an HTTPEndpoint.
//! <https://docs.dapr.io/developing-applications/building-blocks/service-invocation/howto-invoke-non-dapr-endpoints/>
//!
//! These hosts are strangers: they get neither the application's API token nor
//! any word about who calls, and their certificates are always verified.

mod dial;
mod endpoint;
mod pool;
mod redirect;

use http::{HeaderMap, Uri};
use outrider_call::method;
use outrider_net::body;
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
    pub fn new(pools: &Pools, metrics: &metrics::Metrics) -> Self {
        Self {
            pool: pools.verifying(),
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
        let mut followed = 0;
        let answer = loop {
            let sent = redirect::Sent::of(&outgoing);
            let asked = sent.shown();
            let failed = match target.pool.send(outgoing).await {
                Err(cause) => cause,
                Ok(answer) => {
                    let next = target
                        .follows_redirects
                        .then(|| redirect::next(sent, &answer, is_empty, target.headers));
                    match next.flatten() {
                        None => break answer,
                        Some(_) if followed == REDIRECTS => {
                            format!("stopped after {REDIRECTS} redirects")
                        }
                        Some(next) => {
                            followed += 1;
                            outgoing = next;
                            continue;
                        }
                    }
                }
            };
            called.failed();
            let text = format!("{asked}: {failed}");
            return Err(local::status(Code::Internal, text));
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
