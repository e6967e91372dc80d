use std::error::Error as StdError;
use std::fmt;

/// What went wrong, as far as a caller needs to tell cases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The thing asked for does not exist.
    NotFound,
    /// The request or the component's configuration makes no sense.
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
    /// The component is in no state to do this, such as closed.
    Precondition,
    /// Anything else.
    Internal,
}

/// How a component wants an API to refuse, where that is not the API's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC code.
    pub code: i32,
    /// The HTTP status; any number of three digits.
    pub http: u16,
    /// The message by itself.
    pub message: String,
    /// The error code, where the API has none of its own.
    pub tag: String,
    /// What happened, in one word.
    pub reason: String,
    /// Whose word that is.
    pub domain: String,
}

/// A failed operation of a component. Its text is what applications see.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    retry_safe: bool,
    code: Option<i32>,
    refusal: Option<Box<Refusal>>,
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
            refusal: None,
            source: None,
        }
    }

    /// The request or configuration makes no sense.
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

    /// Keeps what caused this error, for logs.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }

    /// Keeps the gRPC code with which the backing service answered.
    #[must_use]
    pub fn with_code(mut self, code: i32) -> Error {
        self.code = Some(code);
        self
    }

    /// Says how an API should refuse.
    #[must_use]
    pub fn refusing(mut self, refusal: Refusal) -> Error {
        self.refusal = Some(Box::new(refusal));
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

    /// How an API should refuse, if the component says.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_deref()
    }

    /// The gRPC code of the backing service, if it has such.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether repeating the operation may succeed and does no harm.
    pub fn retry_safe(&self) -> bool {
        self.retry_safe
    }

    /// Whether the etag was the problem.
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
