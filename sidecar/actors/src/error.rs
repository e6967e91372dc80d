//! How a call of an actor fails.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::actor::Actor;

/// What other sidecars look for in messages of errors.
const MOVED: &str = "remote actor moved";
/// The reasons of details that we send besides.
const REASON_MOVED: &str = "ACTOR_MOVED";
const REASON_NOT_SENT: &str = "ACTOR_NOT_SENT";
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
    /// Of a policy.
    #[error("{0}")]
    Policy(String),
}

impl Error {
    /// Whether the application has certainly not seen the call, and another try
    /// may find it.
    pub fn may_be_sent_again(&self) -> bool {
        match self {
            Self::NoAddress(_) | Self::Moved => true,
            Self::Remote(status) => was_not_sent(status),
            _ => false,
        }
    }

    /// Whether newer tables may know a host that takes the call.
    pub fn is_elsewhere(&self) -> bool {
        match self {
            Self::Moved => true,
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
            Self::Remote(status) => matches!(
                status.code(),
                Code::InvalidArgument | Code::PermissionDenied | Code::ResourceExhausted
            ),
            _ => true,
        }
    }

    /// For another sidecar. The messages are part of the protocol; the detail
    /// says the same in a form that can be relied on.
    pub fn to_peer(&self) -> Status {
        let reason = match self {
            Self::Moved => REASON_MOVED,
            Self::NoAddress(_) | Self::NoPlacement | Self::Closed | Self::Late(_) => {
                REASON_NOT_SENT
            }
            Self::Remote(status) => return (**status).clone(),
            Self::TooDeep => return Status::resource_exhausted(self.to_string()),
            _ => return Status::internal(format!("error invoke actor method: {self}")),
        };
        let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
        let text = format!("error invoke actor method: {self}");
        Status::with_error_details(Code::Internal, text, details)
    }
}

fn was_not_sent(status: &Status) -> bool {
    if let Some(info) = status.get_details_error_info()
        && info.domain == DOMAIN
    {
        return [REASON_MOVED, REASON_NOT_SENT].contains(&&*info.reason);
    }
    status.metadata().contains_key(UNSENT)
        || (status.code() == Code::Internal
            && (status.message().ends_with(MOVED)
                || status.message().ends_with(": placement is disseminating")))
}

/// Marks failures of the way to another sidecar.
const UNSENT: &str = "outrider-unsent";

/// A status of a call that has not left this sidecar.
pub fn unsent(mut status: Status) -> Error {
    let mark = tonic::metadata::MetadataValue::from_static("1");
    status.metadata_mut().insert(UNSENT, mark);
    Error::Remote(Box::new(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_sent_is_sent_again() {
        let remote = |status: Status| Error::Remote(Box::new(status));
        assert!(remote(Error::Moved.to_peer()).may_be_sent_again());
        assert!(remote(Error::Late("x").to_peer()).may_be_sent_again());
        assert!(unsent(Status::unavailable("connection refused")).may_be_sent_again());
        // Of sidecars that know no details.
        let old = Status::internal("error invoke actor method: remote actor moved");
        assert!(remote(old).may_be_sent_again());
        assert!(!remote(Status::unavailable("connection reset")).may_be_sent_again());
        assert!(!remote(Error::App("(500) remote actor moved".into()).to_peer()).is_permanent());
        assert!(!Error::Canceled.may_be_sent_again());
    }
}
