//! Health and metadata for probes that cannot present a token. Nothing here
//! changes anything.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use outrider_security::Peer;

use crate::blocks::health;
use crate::blocks::http as api;
use crate::blocks::metadata;
use crate::edge::Apis;
use outrider_net::body::Body;
use outrider_net::path;
use outrider_net::server::Handler;
use outrider_net::server::phase::Incoming;

#[derive(Clone)]
pub struct Edge {
    pub apis: Arc<Apis>,
}

impl Handler for Edge {
    async fn call(&self, request: Request<Incoming>, _: Option<&Peer>) -> Response<Body> {
        let metrics = &self.apis.http_metrics;
        let served = metrics.request(request.method(), request.uri().path(), request.headers());
        served.answer(self.answer(request))
    }
}

impl Edge {
    fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let clean = path::clean(request.uri().path()).into_owned();
        let (parts, body) = request.into_parts();
        let request = api::Request {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body: api::Content::Client(body),
            limit: Some(0),
        };
        match (clean.as_str(), request.method == Method::GET) {
            ("/v1.0/healthz", true) => health::http(&self.apis.blocks.health, &request),
            ("/v1.0/healthz/outbound", true) => health::http_outbound(&self.apis.blocks.health),
            ("/v1.0/metadata", true) => metadata::http_get(&self.apis.blocks.metadata),
            _ => api::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }
}
