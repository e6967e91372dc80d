//! Errors of invocation.

use http::StatusCode;
use outrider_peer::local::is_local;
use tonic::{Code, Status};

use crate::blocks::error::Error;
use outrider_net::body::ReadError;

const CODE: &str = "ERR_DIRECT_INVOKE";

pub fn no_target() -> Error {
    let message = "failed getting app id either from the URL path or the header dapr-app-id";
    Error::legacy(CODE, StatusCode::NOT_FOUND, Code::NotFound, message)
}

/// The client sends more than may be.
pub fn too_large(target: &str) -> Error {
    Error::legacy(
        CODE,
        StatusCode::PAYLOAD_TOO_LARGE,
        Code::ResourceExhausted,
        format!(
            "failed to invoke, id: {target}, err: {}",
            ReadError::TooLarge
        ),
    )
}

/// The call did not come to an answer of the application.
pub fn failed(target: &str, cause: &Status) -> Error {
    let http = match cause.code() {
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let grpc = match cause.code() {
        Code::ResourceExhausted => Code::ResourceExhausted,
        _ => Code::Internal,
    };
    Error::legacy(
        CODE,
        http,
        grpc,
        format!("failed to invoke, id: {target}, err: {}", text(cause)),
    )
}

/// Failures of this sidecar as they are, those of a peer as gRPC errors.
fn text(status: &Status) -> String {
    if is_local(status) {
        status.message().to_owned()
    } else {
        outrider_net::grpc::text(status)
    }
}
