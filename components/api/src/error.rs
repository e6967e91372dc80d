use std::error::Error as StdError;
use std::fmt;

/// What went wrong, as far as callers act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The thing asked for does not exist.
    NotFound,
    /// The request or the component's configuration is invalid.
    Invalid,
    /// The item changed since the caller read it.
    EtagMismatch,
    /// The etag is not one this store could have given out.
    EtagInvalid,
    /// The caller's or the component's credentials are refused.
    Denied,
    /// The backing service cannot be reached or did not answer in time.
    Unavailable,
    /// The component cannot do this at all.
    Unsupported,
    /// The component cannot do this in its state, such as closed.
    Precondition,
    /// Anything else.
    Internal,
}

/// The error that an API answers with, where the component chooses it: see
/// <https://docs.dapr.io/reference/errors/>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The gRPC code.
    pub code: i32,
    /// The HTTP status; any number of three digits.
    pub http: u16,
    /// The message.
    pub message: String,
    /// The error code, where the API has none of its own.
    pub tag: String,
    /// The reason in the error details (`google.rpc.ErrorInfo`).
    pub reason: String,
    /// The domain in the error details.
    pub domain: String,
}

/// A failed operation of a component. Its text is what applications see.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    retry_safe: bool,
    code: Option<i32>,
    api_error: Option<Box<ApiError>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error whose whole text is `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error {
            kind,
            message: message.into(),
            retry_safe: matches!(kind, Kind::Unavailable | Kind::Internal),
            code: None,
            api_error: None,
            source: None,
        }
    }

    /// The request or configuration is invalid.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, message)
    }

    /// The thing asked for does not exist.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(Kind::NotFound, message)
    }

    /// The backing service cannot be reached.
    pub fn unavailable(message: impl Into<String>) -> Error {
        Error::new(Kind::Unavailable, message)
    }

    /// The component cannot do this.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(Kind::Unsupported, message)
    }

    /// Anything without a kind of its own.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(Kind::Internal, message)
    }

    /// The item changed since the caller read it. `detail` may be empty.
    pub fn etag_mismatch(detail: &str) -> Error {
        Error::etag(
            Kind::EtagMismatch,
            "possible etag mismatch. error from state store",
            detail,
        )
    }

    /// The etag is not one this store could have given out. `detail` may be
    /// empty.
    pub fn etag_invalid(detail: &str) -> Error {
        Error::etag(Kind::EtagInvalid, "invalid etag value", detail)
    }

    fn etag(kind: Kind, prefix: &str, detail: &str) -> Error {
        let separator = if detail.is_empty() { "" } else { ": " };
        Error::new(kind, format!("{prefix}{separator}{detail}"))
    }

    /// Keeps the cause of this error, for logs.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }

    /// Keeps the gRPC code of the backing service.
    #[must_use]
    pub fn with_code(mut self, code: i32) -> Error {
        self.code = Some(code);
        self
    }

    /// Sets the error that an API answers with.
    #[must_use]
    pub fn with_api_error(mut self, api_error: ApiError) -> Error {
        self.api_error = Some(Box::new(api_error));
        self
    }

    /// Overrides whether the operation may be repeated.
    #[must_use]
    pub fn retryable(mut self, safe: bool) -> Error {
        self.retry_safe = safe;
        self
    }

    /// The same error with `prefix` and a colon before its text.
    #[must_use]
    pub fn context(mut self, prefix: &str) -> Error {
        self.message = format!("{prefix}: {}", self.message);
        self
    }

    /// The error that an API answers with, if the component chooses it.
    pub fn api_error(&self) -> Option<&ApiError> {
        self.api_error.as_deref()
    }

    /// The gRPC code of the backing service, if it has sent one.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// The kind of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether repeating the operation may succeed and does no harm.
    pub fn retry_safe(&self) -> bool {
        self.retry_safe
    }

    /// Whether the etag is wrong.
    pub fn is_etag(&self) -> bool {
        matches!(self.kind, Kind::EtagMismatch | Kind::EtagInvalid)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etag_errors_have_the_texts_that_clients_compare() {
        assert_eq!(
            Error::etag_mismatch("").to_string(),
            "possible etag mismatch. error from state store"
        );
        assert_eq!(
            Error::etag_invalid("not a number").to_string(),
            "invalid etag value: not a number"
        );
        assert!(!Error::etag_mismatch("").retry_safe());
        assert!(Error::unavailable("x").retry_safe());
    }
}
