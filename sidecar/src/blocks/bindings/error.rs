//! Errors of the bindings API.

use std::fmt::Display;

use http::StatusCode;
use tonic::Code;

use crate::blocks::error::Error;

pub fn invoke(binding: &str, cause: impl Display) -> Error {
    Error::rich_on_grpc(
        "ERR_INVOKE_OUTPUT_BINDING",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        format!("error invoking output binding {binding}: {cause}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_clients_get_the_short_form() {
        let error = invoke("b", "no");
        assert_eq!((error.http.as_u16(), error.grpc), (500, Code::Internal));
        let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "errorCode": "ERR_INVOKE_OUTPUT_BINDING",
                "message": "error invoking output binding b: no",
            })
        );
        assert_eq!(error.known().unwrap().category, "binding");
    }
}
