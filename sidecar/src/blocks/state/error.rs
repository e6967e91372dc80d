//! Errors of the state API.

use http::StatusCode;
use outrider_components::{Error as Cause, Kind};
use tonic::Code;

use crate::blocks::error::{Error, malformed};

const NOT_SUPPORTED: &str = "ERR_STATE_STORE_NOT_SUPPORTED";
const KIND: &str = "state";

pub fn not_configured(store: &str, app_id: &str) -> Error {
    Error::rich(
        "ERR_STATE_STORE_NOT_CONFIGURED",
        "DAPR_STATE_NOT_CONFIGURED",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::FailedPrecondition,
        format!("state store {store} is not configured"),
    )
    .with_metadata([("appID", app_id)])
}

pub fn not_found(store: &str, app_id: &str) -> Error {
    Error::rich(
        "ERR_STATE_STORE_NOT_FOUND",
        "DAPR_STATE_NOT_FOUND",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        format!("state store {store} is not found"),
    )
    .with_metadata([("appID", app_id)])
}

pub fn illegal_key(key: &str, store: &str) -> Error {
    let message = format!("input key/keyPrefix '{key}' can't contain '||'");
    Error::rich(
        "ERR_MALFORMED_REQUEST",
        "DAPR_STATE_ILLEGAL_KEY",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        message.clone(),
    )
    .with_resource(KIND, store, "")
    .with_violation(key, message)
}

pub fn key_required() -> Error {
    malformed("\"key\" is a required field")
}

pub fn key_empty() -> Error {
    Error::rich_on_grpc(
        "ERR_STATE_SAVE",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        "state key cannot be empty",
    )
}

pub fn no_transactions(store: &str) -> Error {
    Error::rich(
        NOT_SUPPORTED,
        "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented,
        format!("state store {store} doesn't support transactions"),
    )
    .with_resource(KIND, store, "")
    .with_help(
        "https://docs.dapr.io/reference/components-reference/supported-state-stores/",
        "Check the list of state stores and the features they support",
    )
}

pub fn no_queries(store: &str) -> Error {
    Error::rich(
        NOT_SUPPORTED,
        "DAPR_STATE_QUERYING_NOT_SUPPORTED",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        "state store does not support querying",
    )
    .with_resource(KIND, store, "")
}

pub fn too_many(store: &str, count: usize, most: usize) -> Error {
    Error::rich(
        "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS",
        "DAPR_STATE_TOO_MANY_TRANSACTIONS",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        format!("the transaction contains {count} operations, which is more than what the state store supports: {most}"),
    )
    .with_metadata([("currentOpsTransaction", count.to_string()), ("maxOpsPerTransaction", most.to_string())])
    .with_resource(KIND, store, "")
}

pub fn unsupported_operation(operation: &str) -> Error {
    Error::rich_on_grpc(
        "ERR_NOT_SUPPORTED_STATE_OPERATION",
        StatusCode::BAD_REQUEST,
        Code::Unimplemented,
        format!("operation type {operation} not supported"),
    )
}

pub fn get(key: &str, store: &str, cause: &Cause) -> Error {
    failed(
        "ERR_STATE_GET",
        format!("fail to get {key} from state store {store}: {cause}"),
        cause,
    )
}

pub fn save(store: &str, cause: &Cause) -> Error {
    changed(
        "ERR_STATE_SAVE",
        format!("failed saving state in state store {store}: {cause}"),
        cause,
    )
}

pub fn delete(key: &str, cause: &Cause) -> Error {
    changed(
        "ERR_STATE_DELETE",
        format!("failed deleting state with key {key}: {cause}"),
        cause,
    )
}

pub fn bulk_delete(store: &str, cause: &Cause) -> Error {
    changed(
        "ERR_STATE_BULK_DELETE",
        format!("failed deleting state in state store {store}: {cause}"),
        cause,
    )
}

pub fn bulk_get(cause: &Cause) -> Error {
    let error = Error::legacy(
        "ERR_STATE_BULK_GET",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unknown,
        cause.to_string(),
    );
    refused(error, cause)
}

/// Of a search that could not be made, or that the store says nothing about.
pub fn query(store: &str, cause: impl std::fmt::Display) -> Error {
    Error::rich(
        "ERR_STATE_QUERY",
        "DAPR_STATE_QUERY_FAILED",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        format!("state store {store} query failed: {cause}"),
    )
    .with_resource(KIND, store, "")
}

/// Of a search that the store refused, in its own words if it has any.
pub fn query_refused(store: &str, cause: &Cause) -> Error {
    refused(query(store, cause), cause)
}

/// Conflicts have no status of their own here.
pub fn transaction(cause: &Cause) -> Error {
    failed(
        "ERR_STATE_TRANSACTION",
        format!("error while executing state transaction: {cause}"),
        cause,
    )
}

/// Of an event that could not be published before its transaction.
pub fn outbox(app_id: &str, cause: &str) -> Error {
    Error::rich(
        "ERR_PUBLISH_OUTBOX",
        "DAPR_PUBSUB_OUTBOX",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        format!("error while publishing outbox message: {cause}"),
    )
    .with_metadata([("appID", app_id), ("error", cause)])
}

fn failed(code: &'static str, message: String, cause: &Cause) -> Error {
    let (http, grpc) = (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal);
    refused(Error::rich_on_grpc(code, http, grpc, message), cause)
}

fn changed(code: &'static str, message: String, cause: &Cause) -> Error {
    let (http, grpc) = match cause.kind() {
        Kind::EtagMismatch => (StatusCode::CONFLICT, Code::Aborted),
        Kind::EtagInvalid => (StatusCode::BAD_REQUEST, Code::InvalidArgument),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
    };
    refused(Error::rich_on_grpc(code, http, grpc, message), cause)
}

/// A component may say what its caller sees.
fn refused(error: Error, cause: &Cause) -> Error {
    match cause.api_error() {
        None => error,
        Some(refusal) => error.with_refusal(refusal),
    }
}
