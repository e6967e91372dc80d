//! Errors of the configuration API.

use std::fmt::Display;

use http::StatusCode;
use tonic::Code;

use crate::blocks::error::Error;

pub fn not_configured() -> Error {
    Error::rich_on_grpc(
        "ERR_CONFIGURATION_STORE_NOT_CONFIGURED",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::FailedPrecondition,
        "configuration stores not configured",
    )
}

pub fn not_found(store: &str) -> Error {
    Error::rich_on_grpc(
        "ERR_CONFIGURATION_STORE_NOT_FOUND",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        format!("configuration store {store} not found"),
    )
}

pub fn get(keys: &[String], store: &str, cause: impl Display) -> Error {
    Error::rich_on_grpc(
        "ERR_CONFIGURATION_GET",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        format!(
            "failed to get {} from Configuration store {store}: {cause}",
            list(keys)
        ),
    )
}

pub fn subscribe(keys: &[String], store: &str, cause: impl Display) -> Error {
    Error::rich_on_grpc(
        "ERR_CONFIGURATION_SUBSCRIBE",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::InvalidArgument,
        format!(
            "failed to subscribe {} from Configuration store {store}: {cause}",
            list(keys)
        ),
    )
}

pub fn unsubscribe(id: &str, cause: impl Display) -> Error {
    Error::rich_on_grpc(
        "ERR_CONFIGURATION_UNSUBSCRIBE",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        format!("failed to unsubscribe to configuration request {id}: {cause}"),
    )
}

/// There is no application that changes could be sent to.
pub fn no_application() -> Error {
    Error::legacy(
        "ERR_APP_CHANNEL_NIL",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        "app channel is not initialized. cannot subscribe to configuration updates",
    )
}

/// How many bytes of the keys an error shows.
const SHOWN: usize = 4096;

/// Keys as Go prints a list. Of many only the first are shown: gRPC clients
/// take statuses of a few KiB.
fn list(keys: &[String]) -> String {
    let mut text = String::from("[");
    for (at, key) in keys.iter().enumerate() {
        if text.len() + key.len() > SHOWN {
            text.push_str(&format!(" and {} more", keys.len() - at));
            break;
        }
        if at > 0 {
            text.push(' ');
        }
        text.push_str(key);
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_clients_get_the_short_form_and_keys_are_a_list() {
        let error = get(&["a".to_owned(), "b".to_owned()], "s", "no");
        assert_eq!((error.http.as_u16(), error.grpc), (500, Code::Internal));
        let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "errorCode": "ERR_CONFIGURATION_GET",
                "message": "failed to get [a b] from Configuration store s: no",
            })
        );
        assert_eq!(error.known().unwrap().category, "configuration");
        assert_eq!(list(&[]), "[]");
    }

    #[test]
    fn an_error_shows_the_first_of_many_keys() {
        let keys: Vec<_> = (0..10_000).map(|i| format!("key-{i:06}")).collect();
        let text = list(&keys);
        assert!(text.len() < SHOWN + 32, "{}", text.len());
        assert!(text.starts_with("[key-000000 key-000001 "));
        assert!(text.ends_with(" more]"), "{text}");
    }
}
