//! Errors of actors.

use http::StatusCode;
use outrider_actors as actors;
use outrider_components::Error as Cause;
use tonic::Code;

use crate::blocks::error::Error;

pub fn no_placement() -> Error {
    Error::legacy(
        "ERR_ACTOR_NO_PLACEMENT",
        StatusCode::BAD_REQUEST,
        Code::Unavailable,
        "placement service is not configured",
    )
}

pub fn reserved(kind: &str) -> Error {
    Error::legacy(
        "ERR_ACTOR_TYPE_RESERVED",
        StatusCode::FORBIDDEN,
        Code::PermissionDenied,
        format!(
            "actor type {} is reserved for the Dapr workflow runtime; direct actor API access is not permitted",
            outrider_kit::quote::go(kind)
        ),
    )
}

/// A name that cannot be used, and why.
pub fn bad_request(why: impl AsRef<str>) -> Error {
    Error::legacy(
        "ERR_BAD_REQUEST",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        format!("invalid request: {}", why.as_ref()),
    )
}

/// There is no store for the state of actors.
pub fn no_store() -> Error {
    Error::legacy(
        "ERR_ACTOR_RUNTIME_NOT_FOUND",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        "the state store is not configured to use the actor runtime. Have you set the - name: actorStateStore value: \"true\" in your state store component file?",
    )
}

/// State is written by actors only.
pub fn missing() -> Error {
    Error::legacy(
        "ERR_ACTOR_INSTANCE_MISSING",
        StatusCode::BAD_REQUEST,
        Code::Internal,
        "actor instance is missing",
    )
}

pub fn no_address(actor: &actors::Actor) -> Error {
    Error::legacy(
        "ERR_ACTOR_NO_ADDRESS",
        StatusCode::NOT_FOUND,
        Code::FailedPrecondition,
        format!("did not find address for actor '{actor}'"),
    )
}

/// A method that has no answer.
pub fn invoke(cause: &actors::Error) -> Error {
    let (code, http, grpc) = match cause {
        actors::Error::NoPlacement => return no_placement(),
        actors::Error::Closed => {
            let http = StatusCode::SERVICE_UNAVAILABLE;
            ("ERR_ACTOR_RUNTIME_CLOSED", http, Code::Unavailable)
        }
        actors::Error::TooDeep => {
            let http = StatusCode::INTERNAL_SERVER_ERROR;
            ("ERR_ACTOR_STACK_DEPTH", http, Code::ResourceExhausted)
        }
        actors::Error::NoApp => {
            let http = StatusCode::BAD_REQUEST;
            ("ERR_ACTOR_NO_APP_CHANNEL", http, Code::Unavailable)
        }
        actors::Error::NoAddress(actor) => {
            let nested = no_address(actor).nested();
            return method(
                Code::FailedPrecondition,
                &format!("failed to lookup actor: {nested}"),
            );
        }
        actors::Error::Remote(status) if status.code() == Code::ResourceExhausted => {
            return method(Code::ResourceExhausted, &cause.to_string());
        }
        cause => return method(Code::Internal, &cause.to_string()),
    };
    Error::legacy(code, http, grpc, cause.to_string())
}

/// More waits for the actor, or for all of them, than may.
pub fn busy(why: &actors::waiting::Full) -> Error {
    let mut error = method(Code::ResourceExhausted, &why.to_string());
    error.http = StatusCode::TOO_MANY_REQUESTS;
    error
}

fn method(grpc: Code, cause: &str) -> Error {
    Error::legacy(
        "ERR_ACTOR_INVOKE_METHOD",
        StatusCode::INTERNAL_SERVER_ERROR,
        grpc,
        format!("error invoke actor method: {cause}"),
    )
}

/// A request or an answer that is larger than may be.
pub fn too_large(cause: &outrider_net::body::ReadError) -> Error {
    method(Code::Internal, &cause.to_string()).of_body(cause)
}

pub fn get_state(cause: &Cause) -> Error {
    Error::legacy(
        "ERR_ACTOR_STATE_GET",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        format!("error getting actor state: {cause}"),
    )
}

pub fn transact(cause: impl std::fmt::Display) -> Error {
    Error::legacy(
        "ERR_ACTOR_STATE_TRANSACTION_SAVE",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        format!("error saving actor transaction state: {cause}"),
    )
}

/// An operation that does not exist.
pub fn unknown_operation(name: &str) -> Error {
    let mut error = transact(format!("operation type {name} not supported"));
    error.grpc = Code::Unimplemented;
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_that_nobody_hosts_is_named() {
        let error = invoke(&actors::Error::NoAddress(actors::Actor::new("T", "1")));
        assert_eq!(
            error.message,
            "error invoke actor method: failed to lookup actor: api error: code = FailedPrecondition desc = did not find address for actor 'T/1'"
        );
        assert_eq!(
            (error.http.as_u16(), error.grpc),
            (500, Code::FailedPrecondition)
        );
    }

    #[test]
    fn failures_of_other_sidecars_are_nested() {
        let remote = actors::Error::App("(500) x".to_owned()).to_peer();
        let error = invoke(&actors::Error::Remote(Box::new(remote)));
        assert_eq!(
            error.message,
            "error invoke actor method: rpc error: code = Internal desc = error invoke actor method: error from actor service: (500) x"
        );
    }
}
