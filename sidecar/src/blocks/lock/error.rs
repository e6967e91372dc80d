//! Errors of the lock API.

use std::fmt::Display;

use http::StatusCode;
use tonic::Code;

use crate::blocks::error::Error;

pub fn not_configured() -> Error {
    Error::legacy(
        "ERR_LOCK_STORE_NOT_CONFIGURED",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::FailedPrecondition,
        "lock store is not configured",
    )
}

pub fn not_found(store: &str) -> Error {
    Error::legacy(
        "ERR_LOCK_STORE_NOT_FOUND",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        format!("lock store {store} not found"),
    )
}

/// A field of a request that has no value it could have.
pub fn wrong(what: &str, store: &str) -> Error {
    Error::legacy(
        "ERR_MALFORMED_REQUEST",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        format!("{what} in lock store {store}"),
    )
}

pub fn try_lock(cause: impl Display) -> Error {
    Error::legacy(
        "ERR_TRY_LOCK",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        format!("failed to try acquiring lock: {cause}"),
    )
}

pub fn unlock(cause: impl Display) -> Error {
    Error::legacy(
        "ERR_UNLOCK",
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        format!("failed to release lock: {cause}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_but_malformed_ones_are_of_locks() {
        let all = [
            not_configured(),
            not_found("s"),
            try_lock("no"),
            unlock("no"),
        ];
        for error in all {
            assert_eq!(error.known().unwrap().category, "lock", "{}", error.code);
        }
        let wrong = wrong("LockOwner is empty", "s");
        assert_eq!(wrong.message, "LockOwner is empty in lock store s");
        assert_eq!(wrong.known().unwrap().category, "common");
    }
}
