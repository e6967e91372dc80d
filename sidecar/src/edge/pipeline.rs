//! Requests of the HTTP API on their way through middleware.

use std::sync::Mutex;

use async_trait::async_trait;
use http::{Response, StatusCode, request};
use http_body_util::{BodyExt as _, Limited};
use outrider_call::pipeline::{self, Chain, NotInUse};
use outrider_components::middleware::{self, Client, End, Outcome};
use outrider_net::body::Body;
use outrider_net::path;
use outrider_net::server::phase::Incoming;

use super::{Apis, router};
use crate::blocks::http::{Content, Request, text};

const SCOPE: &str = "dapr.middleware.http";

/// Has the API answer a request that passes `chain` first.
pub async fn pass(
    apis: &Apis,
    chain: &Chain,
    parts: request::Parts,
    body: Incoming,
) -> Response<Body> {
    let client = body.client();
    // Some middleware reads all of it.
    let limit = apis.max_body.unwrap_or(usize::MAX);
    let body = Limited::new(body, limit).boxed_unsync();
    let mut request = http::Request::from_parts(parts, body);
    if let Some(address) = client {
        request.extensions_mut().insert(Client(address));
    }
    match pipeline::run(chain, request, &Api(apis)).await {
        Ok(answer) => answer,
        Err(error) => {
            // The log says it once of a middleware that is not in use.
            let status = match error.is::<NotInUse>() {
                true => StatusCode::SERVICE_UNAVAILABLE,
                false => {
                    tracing::error!(target: SCOPE, "middleware failed: {error}");
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            };
            text(status, format!("{error}\n"))
        }
    }
}

/// The API behind its middleware.
struct Api<'a>(&'a Apis);

#[async_trait]
impl End for Api<'_> {
    async fn answer(&self, request: middleware::Request) -> Outcome {
        let Self(apis) = self;
        let (parts, body) = request.into_parts();
        let uri = parts.uri.clone();
        let request = Request {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body: Content::Passed(Mutex::new(body)),
            limit: apis.max_body,
        };
        // The path may be another one by now.
        let clean = path::clean(uri.path());
        let answer = router::dispatch(apis, &clean, request).await;
        Ok(pipeline::answer(answer))
    }
}
