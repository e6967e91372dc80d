//! Statements: how long they may take, how they fail, and which names can be
//! put into them.

use std::future::Future;
use std::time::Duration;

use outrider_components::{Error, Kind};

/// Runs `work`, which may take `timeout` at most.
pub async fn in_time<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::unavailable("context deadline exceeded")),
    }
}

/// How an error of a database looks to the runtime.
pub fn failed(error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Io(_)
        | sqlx::Error::WorkerCrashed => Kind::Unavailable,
        // A server that starts or ends refuses its clients in this way.
        sqlx::Error::Database(database)
            if database
                .code()
                .is_some_and(|code| code.starts_with("57P") || code.starts_with("08")) =>
        {
            Kind::Unavailable
        }
        // A value that is not what its column holds.
        sqlx::Error::Database(database)
            if database.code().is_some_and(|code| code.starts_with("22")) =>
        {
            Kind::Invalid
        }
        _ => Kind::Internal,
    };
    let text = match &error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        other => other.to_string(),
    };
    Error::new(kind, text).because(error)
}

/// Whether a name can be put into a statement as it is.
pub fn is_identifier(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_letters_digits_and_underscores() {
        assert!(is_identifier("state_2"));
        assert!(!is_identifier("a-b"));
    }
}
