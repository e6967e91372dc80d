//! Errors of timers.

use http::StatusCode;
use outrider_actors::timers::Error as Failed;
use tonic::Code;

use crate::blocks::error::Error;

fn forbidden(code: &'static str, message: &str) -> Error {
    Error::legacy(code, StatusCode::FORBIDDEN, Code::PermissionDenied, message)
}

fn not_owned() -> Error {
    let message = "operations on actor timers are only possible on the host of the actor";
    forbidden("ERR_ACTOR_TIMER_NOT_OWNED", message)
}

/// Of a registration.
pub fn create(cause: &Failed) -> Error {
    match cause {
        Failed::NotOwned(_) => not_owned(),
        cause => Error::legacy(
            "ERR_ACTOR_TIMER_CREATE",
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::Internal,
            format!("error creating actor timer: {cause}"),
        ),
    }
}

/// Of everything else.
pub fn other(cause: &Failed) -> Error {
    match cause {
        Failed::NotOwned(_) => not_owned(),
        Failed::NotHosted(_) => {
            let message = "operations on actor timers are only possible on hosted actor types";
            forbidden("ERR_ACTOR_TIMER_NON_HOSTED", message)
        }
        Failed::Unknown(_) => Error::legacy(
            "ERR_ACTOR_TIMER_NOT_FOUND",
            StatusCode::NOT_FOUND,
            Code::NotFound,
            cause.to_string(),
        ),
        cause => create(cause),
    }
}

#[cfg(test)]
mod tests {
    use outrider_actors::Actor;

    use super::*;

    #[test]
    fn errors_have_the_words_that_clients_know() {
        let actor = || Actor::new("T", "1");
        let not_hosted = || Failed::NotHosted(actor());
        for (error, code, http, message) in [
            (
                create(&not_hosted()),
                "ERR_ACTOR_TIMER_CREATE",
                500,
                "error creating actor timer: can't create timer for actor T||1: actor type not registered",
            ),
            (
                other(&not_hosted()),
                "ERR_ACTOR_TIMER_NON_HOSTED",
                403,
                "operations on actor timers are only possible on hosted actor types",
            ),
            (
                other(&Failed::NotOwned(actor())),
                "ERR_ACTOR_TIMER_NOT_OWNED",
                403,
                "operations on actor timers are only possible on the host of the actor",
            ),
            (
                other(&Failed::Unknown("t".to_owned())),
                "ERR_ACTOR_TIMER_NOT_FOUND",
                404,
                "actor timer not found: t",
            ),
        ] {
            assert_eq!((error.code, error.http.as_u16()), (code, http));
            assert_eq!(error.message, message);
        }
    }
}
