//! Errors of the conversation API.

use std::fmt::Display;

use http::StatusCode;
use tonic::Code;

use crate::blocks::error::Error;

pub fn not_found(model: &str) -> Error {
    refused(
        "ERR_CONVERSATION_NOT_FOUND",
        format!("failed finding conversation component {model}"),
    )
}

pub fn missing_inputs(model: &str) -> Error {
    refused(
        "ERR_CONVERSATION_MISSING_INPUTS",
        format!("failed conversing with component {model}: missing inputs in request"),
    )
}

pub fn invalid(model: &str, what: impl Display) -> Error {
    refused(
        "ERR_CONVERSATION_INVALID_PARMS",
        format!("failed conversing with component {model}: invalid params: {what}"),
    )
}

pub fn invoke(model: &str, cause: impl Display) -> Error {
    Error::legacy(
        "ERR_CONVERSATION_INVOKE",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        format!("failed conversing with component {model}: {cause}"),
    )
}

fn refused(code: &'static str, message: String) -> Error {
    Error::legacy(
        code,
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        message,
    )
}
