//! Errors of the cryptography API.

use std::fmt::Display;

use http::StatusCode;
use tonic::Code;

use crate::blocks::error::Error;

pub fn not_configured() -> Error {
    internal(
        "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED",
        "crypto providers not configured".to_owned(),
    )
}

pub fn not_found(provider: &str) -> Error {
    Error::legacy(
        "ERR_CRYPTO_PROVIDER_NOT_FOUND",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        format!("crypto provider {provider} not found"),
    )
}

pub fn bad_request(what: impl Display) -> Error {
    Error::legacy(
        "ERR_BAD_REQUEST",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        format!("invalid request: {what}"),
    )
}

pub fn key(name: &str, cause: impl Display) -> Error {
    internal(
        "ERR_CRYPTO_KEY",
        format!("failed to retrieve key {name}: {cause}"),
    )
}

pub fn operation(cause: impl Display) -> Error {
    internal(
        "ERR_CRYPTO",
        format!("failed to perform operation: {cause}"),
    )
}

/// What is wrong with a document after its header, over HTTP.
pub fn processing(cause: impl Display) -> Error {
    internal("ERROR", cause.to_string())
}

fn internal(code: &'static str, message: String) -> Error {
    Error::legacy(
        code,
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        message,
    )
}
