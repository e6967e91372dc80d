//! Errors of reminders.

use http::StatusCode;
use outrider_actors::reminders::{Cause, Error as Failed};
use tonic::Code;

use crate::blocks::error::Error;

const CREATE: &str = "ERR_ACTOR_REMINDER_CREATE";
const GET: &str = "ERR_ACTOR_REMINDER_GET";
const DELETE: &str = "ERR_ACTOR_REMINDER_DELETE";

fn internal(code: &'static str, message: String) -> Error {
    let http = StatusCode::INTERNAL_SERVER_ERROR;
    Error::legacy(code, http, Code::Internal, message)
}

fn not_hosted() -> Error {
    Error::legacy(
        "ERR_ACTOR_REMINDER_NON_HOSTED",
        StatusCode::FORBIDDEN,
        Code::PermissionDenied,
        Failed::NotHosted.to_string(),
    )
}

pub fn create(cause: &Failed, name: &str) -> Error {
    match cause {
        Failed::NotHosted => not_hosted(),
        Failed::Exists => Error::legacy(
            "ERR_ACTOR_REMINDER_ALREADY_EXISTS",
            StatusCode::CONFLICT,
            Code::AlreadyExists,
            format!("actor reminder already exists: {name}"),
        ),
        cause => internal(CREATE, format!("error creating actor reminder: {cause}")),
    }
}

pub fn get(cause: &Failed, name: &str) -> Error {
    match cause {
        Failed::NotHosted => not_hosted(),
        Failed::Unknown => Error::legacy(
            "ERR_ACTOR_REMINDER_NOT_FOUND",
            StatusCode::NOT_FOUND,
            Code::NotFound,
            format!("actor reminder not found: {name}"),
        ),
        Failed::Scheduler(cause) => internal(GET, getting(cause)),
        cause => internal(GET, format!("error getting actor reminder: {cause}")),
    }
}

/// The scheduler's error inside that of the jobs API.
fn getting(cause: &Cause) -> String {
    format!(
        "error getting actor reminder: api error: code = Internal desc = failed to get job due to: {cause}"
    )
}

pub fn list(cause: &Failed) -> Error {
    match cause {
        Failed::NotHosted => not_hosted(),
        cause => internal(GET, format!("error getting actor reminder: {cause}")),
    }
}

pub fn delete(cause: &Failed) -> Error {
    match cause {
        Failed::NotHosted => not_hosted(),
        cause => internal(DELETE, format!("error deleting actor reminder: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn errors_have_the_words_that_clients_know() {
        let disabled = || Failed::Scheduler(Cause::Disabled);
        let refused = |status| Failed::Scheduler(Cause::Refused(Box::new(status)));
        for (error, code, http, message) in [
            (
                create(&disabled(), "r"),
                CREATE,
                500,
                "error creating actor reminder: scheduler clients are disabled",
            ),
            (
                get(&disabled(), "r"),
                GET,
                500,
                "error getting actor reminder: api error: code = Internal desc = failed to get job due to: scheduler clients are disabled",
            ),
            (
                delete(&disabled()),
                DELETE,
                500,
                "error deleting actor reminder: scheduler clients are disabled",
            ),
            (
                create(&refused(Status::unknown("no")), "r"),
                CREATE,
                500,
                "error creating actor reminder: rpc error: code = Unknown desc = no",
            ),
            (
                create(&Failed::Exists, "r"),
                "ERR_ACTOR_REMINDER_ALREADY_EXISTS",
                409,
                "actor reminder already exists: r",
            ),
            (
                get(&Failed::Unknown, "r"),
                "ERR_ACTOR_REMINDER_NOT_FOUND",
                404,
                "actor reminder not found: r",
            ),
            (
                list(&Failed::NotHosted),
                "ERR_ACTOR_REMINDER_NON_HOSTED",
                403,
                "operations on actor reminders are only possible on hosted actor types",
            ),
        ] {
            assert_eq!((error.code, error.http.as_u16()), (code, http));
            assert_eq!(error.message, message);
        }
    }
}
