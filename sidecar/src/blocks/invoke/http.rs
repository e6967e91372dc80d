//! Invocation over HTTP.
//! <https://docs.dapr.io/reference/api/service_invocation_api/>

use outrider_peer::local;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Status;

use super::{Api, address, error};
use crate::blocks::error::malformed;
use crate::blocks::http::Request;
use crate::blocks::json;
use outrider_call::headers;
use outrider_call::message::{self, Code, Data, Origin};
use outrider_call::metadata;
use outrider_net::body::{self, Body, BoxError, ReadError};
use outrider_net::grpc;

/// Bytes of a refusal that are waited for before it is passed on.
const SMALL: usize = 64 << 10;

/// Answers whatever no other route wants.
pub async fn invoke(api: &Api, mut request: Request) -> Response<Body> {
    let mut address = match address::of_http(&request.headers, request.uri.path()) {
        Ok(address) => address,
        Err(error) => return error.into(),
    };
    if address.by_header {
        request.headers.remove(address::APP_ID);
    }
    let failed = |status: &Status| Response::from(error::failed(&address.target, status));
    let length: Option<u64> = request
        .header("content-length")
        .and_then(|v| v.parse().ok());
    let streaming = length.is_none() && !request.body.is_end_stream();
    let mut is_too_large: Option<Arc<AtomicBool>> = None;
    let data = if streaming {
        let limit = request.limit.unwrap_or(usize::MAX);
        let noted = is_too_large.get_or_insert_default().clone();
        let limited = http_body_util::Limited::new(request.body, limit)
            .map_err(move |cause| too_large(cause, &noted));
        Data::Stream(body::stream(limited))
    } else {
        match body::collect(&mut request.body, request.limit).await {
            Ok(bytes) => Data::Whole(bytes),
            Err(ReadError::TooLarge) => return error::too_large(&address.target).into(),
            Err(cause) => return failed(&local::status(tonic::Code::Internal, cause.to_string())),
        }
    };
    let is_head = request.method == http::Method::HEAD;
    let Ok(content_type) = headers::content_type(&request.headers) else {
        return malformed("the content type is not UTF-8").into();
    };
    let call = message::Request {
        method: std::mem::take(&mut address.method),
        verb: Some(verb(&request.method)),
        query: request.uri.query().unwrap_or_default().to_owned(),
        metadata: headers::of_client(&request.headers),
        origin: Origin::Http,
        content_type,
        content_length: length,
        data_type_url: String::new(),
        body: data,
    };
    match api.invoke(&address.target, call).await {
        Err(_)
            if is_too_large
                .as_ref()
                .is_some_and(|noted| noted.load(Ordering::Relaxed)) =>
        {
            error::too_large(&address.target).into()
        }
        Err(status) => failed(&status),
        Ok(response) => answer(&address.target, response, streaming, is_head).await,
    }
}

fn too_large(error: BoxError, noted: &AtomicBool) -> BoxError {
    if error.is::<http_body_util::LengthLimitError>() {
        noted.store(true, Ordering::Relaxed);
        ReadError::TooLarge.into()
    } else {
        error
    }
}

/// Verbs in any case; those that HTTP does not know become POST.
fn verb(given: &http::Method) -> http::Method {
    use http::Method as M;
    let known = [
        M::GET,
        M::HEAD,
        M::POST,
        M::PUT,
        M::DELETE,
        M::OPTIONS,
        M::TRACE,
        M::PATCH,
        M::CONNECT,
    ];
    known
        .into_iter()
        .find(|m| m.as_str().eq_ignore_ascii_case(given.as_str()))
        .unwrap_or(M::POST)
}

async fn answer(
    target: &str,
    response: message::Response,
    streaming: bool,
    is_head: bool,
) -> Response<Body> {
    let (status, text) = match &response.code {
        Code::Http(code) => (
            StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            None,
        ),
        Code::Grpc(status) if status.code() == tonic::Code::Ok => (StatusCode::OK, None),
        Code::Grpc(status) => (grpc::http_status(status.code()), Some(status_json(status))),
    };
    let mut answer = Response::new(body::empty());
    *answer.status_mut() = status;
    let content_type = response
        .content_type()
        .and_then(|c| HeaderValue::try_from(c).ok());
    let length = is_head.then(|| {
        metadata::text(&response.headers, "content-length")?
            .parse()
            .ok()
    });
    let length: Option<u64> = length.flatten();
    headers::to_http(response.headers, Origin::Http, answer.headers_mut());
    if let Some(length) = length {
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if let Some(content_type) = content_type {
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
    }
    if let Some(text) = text {
        answer.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        *answer.body_mut() = body::full(text);
        return answer;
    }
    let refused = status.as_u16() >= 400;
    let mut content = response.body;
    if refused && !streaming {
        // With the length of what was refused a client can reuse the connection at once.
        content = match body::at_hand(content, SMALL).await {
            Ok(content) => content,
            Err(cause) => {
                return error::failed(
                    target,
                    &local::status(tonic::Code::Internal, cause.to_string()),
                )
                .into();
            }
        };
    }
    if !answer.headers().contains_key(header::CONTENT_TYPE) {
        if refused {
            answer.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        } else {
            content = sniff(content, &mut answer).await;
        }
    }
    *answer.body_mut() = content;
    answer
}

/// Names the type of an answer that has none, by its first bytes.
async fn sniff(mut content: Body, answer: &mut Response<Body>) -> Body {
    let first = match content.frame().await {
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) if !data.is_empty() => data,
            _ => return content,
        },
        Some(Err(error)) => {
            return body::stream(http_body_util::StreamBody::new(futures_util::stream::iter(
                [Err::<http_body::Frame<Bytes>, _>(error)],
            )));
        }
        None => return body::empty(),
    };
    let text = std::str::from_utf8(&first).is_ok_and(|t| {
        !t.chars()
            .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}' | '\u{1b}'))
    });
    let kind = if text {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    };
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if content.is_end_stream() {
        return body::full(first);
    }
    body::prepend(first, content)
}

/// A status of a gRPC application as JSON.
fn status_json(status: &Status) -> Vec<u8> {
    let mut object = json!({"code": status.code() as i32});
    if !status.message().is_empty() {
        object["message"] = status.message().into();
    }
    let details = tonic_types::Status::decode(status.details())
        .map(|s| s.details)
        .unwrap_or_default();
    if !details.is_empty() {
        object["details"] = details
            .iter()
            .map(|d| detail_json(&d.type_url, &d.value))
            .collect::<Vec<_>>()
            .into();
    }
    json::to_vec(&object)
}

fn detail_json(type_url: &str, value: &[u8]) -> Value {
    use tonic_types::pb;
    let name = type_url.rsplit('/').next().unwrap_or_default();
    let mut object = match name {
        "google.rpc.ErrorInfo" => pb::ErrorInfo::decode(value)
            .map(|i| json!({"reason": i.reason, "domain": i.domain, "metadata": i.metadata}))
            .unwrap_or_default(),
        "google.rpc.ResourceInfo" => pb::ResourceInfo::decode(value)
            .map(|i| json!({"resourceType": i.resource_type, "resourceName": i.resource_name, "owner": i.owner, "description": i.description}))
            .unwrap_or_default(),
        _ => json!({"value": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, value)}),
    };
    object["@type"] = type_url.into();
    object
}
