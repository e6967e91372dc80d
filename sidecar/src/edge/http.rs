//! The HTTP API's listeners: what every request passes before its building
//! block.

use std::sync::Arc;

use http::{Response, StatusCode, header};
use outrider_call::pipeline::Pipeline;
use outrider_call::token;
use outrider_net::body::Body;
use outrider_net::path;
use outrider_net::server::Handler;
use outrider_net::server::phase::Incoming;
use outrider_security::Peer;
use outrider_trace::{Kind, Traced, Wire};

use super::{pipeline, router, spans};
use crate::blocks::http::{Content, Request, text};
use crate::edge::Apis;

/// The handler of the HTTP API's listeners.
#[derive(Clone)]
pub struct Edge {
    pub apis: Arc<Apis>,
}

impl Handler for Edge {
    async fn call(&self, request: http::Request<Incoming>, _: Option<&Peer>) -> Response<Body> {
        let metrics = &self.apis.http_metrics;
        let served = metrics.request(request.method(), request.uri().path(), request.headers());
        served.answer(self.answer(request).await)
    }
}

impl Edge {
    async fn answer(&self, request: http::Request<Incoming>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let apis = &self.apis;
        let uri = parts.uri.clone();
        let clean = path::clean(uri.path());
        if let Some(cors) = &apis.cors
            && let Some(answer) = cors.preflight(&parts.method, &parts.headers)
        {
            return answer;
        }
        let origin = parts.headers.get(header::ORIGIN).cloned();
        // The path as it was sent: another spelling may mean something else.
        let is_health = router::is_health(&parts.method, uri.path());
        let admitted = token::admit(&mut parts.headers, apis.token.as_deref()) || is_health;
        let mut traced = if !admitted || clean.contains("/healthz") {
            Traced::silent()
        } else {
            let begun = apis
                .tracer
                .request(&mut parts.headers, Kind::Client, Wire::Http);
            match begun {
                Ok(traced) => traced,
                Err(invalid) => return text(StatusCode::BAD_REQUEST, format!("{invalid}\n")),
            }
        };
        if let Some(recording) = traced.recording() {
            spans::http(recording, &parts, &clean);
        }
        let mut logged = apis
            .log
            .and_then(|log| log.http(&parts.method, &clean, &parts.headers));
        if let Some(call) = &mut logged {
            call.of_trace(traced.context());
        }
        let chain = apis.pipeline.as_ref().filter(|_| !is_health);
        let mut answer = if !admitted {
            text(StatusCode::UNAUTHORIZED, "invalid api token\n")
        } else if let Some(chain) = chain.and_then(Pipeline::chain) {
            pipeline::pass(apis, &chain, parts, body).await
        } else {
            let request = Request {
                method: parts.method,
                uri: parts.uri,
                headers: parts.headers,
                body: Content::Client(body),
                limit: apis.max_body,
            };
            router::dispatch(apis, &clean, request).await
        };
        if let Some(recording) = traced.recording() {
            spans::http_ended(recording, answer.status());
        }
        traced.answer_http(answer.headers_mut());
        if let Some(cors) = &apis.cors {
            cors.answer(origin.as_ref(), answer.headers_mut());
        }
        match logged {
            Some(call) => call.http(answer),
            None => answer,
        }
    }
}
