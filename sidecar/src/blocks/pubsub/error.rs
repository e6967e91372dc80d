//! Errors of publishing.

use http::StatusCode;
use outrider_components::Pairs;
use tonic::Code;

use crate::blocks::error::Error;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_codes_and_words() {
        let none = Pairs::new();
        for (error, http, grpc, reason, message) in [
            (
                not_found("p", &none),
                404,
                Code::InvalidArgument,
                "DAPR_PUBSUB_NOT_FOUND",
                "pubsub p is not found",
            ),
            (
                no_name(&none),
                404,
                Code::InvalidArgument,
                "DAPR_PUBSUB_NAME_EMPTY",
                "pubsub name is empty",
            ),
            (
                no_topic("p", &none),
                404,
                Code::InvalidArgument,
                "DAPR_PUBSUB_TOPIC_NAME_EMPTY",
                "topic is empty in pubsub p",
            ),
            (
                forbidden("p", "t", "a"),
                403,
                Code::PermissionDenied,
                "DAPR_PUBSUB_FORBIDDEN",
                "topic t is not allowed for app id a",
            ),
            (
                publish("p", "t", "x"),
                500,
                Code::Internal,
                "DAPR_PUBSUB_PUBLISH_MESSAGE",
                "error when publishing to topic t in pubsub p: x",
            ),
            (
                no_cloud_event("p", "a", "x"),
                500,
                Code::InvalidArgument,
                "DAPR_PUBSUB_CLOUD_EVENT_CREATION",
                "cannot create cloudevent",
            ),
            (
                entry_id("p", "t", "a"),
                400,
                Code::InvalidArgument,
                "DAPR_PUBSUB_MARSHAL_EVENTS",
                "error marshaling events to bytes for topic t pubsub p. error: entryId is duplicated or not present for entry",
            ),
            (
                malformed("p", "t", "a", "EOF"),
                400,
                Code::InvalidArgument,
                "DAPR_PUBSUB_UNMARSHAL_EVENTS",
                "error when unmarshaling the request for topic t pubsub p: EOF",
            ),
        ] {
            assert_eq!(error.http.as_u16(), http, "{reason}");
            assert_eq!(error.grpc, grpc, "{reason}");
            assert_eq!(error.message, message);
            let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
            let details = body["details"].as_array().unwrap();
            let info = details.last().unwrap();
            assert_eq!(info["reason"], reason);
            assert!(info["metadata"].is_object(), "{reason}");
            let with_resource = reason != "DAPR_PUBSUB_NOT_FOUND";
            assert_eq!(details.len(), 1 + usize::from(with_resource), "{reason}");
        }
    }
}
