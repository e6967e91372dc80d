//! Errors of the secrets API.

use http::StatusCode;
use outrider_components::Error as Cause;
use outrider_kit::quote;
use tonic::Code;

use crate::blocks::error::Error;

pub fn not_configured() -> Error {
    Error::legacy(
        "ERR_SECRET_STORES_NOT_CONFIGURED",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::FailedPrecondition,
        "secret store is not configured",
    )
}

pub fn not_found(store: &str) -> Error {
    Error::legacy(
        "ERR_SECRET_STORE_NOT_FOUND",
        StatusCode::UNAUTHORIZED,
        Code::InvalidArgument,
        format!("failed finding secret store with key {store}"),
    )
}

pub fn denied(secret: &str, store: &str) -> Error {
    let message = format!(
        "access denied by policy to get {} from {}",
        quote::go(secret),
        quote::go(store)
    );
    Error::legacy(
        "ERR_PERMISSION_DENIED",
        StatusCode::FORBIDDEN,
        Code::PermissionDenied,
        message,
    )
}

pub fn get(secret: &str, store: &str, cause: &Cause) -> Error {
    failed(format!(
        "failed getting secret with key {secret} from secret store {store}: {cause}"
    ))
}

pub fn bulk_get(store: &str, cause: &Cause) -> Error {
    failed(format!(
        "failed getting secrets from secret store {store}: {cause}"
    ))
}

fn failed(message: String) -> Error {
    Error::legacy(
        "ERR_SECRET_GET",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        message,
    )
}
