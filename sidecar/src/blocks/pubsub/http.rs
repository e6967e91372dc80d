//! Publishing over HTTP. <https://docs.dapr.io/reference/api/pubsub_api/>

use http::{HeaderValue, Response, StatusCode, header};
use outrider_components::pubsub::FailedEntry;
use serde::Serialize;

use super::ops::Publish;
use super::{Api, decode, error};
use crate::blocks::error::{Result, body_read};
use crate::blocks::http::{self as api, Request, no_content};
use crate::blocks::json;
use outrider_net::body::Body;
use outrider_trace as trace;

pub async fn publish(api: &Api, mut request: Request, pubsub: &str, topic: &str) -> Response<Body> {
    answer(async {
        let metadata = request.metadata();
        let to = api.topic(pubsub, topic, &metadata)?;
        let message = Publish {
            data: request.bytes().await.map_err(body_read)?,
            content_type: content_type(&request),
            metadata,
            trace: trace::Parent::of_headers(&request.headers, trace::Wire::Http),
        };
        api.publish(&to, message).await?;
        Ok(no_content())
    })
    .await
}

pub async fn bulk_publish(
    api: &Api,
    mut request: Request,
    pubsub: &str,
    topic: &str,
) -> Response<Body> {
    answer(async {
        let metadata = request.metadata();
        let to = api.topic(pubsub, topic, &metadata)?;
        let body = request.bytes().await.map_err(body_read)?;
        let entries = decode::entries(&body, &metadata).map_err(|wrong| match wrong {
            decode::Wrong::Form(cause) => error::malformed(pubsub, topic, &api.app_id, &cause),
            decode::Wrong::Event(cause) => error::mismatch(pubsub, topic, &api.app_id, &cause),
        })?;
        let trace = trace::Parent::of_headers(&request.headers, trace::Wire::Http);
        let call = request.uri.path();
        let failed = api
            .bulk_publish(&to, entries, metadata, &trace, call)
            .await?;
        if failed.is_empty() {
            return Ok(no_content());
        }
        let error = api.partly_failed(&to, &failed);
        let mut answer = partly_failed(error.http, error.code, &error.message, &failed);
        if let Some(known) = error.known() {
            answer.extensions_mut().insert(known);
        }
        Ok(answer)
    })
    .await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    failed_entries: Vec<Failure<'a>>,
    error_code: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    entry_id: &'a str,
    error: String,
}

fn partly_failed(
    status: StatusCode,
    code: &'static str,
    message: &str,
    failed: &[FailedEntry],
) -> Response<Body> {
    let failed_entries = failed
        .iter()
        .map(|f| Failure {
            entry_id: &f.id,
            error: f.error.to_string(),
        })
        .collect();
    let text = json::to_vec(&Failed {
        failed_entries,
        error_code: code,
    });
    let mut body = text.clone();
    body.push(b'\n');
    let mut answer = api::json(status, body);
    let headers = answer.headers_mut();
    for (name, value) in [
        ("metadata.responsedata", text.as_slice()),
        ("metadata.error", message.as_bytes()),
    ] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    answer
}

fn content_type(request: &Request) -> String {
    request
        .header(header::CONTENT_TYPE.as_str())
        .unwrap_or_default()
        .to_owned()
}

async fn answer(work: impl Future<Output = Result<Response<Body>>>) -> Response<Body> {
    work.await.unwrap_or_else(Into::into)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use outrider_components::Error;

    use super::*;

    #[tokio::test]
    async fn entries_that_failed_are_listed_in_the_body_and_a_header() {
        let failed = [FailedEntry {
            id: "1".to_owned(),
            error: Error::unavailable("down"),
        }];
        let answer = partly_failed(StatusCode::INTERNAL_SERVER_ERROR, "ERR_X", "m", &failed);
        let text = r#"{"failedEntries":[{"entryId":"1","error":"down"}],"errorCode":"ERR_X"}"#;
        assert_eq!(answer.headers()["metadata.responsedata"], text);
        assert_eq!(answer.headers()["metadata.error"], "m");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, format!("{text}\n"));
    }
}
