//! Invocation over gRPC, by the call that SDKs still use; other calls to
//! applications are proxied.

use http::Method;
use outrider_peer::local;
use outrider_proto::Any;
use outrider_proto::common::v1::{InvokeResponse, http_extension};
use outrider_proto::runtime::v1::InvokeServiceRequest;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::{Api, error};
use crate::blocks::error::Error;
use outrider_call::headers;
use outrider_call::message::{self, Code, Data, Origin};
use outrider_net::body;
use outrider_net::grpc;

/// The status of an HTTP application, among the headers of an answer.
pub const APP_STATUS: &str = "dapr-http-status";
/// Bytes of an application's error that are passed on.
const ERROR_TEXT: usize = 63;

pub async fn invoke(
    api: &Api,
    request: Request<InvokeServiceRequest>,
) -> Result<Response<InvokeResponse>, Status> {
    let metadata = headers::of_grpc(request.metadata().as_ref());
    let request = request.into_inner();
    let failed = |status: &Status| error::failed(&request.id, status).status();
    let Some(message) = request.message else {
        return Err(failed(&local::status(
            tonic::Code::Internal,
            "request does not contain the required fields in the leading chunk",
        )));
    };
    let data = message.data.unwrap_or_default();
    let (verb, query) = match message.http_extension {
        None => (None, String::new()),
        Some(extension) => (Some(verb(extension.verb)), extension.querystring),
    };
    let content_type = match (message.content_type.is_empty(), data.type_url.is_empty()) {
        (_, false) => Some(message::PROTOBUF.to_owned()),
        (false, true) => Some(message.content_type),
        (true, true) => None,
    };
    let bytes = bytes::Bytes::from(data.value);
    let call = message::Request {
        method: message.method,
        verb,
        query,
        metadata,
        origin: Origin::Grpc,
        content_type,
        content_length: Some(bytes.len() as u64),
        data_type_url: data.type_url,
        body: Data::Whole(bytes),
    };
    let answer = api
        .invoke(&request.id, call)
        .await
        .map_err(|status| failed(&status))?;
    let content_type = answer.content_type().unwrap_or_default().to_owned();
    let data = body::collect(answer.body, api.sidecars.peers.limit)
        .await
        .map_err(|e| failed(&local::marked(e.status(""))))?;
    let mut initial = http::HeaderMap::new();
    match answer.code {
        Code::Grpc(status) => {
            if status.code() != tonic::Code::Ok {
                return Err(status);
            }
            headers::to_grpc(&answer.headers, Origin::Grpc, &mut initial);
        }
        Code::Http(code) => {
            headers::to_grpc(&answer.headers, Origin::Http, &mut initial);
            initial.insert(APP_STATUS, code.into());
            if grpc::code_of_app(code) != tonic::Code::Ok {
                let mut status = of_http_status(code, &data);
                initial.remove(http::header::CONTENT_TYPE);
                *status.metadata_mut() = MetadataMap::from_headers(initial);
                return Err(status);
            }
        }
    }
    let mut response = Response::new(InvokeResponse {
        data: Some(Any {
            type_url: answer.data_type_url,
            value: data.into(),
        }),
        content_type,
    });
    *response.metadata_mut() = MetadataMap::from_headers(initial);
    Ok(response)
}

fn verb(number: i32) -> Method {
    use http_extension::Verb;
    match Verb::try_from(number) {
        Ok(Verb::None | Verb::Connect) => Method::CONNECT,
        Ok(verb) => Method::from_bytes(verb.as_str_name().as_bytes()).unwrap_or(Method::POST),
        Err(_) => Method::POST,
    }
}

/// The gRPC error that an HTTP application's refusal becomes.
pub fn of_http_status(code: u16, body: &[u8]) -> Status {
    let reason = http::StatusCode::from_u16(code)
        .ok()
        .and_then(|s| s.canonical_reason())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&body[..body.len().min(ERROR_TEXT)]).into_owned();
    Error::rich(
        "",
        reason,
        http::StatusCode::INTERNAL_SERVER_ERROR,
        grpc::code_of_app(code),
        reason,
    )
    .with_metadata([
        ("http.code", code.to_string()),
        ("http.error_message", text),
    ])
    .status()
}
