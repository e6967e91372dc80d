//! Requests and answers of the HTTP API that are protobuf messages in JSON.

use http::{Response, StatusCode};
use outrider_net::body::Body;
use outrider_proto::json;
use prost::Message;

use super::error::{Error, Result, body_read, malformed};
use super::http::{self as api, Request};

/// The message of this name in a body; one without a body has no fields set.
pub async fn read<M: Message + Default>(mut request: Request, name: &str) -> Result<M> {
    let body = request.bytes().await.map_err(body_read)?;
    if body.is_empty() {
        return Ok(M::default());
    }
    json::read(name, &body)
        .map_err(|cause| malformed(format!("failed deserializing HTTP body: {cause}")))
}

/// Answers with the message of this name, or with the error.
pub fn answer<M: Message>(name: &str, answered: Result<M>) -> Response<Body> {
    let written = answered.and_then(|message| {
        json::write(name, &message).map_err(|cause| {
            Error::legacy(
                "ERROR",
                StatusCode::INTERNAL_SERVER_ERROR,
                tonic::Code::Internal,
                format!("failed to encode the answer: {cause}"),
            )
        })
    });
    match written {
        Ok(text) => api::json(StatusCode::OK, text),
        Err(error) => error.into(),
    }
}
