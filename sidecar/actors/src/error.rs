//! How a call of an actor fails.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::actor::Actor;

/// What other sidecars look for in messages of errors.
const MOVED: &str = "remote actor moved";
/// The reasons of details that we send besides, with every error.
const REASON_MOVED: &str = "ACTOR_MOVED";
const REASON_NOT_SENT: &str = "ACTOR_NOT_SENT";
const REASON_FAILED: &str = "ACTOR_FAILED";
const DOMAIN: &str = "dapr.io";

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("placement service is not configured")]
    NoPlacement,
    #[error("actor runtime is closed")]
    Closed,
    #[error("did not find address for actor '{0}'")]
    NoAddress(Actor),
    /// The host that was asked does not have the actor any more.
    #[error("{MOVED}")]
    Moved,
    #[error("maximum stack depth exceeded")]
    TooDeep,
    /// The caller's time is over before the application was called.
    #[error("context deadline exceeded: {0}")]
    Late(&'static str),
    /// A policy's time for the application is over.
    #[error("context deadline exceeded")]
    TimedOut,
    /// It was cut off because the actor had to go.
    #[error("context canceled")]
    Canceled,
    #[error("actor method not found: {0}")]
    UnknownMethod(String),
    /// What the application says, as `(CODE) BODY`, or why it could not be asked.
    #[error("error from actor service: {0}")]
    App(String),
    #[error("app channel is not initialized")]
    NoApp,
    /// The answer asks to end a reminder.
    #[error("reminder has been canceled")]
    ReminderCanceled,
    /// The call itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Of the other sidecar, or of the way to it.
    #[error("{}", outrider_net::grpc::text(.0))]
    Remote(Box<Status>),
    /// Of the way to the other sidecar: the call has not left this one.
    #[error("{}", outrider_net::grpc::text(.0))]
    Unsent(Box<Status>),
    /// Of a policy.
    #[error("{0}")]
    Policy(String),
}

impl Error {
    /// Whether the application has certainly not seen the call, and another try
    /// may find it.
    pub fn may_be_sent_again(&self) -> bool {
        match self {
            Self::NoAddress(_) | Self::Moved | Self::Unsent(_) => true,
            Self::Remote(status) => was_not_sent(status),
            _ => false,
        }
    }

    /// Whether newer tables may know a host that takes the call.
    pub fn is_elsewhere(&self) -> bool {
        match self {
            Self::Moved | Self::Unsent(_) => true,
            Self::Remote(status) => was_not_sent(status),
            _ => false,
        }
    }

    /// Whether retries that users ask for are not for it.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoAddress(_) | Self::Moved | Self::Canceled | Self::TimedOut | Self::App(_) => {
                false
            }
            Self::Remote(status) | Self::Unsent(status) => matches!(
                status.code(),
                Code::InvalidArgument | Code::PermissionDenied | Code::ResourceExhausted
            ),
            _ => true,
        }
    }

    /// For another sidecar. The messages are part of the protocol; the detail
    /// says the same in a form that can be relied on: what an application says
    /// may read like a message of ours.
    pub fn to_peer(&self) -> Status {
        let reason = match self {
            Self::Moved => REASON_MOVED,
            Self::NoAddress(_) | Self::NoPlacement | Self::Closed | Self::Late(_) => {
                REASON_NOT_SENT
            }
            Self::Remote(status) | Self::Unsent(status) => return detailed((**status).clone()),
            _ => REASON_FAILED,
        };
        match self {
            Self::TooDeep => because(Code::ResourceExhausted, self.to_string(), reason),
            _ => because(
                Code::Internal,
                format!("error invoke actor method: {self}"),
                reason,
            ),
        }
    }
}

/// A failure for another sidecar with a detail: no text of it counts there.
pub fn detailed(status: Status) -> Status {
    match status.details().is_empty() {
        true => because(status.code(), status.message(), REASON_FAILED),
        false => status,
    }
}

fn because(code: Code, text: impl Into<String>, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, text, details)
}

fn was_not_sent(status: &Status) -> bool {
    if let Some(info) = status.get_details_error_info()
        && info.domain == DOMAIN
    {
        return [REASON_MOVED, REASON_NOT_SENT].contains(&&*info.reason);
    }
    // Sidecars of Dapr send no details. Behind this begins what the application
    // says.
    let text = status.message();
    status.code() == Code::Internal
        && !text.contains("error from actor service: ")
        && (text.ends_with(MOVED) || text.ends_with(": placement is disseminating"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(status: Status) -> Error {
        Error::Remote(Box::new(status))
    }

    #[test]
    fn only_what_was_not_sent_is_sent_again() {
        assert!(remote(Error::Moved.to_peer()).may_be_sent_again());
        assert!(remote(Error::Late("x").to_peer()).may_be_sent_again());
        let refused = Status::unavailable("connection refused");
        assert!(Error::Unsent(Box::new(refused)).may_be_sent_again());
        // Of sidecars that know no details.
        let old = Status::internal("error invoke actor method: remote actor moved");
        assert!(remote(old).may_be_sent_again());
        assert!(!remote(Status::unavailable("connection reset")).may_be_sent_again());
        assert!(!Error::Canceled.may_be_sent_again());
    }

    #[test]
    fn what_an_application_says_does_not_have_its_call_sent_again() {
        for text in ["remote actor moved", "x: placement is disseminating"] {
            let failed = [
                Error::App(format!("(500) {text}")),
                Error::UnknownMethod(text.to_owned()),
                Error::Invalid(text.to_owned()),
                Error::Policy(text.to_owned()),
            ];
            for error in failed {
                let error = remote(error.to_peer());
                assert!(
                    !error.may_be_sent_again() && !error.is_elsewhere(),
                    "{error}"
                );
            }
            let status = detailed(Status::internal(text));
            assert!(!remote(status).may_be_sent_again());
            // Of sidecars that know no details.
            let text = format!("error invoke actor method: error from actor service: (500) {text}");
            assert!(!remote(Status::internal(text)).may_be_sent_again());
        }
        // A peer has no other way to say so than the detail.
        let mut status = Error::App("(500) x".to_owned()).to_peer();
        let yes = tonic::metadata::MetadataValue::from_static("1");
        status.metadata_mut().insert("outrider-unsent", yes);
        assert!(!remote(status).may_be_sent_again());
    }
}
