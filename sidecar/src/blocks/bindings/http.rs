//! Invoking bindings over HTTP. <https://docs.dapr.io/reference/api/bindings_api/>

use http::{Response, StatusCode};
use outrider_components::bindings::Answer;

use super::{Api, decode, error, ops};
use crate::blocks::error::{Result, malformed};
use crate::blocks::http::{Request, add_metadata, json, no_content};
use outrider_net::body::Body;
use outrider_trace::{self as trace, baggage::BAGGAGE};

pub async fn invoke(api: &Api, request: Request, name: &str) -> Response<Body> {
    answer(api, request, name).await.unwrap_or_else(Into::into)
}

async fn answer(api: &Api, mut request: Request, name: &str) -> Result<Response<Body>> {
    let body = request
        .bytes()
        .await
        .map_err(|cause| malformed(cause.to_string()).of_body(&cause))?;
    let mut invocation = decode::request(&body)?;
    let metadata = &mut invocation.metadata;
    let trace = trace::Parent::of_headers(&request.headers, trace::Wire::Http);
    if trace.parent.is_empty() {
        metadata.insert(trace::TRACEPARENT.to_owned(), trace::NOTHING.to_owned());
    } else {
        metadata.insert(trace::TRACEPARENT.to_owned(), trace.parent);
    }
    if !trace.state.is_empty() {
        metadata.insert(trace::TRACESTATE.to_owned(), trace.state);
    }
    if let Some(baggage) = ops::baggage(&request.headers)? {
        metadata.insert(BAGGAGE.to_owned(), baggage);
    }
    Ok(match api.invoke(name, &invocation).await {
        Ok(None) => no_content(),
        Ok(Some(Answer { data, metadata, .. })) => {
            let mut answer = json(StatusCode::OK, data);
            add_metadata(answer.headers_mut(), &metadata);
            answer
        }
        Err(failure) => {
            let mut answer = Response::from(error::invoke(name, &failure));
            if let Some(came_back) = failure.answer {
                add_metadata(answer.headers_mut(), &came_back.metadata);
            }
            answer
        }
    })
}
