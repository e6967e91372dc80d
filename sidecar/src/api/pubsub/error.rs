//! Errors of publishing.

use http::StatusCode;
use outrider_components::Pairs;
use tonic::Code;

use crate::api::error::Error;

const RESOURCE: &str = "pubsub";

pub fn not_found(pubsub: &str, metadata: &Pairs) -> Error {
    let message = format!("pubsub {pubsub} is not found");
    Error::rich(
        "ERR_PUBSUB_NOT_FOUND",
        "DAPR_PUBSUB_NOT_FOUND",
        StatusCode::NOT_FOUND,
        Code::InvalidArgument,
        message,
    )
    .with_metadata(metadata.clone())
}

pub fn no_name(metadata: &Pairs) -> Error {
    let message = "pubsub name is empty".to_owned();
    Error::rich(
        "ERR_PUBSUB_EMPTY",
        "DAPR_PUBSUB_NAME_EMPTY",
        StatusCode::NOT_FOUND,
        Code::InvalidArgument,
        message.clone(),
    )
    .with_metadata(metadata.clone())
    .with_resource(RESOURCE, "", message)
}

pub fn no_topic(pubsub: &str, metadata: &Pairs) -> Error {
    let message = format!("topic is empty in pubsub {pubsub}");
    Error::rich(
        "ERR_TOPIC_NAME_EMPTY",
        "DAPR_PUBSUB_TOPIC_NAME_EMPTY",
        StatusCode::NOT_FOUND,
        Code::InvalidArgument,
        message.clone(),
    )
    .with_metadata(metadata.clone())
    .with_resource(RESOURCE, pubsub, message)
}

pub fn metadata(pubsub: &str, metadata: &Pairs, cause: &str) -> Error {
    let message = format!("failed deserializing metadata. Error: {cause}");
    Error::rich(
        "ERR_PUBSUB_REQUEST_METADATA",
        "DAPR_PUBSUB_METADATA_DESERIALIZATION",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        message.clone(),
    )
    .with_metadata(metadata.clone())
    .with_resource(RESOURCE, pubsub, message)
}

pub fn forbidden(pubsub: &str, topic: &str, app_id: &str) -> Error {
    let message = format!("topic {topic} is not allowed for app id {app_id}");
    Error::rich(
        "ERR_PUBSUB_FORBIDDEN",
        "DAPR_PUBSUB_FORBIDDEN",
        StatusCode::FORBIDDEN,
        Code::PermissionDenied,
        message.clone(),
    )
    .with_metadata([("topic", topic), ("error", &message)])
    .with_resource(RESOURCE, pubsub, message.clone())
}

pub fn publish(pubsub: &str, topic: &str, cause: &str) -> Error {
    let message = format!("error when publishing to topic {topic} in pubsub {pubsub}: {cause}");
    Error::rich(
        "ERR_PUBSUB_PUBLISH_MESSAGE",
        "DAPR_PUBSUB_PUBLISH_MESSAGE",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        message.clone(),
    )
    .with_metadata([("topic", topic), ("error", cause)])
    .with_resource(RESOURCE, pubsub, message)
}

pub fn no_cloud_event(pubsub: &str, app_id: &str, cause: &str) -> Error {
    let message = "cannot create cloudevent";
    Error::rich(
        "ERR_PUBSUB_CLOUD_EVENTS_SER",
        "DAPR_PUBSUB_CLOUD_EVENT_CREATION",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::InvalidArgument,
        message,
    )
    .with_metadata([("appID", app_id), ("error", cause)])
    .with_resource(RESOURCE, pubsub, message)
}

/// An entry of a bulk request is not what its content type says.
pub fn mismatch(pubsub: &str, topic: &str, app_id: &str, cause: &str) -> Error {
    let message = format!(
        "error when marshalling cloud event envelope for topic {topic} pubsub {pubsub}: {cause}"
    );
    events("DAPR_PUBSUB_MARSHAL_ENVELOPE", message, pubsub)
        .with_metadata([("appID", app_id), ("error", cause)])
}

pub fn entry_id(pubsub: &str, topic: &str, app_id: &str) -> Error {
    let cause = "entryId is duplicated or not present for entry";
    let message = format!(
        "error marshaling events to bytes for topic {topic} pubsub {pubsub}. error: {cause}"
    );
    events("DAPR_PUBSUB_MARSHAL_EVENTS", message, pubsub)
        .with_metadata([("appID", app_id), ("error", cause)])
}

pub fn malformed(pubsub: &str, topic: &str, app_id: &str, cause: &str) -> Error {
    let message =
        format!("error when unmarshaling the request for topic {topic} pubsub {pubsub}: {cause}");
    events("DAPR_PUBSUB_UNMARSHAL_EVENTS", message, pubsub).with_metadata([("appID", app_id)])
}

fn events(reason: &'static str, message: String, pubsub: &str) -> Error {
    Error::rich(
        "ERR_PUBSUB_EVENTS_SER",
        reason,
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        message.clone(),
    )
    .with_resource(RESOURCE, pubsub, message)
}
